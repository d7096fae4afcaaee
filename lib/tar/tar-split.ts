// Docker's tar-split: what of a layer's tar is not in its files (headers, padding, order), as JSON lines beside the layer, and the tar rebuilt
// from both, bit for bit. Owns the format to the byte (vbatts/tar-split, as dockerd writes it); compression and files are the caller's.

import fs from 'node:fs'
import { isUtf8 } from 'node:buffer'
import { asStorageError, StorageError } from '../errors.ts'
import { Crc64 } from './crc64.ts'
import { pathClean } from './names.ts'
import type { TarHeader, TarSink } from './types.ts'

/** Segments are cut at this size, as tar-split cuts what follows the archive's end; nothing larger is ever held. */
const SEGMENT_BYTES = 1024 * 1024
const BATCH_BYTES = 256 * 1024
const LINE_BYTES = 256 * 1024 * 1024

/**
 * Writes tar-split lines for the archive that a parser pushes through it, and passes everything on to `inner`.
 *
 * `emit` receives whole lines of newline-delimited JSON in batches of about 256 KiB; each buffer is the receiver's to keep. Call `finish()`
 * after the parser's. `entry` throws INVALID_ARCHIVE "duplicates of file paths not supported", as Docker does: the second file of a name
 * replaces the first, which then could not be rebuilt.
 *
 * Where Docker's own tar-split writes what cannot be put together again, the content is kept in segments and the file has size 0, so that
 * both we and dockerd rebuild the archive exactly:
 * - sparse files: Docker records the size and sum of the expanded content, and would write the holes out as zeros;
 * - content of names with a `.wh.` component, which applying a layer consumes, so that there is no file to read again;
 * - links, directories and devices that claim a size: they have no content (see header.ts), and Docker would copy the linked file.
 * A global PAX header has no line of its own (Docker writes an empty file entry named pax_global_header, and so rejects an archive with two).
 */
export class TarSplitPacker implements TarSink {
  readonly #emit: (lines: Buffer) => void
  readonly #inner: TarSink | undefined
  readonly #seen = new Set<string>()
  readonly #crc = new Crc64()
  #segment = Buffer.allocUnsafe(4096)
  #segmentSize = 0
  #position = 0
  #batch = Buffer.allocUnsafe(BATCH_BYTES)
  #batchSize = 0
  /** The file whose content is being summed; undefined while content goes to segments, or there is none. */
  #file: TarHeader | undefined

  constructor(emit: (lines: Buffer) => void, inner?: TarSink) {
    this.#emit = emit
    this.#inner = inner
  }

  raw(bytes: Buffer): void {
    this.#addToSegment(bytes)
    this.#inner?.raw?.(bytes)
  }

  entry(header: TarHeader): void {
    const key = pathClean(header.name).toString('latin1')
    if (this.#seen.has(key)) {
      throw new StorageError('INVALID_ARCHIVE', `duplicates of file paths not supported: ${quote(header.name)} occurs twice`)
    }
    this.#seen.add(key)
    this.#flushSegment()
    if (header.sizeBytes === 0 || header.sparse !== undefined || hasWhiteout(header.name)) this.#fileLine(header.name, 0, 'null')
    else {
      this.#file = header
      this.#crc.reset()
    }
    this.#inner?.entry(header)
  }

  data(bytes: Buffer, offset: number): void {
    if (this.#file === undefined) this.#addToSegment(bytes)
    else this.#crc.update(bytes)
    this.#inner?.data(bytes, offset)
  }

  end(): void {
    const file = this.#file
    if (file !== undefined) {
      this.#file = undefined
      this.#fileLine(file.name, file.sizeBytes, `"${this.#crc.digest().toString('base64')}"`)
    }
    this.#inner?.end()
  }

  endOfArchive(): void {
    this.#flushSegment()
    this.#inner?.endOfArchive?.()
  }

  /** Write what is left. The archive's end must have been accepted by the parser. */
  finish(): void {
    this.#flushSegment()
    this.#flushBatch()
  }

  #addToSegment(bytes: Buffer): void {
    let from = 0
    while (from < bytes.length) {
      const length = Math.min(bytes.length - from, SEGMENT_BYTES - this.#segmentSize)
      this.#growSegment(this.#segmentSize + length)
      bytes.copy(this.#segment, this.#segmentSize, from, from + length)
      this.#segmentSize += length
      from += length
      if (this.#segmentSize === SEGMENT_BYTES) this.#flushSegment()
    }
  }

  #growSegment(sizeBytes: number): void {
    if (sizeBytes <= this.#segment.length) return
    const larger = Buffer.allocUnsafe(Math.min(SEGMENT_BYTES, Math.max(sizeBytes, 2 * this.#segment.length)))
    this.#segment.copy(larger, 0, 0, this.#segmentSize)
    this.#segment = larger
  }

  #flushSegment(): void {
    if (this.#segmentSize === 0) return
    const payload = this.#segment.toString('base64', 0, this.#segmentSize)
    this.#segmentSize = 0
    const before = '{"type":2,"payload":"'
    const after = `","position":${this.#position++}}\n`
    if (this.#batchSize + before.length + payload.length + after.length > BATCH_BYTES) this.#flushBatch()
    if (before.length + payload.length + after.length > BATCH_BYTES) {
      this.#emit(Buffer.from(before + payload + after, 'latin1'))
      return
    }
    // In parts, as joining them costs more than writing them.
    this.#batchSize += this.#batch.write(before, this.#batchSize, 'latin1')
    this.#batchSize += this.#batch.write(payload, this.#batchSize, 'latin1')
    this.#batchSize += this.#batch.write(after, this.#batchSize, 'latin1')
  }

  #fileLine(name: Buffer, sizeBytes: number, payload: string): void {
    const size = sizeBytes === 0 ? '' : `,"size":${sizeBytes}`
    this.#line(`{"type":1${nameField(name)}${size},"payload":${payload},"position":${this.#position++}}\n`)
  }

  #line(line: string): void {
    // A UTF-16 unit needs at most three bytes.
    if (this.#batchSize + 3 * line.length > this.#batch.length) {
      this.#flushBatch()
      if (3 * line.length > BATCH_BYTES) {
        this.#emit(Buffer.from(line))
        return
      }
    }
    this.#batchSize += this.#batch.write(line, this.#batchSize, 'utf8')
  }

  #flushBatch(): void {
    if (this.#batchSize === 0) return
    const full = this.#batch.subarray(0, this.#batchSize)
    this.#batch = Buffer.allocUnsafe(BATCH_BYTES)
    this.#batchSize = 0
    this.#emit(full)
  }
}

function hasWhiteout(name: Buffer): boolean {
  let found = name.indexOf('.wh.')
  while (found > 0 && name[found - 1] !== 0x2f) found = name.indexOf('.wh.', found + 1)
  return found >= 0
}

/** What Go's encoding/json escapes in a string (with HTML escaping, as tar-split leaves it on); since Go 1.22 also \b and \f in short form. */
const MUST_ESCAPE = /["\\<>&\u0000-\u001f\u2028\u2029]/g
const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t', '\b': '\\b', '\f': '\\f',
}

function nameField(name: Buffer): string {
  if (name.length === 0) return ''
  if (isPlain(name)) return `,"name":"${name.toString('latin1')}"`
  if (!isUtf8(name)) return `,"name_raw":"${name.toString('base64')}"`
  const escaped = name.toString('utf8').replace(MUST_ESCAPE, character =>
    SHORT[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
  return `,"name":"${escaped}"`
}

/** True for a name that is ASCII and has nothing to escape. */
function isPlain(name: Buffer): boolean {
  for (let i = 0; i < name.length; i++) {
    const byte = name[i]!
    if (byte < 0x20 || byte > 0x7f || byte === 0x22 || byte === 0x26 || byte === 0x3c || byte === 0x3e || byte === 0x5c) return false
  }
  return true
}

function quote(name: Buffer): string {
  return JSON.stringify(name.toString('utf8'))
}

/** One line: raw bytes of the archive, or the place of a file's content. */
export type TarSplitEntry =
  | { readonly type: 'segment'; readonly sizeBytes: number; readonly bytes: Buffer }
  /** `sum` is the CRC-64 of the content; absent exactly when `sizeBytes` is 0. `name` is as in the archive, not cleaned. */
  | { readonly type: 'file'; readonly name: Buffer; readonly sizeBytes: number; readonly sum?: Buffer }

const SEGMENT_START = Buffer.from('{"type":2,"payload":"')
/** Behind the payload of a segment, and of a file. */
const POSITION = Buffer.from('","position":')
const FILE_START = Buffer.from('{"type":1,"name":"')
const FILE_SIZE = Buffer.from('","size":')
const FILE_SUM = Buffer.from(',"payload":"')
/** A sum of eight bytes in base64. */
const SUM_LENGTH = 12

const EQUALS = 0x3d
const QUOTE = 0x22
const ZERO = 0x30
const EMPTY = Buffer.alloc(0)

function hasAt(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false
  return true
}

/** Does the line end, from the quote on, with a position that is a number? */
function endsWithPosition(bytes: Buffer, quoteAt: number): boolean {
  const from = quoteAt + POSITION.length, last = bytes.length - 1
  if (!hasAt(bytes, quoteAt, POSITION) || bytes[last] !== 0x7d || last === from || bytes[from] === ZERO && last > from + 1) return false
  for (let at = from; at < last; at++) if (bytes[at]! < ZERO || bytes[at]! > ZERO + 9) return false
  return true
}

function segmentOf(bytes: Buffer): TarSplitEntry {
  return { type: 'segment', sizeBytes: bytes.length, bytes }
}

/** Cuts chunks into lines and decodes them. For asynchronous sources; others use `parseTarSplit`. */
export class TarSplitReader {
  #rest: Buffer[] = []
  #restSize = 0
  #line = 0
  readonly #measuring: boolean

  /** Measuring: for who wants sizes only; the `bytes` of segments are left empty where that saves decoding them. */
  constructor({ measuring = false }: { readonly measuring?: boolean } = {}) {
    this.#measuring = measuring
  }

  /** The entries that this chunk completes. Nothing of it is kept. Throws CORRUPT. */
  push(chunk: Buffer): TarSplitEntry[] {
    const entries: TarSplitEntry[] = []
    let start = 0
    for (;;) {
      const newline = chunk.indexOf(0x0a, start)
      if (newline < 0) break
      const tail = chunk.subarray(start, newline)
      entries.push(this.#decode(this.#restSize === 0 ? tail : Buffer.concat([...this.#rest, tail])))
      this.#rest = []
      this.#restSize = 0
      start = newline + 1
    }
    if (start < chunk.length) {
      this.#rest.push(Buffer.from(chunk.subarray(start)))
      this.#restSize += chunk.length - start
      if (this.#restSize > LINE_BYTES) throw this.#corrupt('is too long')
    }
    return entries
  }

  /** A last line may lack its newline; a damaged one is an error here (tar-split would end in silence, and the layer be short). */
  finish(): TarSplitEntry[] {
    if (this.#restSize === 0) return []
    const entry = this.#decode(Buffer.concat(this.#rest))
    this.#rest = []
    this.#restSize = 0
    return [entry]
  }

  #decode(bytes: Buffer): TarSplitEntry {
    this.#line++
    const plain = this.#plainSegment(bytes) ?? this.#plainFile(bytes)
    if (plain !== undefined) return plain
    let value: unknown
    try {
      value = JSON.parse(bytes.toString('utf8'))
    } catch {
      throw this.#corrupt('is not JSON')
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.#corrupt('is not an object')
    const { type, name, name_raw: nameRaw, size = 0, payload } = value as Record<string, unknown>
    if (payload !== null && payload !== undefined && typeof payload !== 'string') throw this.#corrupt('has a payload that is not a string')
    const content = typeof payload === 'string' ? this.#base64(payload) : undefined
    if (type === 2) return segmentOf(content ?? Buffer.alloc(0))
    if (type !== 1) throw this.#corrupt('has an unknown type')
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw this.#corrupt('has a size that is not a number of bytes')
    if (name !== undefined && typeof name !== 'string') throw this.#corrupt('has a name that is not a string')
    if (nameRaw !== undefined && nameRaw !== null && typeof nameRaw !== 'string') throw this.#corrupt('has a raw name that is not a string')
    const nameBytes = typeof nameRaw === 'string' && nameRaw !== '' ? this.#base64(nameRaw) : Buffer.from(name ?? '')
    if (size === 0) return { type: 'file', name: nameBytes, sizeBytes: 0 }
    if (content?.length !== 8) throw this.#corrupt('has no checksum of eight bytes')
    return { type: 'file', name: nameBytes, sizeBytes: size, sum: content }
  }

  /** A segment's line as tar-split writes it, at a third of the cost of JSON.parse; undefined for any other line. */
  #plainSegment(bytes: Buffer): TarSplitEntry | undefined {
    if (!hasAt(bytes, 0, SEGMENT_START)) return undefined
    const end = bytes.indexOf(QUOTE, SEGMENT_START.length)
    if (end < 0 || !endsWithPosition(bytes, end)) return undefined
    // JSON may write a character of base64 as an escape.
    if (bytes.includes(0x5c)) return undefined
    const length = end - SEGMENT_START.length
    if (this.#measuring && length % 4 === 0 && length > 0) {
      const padding = bytes[end - 1] !== EQUALS ? 0 : bytes[end - 2] !== EQUALS ? 1 : 2
      return { type: 'segment', sizeBytes: length / 4 * 3 - padding, bytes: EMPTY }
    }
    return segmentOf(this.#base64(bytes.toString('latin1', SEGMENT_START.length, end)))
  }

  /** A file's line as tar-split writes it, where it has content and its name is ASCII; undefined for any other line. */
  #plainFile(bytes: Buffer): TarSplitEntry | undefined {
    if (!hasAt(bytes, 0, FILE_START)) return undefined
    const nameEnd = bytes.indexOf(QUOTE, FILE_START.length)
    if (nameEnd < 0 || !hasAt(bytes, nameEnd, FILE_SIZE)) return undefined
    const name = bytes.subarray(FILE_START.length, nameEnd)
    if (!isPlain(name)) return undefined
    let at = nameEnd + FILE_SIZE.length
    let sizeBytes = 0
    const sizeAt = at
    for (let digit = bytes[at]! - ZERO; digit >= 0 && digit <= 9; digit = bytes[++at]! - ZERO) sizeBytes = sizeBytes * 10 + digit
    const sumAt = at + FILE_SUM.length
    if (bytes[sizeAt] === ZERO || at - sizeAt > 15 || at === sizeAt || !hasAt(bytes, at, FILE_SUM) || bytes[sumAt + SUM_LENGTH] !== QUOTE) return undefined
    if (!endsWithPosition(bytes, sumAt + SUM_LENGTH)) return undefined
    const sum = Buffer.from(bytes.toString('latin1', sumAt, sumAt + SUM_LENGTH), 'base64')
    if (sum.length !== 8) return undefined
    // A copy, as nothing of the chunk is kept.
    return { type: 'file', name: Buffer.from(name), sizeBytes, sum }
  }

  /** Node's decoder skips what is not base64, so the length tells. */
  #base64(text: string): Buffer {
    const bytes = Buffer.from(text, 'base64')
    const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
    if (text.length % 4 !== 0 || bytes.length !== text.length / 4 * 3 - padding) throw this.#corrupt('has a payload that is not base64')
    return bytes
  }

  #corrupt(what: string): StorageError {
    return new StorageError('CORRUPT', `cannot read tar-split data: line ${this.#line} ${what}`, {
      hint: 'the layer\'s tar-split.json.gz is damaged; remove the images that use the layer, and load them again',
    })
  }
}

/** Decode tar-split data, already decompressed, line by line; only the current line is held. Throws CORRUPT. */
export function* parseTarSplit(chunks: Iterable<Buffer>): Generator<TarSplitEntry, void, undefined> {
  const reader = new TarSplitReader()
  for (const chunk of chunks) yield* reader.push(chunk)
  yield* reader.finish()
}

/** Opens the file that holds the content of an entry, for reading, and returns its descriptor. `name` is as in the archive, not cleaned. */
export type OpenContent = (name: Buffer) => number

export interface AssembleOptions {
  /**
   * Content is read into `room(wanted)`, and what `emit` receives of it lies at the beginning of that; it has at least one byte. Default: a buffer of
   * the assembler's own.
   */
  readonly room?: (wanted: number) => Buffer
  /** False: content's sums are not compared, as the caller compares a digest of the whole; its sizes always are. Default true. */
  readonly sums?: boolean
}

/** Rebuilds a tar from tar-split entries, one by one. For asynchronous sources; others use `assembleTar`. */
export class TarAssembler {
  readonly #open: OpenContent
  readonly #emit: (bytes: Buffer) => void
  readonly #crc: Crc64 | undefined
  readonly #room: (wanted: number) => Buffer
  #buffer: Buffer | undefined

  /** What `emit` receives is valid only during the call. */
  constructor(open: OpenContent, emit: (bytes: Buffer) => void, { room, sums = true }: AssembleOptions = {}) {
    this.#open = open
    this.#emit = emit
    this.#crc = sums ? new Crc64() : undefined
    this.#room = room ?? (() => this.#buffer ??= Buffer.allocUnsafe(1024 * 1024))
  }

  /**
   * Throws CORRUPT `file integrity checksum failed for "name"` when the content has another size or, with `sums`, another sum than it had when the
   * layer was made (what has been emitted by then is wrong and must be thrown away), or when `open` does not find the file.
   */
  add(entry: TarSplitEntry): void {
    if (entry.type === 'segment') {
      if (entry.bytes.length > 0) this.#emit(entry.bytes)
      return
    }
    if (entry.sum === undefined) return
    let descriptor: number
    try {
      descriptor = this.#open(entry.name)
    } catch (error) {
      const failure = asStorageError(error, `cannot read ${quote(entry.name)} of the layer`)
      if (failure.code !== 'NOT_FOUND') throw failure
      throw new StorageError('CORRUPT', `file integrity checksum failed for ${quote(entry.name)}: it is missing`, failure.info, { cause: error })
    }
    try {
      this.#copy(descriptor, entry.name, entry.sizeBytes, entry.sum)
    } finally {
      fs.closeSync(descriptor)
    }
  }

  #copy(descriptor: number, name: Buffer, sizeBytes: number, sum: Buffer): void {
    this.#crc?.reset()
    let copied = 0
    for (;;) {
      const buffer = this.#room(sizeBytes - copied + 1)
      // A buffer larger than what should remain sees the end, or one byte too many, without another call.
      const read = fs.readSync(descriptor, buffer, 0, buffer.length, null)
      if (read === 0 || copied + read > sizeBytes) {
        copied += read
        break
      }
      const bytes = buffer.subarray(0, read)
      this.#crc?.update(bytes)
      this.#emit(bytes)
      copied += read
      if (copied === sizeBytes && read < buffer.length) break
    }
    if (copied !== sizeBytes || this.#crc?.digest().equals(sum) === false) {
      throw new StorageError('CORRUPT', `file integrity checksum failed for ${quote(name)}`, {
        hint: 'a file of the layer was changed in the data root; remove the images that use the layer, and load them again',
      })
    }
  }
}

/** Rebuild a tar from its tar-split entries and the layer's files, synchronously. Buffers given to `emit` are valid only during the call. */
export function assembleTar(entries: Iterable<TarSplitEntry>, open: OpenContent, emit: (bytes: Buffer) => void): void {
  const assembler = new TarAssembler(open, emit)
  for (const entry of entries) assembler.add(entry)
}
