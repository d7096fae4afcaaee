// How much things take on disk, counted only for what is told.

import fs from 'node:fs'
import { isErrno, StorageError } from '../errors.ts'
import { treeUsage } from '../fs/usage.ts'

/** Allocated bytes of a file or a tree; 0 when it is gone meanwhile. */
export async function sizeOf(target: string): Promise<number> {
  try {
    const stat = fs.lstatSync(target)
    return stat.isDirectory() ? (await treeUsage(target)).sizeBytes : stat.blocks * 512
  } catch (error) {
    if (isErrno(error, 'ENOENT') || StorageError.is(error, 'NOT_FOUND')) return 0
    throw error
  }
}

/** The sum of several. */
export async function sizeOfAll(targets: Iterable<string>): Promise<number> {
  let sum = 0
  for (const target of targets) sum += await sizeOf(target)
  return sum
}
