// Compressed streams by their magic: gzip, zstd, xz, bzip2, or none. Owns which decoder runs and what its failures are called; memory is bounded
// by the decoders' windows. Never looks at file names.

import { Readable, pipeline, type Transform } from 'node:stream'
import zlib from 'node:zlib'
import { StorageError } from '../errors.ts'
import { Bzip2Decoder } from './bzip2.ts'

export type Compression = 'none' | 'gzip' | 'zstd' | 'xz' | 'bzip2'

/** Bytes that a decision may need. */
export const MAGIC_BYTES = 10

/** gunzip with zlib's default of 16 KiB ran at 362 MB/s, with this at 586. */
const CHUNK_BYTES = 256 * 1024

/** zstd in node:zlib is there from Node 22.15 on; @types/node 20 does not know it. */
const nodeZstd = zlib as typeof zlib & {
  createZstdDecompress?: (options: { chunkSize: number }) => Transform
  createZstdCompress?: (options: { chunkSize: number; params?: Record<number, number> }) => Transform
}
const ZSTD_COMPRESSION_LEVEL = 100

/** Which compression the first bytes announce; `MAGIC_BYTES` of them decide, fewer only if there are no more. */
export function detectCompression(head: Uint8Array): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return 'gzip'
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return 'zstd'
  // Skippable frames 0x184D2A50..5F, which zstd:chunked and pzstd put first.
  if ((head[0]! & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18) return 'zstd'
  if (head[0] === 0xfd && head[1] === 0x37 && head[2] === 0x7a && head[3] === 0x58 && head[4] === 0x5a && head[5] === 0x00) return 'xz'
  // "BZh", the level, and the magic of a block or of the end: three letters alone could begin a file name in a tar.
  if (head[0] === 0x42 && head[1] === 0x5a && head[2] === 0x68 && head[3]! >= 0x31 && head[3]! <= 0x39
    && ((head[4] === 0x31 && head[5] === 0x41 && head[6] === 0x59) || (head[4] === 0x17 && head[5] === 0x72 && head[6] === 0x45))) return 'bzip2'
  return 'none'
}

export interface DecompressOptions {
  /** Default: detected. */
  readonly compression?: Compression
  /** Give up with LIMIT_EXCEEDED once more bytes than this come out. Default: no limit. */
  readonly maxBytes?: number
  /** Give up with LIMIT_EXCEEDED once more than this many bytes come out for each that went in. Default: no limit. */
  readonly maxRatio?: number
  /** Bytes that may come out before the ratio counts. Default 1 MiB. */
  readonly ratioFrom?: number
  /** Told once, before the first bytes, what was found. */
  readonly onDetect?: (compression: Compression) => void
}

type Source = AsyncIterable<Uint8Array> | Iterable<Uint8Array>

/**
 * The uncompressed bytes of a source. Concatenated gzip members, zstd frames and bzip2 streams are one. Behind the last of them junk is an
 * error, as for Go; only zero bytes behind gzip and bzip2 are padding, as for gzip(1).
 * Stopping early closes the source, without waiting for it. The source's own errors pass through. Codes: INVALID_ARCHIVE for truncated or damaged data,
 * LIMIT_EXCEEDED, PREREQUISITE_MISSING when an optional package is absent.
 */
export async function* decompress(source: Source, options: DecompressOptions = {}): AsyncGenerator<Buffer, void, undefined> {
  const counted = { bytes: 0 }
  const input = count(source, counted)
  const head = await peek(input, options.compression === undefined ? MAGIC_BYTES : 0)
  const compression = options.compression ?? detectCompression(head)
  options.onDetect?.(compression)
  const whole = prepend(head, input)
  const check = limiter(compression, options)
  let size = 0
  for await (const chunk of decoder(compression, whole)) {
    if (chunk.length === 0) continue
    size += chunk.length
    check(counted.bytes, size)
    yield chunk
  }
}

/** To be told how many bytes went in and came out so far. @throws LIMIT_EXCEEDED */
export function limiter(compression: Compression, options: DecompressOptions): (takenBytes: number, givenBytes: number) => void {
  const { maxBytes = Infinity, maxRatio = Infinity, ratioFrom = 1024 * 1024 } = options
  return (taken, given) => {
    if (given > maxBytes) throw tooLarge('spoolBytes', `the uncompressed data is larger than ${maxBytes} bytes`)
    if (given > ratioFrom && given > maxRatio * taken) throw tooLarge('expansionRatio', `the ${compression} data expands more than ${maxRatio} times`)
  }
}

/** How the limit of `TarLimits` is given to `decompress`. */
export function ratioLimit(expansionRatio = 2000): DecompressOptions {
  return { maxRatio: expansionRatio, ratioFrom: 1024 ** 3 }
}

function tooLarge(limit: string, what: string): StorageError {
  return new StorageError('LIMIT_EXCEEDED', what, { hint: `raise the limit ${limit} only for data that you trust` })
}

async function* count(source: Source, counted: { bytes: number }): AsyncGenerator<Buffer, void, undefined> {
  for await (const chunk of source) {
    if (chunk.length === 0) continue
    counted.bytes += chunk.length
    yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  }
}

async function peek(input: AsyncGenerator<Buffer>, wanted: number): Promise<Buffer> {
  let head: Buffer = Buffer.alloc(0)
  while (head.length < wanted) {
    const { value, done } = await input.next()
    if (done) break
    head = head.length === 0 ? value : Buffer.concat([head, value])
  }
  return head
}

async function* prepend(head: Buffer, rest: AsyncGenerator<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  try {
    if (head.length > 0) yield head
    yield* rest
  } finally {
    await rest.return(undefined)
  }
}

function decoder(compression: Compression, input: AsyncGenerator<Buffer>): AsyncIterable<Buffer> {
  switch (compression) {
    case 'none': return input
    case 'gzip': return throughNode('gzip', input, zlib.createGunzip({ chunkSize: CHUNK_BYTES }))
    case 'zstd': return nodeZstd.createZstdDecompress === undefined
      ? zstdInWasm(input)
      : zstdInNode(input, nodeZstd.createZstdDecompress)
    case 'xz': return xz(input)
    case 'bzip2': return bzip2(input)
  }
}

/** The error for data that cannot be decompressed, `reason` being the decoder's. */
export function damaged(compression: Compression, reason: string, cause: unknown): StorageError {
  const truncated = /unexpected end|prematurely|incomplete/i.test(reason)
  return new StorageError('INVALID_ARCHIVE', `cannot decompress ${compression} data: ${truncated ? 'unexpected end of data' : reason}`, {
    hint: truncated ? 'the data is truncated; fetch or write it again' : 'the data is damaged; fetch or write it again',
  }, { cause })
}

/** A source's failure on its way through somebody else's stream, so that it is not taken for the decoder's. */
class SourceFailure extends Error {}

async function* marked(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* input
  } catch (error) {
    throw new SourceFailure('the source failed', { cause: error })
  }
}

async function* throughNode(compression: Compression, input: AsyncIterable<Buffer>, transform: Transform): AsyncGenerator<Buffer, void, undefined> {
  // The callback has nothing to do: an error of either end destroys the transform with it, and the loop below throws it.
  pipeline(Readable.from(marked(input), { objectMode: true, highWaterMark: 1 }), transform, () => {})
  try {
    for await (const chunk of transform) yield chunk as Buffer
  } catch (error) {
    throw failure(compression, error)
  }
}

function failure(compression: Compression, error: unknown): unknown {
  if (error instanceof SourceFailure) return error.cause
  return damaged(compression, error instanceof Error ? error.message : String(error), error)
}

/**
 * zstd in node:zlib (measured on 24.21): where a frame ends inside a chunk the stream ends too, and what is left of the chunk is lost. So the chunks
 * are kept until `bytesWritten` says that they were consumed, and what is left goes into a new stream.
 */
async function* zstdInNode(
  input: AsyncGenerator<Buffer>, create: NonNullable<typeof nodeZstd.createZstdDecompress>,
): AsyncGenerator<Buffer, void, undefined> {
  let left: Buffer[] = []
  let ended = false
  try {
    while (!ended || left.length > 0) {
      const transform = create({ chunkSize: CHUNK_BYTES }) as Transform & { bytesWritten: number }
      const queue = left
      const fed: Buffer[] = []
      let fedFrom = 0
      let stopped = (): void => {}
      const idle = new Promise<void>(resolve => { stopped = resolve })
      async function* feed(): AsyncGenerator<Buffer, void, undefined> {
        try {
          for (;;) {
            let chunk = queue.shift()
            if (chunk === undefined) {
              const { value, done } = await input.next()
              if (done) {
                ended = true
                return
              }
              chunk = value
            }
            while (fed[0] !== undefined && fedFrom + fed[0].length <= transform.bytesWritten) fedFrom += fed.shift()!.length
            fed.push(chunk)
            yield chunk
          }
        } finally {
          stopped()
        }
      }
      yield* throughNode('zstd', feed(), transform)
      // The feed may have been waiting for a chunk when the frame ended.
      await idle
      let consumed = transform.bytesWritten - fedFrom
      left = []
      for (const chunk of fed) {
        if (consumed < chunk.length) left.push(chunk.subarray(Math.max(0, consumed)))
        consumed -= chunk.length
      }
      left.push(...queue)
    }
  } finally {
    // Without waiting: the feed may be waiting for the source.
    input.return(undefined).catch(() => {})
  }
}

/** Import an optional package on first use. */
async function optional<T>(name: string, what: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (error) {
    throw new StorageError('PREREQUISITE_MISSING', `cannot ${what}: the optional package ${name} is absent`, { hint: `npm install ${name}` }, { cause: error })
  }
}

/**
 * zstd before Node 22.15: zstddec, libzstd in WebAssembly. Its generator takes chunks synchronously and yields at least once for each, so
 * one chunk is fetched before every step; and where libzstd reports an error it yields nothing for ever, which two empty results in a row show.
 */
async function* zstdInWasm(input: AsyncGenerator<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  const { ZSTDDecoder } = await optional('zstddec', 'decompress zstd data on this version of Node', () => import('zstddec/stream'))
  const zstd = new ZSTDDecoder()
  await zstd.init()
  const source = marked(input)
  let next: IteratorResult<Buffer, void> = { done: true, value: undefined }
  let taken = false
  function* chunks(): Generator<Uint8Array, void, undefined> {
    while (!next.done) {
      taken = true
      yield next.value
    }
  }
  const output = zstd.decodeStreaming(chunks())
  let idle = 0
  try {
    next = await source.next()
    for (;;) {
      const { value, done } = output.next()
      if (done) return
      if (value.length > 0) yield Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      idle = value.length > 0 || taken ? 0 : idle + 1
      if (idle > 1) throw new Error('invalid data')
      if (taken) {
        taken = false
        next = await source.next()
      }
    }
  } catch (error) {
    throw failure('zstd', error)
  } finally {
    await source.return(undefined)
  }
}

async function* xz(input: AsyncGenerator<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  const { default: { XzReadableStream } } = await optional('xz-decompress', 'decompress xz data', () => import('xz-decompress'))
  const stream = new XzReadableStream(Readable.toWeb(Readable.from(marked(input))) as ReadableStream<Uint8Array>)
  try {
    for await (const chunk of stream) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  } catch (error) {
    throw failure('xz', error)
  } finally {
    input.return(undefined).catch(() => {})
  }
}

async function* bzip2(input: AsyncGenerator<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  const bunzip = new Bzip2Decoder()
  const step = (run: () => Buffer[]): Buffer[] => {
    try {
      return run()
    } catch (error) {
      throw failure('bzip2', error)
    }
  }
  for await (const chunk of input) yield* step(() => bunzip.push(chunk))
  yield* step(() => bunzip.finish())
}

export interface CompressOptions {
  /** gzip: 1 to 9, default 6; zstd: 1 to 22, default 3. */
  readonly level?: number
}

/**
 * Compress a source as one gzip member (no name, no time: equal input gives equal output) or one zstd frame. zstd needs Node 22.15 or newer:
 * NOT_SUPPORTED elsewhere. The source's errors pass through.
 */
export async function* compress(source: Source, compression: 'gzip' | 'zstd', options: CompressOptions = {}): AsyncGenerator<Buffer, void, undefined> {
  const input = count(source, { bytes: 0 })
  if (compression === 'gzip') {
    yield* throughNode('gzip', input, zlib.createGzip({ chunkSize: CHUNK_BYTES, level: options.level ?? 6 }))
    return
  }
  if (nodeZstd.createZstdCompress === undefined) {
    throw new StorageError('NOT_SUPPORTED', `cannot write zstd data: Node ${process.versions.node} has no zstd`, { hint: 'use Node 22.15 or newer, or gzip' })
  }
  const params = { [ZSTD_COMPRESSION_LEVEL]: options.level ?? 3 }
  yield* throughNode('zstd', input, nodeZstd.createZstdCompress({ chunkSize: CHUNK_BYTES, params }))
}
