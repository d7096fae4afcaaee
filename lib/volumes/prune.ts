// One prune at a time over a data root, whichever process runs it. Decides nothing about which volumes go.

import path from 'node:path'
import { StorageError } from '../errors.ts'
import type { DataRoot } from '../layers/index.ts'
import { tryLock } from '../sys/lock.ts'
import { volumePaths } from './paths.ts'

/** Remove the volumes named, one after the other; `prune` returns the bytes it freed, or undefined when one must stay. @throws LOCKED `a prune operation is already running` */
export async function pruneVolumes(root: DataRoot, names: readonly string[], prune: (name: string) => Promise<number | undefined>, signal: AbortSignal | undefined):
Promise<{ readonly deleted: readonly string[]; readonly reclaimedBytes: number }> {
  const running = tryLock(path.join(volumePaths.own(root), 'prune.lock'))
  if (running === undefined) throw new StorageError('LOCKED', 'a prune operation is already running', { op: 'prune' })
  try {
    const deleted: string[] = []
    let reclaimedBytes = 0
    for (const name of names) {
      signal?.throwIfAborted()
      const bytes = await prune(name)
      if (bytes === undefined) continue
      deleted.push(name)
      reclaimedBytes += bytes
    }
    return { deleted, reclaimedBytes }
  } finally {
    running.release()
  }
}
