// File calls that Node lacks: device nodes, times in nanoseconds, holes, ranged copies, syncfs, renameat2, openat2.
// All sync and sharing no state, so that they work in workers; paths may be bytes.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { bind, cPath, errno, nativeReason, sysError } from './native.ts'

const c = {
  mknod: bind('int mknod(const char *path, uint32_t mode, uint64_t dev)'),
  utimensat: bind('int utimensat(int dirfd, const char *path, const void *times, int flags)'),
  futimens: bind('int futimens(int fd, const void *times)'),
  lseek: bind('int64_t lseek(int fd, int64_t offset, int whence)'),
  copyFileRange: bind('int64_t copy_file_range(int in, int64_t *offIn, int out, int64_t *offOut, size_t len, uint32_t flags)'),
  ioctlInt: bind('int ioctl(int fd, uint64_t request, int64_t arg)'),
  ioctlPtr: bind('int ioctl(int fd, uint64_t request, void *arg)'),
  syncfs: bind('int syncfs(int fd)'),
  renameat2: bind('int renameat2(int olddir, const char *oldpath, int newdir, const char *newpath, uint32_t flags)'),
  syscall4: bind('int64_t syscall(int64_t number, int64_t a, const char *b, void *c, int64_t d)'),
  linkat: bind('int linkat(int olddir, const char *oldpath, int newdir, const char *newpath, int flags)'),
  umask: bind('uint32_t umask(uint32_t mask)'),
  close: bind('int close(int fd)'),
}

const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100

export const S_IFMT = 0o170000
export const S_IFIFO = 0o010000
export const S_IFCHR = 0o020000
export const S_IFBLK = 0o060000
export const S_IFREG = 0o100000
export const S_IFSOCK = 0o140000

/** Linux's 64-bit device number (glibc's gnu_dev_makedev). Both parts 0 to 2^32-1. */
export function makedev(major: number, minor: number): bigint {
  const a = BigInt(major), b = BigInt(minor)
  return (a & 0xfffn) << 8n | (a & 0xfffff000n) << 32n | b & 0xffn | (b & 0xffffff00n) << 12n
}

/** Major and minor number of a device as stat reports it. */
export function splitDev(dev: bigint | number): { major: number; minor: number } {
  const d = BigInt(dev)
  return {
    major: Number(d >> 8n & 0xfffn | d >> 32n & 0xfffff000n),
    minor: Number(d & 0xffn | d >> 12n & 0xffffff00n),
  }
}

/** `mode` includes the type (S_IFCHR, S_IFBLK, S_IFIFO, S_IFREG, S_IFSOCK); the umask applies. */
export function mknod(path: string | Buffer, mode: number, dev: bigint = 0n): void {
  c.mknod([cPath(path), mode, dev], path)
}

const times = Buffer.alloc(32)
function fillTimes(atimeNs: bigint, mtimeNs: bigint): Buffer {
  putTime(0, atimeNs)
  putTime(16, mtimeNs)
  return times
}
function putTime(at: number, ns: bigint): void {
  // Floored, so that the nanosecond part is never negative (utimensat(2) demands 0 to 999,999,999).
  let sec = ns / 1_000_000_000n, rest = ns % 1_000_000_000n
  if (rest < 0n) { sec -= 1n; rest += 1_000_000_000n }
  times.writeBigInt64LE(sec, at)
  times.writeBigInt64LE(rest, at + 8)
}

/** Set times to the nanosecond, links not followed. Node's own lutimes cuts to microseconds. */
export function setTimes(path: string | Buffer, atimeNs: bigint, mtimeNs: bigint): void {
  c.utimensat([AT_FDCWD, cPath(path), fillTimes(atimeNs, mtimeNs), AT_SYMLINK_NOFOLLOW], path)
}

export function setTimesFd(fd: number, atimeNs: bigint, mtimeNs: bigint): void {
  c.futimens([fd, fillTimes(atimeNs, mtimeNs)])
}

/** A time for Node's own utimes calls, as exact as a double: Node takes a negative number for "now", but not a Date before 1970. */
export function nodeTime(ns: bigint): number | Date {
  return ns < 0n ? new Date(Number(ns / 1_000_000n)) : Number(ns) / 1e9
}

/** A run of data of a file, in bytes. */
export interface DataRange { readonly offset: number; readonly length: number }

/**
 * The runs of data between holes (lseek SEEK_DATA/SEEK_HOLE), ascending. A file system that knows no holes reports one run.
 * Without native calls the whole file is one run.
 */
export function dataRanges(fd: number, sizeBytes: number): DataRange[] {
  if (nativeReason !== undefined) return sizeBytes === 0 ? [] : [{ offset: 0, length: sizeBytes }]
  const ranges: DataRange[] = []
  let at = 0
  while (at < sizeBytes) {
    const start = c.lseek([fd, at, 3], undefined, [errno.ENXIO, errno.EINVAL])
    if (start === -errno.ENXIO) break
    if (start === -errno.EINVAL) return [{ offset: 0, length: sizeBytes }]
    if (start >= sizeBytes) break
    const end = Math.min(c.lseek([fd, start, 4]), sizeBytes)
    ranges.push({ offset: start, length: end - start })
    at = end
  }
  return ranges
}

const offIn = Buffer.alloc(8), offOut = Buffer.alloc(8)
/** Copy inside the kernel. Returns bytes copied (0 at the end of the input). @throws EXDEV, EOPNOTSUPP, EINVAL where it cannot */
export function copyFileRange(fdIn: number, offsetIn: number, fdOut: number, offsetOut: number, length: number): number {
  offIn.writeBigInt64LE(BigInt(offsetIn))
  offOut.writeBigInt64LE(BigInt(offsetOut))
  return c.copyFileRange([fdIn, offIn, fdOut, offOut, length, 0])
}

const FICLONE = 0x40049409
/** Share all of `fdIn`'s blocks with `fdOut` (reflink). False where the file system cannot. */
export function tryClone(fdIn: number, fdOut: number): boolean {
  return c.ioctlInt([fdOut, FICLONE, fdIn], undefined, [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS]) === 0
}

/** ioctl with a pointer argument; returns its value. `allow` lists errnos that come back negated. */
export function ioctl(fd: number, request: number | bigint, argument: Buffer, path?: string, allow?: readonly number[]): number {
  return c.ioctlPtr([fd, request, argument], path, allow)
}

/** Write everything of the file system that holds `path` to its device, data and metadata. */
export function syncFileSystem(path: string): void {
  const fd = fs.openSync(path, fs.constants.O_RDONLY)
  try { c.syncfs([fd], path) } finally { fs.closeSync(fd) }
}

/** Fail with ALREADY_EXISTS rather than replace. */
export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

export function rename2(from: string | Buffer, to: string | Buffer, flags: number): void {
  c.renameat2([AT_FDCWD, cPath(from), AT_FDCWD, cPath(to), flags], from)
}

/** link(2) that links a symlink itself, as a layer's hard link to a symlink demands. */
export function linkNoFollow(from: string | Buffer, to: string | Buffer): void {
  c.linkat([AT_FDCWD, cPath(from), AT_FDCWD, cPath(to), 0], to)
}

/** The calling thread's mask once it has left the process's fs struct (jail.ts); else the process's. Returns the old one. */
export function setUmask(mask: number): number {
  return c.umask([mask])
}

export const RESOLVE_NO_XDEV = 0x01
export const RESOLVE_NO_SYMLINKS = 0x04
export const RESOLVE_BENEATH = 0x08
export const RESOLVE_IN_ROOT = 0x10
const SYS_openat2 = 437 // the same number on every architecture (Linux 5.6, asm-generic/unistd.h)
const O_CLOEXEC = 0o2000000 // as Node's own open sets it: no child process inherits the descriptor
const how = Buffer.alloc(24)

/** Close a descriptor that a native call opened: in a worker Node warns of those that it has not opened itself. */
export function closeNative(fd: number): void {
  c.close([fd])
}

// A rename or a mount anywhere on the machine makes the kernel give up on a `..` with EAGAIN (openat2(2)): the caller is to try again. Seen a few times
// an hour where tests mount and rename on two processors.
const openat2Tries = 1000, openat2PatienceMs = 2000

/** openat2(2). Returns a descriptor; close it with closeNative. @throws with the kernel's errno (ELOOP, EXDEV, ENOENT, ENOSYS, …) */
export function openat2(dirfd: number, path: string | Buffer, flags: number, resolve: number, mode = 0): number {
  how.writeBigUInt64LE(BigInt((flags | O_CLOEXEC) >>> 0), 0)
  how.writeBigUInt64LE(BigInt(mode), 8)
  how.writeBigUInt64LE(BigInt(resolve), 16)
  const bytes = typeof path === 'string' ? Buffer.from(path) : path
  for (let tries = 1, until = 0; ; tries++) {
    const result = c.syscall4([SYS_openat2, dirfd, cPath(bytes), how, 24], path, [errno.ENOSYS, errno.EWOULDBLOCK])
    if (result >= 0) return result
    if (result === -errno.ENOSYS) throw sysError('openat2', errno.ENOSYS, path)
    if (tries % openat2Tries !== 0) continue
    const now = performance.now()
    until ||= now + openat2PatienceMs
    if (now > until) throw sysError('openat2', -result, path)
  }
}

/** Remove a name that is nearly always there: one call, where rm with `force` looks twice before. A name that is not there costs an exception, 15 µs. */
export function unlinkIfThere(path: string | Buffer): void {
  try {
    fs.unlinkSync(path)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}
