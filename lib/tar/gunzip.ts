// gzip inflated on the calling thread, step by step. node:zlib's streams hand each piece to another thread and back, which costs more than it gains where
// all processors are busy: layers of one image side by side. For worker threads; the event loop stands still meanwhile.

import { Gunzip } from 'minizlib'
import type { ZlibOptions } from 'minizlib'
import { damaged, limiter } from './compression.ts'
import type { DecompressOptions } from './compression.ts'

/** Taken in at once. Deflate makes 1,032 bytes of one at most, so up to 66 MB come out before they are used. */
const stepBytes = 64 * 1024

/**
 * The uncompressed bytes; each chunk is the consumer's. Members one after the other are one, zeros behind them are padding, as for `decompress`.
 * @throws INVALID_ARCHIVE for truncated or damaged data, LIMIT_EXCEEDED
 */
export function* gunzip(source: Iterable<Buffer>, options: Pick<DecompressOptions, 'maxBytes' | 'maxRatio' | 'ratioFrom'> = {}): Generator<Buffer, void, undefined> {
  const check = limiter('gzip', options)
  // The options go to node:zlib as they are; the package's types leave this one out.
  const zlibOptions: ZlibOptions & { chunkSize: number } = { chunkSize: 4 * stepBytes }
  const inflate = new Gunzip(zlibOptions)
  let out: Buffer[] = []
  let failure: unknown
  inflate.on('data', chunk => { out.push(chunk as Buffer) })
  inflate.on('error', error => { failure = error })
  let taken = 0, given = 0
  function* step(work: () => void): Generator<Buffer> {
    work()
    // What came out before the damage is wrong or right with all the rest: nobody gets it.
    if (failure !== undefined) throw damaged('gzip', (failure as Error).message.replace(/^zlib: /, ''), failure)
    for (const chunk of out) {
      given += chunk.length
      check(taken, given)
      yield chunk
    }
    out = []
  }
  try {
    for (const chunk of source) {
      for (let at = 0; at < chunk.length; at += stepBytes) {
        const piece = chunk.subarray(at, at + stepBytes)
        taken += piece.length
        yield* step(() => { inflate.write(piece) })
      }
    }
    yield* step(() => { inflate.end() })
  } finally {
    inflate.close()
  }
}
