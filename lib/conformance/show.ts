// Shows a layer as a directory for as long as a test looks at it: by real mounts that always go away again, or, for a file system that the kernel has
// not, by writing the tree out and the changes back with the library's own diff and apply.

import fs from 'node:fs'
import path from 'node:path'
import type { Driver, LayerContent, Mount } from '../driver.ts'
import { applyLayer, writeLayer } from '../diff/index.ts'
import type { TreeSpec, WriteOutcome } from '../diff/index.ts'
import { jobsModule } from '../diff/jobs-module.ts'
import type { WriteArguments } from '../diff/jobs.ts'
import { removeTreeSync } from '../fs/remove-tree.ts'
import { readNames } from '../fs/walk.ts'
import type { LayerId } from '../ids.ts'
import { setTimes } from '../sys/files.ts'
import { performMounts, unmount } from '../sys/mount.ts'
import { privileges } from '../sys/privileges.ts'
import { streamJob } from '../sys/threads.ts'

export interface ShowPlace {
  readonly driver: Driver
  /** Where the directories are made. */
  readonly root: string
  /** Not by mounts. */
  readonly without: boolean
}

let shown = 0

export async function showLayer<T>(place: ShowPlace, id: LayerId, access: 'rw' | 'ro', use: (dir: string) => T | Promise<T>): Promise<T> {
  const { driver, root } = place
  const mounts = await driver.mounts(id, access)
  const plain = plainDirectory(mounts)
  if (plain !== undefined) return await use(plain)
  const target = path.join(root, `mnt-${++shown}`)
  fs.mkdirSync(target)
  const content = await driver.content(id)
  if (place.without && content.kind === 'branch' && content.lowers.length > 0) return await showWithoutMounts(content, target, access, use)
  let done: string[] = []
  try {
    done = performMounts(mounts, target)
    return await use(target)
  } finally {
    // Lazily, as engines do; then rmdir, which fails if anything is still mounted here.
    if (done.length > 0) driver.unmounting?.(id, target)
    for (const at of done) unmount(at)
    fs.rmdirSync(target)
  }
}

/** Without the right to mount, a single bind mount's source is the layer itself. */
function plainDirectory(mounts: readonly Mount[]): string | undefined {
  const [only] = mounts
  return !privileges().mount && mounts.length === 1 && only !== undefined && only.options.includes('bind') ? only.source : undefined
}

type Branch = Extract<LayerContent, { kind: 'branch' }>

async function showWithoutMounts<T>(content: Branch, target: string, access: 'rw' | 'ro', use: (dir: string) => T | Promise<T>): Promise<T> {
  const below = `${target}-below`
  const format = { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix }
  try {
    await writeOut({ ...format, layers: [content.path, ...content.lowers] }, target)
    const result = await use(target)
    if (access === 'rw') {
      fs.mkdirSync(below)
      await writeOut({ ...format, layers: content.lowers }, below)
      const changes = writeLayer(target, below, { whiteouts: 'none' })
      for (const name of readNames(content.path)) removeTreeSync(Buffer.concat([Buffer.from(`${content.path}/`), name]))
      await applyLayer(changes, content.path, format)
    }
    return result
  } finally {
    for (const dir of [target, below]) removeTreeSync(dir)
  }
}

/** The tree as it would show, as a plain directory. */
async function writeOut(tree: TreeSpec, dir: string): Promise<void> {
  await applyLayer(streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', { upper: tree }), dir)
  // A layer without a parent says nothing of its root.
  const root = fs.statSync(tree.layers[0] ?? dir, { bigint: true })
  fs.chownSync(dir, Number(root.uid), Number(root.gid))
  fs.chmodSync(dir, Number(root.mode & 0o7777n))
  setTimes(dir, root.atimeNs, root.mtimeNs)
}
