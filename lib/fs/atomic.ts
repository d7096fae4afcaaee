// Files that appear whole or not at all: temporary file beside the target, then rename. Owns the order of writes and syncs that makes
// that hold over a power cut. The short calls are synchronous (about 5 µs each); only what waits for the device is awaited.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { isErrno } from '../errors.ts'

/** Bring a file's data to the device, off this thread. */
export const fdatasync = promisify(fs.fdatasync)
const fsync = promisify(fs.fsync)

export interface AtomicWriteOptions {
  /** Permission bits, whatever the umask. Default 0o644. */
  readonly mode?: number
  /** Survive a power cut: data and directory are on the device when the promise resolves. Default true. */
  readonly sync?: boolean
  /** Where the temporary file is made: on the same file system, and swept by somebody. Default: beside the target. */
  readonly temporaryDir?: string
}

/**
 * Write `bytes` to `target`, replacing it in one step: a reader, and whoever opens the store after a crash, sees the old file or the new
 * one. A failure leaves the old one, and no temporary file (a kill may leave `.tmp-*` beside it).
 * @throws the file system's errors, as Node throws them
 */
export async function atomicWrite(target: string, bytes: Uint8Array | string, options: AtomicWriteOptions = {}): Promise<void> {
  const { mode = 0o644, sync = true, temporaryDir } = options
  const temporary = temporaryName(target, temporaryDir)
  try {
    const fd = writeNew(temporary, bytes, mode)
    try {
      // Without it, a file system with delayed allocation may put the rename on the device before the data: an empty file (moby#42964).
      if (sync) await fdatasync(fd)
    } finally {
      fs.closeSync(fd)
    }
    fs.renameSync(temporary, target)
  } catch (error) {
    fs.rmSync(temporary, { force: true })
    throw error
  }
  if (sync) await syncDirectory(path.dirname(target))
}

/** `atomicWrite` for workers and for code that may not yield. */
export function atomicWriteSync(target: string, bytes: Uint8Array | string, options: AtomicWriteOptions = {}): void {
  const { mode = 0o644, sync = true, temporaryDir } = options
  const temporary = temporaryName(target, temporaryDir)
  try {
    const fd = writeNew(temporary, bytes, mode)
    try {
      if (sync) fs.fdatasyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
    fs.renameSync(temporary, target)
  } catch (error) {
    fs.rmSync(temporary, { force: true })
    throw error
  }
  if (sync) syncDirectorySync(path.dirname(target))
}

/** As dockerd's own are called, and passed over. */
export const temporaryPrefix = '.tmp-'

function temporaryName(target: string, dir = path.dirname(target)): string {
  return path.join(dir, `${temporaryPrefix}${path.basename(target).slice(0, 64)}-${randomBytes(8).toString('hex')}`)
}

/**
 * Write a file in its place: for one that nobody looks for before something else is there, and that is removed with it. Whoever kills the writer leaves no name
 * that has to be found. An older one goes first.
 */
export async function writeInPlace(target: string, bytes: Uint8Array | string, options: Pick<AtomicWriteOptions, 'mode' | 'sync'> = {}): Promise<void> {
  const { mode = 0o644, sync = true } = options
  fs.rmSync(target, { force: true })
  const fd = writeNew(target, bytes, mode)
  try {
    if (sync) await fdatasync(fd)
  } finally {
    fs.closeSync(fd)
  }
  if (sync) await syncDirectory(path.dirname(target))
}

/** Make a file that must not exist yet, and leave it open. A failed write removes it. */
export function writeNew(target: string, bytes: Uint8Array | string, mode: number): number {
  const fd = fs.openSync(target, fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_NOFOLLOW, mode)
  try {
    fs.fchmodSync(fd, mode)
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
    // A write may be cut short by a full device; the next one then says ENOSPC.
    for (let at = 0; at < data.byteLength;) at += fs.writeSync(fd, data, at)
    return fd
  } catch (error) {
    fs.closeSync(fd)
    fs.rmSync(target, { force: true })
    throw error
  }
}

/** Make a rename, a creation or a removal in `directory` survive a power cut. */
export async function syncDirectory(directory: string): Promise<void> {
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    await fsync(fd)
  } catch (error) {
    if (!isErrno(error, 'EINVAL')) throw error // some file systems (9p, fuse) sync no directories
  } finally {
    fs.closeSync(fd)
  }
}

export function syncDirectorySync(directory: string): void {
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    fs.fsyncSync(fd)
  } catch (error) {
    if (!isErrno(error, 'EINVAL')) throw error
  } finally {
    fs.closeSync(fd)
  }
}
