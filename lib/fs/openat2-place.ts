// A Place (rooted.ts) whose names the kernel resolves: openat2(2) with RESOLVE_IN_ROOT gives the parent directory, and the entry is reached through its descriptor. For
// threads that may not be jailed. No link leads out, whoever changes the tree meanwhile: nothing is resolved twice. Needs Linux 5.6, native calls and /proc.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { closeNative, openat2, RESOLVE_IN_ROOT } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { baseOf, childPath, parentOf, resolvingPlace, toTreePath } from './rooted.ts'
import type { Place, TreePath } from './rooted.ts'

const O_PATH = 0o10000000
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants
/** Descriptors stay open for as many further names: a caller still works with the path that it got before the last few. */
const keptOpen = 64

let works: boolean | undefined

/** Are there openat2(2) and /proc here? A seccomp filter may refuse the one, a chroot lack the other. */
export function openat2Works(): boolean {
  return works ??= tryIt()
}

function tryIt(): boolean {
  if (nativeReason !== undefined) return false
  let root: number | undefined, fd: number | undefined
  try {
    root = fs.openSync('/', O_RDONLY | O_DIRECTORY)
    fd = openat2(root, '.', O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT)
    return fs.statSync(`/proc/self/fd/${fd}/.`).isDirectory()
  } catch (error) {
    if (isErrno(error, 'ENOSYS', 'EPERM', 'ENOENT', 'EACCES')) return false
    throw error
  } finally {
    if (root !== undefined) fs.closeSync(root)
    if (fd !== undefined) closeNative(fd)
  }
}

export interface ClosablePlace extends Place { close(): void }

/**
 * Close it when the work is done: it holds descriptors. A root that is a link is followed only with `follow`: where others may write to the directory around it, it may
 * have been swapped. @throws NOT_FOUND, ENOTDIR, ELOOP
 */
export function openat2Place(root: string | Buffer, options: { readonly follow?: boolean } = {}): ClosablePlace {
  const rootFd = fs.openSync(root, O_RDONLY | O_DIRECTORY | (options.follow === true ? 0 : O_NOFOLLOW))
  const rootPath = `/proc/self/fd/${rootFd}`
  // By the parent's name in latin1, least recently used first.
  const parents = new Map<string, number>()
  // Directories that were removed or replaced since; their descriptors may still be in the caller's hands.
  let retired: number[] = []
  const links = resolvingPlace(rootPath)

  const trim = (): void => {
    for (const [key, fd] of parents) {
      if (parents.size <= keptOpen) break
      parents.delete(key)
      closeNative(fd)
    }
    while (retired.length > keptOpen) closeNative(retired.shift() as number)
  }

  const parentPath = (name: Buffer): string => {
    if (name.length === 0) return rootPath
    const key = name.toString('latin1')
    let fd = parents.get(key)
    if (fd === undefined) fd = openat2(rootFd, name, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT)
    else parents.delete(key)
    parents.set(key, fd)
    trim()
    return `/proc/self/fd/${fd}`
  }

  return {
    // The dot makes lstat(2) see the directory, not the link of /proc.
    root: `${rootPath}/.`,
    path: (name): TreePath => toTreePath(childPath(parentPath(parentOf(name)), baseOf(name))),
    forget(): void {
      retired.push(...parents.values())
      parents.clear()
      links.forget()
      trim()
    },
    // A name inside the root, whatever it says: who uses it comes back through `path`.
    follow: name => links.follow(name),
    close(): void {
      for (const fd of [...parents.values(), ...retired]) closeNative(fd)
      fs.closeSync(rootFd)
      parents.clear()
      retired = []
    },
  }
}
