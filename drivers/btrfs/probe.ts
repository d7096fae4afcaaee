// Can btrfs work with its home here? Found out by making, snapshotting and removing a subvolume. Leaves nothing behind.

import fs from 'node:fs'
import path from 'node:path'
import type { ProbeResult, Supports } from '../../lib/driver.ts'
import { nearestExisting } from '../../lib/fs/make-directories.ts'
import { clearProbeFolders, inProbeFolder, refuse } from '../../lib/fs/probe-folder.ts'
import { createSubvolume, destroySubvolume, snapshotSubvolume, subvolumeInfo } from '../../lib/sys/btrfs.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { fileSystemName } from '../../lib/sys/statfs.ts'

export const supportsHere: Supports = {
  nativeMounts: false, // a layer is a directory, and its mount a bind
  independentLayers: false, // a snapshot takes what its parent holds at that moment
  maxDepth: Number.MAX_SAFE_INTEGER, quota: true, ownership: true,
}

const passed = new Set<string>()
const parts = ['subvolume', 'snapshot'] as const

/** Never throws: see DriverModule.probe. Three transactions, so a file system that passed is not asked again. */
export async function probe(home: string): Promise<ProbeResult> {
  if (nativeReason !== undefined) return refuse('PREREQUISITE_MISSING', `btrfs needs native calls: ${nativeReason}`, 'install the optional package koffi')
  if (!privileges().mount || privileges().userNamespace) return refuse('PREREQUISITE_MISSING', 'btrfs needs CAP_SYS_ADMIN in the initial user namespace to remove subvolumes and to search trees', 'run as root, or use another driver')
  const base = nearestExisting(home)
  const fileSystem = fileSystemName(base)
  if (fileSystem !== 'btrfs') return refuse('PREREQUISITE_MISSING', `${base} lies on ${fileSystem}, not on btrfs`, 'put the data root on a btrfs file system, or use overlay2')
  const key = String(fs.statSync(base, { bigint: true }).dev)
  clearProbeFolders(home, 'btrfs', folder => { for (const name of parts) if (fs.existsSync(path.join(folder, name))) destroySubvolume(path.join(folder, name)) })
  if (passed.has(key)) return { ok: true, supports: supportsHere }
  return inProbeFolder(base, 'btrfs', dir => {
    const made: string[] = []
    try {
      const [one, two] = [path.join(dir, parts[0]), path.join(dir, parts[1])]
      createSubvolume(one)
      made.push(one)
      snapshotSubvolume(one, two)
      made.push(two)
      subvolumeInfo(two)
      passed.add(key)
      return { ok: true, supports: supportsHere }
    } catch (error) {
      return refuse('NOT_SUPPORTED', `btrfs cannot be used in ${base}: ${(error as Error).message}`, 'Linux 5.7 or later is needed')
    } finally {
      for (const subvolume of made) destroySubvolume(subvolume)
    }
  })
}
