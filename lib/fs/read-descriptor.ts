// The bytes of an open descriptor as an async iterable that never closes it. Node's read streams do: leaving their loop early destroys them, and that
// closes the descriptor in spite of `autoClose: false` (Node 20 to 24), when its number may already be another file's.

import fs from 'node:fs'

const CHUNK_BYTES = 1024 * 1024

function read(fd: number, buffer: Buffer, position: number | null): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, buffer, 0, buffer.length, position, (error, bytes) => error ? reject(error) : resolve(bytes))
  })
}

/**
 * With a range, that part of a file, by position: the descriptor's own position stays, and several readers may share it; it ends early where the file does.
 * Without, from the descriptor's position to the end, as for a pipe. Chunks of up to 1 MiB, each its own memory; with `into` they are views of that, each valid until
 * the next is asked for. (New memory for each chunk costs about a second of garbage collection for 1 GB.) Errors are Node's.
 */
export async function* readDescriptor(fd: number, range?: { readonly offset: number; readonly length: number }, into?: Buffer): AsyncGenerator<Buffer, void, undefined> {
  let at = range?.offset ?? 0
  const end = range === undefined ? Infinity : at + range.length
  while (at < end) {
    const buffer = into === undefined ? Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - at)) : into.subarray(0, Math.min(into.length, end - at))
    let bytes: number
    try {
      bytes = await read(fd, buffer, range === undefined ? null : at)
    } catch (error) {
      // Somebody who shares the pipe has made it non-blocking.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      await new Promise(resolve => { setTimeout(resolve, 5) })
      continue
    }
    if (bytes === 0) return
    at += bytes
    yield buffer.subarray(0, bytes)
  }
}
