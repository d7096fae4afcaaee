// Pins a path inside a volume, so that nobody who writes to the volume can exchange it for a link to elsewhere between the check and the mount:
// resolved once, opened with openat2, and bound to a mount point of our own. Source: moby volume/safepath.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import type { DataRoot } from '../layers/index.ts'
import { isAlive, processIdentity } from '../sys/lock.ts'
import { closeNative, openat2, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS } from '../sys/files.ts'
import { performMount, unmount } from '../sys/mount.ts'
import { isLocalPath } from './go-text.ts'
import { volumePaths } from './paths.ts'

const O_PATH = 0o10000000

/** Where a subpath leads, links inside the volume followed. @throws NOT_FOUND, FAILED_PRECONDITION for one that leads out, INVALID_ARGUMENT */
export function subpathOf(base: string, subpath: string): string {
  const info = { op: 'mount', path: path.join(base, subpath) }
  if (!isLocalPath(subpath)) throw new StorageError('INVALID_ARGUMENT', 'subpath must be a relative path within the volume', info)
  const realBase = fs.realpathSync.native(base)
  let real: string
  try {
    // The C library's: Node's own gives up when a link is exchanged between two of its calls.
    real = fs.realpathSync.native(path.join(realBase, subpath))
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error
    throw new StorageError('NOT_FOUND', `cannot access path ${info.path}: no such file or directory`, { ...info, hint: 'make it in the volume first' })
  }
  const relative = path.relative(realBase, real)
  if (relative === '..' || relative.startsWith('../')) throw escapes(info.path)
  return real
}

/** A path to the subpath that nobody can redirect, until `close`. @throws NOT_FOUND, FAILED_PRECONDITION for one that leads out */
export function openSubpath(base: string, subpath: string): { readonly path: string; readonly isDirectory: boolean; close(): void } {
  const realBase = fs.realpathSync.native(base)
  const relative = path.relative(realBase, subpathOf(base, subpath))
  const dirfd = fs.openSync(realBase, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    let fd: number
    try {
      fd = openat2(dirfd, relative === '' ? '.' : relative, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    } catch (error) {
      // Somebody put a link there since it was resolved.
      if (isErrno(error, 'ELOOP', 'EXDEV')) throw escapes(path.join(base, subpath))
      throw error
    }
    return { path: `/proc/self/fd/${fd}`, isDirectory: fs.fstatSync(fd).isDirectory(), close: () => closeNative(fd) }
  } finally {
    fs.closeSync(dirfd)
  }
}

/** Run `work` with a path to the subpath that cannot be redirected while it runs. @throws as openSubpath */
export function withSubpath<T>(base: string, subpath: string, work: (pinned: string, isDirectory: boolean) => T): T {
  const opened = openSubpath(base, subpath)
  try {
    return work(opened.path, opened.isDirectory)
  } finally {
    opened.close()
  }
}

function escapes(where: string): StorageError {
  return new StorageError('FAILED_PRECONDITION', `path ${where} is outside of the volume: path escapes from parent`, { op: 'mount', path: where })
}

const mine = (): string => (processIdentity(process.pid) ?? String(process.pid)).replace(' ', '-')

/** Pin a subpath of a volume to a mount point of the data root; it stands for this process, or is kept for somebody (a container's id). */
export function pin(root: DataRoot, base: string, subpath: string, keptFor?: string): string {
  const owner = keptFor === undefined ? `process-${mine()}` : `kept-${keptFor}`
  const target = path.join(volumePaths.subpaths(root), `${owner}-${randomBytes(6).toString('hex')}`)
  pinSubpath(base, subpath, target)
  return target
}

/** Undo the pins of processes that are gone. */
export function recoverPins(root: DataRoot): void {
  for (const name of fs.readdirSync(volumePaths.subpaths(root))) {
    const [, pid, start] = /^process-(\d+)-(\d+)-/.exec(name) ?? []
    if (pid !== undefined && !isAlive(`${pid} ${start}`)) unpinSubpath(path.join(volumePaths.subpaths(root), name))
  }
}

/** Bind the subpath to `target`, which is made as the subpath is: a directory or a file. */
export function pinSubpath(base: string, subpath: string, target: string): void {
  withSubpath(base, subpath, (pinned, isDirectory) => {
    if (isDirectory) fs.mkdirSync(target, { mode: 0o700 })
    else fs.writeFileSync(target, '', { flag: 'wx', mode: 0o600 })
    try {
      performMount({ type: 'bind', source: pinned, options: ['bind'] }, target)
    } catch (error) {
      removeTarget(target)
      throw error
    }
  })
}

/** Undo `pinSubpath`; not there is fine. */
export function unpinSubpath(target: string): void {
  unmount(target)
  removeTarget(target)
}

function removeTarget(target: string): void {
  const stat = fs.lstatSync(target, { throwIfNoEntry: false })
  if (stat?.isDirectory() === true) fs.rmdirSync(target)
  else if (stat !== undefined) fs.unlinkSync(target)
}
