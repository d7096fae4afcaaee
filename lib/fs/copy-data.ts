// The bytes of one file into another: shared blocks (FICLONE), else copied by the kernel (copy_file_range), else read and written.
// Which way works is found out by trying, and remembered per process and pair of devices; vfs shows it in its status.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { copyFileRange, dataRanges, tryClone } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'

export type CopyMethod = 'reflink' | 'copy_file_range' | 'read/write'

interface Route {
  /** The fastest way not known to fail. */
  method: CopyMethod
  /** It has worked at least once: a later failure is that file's alone (btrfs refuses to clone into nodatacow files, EINVAL). */
  proven: boolean
}

const routes = new Map<string, Route>()

function routeFor(from: bigint, to: bigint): Route {
  const key = `${from}>${to}`
  let route = routes.get(key)
  if (route === undefined) {
    route = { method: nativeReason === undefined ? 'reflink' : 'read/write', proven: false }
    routes.set(key, route)
  }
  return route
}

const slower: Readonly<Record<CopyMethod, CopyMethod>> = { reflink: 'copy_file_range', copy_file_range: 'read/write', 'read/write': 'read/write' }

/**
 * Copy the whole of `fdIn`, of `stat`'s size, into the empty file `fdOut` on device `toDevice`. Holes stay holes. Returns the way it went.
 * Both descriptors may stand anywhere; their offsets are not kept.
 */
export function copyData(fdIn: number, fdOut: number, stat: fs.BigIntStats, toDevice: bigint): CopyMethod {
  const route = routeFor(stat.dev, toDevice)
  for (let method = route.method; ; method = slower[method]) {
    if (attempt(method, fdIn, fdOut, stat)) {
      if (method === route.method) route.proven = true
      return method
    }
    if (!route.proven) route.method = slower[method]
  }
}

function attempt(method: CopyMethod, fdIn: number, fdOut: number, stat: fs.BigIntStats): boolean {
  if (method === 'reflink') return tryClone(fdIn, fdOut)
  const sizeBytes = Number(stat.size)
  // Fewer blocks than bytes: holes, or compression. Only then are the two lseek calls per run worth their time.
  const sparse = stat.blocks * 512n < stat.size
  const ranges = sparse ? dataRanges(fdIn, sizeBytes) : [{ offset: 0, length: sizeBytes }]
  for (const { offset, length } of ranges) {
    if (method === 'read/write') readWrite(fdIn, fdOut, offset, length, sparse)
    else if (!inKernel(fdIn, fdOut, offset, length)) return false
  }
  if (sparse) fs.ftruncateSync(fdOut, sizeBytes)
  return true
}

/** False when the kernel cannot do it here: nothing, or a part that the next way writes again, has been copied. */
function inKernel(fdIn: number, fdOut: number, offset: number, length: number): boolean {
  try {
    for (let done = 0; done < length;) {
      const n = copyFileRange(fdIn, offset + done, fdOut, offset + done, length - done)
      // 0 is the end of a file that shrank, or a file system that reports a size but copies nothing (proc); reading tells which.
      if (n === 0) return false
      done += n
    }
    return true
  } catch (error) {
    if (isErrno(error, 'EXDEV', 'EOPNOTSUPP', 'EINVAL', 'ENOSYS', 'EPERM')) return false
    throw error
  }
}

let chunk: Buffer | undefined
let zeros: Buffer | undefined

function readWrite(fdIn: number, fdOut: number, offset: number, length: number, sparse: boolean): void {
  chunk ??= Buffer.allocUnsafeSlow(256 * 1024)
  zeros ??= Buffer.alloc(4096)
  for (let at = offset; at < offset + length;) {
    const n = fs.readSync(fdIn, chunk, 0, Math.min(chunk.length, offset + length - at), at)
    if (n === 0) return // the file shrank meanwhile
    if (!sparse) writeAll(fdOut, chunk, 0, n, at)
    // Without native calls holes cannot be asked for; blocks of zeros in a file with fewer blocks than bytes are left out instead.
    else for (let from = 0; from < n; from += 4096) {
      const to = Math.min(from + 4096, n)
      if (chunk.compare(zeros, 0, to - from, from, to) !== 0) writeAll(fdOut, chunk, from, to - from, at + from)
    }
    at += n
  }
}

function writeAll(fd: number, bytes: Buffer, from: number, length: number, position: number): void {
  for (let done = 0; done < length;) done += fs.writeSync(fd, bytes, from + done, length - done, position + done)
}

/** The way that files from one device to another go, as far as known in this thread; undefined before the first file. */
export function knownMethod(from: bigint, to: bigint): CopyMethod | undefined {
  const route = routes.get(`${from}>${to}`)
  return route?.proven === true ? route.method : undefined
}

/** Forget what was found out: after a file system was changed, and in tests. */
export function forgetMethods(): void {
  routes.clear()
}

/** Find out by copying 4 KiB inside `directory`, which must be writable. Leaves nothing behind. */
export function probeMethod(directory: string): CopyMethod {
  const from = `${directory}/.copy-probe-${process.pid}-${Math.random().toString(36).slice(2)}`, to = `${from}-2`
  let fdIn = -1, fdOut = -1
  try {
    fdIn = fs.openSync(from, 'wx+', 0o600)
    fdOut = fs.openSync(to, 'wx', 0o600)
    fs.writeSync(fdIn, Buffer.alloc(4096, 1))
    const stat = fs.fstatSync(fdIn, { bigint: true })
    return copyData(fdIn, fdOut, stat, stat.dev)
  } finally {
    for (const fd of [fdIn, fdOut]) if (fd >= 0) fs.closeSync(fd)
    for (const file of [from, to]) fs.rmSync(file, { force: true })
  }
}
