// Jail the calling worker thread into a directory: afterwards every path that a sync fs call of this thread resolves stays inside,
// whatever symlinks or names a hostile archive holds. Needs CAP_SYS_CHROOT and a thread of its own; async fs is not jailed.

import fs from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { isErrno, StorageError } from '../errors.ts'
import { setUmask } from './files.ts'
import { bind, cPath, nativeReason } from './native.ts'
import { privileges } from './privileges.ts'

const unshare = bind('int unshare(int flags)')
const chroot = bind('int chroot(const char *path)')
const chdir = bind('int chdir(const char *path)')
const fchdir = bind('int fchdir(int fd)')
const CLONE_FS = 0x200

/** A seccomp filter may refuse unshare(2) to a root that has CAP_SYS_CHROOT: Docker's default profile does, in every container. */
export function canJail(): boolean {
  return privileges().chroot && canStandAlone()
}

let refused = false

/** May this thread have a root, working directory and umask of its own? The first time it gets them. */
export function canStandAlone(): boolean {
  if (isMainThread || nativeReason !== undefined || refused) return false
  try {
    standAlone()
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'ENOSYS')) throw error
    refused = true
  }
  return alone
}

/** While this is true, `/` is a tree that may be hostile: /proc, /etc and /dev are what it says they are. */
export function isJailed(): boolean {
  return jailed
}

let alone = false
let jailed = false
let home: number | undefined

/** Give this thread its own root, working directory and umask (unshare(2), CLONE_FS). Needs no privilege; once per thread. */
function standAlone(): void {
  if (alone) return
  if (isMainThread) throw new TypeError('only a worker thread can leave the process\'s fs struct')
  unshare([CLONE_FS])
  home = fs.openSync('/', fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  alone = true
}

/**
 * Run `work` with `/` being `dir` and the umask 0. Load every module and open every file that the work needs before:
 * descriptors stay usable, paths outside do not resolve. Jails do not nest.
 */
export async function inJail<T>(dir: string, work: () => T | Promise<T>): Promise<T> {
  refuseInside()
  standAlone()
  if (home === undefined) throw new StorageError('FAILED_PRECONDITION', 'the thread has no way back out of a jail')
  const mask = setUmask(0)
  try {
    chroot([cPath(dir)], dir)
    jailed = true
    chdir(['/'])
    return await work()
  } finally {
    // process.chdir and process.umask refuse in workers, so the calls are made directly.
    fchdir([home])
    chroot(['.'])
    jailed = false
    setUmask(mask)
  }
}

/** The way out of an inner jail, and a change of directory, would lead out of the outer one, with its work still running. */
function refuseInside(): void {
  if (jailed) throw new TypeError('the thread is in a jail already: jails do not nest')
}

/** Run `work` with the umask 0 in this worker, not jailed: for threads without CAP_SYS_CHROOT. */
export async function withOwnUmask<T>(work: () => T | Promise<T>): Promise<T> {
  standAlone()
  const mask = setUmask(0)
  try { return await work() } finally { setUmask(mask) }
}

/** Run the sync `work` with the working directory `dir`, so that long paths can be given short (mount options). Worker only. */
export function inDirectory<T>(dir: string, work: () => T): T {
  refuseInside()
  standAlone()
  chdir([cPath(dir)], dir)
  try { return work() } finally { if (home !== undefined) fchdir([home]) }
}
