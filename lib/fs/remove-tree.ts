// Remove a tree that a container made: names of any bytes, directories nobody may enter, paths longer than PATH_MAX.
// Never crosses a mount point: what is mounted inside is somebody's data, so the removal stops with BUSY.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { canJail, inJail, isJailed } from '../sys/jail.ts'
import { mountTable } from '../sys/mount.ts'
import type { MountInfo } from '../sys/mount.ts'
import { runJob } from '../sys/threads.ts'
import type { JobContext } from '../sys/threads.ts'
import { removeSmall } from './remove-small.ts'
import { joinPath } from './walk.ts'

// A path given to the kernel ends at 4,096 bytes with its NUL (PATH_MAX); a name has at most 255. Deeper trees are moved up first.
const pathLimit = 4096 - 257
const btrfsRootInode = 256n

interface Removal {
  readonly root: Buffer
  readonly device: bigint
  /** The table of mounts was read and has none in here: another device number is then a btrfs subvolume's. */
  readonly noMounts: boolean
  readonly checkAborted: () => void
}

/** Remove `root` and everything below it. Nothing there is fine, and so is somebody else removing it at the same time. @throws BUSY for a mount point inside */
export function removeTreeSync(root: string | Buffer, checkAborted: () => void = () => undefined): void {
  const at = typeof root === 'string' ? Buffer.from(root) : root
  remove(at, () => refuseMounts(at), checkAborted)
}

function remove(root: Buffer, noMounts: () => boolean, checkAborted: () => void): void {
  const stat = fs.lstatSync(root, { bigint: true, throwIfNoEntry: false })
  if (stat === undefined) return
  if (!stat.isDirectory() && unlink(root)) return
  removeDirectory(root, { root, device: stat.dev, noMounts: noMounts(), checkAborted })
}

/**
 * Asked of the table before anything is removed: a bind mount of the same file system shows in no device number. Costs 0.1 ms. False: there is no table. In a jail
 * it would be the tree's own file: a forged one, or a fifo that never ends; and nothing is mounted in a layer that is being made.
 */
function refuseMounts(root: Buffer): boolean {
  if (isJailed()) return false
  let below: string
  try {
    below = `${fs.realpathSync.native(root)}/`
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true // somebody else has just removed it
    throw error
  }
  let table: MountInfo[]
  try {
    table = mountTable()
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EACCES')) throw error
    return false // no /proc: the device numbers still tell most mounts
  }
  const first = table.find(mount => mount.target.startsWith(below))
  if (first !== undefined) throw mounted(Buffer.from(first.target))
  return true
}

function removeDirectory(dir: Buffer, removal: Removal): void {
  removal.checkAborted()
  for (const entry of list(dir)) {
    const path = joinPath(dir, entry.name)
    if (!entry.isDirectory() && unlink(path)) continue
    const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (stat === undefined) continue
    if (stat.dev !== removal.device) {
      // Whoever may write to btrfs may make a subvolume in a directory of his; emptied, it goes by rmdir (Linux 4.18).
      if (!removal.noMounts || stat.ino !== btrfsRootInode) throw mounted(path)
      removeDirectory(path, { ...removal, root: path, device: stat.dev })
      continue
    }
    if (path.length <= pathLimit) { removeDirectory(path, removal); continue }
    // Close under the root again, the same subtree has a short path.
    const lifted = joinPath(removal.root, Buffer.from(`.deep-${randomBytes(8).toString('hex')}`))
    fs.renameSync(path, lifted)
    removeDirectory(lifted, removal)
  }
  try {
    fs.rmdirSync(dir)
  } catch (error) {
    if (isErrno(error, 'EBUSY')) throw mounted(dir)
    if (!isErrno(error, 'ENOENT')) throw error
  }
}

interface Dirent { readonly name: Buffer; isDirectory(): boolean }

function list(dir: Buffer): Dirent[] {
  try {
    // Root may do everything; others must first give themselves the right to list and to unlink.
    if (process.geteuid?.() !== 0) fs.chmodSync(dir, 0o700)
    // The cast: @types/node 20 types the names of a buffer listing as strings.
    return fs.readdirSync(dir, { withFileTypes: true, encoding: 'buffer' }) as unknown as Dirent[]
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

/** False when it is a directory by now. */
function unlink(path: Buffer): boolean {
  try {
    fs.unlinkSync(path)
    return true
  } catch (error) {
    if (isErrno(error, 'EBUSY')) throw mounted(path)
    if (isErrno(error, 'EISDIR')) return false
    if (!isErrno(error, 'ENOENT')) throw error
    return true
  }
}

function mounted(path: Buffer): StorageError {
  return new StorageError('BUSY', `removing ${path}: something is mounted there`, { op: 'remove', path: path.toString(), errno: 'EBUSY', hint: `umount ${path}` })
}

export interface RemoveOptions {
  readonly signal?: AbortSignal | undefined
  /**
   * Somebody who is not trusted, such as a container, may change the tree meanwhile: as root it is then removed by a thread that is jailed into the directory around it,
   * which must not be theirs to replace; so a directory that is swapped for a link leads to nothing outside. Default false.
   */
  readonly changing?: boolean
}

/** `removeTreeSync`, in a worker thread unless the tree is small. */
export async function removeTree(root: string, options: RemoveOptions = {}): Promise<void> {
  const { signal, changing = false } = options
  if (changing || !removeSmall(Buffer.from(root))) await runJob<Job, void>(import.meta.url, 'removeTreeJob', { root, changing }, { signal })
}

interface Job { readonly root: string; readonly changing: boolean }

/** For threads.ts only. */
export async function removeTreeJob({ root, changing }: Job, context: JobContext): Promise<void> {
  const check = (): void => context.checkAborted()
  if (!changing || !canJail()) { removeTreeSync(root, check); return }
  const around = path.dirname(root), inside = path.join('/', path.basename(root))
  // What is mounted can be asked only out here.
  const noMounts = refuseMounts(Buffer.from(root))
  try {
    await inJail(around, () => remove(Buffer.from(inside), () => noMounts, check))
  } catch (error) {
    throw StorageError.is(error, 'BUSY') && error.info.path?.startsWith('/') === true ? mounted(Buffer.from(path.join(around, error.info.path))) : error
  }
}
