// Bytes into a thread's job, from a part of a file, and out of it, in chunks.

import fs from 'node:fs'
import { StorageError } from '../errors.ts'
import type { JobContext } from '../sys/threads.ts'

/** A part of a file that this process has open; it is read by position, so that threads can share the descriptor. */
export interface FileRange {
  readonly fd: number
  readonly offset: number
  readonly length: number
}

/** 1 MiB reads: smaller ones cost a system call each, larger ones fall out of the cache between read, hash and write. */
export const chunkBytes = 1024 * 1024

export function* rangeChunks(range: FileRange, context: JobContext, reuse: boolean): Generator<Buffer> {
  const shared = reuse ? Buffer.allocUnsafeSlow(chunkBytes) : undefined
  const end = range.offset + range.length
  for (let at = range.offset; at < end;) {
    context.checkAborted()
    const buffer = shared ?? Buffer.allocUnsafeSlow(chunkBytes)
    const n = fs.readSync(range.fd, buffer, 0, Math.min(chunkBytes, end - at), at)
    if (n === 0) throw new StorageError('INVALID_ARCHIVE', `unexpected end of the archive: ${end - at} bytes are missing`, { op: 'read' })
    at += n
    yield buffer.subarray(0, n)
  }
}

/** Collects small buffers into chunks, as each chunk costs a message. A chunk's memory is given away with it. */
export class Batches {
  readonly #context: JobContext
  readonly #sizeBytes: number
  #buffer: Buffer
  #used = 0

  constructor(context: JobContext, sizeBytes = chunkBytes) {
    this.#context = context
    this.#sizeBytes = sizeBytes
    this.#buffer = Buffer.allocUnsafeSlow(sizeBytes)
  }

  /** Free memory, `wanted` bytes of it where that is little. What is filled from its beginning is added without a copy. */
  room(wanted: number): Buffer {
    if (this.#buffer.length - this.#used < Math.min(wanted, 64 * 1024)) this.flush()
    return this.#buffer.subarray(this.#used)
  }

  add(bytes: Buffer): void {
    if (bytes.buffer === this.#buffer.buffer) {
      this.#used += bytes.length
      return
    }
    for (let done = 0; done < bytes.length;) {
      if (this.#used === this.#buffer.length) this.flush()
      const n = Math.min(bytes.length - done, this.#buffer.length - this.#used)
      bytes.copy(this.#buffer, this.#used, done, done + n)
      this.#used += n
      done += n
    }
  }

  flush(): void {
    this.#context.checkAborted()
    if (this.#used > 0) this.#context.write(this.#buffer.subarray(0, this.#used), true)
    this.#used = 0
    if (this.#buffer.length === 0) this.#buffer = Buffer.allocUnsafeSlow(this.#sizeBytes)
  }
}
