// Bytes out: to stdout with its reader's pace, or to a file that appears only when it is whole.

import fs from 'node:fs'
import path from 'node:path'
import { randomBytes } from 'node:crypto'
import { asStorageError, isErrno, StorageError } from '../errors.ts'

/** The reader of stdout is gone. */
export class OutputClosed extends Error {}

let pending = 0

/** True while a write has not returned, e.g. into a pipe that nobody reads. */
export function hasPendingWrites(): boolean {
  return pending > 0
}

/**
 * Write all of `bytes`. In libuv's threads, since process.stdout writes to pipes synchronously: a slow reader would hold up the main thread, and with
 * it Ctrl-C. @throws OutputClosed, ABORTED, and what the kernel says
 */
export async function writeFully(fd: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    try {
      at += await writeSome(fd, bytes, at, signal)
    } catch (error) {
      if (isErrno(error, 'EPIPE')) throw new OutputClosed()
      // Somebody who shares the pipe or the terminal has made it non-blocking.
      if (!isErrno(error, 'EAGAIN')) throw fd === 1 ? asStorageError(error, 'writing to standard output') : error
      await new Promise(resolve => { setTimeout(resolve, 5) })
    }
  }
}

function writeSome(fd: number, bytes: Uint8Array, at: number, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new StorageError('ABORTED', 'writing the output: aborted'))
    if (signal.aborted) { onAbort(); return }
    signal.addEventListener('abort', onAbort, { once: true })
    pending++
    fs.write(fd, bytes, at, bytes.length - at, null, (error, written) => {
      pending--
      signal.removeEventListener('abort', onAbort)
      if (error) reject(error)
      else resolve(written)
    })
  })
}

export interface SendOptions<R = unknown> {
  /** A file, or stdout. */
  readonly to: string | undefined
  readonly signal: AbortSignal
  /** Bytes written so far. */
  readonly onProgress?: (bytes: number) => void
  /** Writes the same to a regular file's descriptor itself, faster. */
  readonly inPlace?: (fd: number) => Promise<R>
}

/** Docker's refusal. Called before the work begins. @throws INVALID_ARGUMENT */
export function refuseTerminal(output: string | undefined): void {
  if (output === undefined && process.stdout.isTTY) throw new StorageError('INVALID_ARGUMENT', 'cowardly refusing to save to a terminal. Use the -o flag or redirect')
}

/** Send a stream of bytes away; returns what the stream returns. A failure leaves no file, and one that was there as it was. */
export async function send<R>(source: AsyncGenerator<Uint8Array, R>, options: SendOptions<R>): Promise<R> {
  const { to, signal, inPlace } = options
  if (to === undefined) return await pump(source, 1, options)
  const special = isSpecial(to)
  const file = special ? to : path.join(path.dirname(to), `.${path.basename(to)}.${randomBytes(4).toString('hex')}.tmp`)
  let fd: number
  try {
    fd = fs.openSync(file, special ? 'w' : 'wx', 0o666)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw new StorageError('NOT_FOUND', `invalid output path: directory ${JSON.stringify(path.dirname(to))} does not exist`, { path: to })
    throw asStorageError(error, `writing ${to}`, { path: to })
  }
  try {
    const result = special || inPlace === undefined ? await pump(source, fd, { ...options, signal }) : await inPlace(fd)
    fs.closeSync(fd)
    fd = -1
    if (!special) fs.renameSync(file, to)
    return result
  } catch (error) {
    // A write that is still under way keeps its descriptor: closing it would give its number to another file.
    if (fd >= 0 && !hasPendingWrites()) fs.closeSync(fd)
    if (!special) fs.rmSync(file, { force: true })
    throw StorageError.is(error) ? error : asStorageError(error, `writing ${to}`, { path: to })
  }
}

/** A device or a pipe is written as it is; a directory cannot be. */
function isSpecial(file: string): boolean {
  const stat = fs.statSync(file, { throwIfNoEntry: false })
  if (stat?.isDirectory()) throw new StorageError('INVALID_ARGUMENT', `invalid output path: ${JSON.stringify(file)} is a directory`, { path: file })
  return stat !== undefined && !stat.isFile()
}

async function pump<R>(source: AsyncGenerator<Uint8Array, R>, fd: number, { signal, onProgress }: SendOptions): Promise<R> {
  let bytes = 0
  try {
    for (;;) {
      const next = await source.next()
      if (next.done === true) return next.value
      await writeFully(fd, next.value, signal)
      bytes += next.value.length
      onProgress?.(bytes)
    }
  } catch (error) {
    // The other end of the stream holds layers and threads; it must hear that nobody wants more.
    await source.return(undefined as never)
    throw error
  }
}
