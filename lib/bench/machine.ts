// What the figures were taken on: processor, memory, kernel, Node, and the versions of programs that take part.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import type { MachineInfo } from './types.ts'

/** Programs by name → what makes them say their version. */
const asked: Readonly<Record<string, readonly string[]>> = {
  'mkfs.ext4': ['-V'], 'mkfs.xfs': ['-V'], 'mkfs.btrfs': ['--version'], 'fuse-overlayfs': ['--version'],
}

export function describeMachine(programs: Iterable<string>): MachineInfo {
  const versions: Record<string, string> = {}
  for (const program of programs) {
    const version = versionOf(program)
    if (version !== undefined) versions[program] = version
  }
  return {
    cpu: os.cpus()[0]?.model.trim() || cpuOfProc() || 'unknown', cpus: os.availableParallelism(), memoryBytes: os.totalmem(), kernel: os.release(), node: process.version,
    programs: versions,
  }
}

function versionOf(program: string): string | undefined {
  const { stdout, stderr } = spawnSync(program, asked[program] ?? ['--version'], { encoding: 'utf8' })
  return new RegExp(`^(?:${program.replace('.', '\\.')}|mke2fs)[^\\n]*?v?(\\d+\\.[\\w.]+)`, 'm').exec(`${stdout ?? ''}${stderr ?? ''}`)?.[1]
}

/** Node knows no model on some architectures. */
function cpuOfProc(): string | undefined {
  return /^(?:model name|Processor|cpu)\s*:\s*(.+)$/m.exec(fs.readFileSync('/proc/cpuinfo', 'latin1'))?.[1]
}
