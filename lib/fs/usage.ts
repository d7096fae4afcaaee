// Disk use of a tree: allocated bytes, each inode once, one file system. Never apparent sizes: a sparse file counts what it holds (moby#31944).

import fs from 'node:fs'
import type { Usage } from '../driver.ts'
import { runJob } from '../sys/threads.ts'
import type { JobContext } from '../sys/threads.ts'
import { walk } from './walk.ts'

/** Allocated bytes and inodes of `root` and everything below it on the same file system. @throws ENOENT for the root alone */
export function treeUsageSync(root: string | Buffer, checkAborted?: () => void): Usage {
  let blocks = 0n
  let inodes = 0
  const device = fs.lstatSync(root, { bigint: true }).dev
  const linked = new Set<bigint>()
  walk(root, {
    enter({ stat }) {
      if (stat.dev !== device) return false
      if (stat.nlink > 1n && !stat.isDirectory()) {
        if (linked.has(stat.ino)) return
        linked.add(stat.ino)
      }
      blocks += stat.blocks
      inodes++
      if ((inodes & 0xfff) === 0) checkAborted?.()
    },
  })
  return { sizeBytes: Number(blocks * 512n), inodes }
}

/** `treeUsageSync` in a worker thread: a big tree takes seconds, and the event loop goes on. */
export function treeUsage(root: string, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<Usage> {
  return runJob<string, Usage>(import.meta.url, 'treeUsageJob', root, { signal: options.signal })
}

/** For threads.ts only. */
export function treeUsageJob(root: string, context: JobContext): Usage {
  return treeUsageSync(root, () => context.checkAborted())
}
