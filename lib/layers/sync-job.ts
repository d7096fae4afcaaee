// Writes whole file systems to their devices, in a thread: syncfs(2) may take seconds.

import fs from 'node:fs'
import { nativeReason } from '../sys/native.ts'
import { syncFileSystem } from '../sys/files.ts'

/** The address of this module for runJob. */
export const syncModule = import.meta.url

/** Each file system that holds one of `paths`, once. Without native calls only the directories themselves can be synced. */
export function syncFileSystemsJob(paths: readonly string[]): void {
  const done = new Set<number>()
  for (const path of paths) {
    const { dev } = fs.statSync(path)
    if (done.has(dev)) continue
    done.add(dev)
    if (nativeReason === undefined) syncFileSystem(path)
    else {
      const fd = fs.openSync(path, 'r')
      try { fs.fsyncSync(fd) } finally { fs.closeSync(fd) }
    }
  }
}
