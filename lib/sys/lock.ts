// Advisory locks that fall with the process that holds them: flock(2) on a file, and, without koffi, a file made with
// O_EXCL that names its owner by pid and start time. Never blocks the event loop: waits are retries.

import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isErrno, StorageError } from '../errors.ts'
import { unlinkIfThere } from './files.ts'
import { bind, errno, nativeReason } from './native.ts'

const flock = bind('int flock(int fd, int operation)')
const LOCK_SH = 1, LOCK_EX = 2, LOCK_NB = 4

export interface Lock {
  /** The locked file, open for reading and writing, for as long as the lock is held; absent where locks are files of their own (without koffi). */
  readonly fd: number | undefined
  /** Idempotent. The file stays. */
  release(): void
  /** Release, and remove the file first, so that nobody can lock a name that is about to vanish unnoticed. */
  releaseAndUnlink(): void
}

/** `pid` and the process's start time in clock ticks (proc(5), /proc/PID/stat field 22): together they are never reused within a boot. */
export function processIdentity(pid: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The command name may contain spaces and parentheses, so count fields from the last one.
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    return `${pid} ${start}`
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined
    throw error
  }
}

/** Does the process that wrote this identity still run? */
export function isAlive(identity: string): boolean {
  const pid = Number(identity.split(' ')[0])
  return Number.isInteger(pid) && pid > 0 && processIdentity(pid) === identity
}

/** Take the lock now, or return undefined because somebody else holds it. The file is made when missing (mode 0600). */
export function tryLock(path: string, mode: 'shared' | 'exclusive' = 'exclusive', permanent = false): Lock | undefined {
  return nativeReason === undefined ? tryFlock(path, mode, permanent) : tryOwnerFile(path)
}

function tryFlock(path: string, mode: 'shared' | 'exclusive', permanent: boolean): Lock | undefined {
  for (;;) {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
    let held = false
    try {
      held = flock([fd, (mode === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB], path, [errno.EWOULDBLOCK]) === 0
      if (!held) return undefined
      // The file may have been unlinked by its last holder between open and lock: then this lock guards nothing.
      if (permanent || sameFile(fd, path)) return holder(path, fd, () => fs.closeSync(fd))
      held = false
    } finally {
      if (!held) fs.closeSync(fd)
    }
  }
}

function sameFile(fd: number, path: string): boolean {
  try {
    const here = fs.fstatSync(fd), there = fs.statSync(path)
    return here.ino === there.ino && here.dev === there.dev
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}

function tryOwnerFile(path: string): Lock | undefined {
  const owner = `${path}.owner`
  const mine = `${processIdentity(process.pid)}`
  for (let attempt = 0; attempt < 3; attempt++) {
    if (claim(owner, mine)) {
      fs.closeSync(fs.openSync(path, 'a', 0o600))
      return holder(path, undefined, () => fs.rmSync(owner, { force: true }))
    }
    let text: string
    try { text = fs.readFileSync(owner, 'latin1') } catch (error) {
      if (isErrno(error, 'ENOENT')) continue
      throw error
    }
    if (isAlive(text)) return undefined
    clearDead(owner, text)
  }
  return undefined
}

/** Made whole beside it and linked: a name that shows has its owner in it, or a reader between open and write would take it for dead. */
function claim(owner: string, identity: string): boolean {
  const temporary = `${owner}.${process.pid}.${++claims}.new`
  try {
    fs.writeFileSync(temporary, identity, { flag: 'wx', mode: 0o600 })
    fs.linkSync(temporary, owner)
    return true
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
    return false
  } finally {
    fs.rmSync(temporary, { force: true })
  }
}
let claims = 0

/** Remove the name of a dead owner. Renamed first, so that of two processes that find it only one does. */
function clearDead(owner: string, deadIdentity: string): void {
  const aside = `${owner}.${process.pid}.${++claims}.dead`
  try {
    fs.renameSync(owner, aside)
    // Another process may have cleared the dead name and taken the lock since we looked: then this is its claim, and goes back.
    if (fs.readFileSync(aside, 'latin1') !== deadIdentity) fs.linkSync(aside, owner)
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EEXIST')) throw error
  }
  fs.rmSync(aside, { force: true })
}

function holder(path: string, fd: number | undefined, drop: () => void): Lock {
  let held = true
  const release = (): void => {
    if (!held) return
    held = false
    drop()
  }
  return {
    fd,
    release,
    releaseAndUnlink() {
      if (!held) return
      try {
        unlinkIfThere(path)
      } finally {
        release()
      }
    },
  }
}

export interface LockOptions {
  readonly mode?: 'shared' | 'exclusive'
  /** Give up with LOCKED after this many milliseconds. Default 60,000. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  /** Nobody ever removes the file: it need not be looked at again. Default false. */
  readonly permanent?: boolean
}

/** Wait for the lock, retrying every 1 to 25 ms. @throws LOCKED after the timeout, ABORTED */
export async function lock(path: string, options: LockOptions = {}): Promise<Lock> {
  const { mode = 'exclusive', timeoutMs = 60_000, signal, permanent = false } = options
  const deadline = performance.now() + timeoutMs
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 25)) {
    if (signal?.aborted) throw new StorageError('ABORTED', `locking ${path}: aborted`, { op: 'lock', path })
    const got = tryLock(path, mode, permanent)
    if (got !== undefined) return got
    if (performance.now() > deadline) {
      throw new StorageError('LOCKED', `locking ${path}: another process has held it for ${timeoutMs} ms`,
        { op: 'lock', path, hint: 'find the process with: fuser -v ' + path })
    }
    await sleep(pauseMs)
  }
}

/**
 * Is the file locked by anybody (another process, or another descriptor of this one)? False when it does not exist or may not be read.
 * Nothing is made or written, so that it can be asked of a tree that is read-only; without koffi it is looked up in /proc/locks.
 */
export function isLocked(path: string): boolean {
  let fd: number
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return false
    throw error
  }
  try {
    if (nativeReason === undefined) return flock([fd, LOCK_SH | LOCK_NB], path, [errno.EWOULDBLOCK]) !== 0
    return fs.readFileSync('/proc/locks', 'latin1').includes(`:${fs.fstatSync(fd).ino} `)
  } finally {
    fs.closeSync(fd)
  }
}
