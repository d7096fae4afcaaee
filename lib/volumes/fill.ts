// Fills an empty volume: from what an image has at its place, from a backup, from another volume. One with anything in it is left alone. A kill
// leaves it empty or full: the content is made aside, and becomes the volume by one rename, or, where the volume is a mount, is moved in by
// names that the next user finishes.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { applyLayer } from '../diff/index.ts'
import type { ApplyLayerOptions } from '../diff/index.ts'
import { isErrno } from '../errors.ts'
import { syncDirectorySync } from '../fs/atomic.ts'
import { heldSource } from '../fs/held-source.ts'
import { namesIn } from '../fs/names-in.ts'
import { openat2Place, openat2Works } from '../fs/openat2-place.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { childPath, resolvingPlace } from '../fs/rooted.ts'
import { syncFileSystem } from '../sys/files.ts'
import { tryLock } from '../sys/lock.ts'
import { isMountpoint } from '../sys/mount.ts'
import { nativeReason } from '../sys/native.ts'
import { openSubpath, subpathOf } from './subpath.ts'

// Inside a mounted volume, where nothing beside `_data` is on its file system. Both names together say how far a fill has come.
const filling = '.layerstack-filling', filled = '.layerstack-filled'

export interface FillOptions {
  /** The volume's data is on disk when it resolves. */
  readonly sync: boolean
}

/** Makes `target`, which does not exist, the directory that the volume shall be: owner, mode, times, xattrs and all it holds. */
export type Produce = (target: string) => Promise<void>

/** The copy of a directory. */
export function copyOf(source: string | Buffer, signal?: AbortSignal): Produce {
  // The source may be another volume, and the target lie in one, that containers write to.
  return async target => {
    const { copyTree } = await import('../fs/copy.ts')
    await copyTree(source, target, { signal, changing: true })
  }
}

/**
 * Fill the volume whose data is `data`, if that is empty. The caller holds the volume's lock. True when it was filled.
 * `inUse`: somebody else has it mounted, so that the directory itself must stay.
 */
export async function fillVolume(data: string, produce: Produce, options: FillOptions & { readonly inUse: boolean }): Promise<boolean> {
  await finishFill(data)
  if (fs.readdirSync(data).length > 0) return false
  if (options.inUse || isMountpoint(data)) return await fillInside(data, produce, options)
  const dir = path.dirname(data)
  const staged = path.join(dir, `_fill-${randomBytes(6).toString('hex')}`)
  try {
    await produce(staged)
    if (options.sync && nativeReason === undefined) syncFileSystem(staged)
    // rename(2) puts a directory over an empty one in one step, and refuses over one that is not.
    fs.renameSync(staged, data)
    // Or a power cut would leave it empty, after we said that it is full.
    if (options.sync) syncDirectorySync(dir)
    return true
  } catch (error) {
    await removeTree(staged)
    if (isErrno(error, 'ENOTEMPTY', 'EEXIST')) return false
    throw error
  }
}

/** The content of a tar. The directory is held: what a container that writes to the volume puts in its place is not filled. */
export function restoredFrom(source: AsyncIterable<Uint8Array>, options: ApplyLayerOptions): Produce {
  heldSource(source)
  return async target => {
    fs.mkdirSync(target, { mode: 0o755 })
    const held = fs.openSync(target, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW)
    try {
      await applyLayer(source, `/proc/self/fd/${held}`, options)
    } finally {
      fs.closeSync(held)
    }
  }
}

/** `fillVolume` for a directory in a volume that others may have mounted: it is pinned, but without native calls, which nothing can be pinned by. */
export async function fillSubpath(data: string, subpath: string, produce: Produce, options: FillOptions): Promise<boolean> {
  if (nativeReason !== undefined) return await fillVolume(subpathOf(data, subpath), produce, { ...options, inUse: true })
  const pinned = openSubpath(data, subpath)
  try {
    return await fillVolume(pinned.path, produce, { ...options, inUse: true })
  } finally {
    pinned.close()
  }
}

async function fillInside(data: string, produce: Produce, options: FillOptions): Promise<boolean> {
  const staged = path.join(data, filling)
  try {
    await produce(staged)
    if (options.sync && nativeReason === undefined) syncFileSystem(staged)
  } catch (error) {
    await removeTree(staged, { changing: true })
    throw error
  }
  fs.renameSync(staged, path.join(data, filled))
  await finishFill(data)
  if (options.sync) syncDirectorySync(data)
  return true
}

/** Is there something for `finishFill`? Asked without the lock: a fill under way looks the same. */
export function hasUnfinishedFill(data: string): boolean {
  return namesIn(path.dirname(data)).some(name => name.startsWith('_fill-')) || fs.existsSync(path.join(data, filling)) || fs.existsSync(path.join(data, filled))
}

/** Take up what a killed fill left: an unfinished copy goes, a finished one moves in. The caller holds the volume's lock. */
export async function finishFill(data: string): Promise<void> {
  const aside = namesIn(path.dirname(data)).filter(name => name.startsWith('_fill-'))
  for (const name of aside) await removeTree(path.join(path.dirname(data), name))
  const names = new Set(namesIn(data))
  if (names.has(filling)) await removeTree(path.join(data, filling), { changing: true })
  if (!names.has(filled)) return
  moveIn(data)
}

/** Containers may have the volume mounted: a name that they swap for a link must not make us move the host's files (openat2-place.ts). */
function moveIn(data: string): void {
  const place = openat2Works() ? openat2Place(data, { follow: true }) : undefined
  try {
    const { path: at, root } = place ?? resolvingPlace(data)
    const name = Buffer.from(filled), inside = Buffer.from(`${filled}/.`)
    for (const child of fs.readdirSync(at(inside), { encoding: 'buffer' })) fs.renameSync(at(childPath(name, child)), at(child))
    // The directory's own attributes last, since each rename sets its times.
    const { uid, gid, mode, atime, mtime } = fs.statSync(at(inside))
    if (process.geteuid?.() === 0) fs.chownSync(root, uid, gid)
    fs.chmodSync(root, mode & 0o7777)
    fs.rmdirSync(at(name))
    fs.utimesSync(root, atime, mtime)
  } finally {
    place?.close()
  }
}

/** Finish what a killed process left, unless somebody is at it: `lockFile` is the volume's. */
export async function finishAbandonedFill(lockFile: string, mountpoint: string): Promise<void> {
  const free = tryLock(lockFile)
  if (free === undefined) return
  try {
    await finishFill(mountpoint)
  } finally {
    free.releaseAndUnlink()
  }
}
