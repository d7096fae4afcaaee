// Timing of whole commands, fairly: rounds in which every contestant runs once, after a warm-up round, each on a fresh place; medians of
// the rounds, and ratios taken within a round, since a shared machine drifts.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'

export interface Contestant {
  readonly name: string
  /** What is timed. */
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Before each run, untimed. */
  readonly before?: () => Promise<void> | void
  /** After each run, untimed. */
  readonly after?: () => Promise<void> | void
}

export interface Sample {
  readonly wallMs: number
  /** Peak resident memory of the process that was started; 0 where it is a mere client. */
  readonly peakBytes: number
}

export interface Result {
  readonly name: string
  readonly samples: readonly Sample[]
}

export interface Machine {
  readonly date: string
  readonly cpus: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly node: string
}

export function machine(): Machine {
  return { date: new Date().toISOString(), cpus: os.availableParallelism(), memoryBytes: os.totalmem(), kernel: os.release(), node: process.version }
}

/** Run one command to its end. @throws when it fails, with what it said */
export function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Sample> {
  const [file = '', ...args] = command
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint()
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } })
    let stderr = '', peakBytes = 0
    // The kernel's own high-water mark; read while the process lives, so the last few milliseconds can be missed.
    const watch = setInterval(() => { peakBytes = Math.max(peakBytes, highWater(child.pid)) }, 20)
    child.stderr.on('data', (chunk: Buffer) => { stderr = (stderr + chunk.toString()).slice(-2000) })
    child.once('error', error => { clearInterval(watch); reject(error) })
    child.once('close', code => {
      clearInterval(watch)
      const wallMs = Number(process.hrtime.bigint() - start) / 1e6
      if (code === 0) resolve({ wallMs, peakBytes })
      else reject(new Error(`${command.join(' ')} ended with ${code}: ${stderr.trim()}`))
    })
  })
}

function highWater(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s*(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0) * 1024
  } catch {
    return 0 // it has ended
  }
}

/** Every contestant once per round. */
export async function compete(contestants: readonly Contestant[], rounds: number, onRound: (round: number) => void, signal: AbortSignal): Promise<Result[]> {
  const samples = new Map<string, Sample[]>(contestants.map(({ name }) => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    onRound(round)
    for (const { name, command, env, before, after } of contestants) {
      signal.throwIfAborted()
      await before?.()
      try {
        const sample = await run(command, env)
        if (round > 0) samples.get(name)?.push(sample)
      } finally {
        await after?.()
      }
    }
  }
  return [...samples].map(([name, list]) => ({ name, samples: list }))
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] ?? NaN : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2
}
