// The public reader: an archive as an async iterable of entries, with the bytes of their headers and their content. Owns back-pressure
// between a source and a slow consumer; parsing is parser.ts's, decompression compression.ts's.

import fs from 'node:fs'
import type { Readable } from 'node:stream'
import { asStorageError } from '../errors.ts'
import { decompress, ratioLimit } from './compression.ts'
import { TarParser } from './parser.ts'
import type { TarHeader, TarLimits, TarSink } from './types.ts'

/** One entry of an archive. */
export interface TarEntry {
  readonly header: TarHeader
  /** The header block and, before it, the PAX and GNU blocks that describe the entry; after it, the map of a sparse file. */
  readonly raw: Buffer
  /**
   * The stored content, once: the runs of a sparse file without its holes (`header.sparse` tells where they belong). What is not read
   * before the next entry is asked for is skipped; reading it after that throws a TypeError.
   */
  readonly body: AsyncIterable<Buffer>
}

type Event =
  | { readonly kind: 'entry'; readonly header: TarHeader; readonly raw: Buffer }
  | { readonly kind: 'data'; readonly bytes: Buffer }
  | { readonly kind: 'end' }

/**
 * Read an archive, compressed or not (gzip, zstd, xz, bzip2), from a path, a stream or any iterable of bytes. It reads on only while the consumer asks;
 * leaving the loop early closes the source (soon, not before the loop is left).
 * Throws StorageError: INVALID_ARCHIVE, LIMIT_EXCEEDED, PREREQUISITE_MISSING (see `decompress`), NOT_FOUND and others of the file. Errors of a given
 * source pass through.
 */
export async function* readTar(
  source: Readable | AsyncIterable<Uint8Array> | Iterable<Uint8Array> | string, limits?: TarLimits,
): AsyncGenerator<TarEntry, void, undefined> {
  const events = new Events(typeof source === 'string' ? fileChunks(source) : source as AsyncIterable<Uint8Array>, limits)
  try {
    for (;;) {
      const event = await events.next()
      if (event === undefined) return
      if (event.kind !== 'entry') continue
      const state = { done: false, current: true }
      yield { header: event.header, raw: event.raw, body: bodyOf(events, state) }
      state.current = false
      if (!state.done) while ((await events.next())?.kind === 'data') continue
    }
  } finally {
    await events.close()
  }
}

async function* bodyOf(events: Events, state: { done: boolean; readonly current: boolean }): AsyncGenerator<Buffer, void, undefined> {
  while (!state.done) {
    if (!state.current) throw new TypeError('the body of an entry must be read before the next entry is asked for')
    const event = await events.next()
    if (event?.kind === 'data') yield event.bytes
    else state.done = true
  }
}

async function* fileChunks(path: string): AsyncGenerator<Buffer, void, undefined> {
  try {
    for await (const chunk of fs.createReadStream(path, { highWaterMark: 1024 * 1024 })) yield chunk as Buffer
  } catch (error) {
    throw asStorageError(error, `cannot read the archive ${path}`)
  }
}

/** Pulls chunks through the parser when its queue is empty; so at most one chunk's events are held. */
class Events implements TarSink {
  readonly #chunks: AsyncGenerator<Buffer, void, undefined>
  readonly #parser: TarParser
  #queue: Event[] = []
  #taken = 0
  #raw: Buffer[] = []
  #ended = false
  #archiveEnded = false
  #stored = 0
  /** Bytes of padding still to come behind the entry before. */
  #padding = 0

  constructor(source: AsyncIterable<Uint8Array>, limits: TarLimits | undefined) {
    this.#chunks = decompress(source, ratioLimit(limits?.expansionRatio))
    this.#parser = new TarParser(this, limits)
  }

  async next(): Promise<Event | undefined> {
    while (this.#taken === this.#queue.length && !this.#ended) {
      this.#queue = []
      this.#taken = 0
      const { value, done } = await this.#chunks.next()
      if (done) {
        this.#ended = true
        this.#parser.finish()
      } else this.#parser.write(value)
    }
    return this.#queue[this.#taken++]
  }

  async close(): Promise<void> {
    await this.#chunks.return(undefined)
  }

  raw(bytes: Buffer): void {
    // What follows the archive's last entry is not kept: a trailer can be of any size.
    if (this.#archiveEnded) return
    const padding = Math.min(this.#padding, bytes.length)
    this.#padding -= padding
    if (padding < bytes.length) this.#raw.push(Buffer.from(bytes.subarray(padding)))
  }

  endOfArchive(): void {
    this.#archiveEnded = true
    this.#raw = []
  }

  entry(header: TarHeader): void {
    this.#queue.push({ kind: 'entry', header, raw: Buffer.concat(this.#raw) })
    this.#raw = []
  }

  data(bytes: Buffer): void {
    this.#stored += bytes.length
    this.#queue.push({ kind: 'data', bytes })
  }

  end(): void {
    this.#padding = (512 - this.#stored % 512) % 512
    this.#stored = 0
    this.#queue.push({ kind: 'end' })
  }
}
