// Writes tar archives, deterministically: equal calls give equal bytes. Plain ustar where all fits, PAX records for what does not; it never cuts a
// value to make it fit. Never reads a file system, and adds no times or names of its own.

import { isUtf8 } from 'node:buffer'
import { StorageError } from '../errors.ts'
import { BLOCK, encodeHeader, fitsOctal, flagOf } from './header.ts'
import { encodePax, formatPaxTime, xattrRecord, type PaxRecords } from './pax.ts'
import { alignSparse, checkSparse, encodeSparseMap } from './sparse.ts'
import type { SparseRegion, TarHeader } from './types.ts'

const NS = 1_000_000_000n
const NAME_BYTES = 100
const PREFIX_BYTES = 155
const SLASH = 0x2f
const EMPTY = Buffer.alloc(0)
const ZEROS = Buffer.alloc(2 * BLOCK)
/** The name of every GNU long name block. */
const LONG_LINK = Buffer.from('././@LongLink')

/**
 * Call `entry`, then `data` as often as needed, then `end` for each entry; `finish` once. Buffers given to `emit` may be views of what `data`
 * was given, and are valid only during the call.
 *
 * How a header is written:
 * - ustar when name, link, ids, size, time and user names fit; names of up to 255 bytes use its prefix. Else PAX records, sorted by key,
 *   in a header named `DIR/PaxHeaders.0/FILE` as Go's writer names it.
 * - Names that are not UTF-8 have no PAX form (POSIX wants UTF-8, and libarchive would convert them). They go into the ustar field as they are, or
 *   when longer than 100 bytes into a GNU long name block before it. Go's reader (dockerd, containerd), GNU tar, libarchive and our parser all
 *   give the same bytes back.
 * - Times beyond seconds, or beyond octal (before 1970, after 2242), and atime and ctime when given, are PAX records.
 * - Device numbers beyond octal are base-256, as PAX has no record for them.
 * - Extended attributes are SCHILY.xattr records with their bytes as they are.
 * - Sparse files are GNU's PAX format 1.0; `data` takes the stored runs only, one after the other. Runs are widened to blocks with zeros, as GNU
 *   tar can read no others.
 *
 * Throws TypeError for calls out of order and for content that is not as long as announced; INVALID_ARGUMENT for a header that tar cannot hold.
 */
export class TarWriter {
  readonly #emit: (bytes: Buffer) => void
  #open = false
  #finished = false
  /** Bytes of content still to come from the caller. */
  #remaining = 0
  /** Zeros after the content. */
  #padding = 0
  #runs: readonly SparseRegion[] | undefined
  #aligned: readonly SparseRegion[] = []
  #run = 0
  #region = 0
  /** Where in the file the next byte lies. */
  #at = 0

  constructor(emit: (bytes: Buffer) => void) {
    this.#emit = emit
  }

  /** Write the header. `header.type` decides what counts: `sizeBytes` only for a file, `linkname` only for links, device numbers only for devices. */
  entry(header: TarHeader): void {
    if (this.#finished) throw new TypeError('the archive is finished')
    if (this.#open) throw new TypeError('the entry before was not ended')
    checkHeader(header)
    const records: PaxRecords = new Map()
    const sizeBytes = header.type === 'file' ? header.sizeBytes : 0
    const runs = header.type === 'file' ? header.sparse : undefined
    let map: Buffer = EMPTY
    let stored = sizeBytes
    let name = header.name
    if (runs !== undefined) {
      const aligned = alignSparse(runs, sizeBytes)
      map = encodeSparseMap(aligned, sizeBytes)
      stored = map.length + lengthOf(aligned)
      this.#aligned = aligned
      records.set('GNU.sparse.major', Buffer.from('1'))
      records.set('GNU.sparse.minor', Buffer.from('0'))
      records.set('GNU.sparse.realsize', Buffer.from(String(sizeBytes)))
      // libarchive refuses a record that is not UTF-8; without this one every reader takes the name from the header.
      if (header.name.length > 0 && isUtf8(header.name)) {
        records.set('GNU.sparse.name', header.name)
        name = inDirectory(header.name, 'GNUSparseFile.0')
        if (name.length > NAME_BYTES) name = name.subarray(0, NAME_BYTES)
      }
    }
    this.#emit(this.#headers(header, name, stored, records))
    if (map.length > 0) this.#emit(map)
    this.#open = true
    this.#runs = runs?.filter(run => run.length > 0)
    this.#remaining = runs === undefined ? sizeBytes : lengthOf(runs)
    this.#padding = (BLOCK - stored % BLOCK) % BLOCK
    this.#run = 0
    this.#region = 0
    this.#at = this.#aligned[0]?.offset ?? 0
  }

  /** Content of the current file, in order. */
  data(bytes: Buffer): void {
    if (!this.#open) throw new TypeError('there is no entry to write content to')
    if (bytes.length > this.#remaining) throw new TypeError(`the entry has room for ${this.#remaining} more bytes, not ${bytes.length}`)
    if (bytes.length === 0) return
    this.#remaining -= bytes.length
    if (this.#runs === undefined) this.#emit(bytes)
    else this.#sparseData(this.#runs, bytes)
  }

  /** The current entry is complete. */
  end(): void {
    if (!this.#open) throw new TypeError('there is no entry to end')
    if (this.#remaining > 0) throw new TypeError(`the entry lacks ${this.#remaining} bytes of content`)
    if (this.#runs !== undefined) {
      const last = this.#aligned.at(-1)
      if (last !== undefined) this.#fillTo(last.offset + last.length)
      this.#runs = undefined
      this.#aligned = []
    }
    if (this.#padding > 0) this.#emit(ZEROS.subarray(0, this.#padding))
    this.#open = false
  }

  /** Two zero blocks. */
  finish(): void {
    if (this.#open) throw new TypeError('the last entry was not ended')
    if (this.#finished) throw new TypeError('the archive is finished')
    this.#finished = true
    this.#emit(ZEROS)
  }

  #headers(header: TarHeader, name: Buffer, stored: number, records: PaxRecords): Buffer {
    const before: Buffer[] = []
    const sparse = name !== header.name
    const nameField = this.#nameField(name, sparse ? undefined : 'path', 0x4c, records, before)
    const isLink = header.type === 'link' || header.type === 'symlink'
    const linkField = isLink ? this.#nameField(header.linkname, 'linkpath', 0x4b, records, before) : undefined
    const device = header.type === 'char' || header.type === 'block'
    const number = (key: string, value: number, length: number): number => {
      if (fitsOctal(value, length)) return value
      records.set(key, Buffer.from(String(value)))
      return 0
    }
    const user = (key: string, value: string): string => {
      if (/^[\x01-\x7f]{0,32}$/.test(value)) return value
      records.set(key, Buffer.from(value))
      return ''
    }
    let mtimeSeconds = Number(floorSeconds(header.mtimeNs))
    if (header.mtimeNs % NS !== 0n || !fitsOctal(mtimeSeconds, 12)) {
      records.set('mtime', Buffer.from(formatPaxTime(header.mtimeNs)))
      if (!fitsOctal(mtimeSeconds, 12)) mtimeSeconds = 0
    }
    if (header.atimeNs !== undefined) records.set('atime', Buffer.from(formatPaxTime(header.atimeNs)))
    if (header.ctimeNs !== undefined) records.set('ctime', Buffer.from(formatPaxTime(header.ctimeNs)))
    for (const [key, value] of header.xattrs ?? []) records.set(...xattrRecord(key, value))
    const block = encodeHeader({
      typeflag: flagOf(header.type),
      ...nameField,
      ...(linkField === undefined ? {} : { linkname: linkField.name }),
      mode: header.mode,
      uid: number('uid', header.uid, 8),
      gid: number('gid', header.gid, 8),
      sizeBytes: number('size', stored, 12),
      mtimeSeconds,
      uname: user('uname', header.uname),
      gname: user('gname', header.gname),
      ...(device ? { devMajor: header.devMajor, devMinor: header.devMinor } : {}),
    })
    if (records.size > 0) before.unshift(paxBlocks(header.name, encodePax(records)))
    return before.length === 0 ? block : Buffer.concat([...before, block])
  }

  /** What of a name goes into the block; the rest becomes a record or a long name block. */
  #nameField(
    name: Buffer, key: 'path' | 'linkpath' | undefined, longFlag: number, records: PaxRecords, before: Buffer[],
  ): { name: Buffer; prefix?: Buffer } {
    if (key === undefined) return { name: ascii(name) }
    if (isAscii(name)) {
      if (name.length <= NAME_BYTES) return { name }
      const slash = key === 'path' ? splitAt(name) : -1
      if (slash > 0) return { prefix: name.subarray(0, slash), name: name.subarray(slash + 1) }
    }
    if (isUtf8(name)) {
      records.set(key, name)
      return { name: ascii(name).subarray(0, NAME_BYTES) }
    }
    if (name.length > NAME_BYTES) before.push(longBlocks(name, longFlag))
    return { name: name.subarray(0, NAME_BYTES) }
  }

  #sparseData(runs: readonly SparseRegion[], bytes: Buffer): void {
    let from = 0
    while (from < bytes.length) {
      const run = runs[this.#run]!
      if (this.#at < run.offset) this.#fillTo(run.offset)
      const done = this.#at - run.offset
      const length = Math.min(bytes.length - from, run.length - done)
      this.#emit(bytes.subarray(from, from + length))
      this.#at += length
      from += length
      if (done + length === run.length) this.#run++
    }
  }

  /** Zeros up to a position of the file, inside the aligned regions only: what lies between those is a hole and is not stored. */
  #fillTo(position: number): void {
    for (; this.#region < this.#aligned.length; this.#region++) {
      const region = this.#aligned[this.#region]!
      const end = region.offset + region.length
      if (end <= this.#at) continue
      if (region.offset >= position) break
      this.#at = Math.max(this.#at, region.offset)
      const stop = Math.min(end, position)
      while (this.#at < stop) {
        const length = Math.min(ZEROS.length, stop - this.#at)
        this.#emit(ZEROS.subarray(0, length))
        this.#at += length
      }
      if (this.#at < end) break
    }
    this.#at = Math.max(this.#at, position)
  }
}

function lengthOf(map: readonly SparseRegion[]): number {
  let length = 0
  for (const region of map) length += region.length
  return length
}

function floorSeconds(ns: bigint): bigint {
  return ns < 0n && ns % NS !== 0n ? ns / NS - 1n : ns / NS
}

function checkHeader(header: TarHeader): void {
  const refuse = (what: string): never => {
    throw new StorageError('INVALID_ARGUMENT', `cannot write ${JSON.stringify(header.name.toString())} to a tar archive: ${what}`)
  }
  if (header.name.includes(0) || header.linkname.includes(0)) refuse('a name holds a NUL')
  if (header.uname.includes('\0') || header.gname.includes('\0')) refuse('a user name holds a NUL')
  if (!Number.isInteger(header.mode) || header.mode < 0 || header.mode > 0o7777) refuse(`the mode ${header.mode} is not one of 0 to 07777`)
  for (const id of [header.uid, header.gid, header.devMajor, header.devMinor]) {
    if (!Number.isInteger(id) || id < 0 || id > 0xffff_ffff) refuse(`${id} is outside 0..4294967295`)
  }
  if (header.type === 'file' && (!Number.isSafeInteger(header.sizeBytes) || header.sizeBytes < 0)) refuse(`${header.sizeBytes} is not a size`)
  if (header.type === 'file' && header.sparse !== undefined) {
    try {
      checkSparse(header.sparse, header.sizeBytes, lengthOf(header.sparse))
    } catch (error) {
      refuse((error as Error).message)
    }
  }
}

function isAscii(name: Buffer): boolean {
  for (let i = 0; i < name.length; i++) if (name[i]! >= 0x80) return false
  return true
}

/** For fields that a record overrides: what is not ASCII is left out, as Go's writer does. */
function ascii(name: Buffer): Buffer {
  return isAscii(name) ? name : name.filter(byte => byte < 0x80) as Buffer
}

/** Where ustar splits a long name into prefix and name, by Go's rule (the last slash that leaves at most 155 bytes before it); or -1. */
function splitAt(name: Buffer): number {
  const from = Math.min(name.length - 2, PREFIX_BYTES)
  const slash = name.lastIndexOf(SLASH, from)
  return slash > 0 && name.length - slash - 1 <= NAME_BYTES ? slash : -1
}

/** "a/b" in "X" is "a/X/b". */
function inDirectory(name: Buffer, directory: string): Buffer {
  let end = name.length
  while (end > 0 && name[end - 1] === SLASH) end--
  const slash = end === 0 ? -1 : name.lastIndexOf(SLASH, end - 1)
  return Buffer.concat([name.subarray(0, slash + 1), Buffer.from(`${directory}/`), name.subarray(slash + 1, end)])
}

function metaBlocks(name: Buffer, typeflag: number, body: Buffer, format: 'ustar' | 'gnu'): Buffer {
  return Buffer.concat([
    encodeHeader({ typeflag, name, sizeBytes: body.length, format }), body, ZEROS.subarray(0, (BLOCK - body.length % BLOCK) % BLOCK),
  ])
}

function paxBlocks(name: Buffer, body: Buffer): Buffer {
  let field = ascii(inDirectory(name, 'PaxHeaders.0')).subarray(0, NAME_BYTES)
  // A name that ends in a slash would make readers without PAX see a directory.
  while (field.at(-1) === SLASH) field = field.subarray(0, -1)
  return metaBlocks(field, 0x78, body, 'ustar')
}

function longBlocks(name: Buffer, typeflag: number): Buffer {
  return metaBlocks(LONG_LINK, typeflag, Buffer.concat([name, Buffer.from([0])]), 'gnu')
}
