// The archive as a stream of entries: pushes chunks of any size through the header, PAX and sparse codecs into a TarSink, synchronously.
// Owns where one entry ends and the next begins, which is where parsers differ and attacks live; never touches a file system.

import { StorageError } from '../errors.ts'
import {
  BLOCK, checkUint32, checksumMatches, decodeHeader, formatOf, isZeroBlock, sizeOf, typeflagOf,
} from './header.ts'
import { applyPax, parsePax, type PaxRecords } from './pax.ts'
import {
  checkSparse, oldSparseSize, paxSparseSize, paxSparseVersion, readOldSparse, readPaxSparse0, SparseMapReader,
} from './sparse.ts'
import type { SparseRegion, TarHeader, TarLimits, TarSink } from './types.ts'

/** Type flags of blocks that describe the next entry (or nothing, for g). */
const LONG_NAME = 0x4c
const LONG_LINK = 0x4b
const PAX = 0x78
const PAX_GLOBAL = 0x67
const OLD_SPARSE = 0x53

/** What the next bytes are. */
const state = { header: 0, data: 1, padding: 2, meta: 3, oldSparse: 4, sparseMap: 5, trailer: 6 } as const
type State = typeof state[keyof typeof state]

const SLASH = 0x2f
const EMPTY = Buffer.alloc(0)
const NO_VIEW = new DataView(new ArrayBuffer(0))

function padOf(sizeBytes: number): number {
  return (BLOCK - sizeBytes % BLOCK) % BLOCK
}

/**
 * Parses one uncompressed archive. `write` and `finish` throw StorageError: INVALID_ARCHIVE for what is not a tar archive or breaks off,
 * LIMIT_EXCEEDED for what is beyond `limits`; what the sink throws passes through. After an error the parser is of no more use.
 *
 * The end is two zero blocks, as for GNU tar and Go: entries behind them are not seen (a parser that reads on is a way to smuggle some), but
 * every byte still reaches `sink.raw`, as a layer's digest covers it. One zero block, or none, before the end of input is accepted; a
 * zero block followed by a header is not. Archives may also break off inside the padding of their last entry, as Go allows.
 */
export class TarParser {
  readonly #sink: TarSink
  readonly #maxExtended: number
  readonly #maxEntries: number
  readonly #maxContent: number
  readonly #maxName: number
  #state: State = state.header
  #entries = 0
  #content = 0

  #partial: Buffer | undefined
  #partialView = NO_VIEW
  #partialSize = 0
  #zeroBlock = false

  /** Bytes still to come of the data, padding or meta body; then the padding after it. */
  #remaining = 0
  #padding = 0
  #position = 0
  #regions: readonly SparseRegion[] | undefined
  #region = 0

  #metaFlag = 0
  #meta: Buffer[] = []
  #longName: Buffer | undefined
  #longLink: Buffer | undefined
  #records: PaxRecords | undefined

  #header: TarHeader | undefined
  #map: SparseRegion[] = []
  #mapBlocks = 0
  #mapReader: SparseMapReader | undefined

  #chunk: Buffer = EMPTY
  #rawFrom = 0

  constructor(sink: TarSink, limits: TarLimits = {}) {
    this.#sink = sink
    this.#maxExtended = limits.extendedHeaderBytes ?? 1024 * 1024
    this.#maxEntries = limits.entries ?? 10_000_000
    this.#maxContent = limits.contentBytes ?? 16 * 1024 ** 4
    this.#maxName = limits.nameBytes ?? 65_536
  }

  /** Parse the next bytes of the archive. Nothing of `chunk` is kept: it may be read into again. */
  write(chunk: Buffer): void {
    this.#chunk = chunk
    // All that is not handed out as data is raw, in one piece from the last data on; so padding and the next header make one call.
    this.#rawFrom = 0
    let view: DataView | undefined
    let at = 0
    const size = chunk.length
    while (at < size) {
      switch (this.#state) {
        case state.data: {
          const length = Math.min(this.#remaining, size - at)
          this.#data(at, length)
          at += length
          break
        }
        case state.padding: {
          const length = Math.min(this.#remaining, size - at)
          at += length
          this.#remaining -= length
          if (this.#remaining === 0) this.#state = state.header
          break
        }
        case state.meta: {
          const length = Math.min(this.#remaining, size - at)
          this.#meta.push(Buffer.from(chunk.subarray(at, at + length)))
          at += length
          this.#remaining -= length
          if (this.#remaining === 0) this.#endMeta()
          break
        }
        case state.trailer:
          at = size
          break
        default: {
          if (this.#partialSize === 0 && size - at >= BLOCK) {
            view ??= new DataView(chunk.buffer, chunk.byteOffset, size)
            at += BLOCK
            this.#block(chunk, view, at - BLOCK, at)
          } else {
            this.#partial ??= this.#makePartial()
            const length = Math.min(BLOCK - this.#partialSize, size - at)
            chunk.copy(this.#partial, this.#partialSize, at, at + length)
            this.#partialSize += length
            at += length
            if (this.#partialSize === BLOCK) {
              this.#partialSize = 0
              this.#block(this.#partial, this.#partialView, 0, at)
            }
          }
        }
      }
    }
    this.#flushRaw(size)
    this.#chunk = EMPTY
  }

  /** The input has ended. Throws INVALID_ARCHIVE when the archive has not. */
  finish(): void {
    let inside: string | undefined
    if (this.#state === state.data) inside = `${this.#remaining} bytes of a file are missing`
    else if (this.#partialSize > 0) inside = 'a block is cut short'
    else if (this.#state !== state.header && this.#state !== state.padding && this.#state !== state.trailer) inside = 'an extended header is cut short'
    else if (this.#longName !== undefined || this.#longLink !== undefined || this.#records !== undefined) inside = 'an extended header has no entry'
    if (inside !== undefined) {
      throw new StorageError('INVALID_ARCHIVE', `unexpected end of archive: ${inside}`, { hint: 'the archive is truncated; fetch or write it again' })
    }
  }

  #makePartial(): Buffer {
    const partial = Buffer.alloc(BLOCK)
    this.#partialView = new DataView(partial.buffer, partial.byteOffset, BLOCK)
    return partial
  }

  #flushRaw(to: number): void {
    if (to > this.#rawFrom) {
      this.#sink.raw?.(this.#rawFrom === 0 && to === this.#chunk.length ? this.#chunk : this.#chunk.subarray(this.#rawFrom, to))
      this.#rawFrom = to
    }
  }

  /** One whole block where a header, or a part of a sparse map, is due. `next` is where the chunk goes on behind it. */
  #block(block: Buffer, view: DataView, offset: number, next: number): void {
    if (this.#state === state.oldSparse) return this.#oldSparseBlock(block, offset, next)
    if (this.#state === state.sparseMap) return this.#sparseMapBlock(block, offset, next)
    if (block[offset] === 0 && isZeroBlock(view, offset)) {
      if (!this.#zeroBlock) {
        this.#zeroBlock = true
        return
      }
      this.#state = state.trailer
      this.#flushRaw(next)
      this.#sink.endOfArchive?.()
      return
    }
    if (this.#zeroBlock) throw invalid('a single zero block is followed by more')
    if (!checksumMatches(block, view, offset)) throw invalid('the checksum is wrong')
    const flag = typeflagOf(block, offset)
    if (flag === LONG_NAME || flag === LONG_LINK || flag === PAX || flag === PAX_GLOBAL) return this.#startMeta(flag, sizeOf(block, offset))

    const header = decodeHeader(block, offset)
    const records = this.#records
    if (records !== undefined) {
      applyPax(header, records)
      this.#records = undefined
    }
    checkUint32(header.uid, 'uid')
    checkUint32(header.gid, 'gid')
    // Go gives GNU's long names precedence over PAX, and the name of a sparse file over both.
    if (this.#longName !== undefined) {
      header.name = this.#longName
      this.#longName = undefined
    }
    if (this.#longLink !== undefined) {
      if (header.type === 'link' || header.type === 'symlink') header.linkname = this.#longLink
      this.#longLink = undefined
    }
    if (flag === 0 && header.name.at(-1) === SLASH) {
      // Before ustar a directory was a file whose name ends in a slash. Like every directory it then has no body.
      header.type = 'directory'
      header.sizeBytes = 0
    }
    if (flag === OLD_SPARSE || records !== undefined) this.#startMaybeSparse(header, flag, records, block, offset, next)
    else this.#startEntry(header, header.sizeBytes, next)
  }

  #startEntry(header: TarHeader, storedBytes: number, next: number): void {
    if (++this.#entries > this.#maxEntries) throw exceeded('entries', `the archive has more than ${this.#maxEntries} entries`)
    this.#content += header.sizeBytes
    if (this.#content > this.#maxContent) throw exceeded('contentBytes', `the content of the archive is larger than ${this.#maxContent} bytes`)
    const longest = Math.max(header.name.length, header.linkname.length)
    if (longest > this.#maxName) throw exceeded('nameBytes', `a name of ${longest} bytes is longer than ${this.#maxName} bytes`)
    this.#flushRaw(next)
    this.#sink.entry(header)
    this.#padding = padOf(storedBytes)
    if (storedBytes === 0) {
      this.#sink.end()
      this.#afterData()
    } else {
      this.#state = state.data
      this.#remaining = storedBytes
      this.#regions = header.sparse
      this.#region = 0
      this.#position = header.sparse?.[0]?.offset ?? 0
    }
  }

  #data(at: number, length: number): void {
    this.#flushRaw(at)
    const regions = this.#regions
    if (regions === undefined) {
      this.#sink.data(at === 0 && length === this.#chunk.length ? this.#chunk : this.#chunk.subarray(at, at + length), this.#position)
      this.#position += length
    } else this.#sparseData(regions, at, length)
    this.#rawFrom = at + length
    this.#remaining -= length
    if (this.#remaining === 0) {
      this.#sink.end()
      this.#afterData()
    }
  }

  #sparseData(regions: readonly SparseRegion[], at: number, length: number): void {
    let from = at
    while (from < at + length) {
      // checkSparse has made sure that the regions are not empty and hold exactly the stored bytes.
      const region = regions[this.#region]!
      const part = Math.min(at + length - from, region.offset + region.length - this.#position)
      this.#sink.data(this.#chunk.subarray(from, from + part), this.#position)
      from += part
      this.#position += part
      if (this.#position === region.offset + region.length) this.#position = regions[++this.#region]?.offset ?? 0
    }
  }

  #afterData(): void {
    this.#remaining = this.#padding
    this.#state = this.#remaining === 0 ? state.header : state.padding
  }

  #startMeta(flag: number, sizeBytes: number): void {
    if (sizeBytes > this.#maxExtended) throw exceeded('extendedHeaderBytes', `an extended header of ${sizeBytes} bytes is larger than ${this.#maxExtended} bytes`)
    this.#metaFlag = flag
    this.#meta = []
    this.#remaining = sizeBytes
    this.#padding = padOf(sizeBytes)
    this.#state = state.meta
    if (sizeBytes === 0) this.#endMeta()
  }

  #endMeta(): void {
    const body = this.#meta.length === 1 ? this.#meta[0]! : Buffer.concat(this.#meta)
    this.#meta = []
    if (this.#metaFlag === PAX) this.#records = parsePax(body)
    // A global header is checked, and that is all: containers/storage, containerd and Docker ignore its records too. `git archive` writes
    // one with a comment; letting one set the path, owner or attributes of every later entry would be a weapon and nobody's need.
    else if (this.#metaFlag === PAX_GLOBAL) parsePax(body)
    else {
      const nul = body.indexOf(0)
      const name = nul < 0 ? body : body.subarray(0, nul)
      // An empty long name leaves the header's own in force, as in Go.
      if (name.length > 0) {
        if (this.#metaFlag === LONG_NAME) this.#longName = name
        else this.#longLink = name
      }
    }
    this.#afterData()
  }

  #startMaybeSparse(
    header: TarHeader, flag: number, records: PaxRecords | undefined, block: Buffer, offset: number, next: number,
  ): void {
    if (flag === OLD_SPARSE) {
      if (formatOf(block, offset) !== 'gnu') throw invalid('a sparse file without the GNU magic')
      const { regions, more } = readOldSparse(block, offset, false)
      this.#header = header
      this.#remaining = header.sizeBytes
      header.sizeBytes = oldSparseSize(block, offset)
      this.#map = regions
      this.#mapBlocks = 0
      if (more) this.#state = state.oldSparse
      else this.#startSparse(next)
      return
    }
    const version = records === undefined ? undefined : paxSparseVersion(records)
    if (records === undefined || version === undefined) return this.#startEntry(header, header.sizeBytes, next)
    if (header.type !== 'file') throw invalid('an entry that is not a file is marked as sparse')
    this.#header = header
    this.#remaining = header.sizeBytes
    const name = records.get('GNU.sparse.name')
    if (name !== undefined && name.length > 0) {
      if (name.includes(0)) throw invalid('NUL in GNU.sparse.name')
      header.name = name
    }
    header.sizeBytes = paxSparseSize(records) ?? header.sizeBytes
    if (version === '1.0') {
      this.#mapReader = new SparseMapReader()
      this.#mapBlocks = 0
      this.#state = state.sparseMap
      if (this.#remaining < BLOCK) throw invalid('a sparse file has no room for its map')
    } else {
      this.#map = readPaxSparse0(records)
      this.#startSparse(next)
    }
  }

  #oldSparseBlock(block: Buffer, offset: number, next: number): void {
    this.#countMapBlock()
    const { regions, more } = readOldSparse(block, offset, true)
    for (const region of regions) this.#map.push(region)
    if (!more) this.#startSparse(next)
  }

  #sparseMapBlock(block: Buffer, offset: number, next: number): void {
    this.#countMapBlock()
    const reader = this.#mapReader
    if (reader === undefined) return
    this.#remaining -= BLOCK
    if (reader.block(block, offset)) {
      this.#map = reader.regions()
      this.#mapReader = undefined
      this.#startSparse(next)
    } else if (this.#remaining < BLOCK) throw invalid('a sparse map is longer than its file')
  }

  /** Maps count as extended headers: an endless one would fill the memory (Go: CVE-2025-58183). */
  #countMapBlock(): void {
    if (++this.#mapBlocks * BLOCK > this.#maxExtended) throw exceeded('extendedHeaderBytes', `a sparse map is larger than ${this.#maxExtended} bytes`)
  }

  #startSparse(next: number): void {
    const header = this.#header
    if (header === undefined) return
    this.#header = undefined
    header.sparse = checkSparse(this.#map, header.sizeBytes, this.#remaining)
    this.#map = []
    this.#startEntry(header, this.#remaining, next)
  }
}

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', `invalid tar header: ${what}`, { hint: 'the archive is damaged, or it is not a tar archive' })
}

/** The limit is named as in TarLimits. */
export function exceeded(limit: string, what: string): StorageError {
  return new StorageError('LIMIT_EXCEEDED', what, { hint: `raise the limit ${limit} only for an archive that you trust` })
}
