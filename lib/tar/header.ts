// One 512-byte header block, decoded and encoded: v7, ustar, star and GNU layouts, octal and base-256 numbers, the checksum.
// Knows nothing of what lies between blocks: long names, PAX records and sparse maps are laid over its result by the parser.

import { StorageError } from '../errors.ts'
import type { EntryType, TarHeader } from './types.ts'

export const BLOCK = 512
const EMPTY = Buffer.alloc(0)
const NS = 1_000_000_000n
const INT64_MAX = 0x7fff_ffff_ffff_ffffn

/** Field positions (POSIX ustar, and GNU's own in place of the prefix): offset and length in bytes. */
const at = {
  name: [0, 100], mode: [100, 8], uid: [108, 8], gid: [116, 8], size: [124, 12], mtime: [136, 12], checksum: [148, 8],
  linkname: [157, 100], uname: [265, 32], gname: [297, 32], devMajor: [329, 8], devMinor: [337, 8],
  prefix: [345, 155], starPrefix: [345, 131], starAtime: [476, 12], starCtime: [488, 12], gnuAtime: [345, 12], gnuCtime: [357, 12],
} as const
type Field = readonly [offset: number, length: number]

const TYPEFLAG = 156
const typeByFlag = new Map<number, EntryType>([
  [0x00, 'file'], [0x30, 'file'], [0x37, 'file'], [0x53, 'file'],
  [0x31, 'link'], [0x32, 'symlink'], [0x33, 'char'], [0x34, 'block'], [0x35, 'directory'], [0x36, 'fifo'],
])
const flagByType: Readonly<Record<EntryType, number>> = {
  file: 0x30, link: 0x31, symlink: 0x32, char: 0x33, block: 0x34, directory: 0x35, fifo: 0x36,
}

/** The layout that the magic announces. `v7` is everything else. */
export type HeaderFormat = 'v7' | 'ustar' | 'star' | 'gnu'

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', `invalid tar header: ${what}`, {
    hint: 'the archive is damaged, or it is not a tar archive',
  })
}

/** True when all 512 bytes from `offset` are zero. */
export function isZeroBlock(view: DataView, offset: number): boolean {
  for (let i = offset; i < offset + BLOCK; i += 8) {
    if ((view.getInt32(i, true) | view.getInt32(i + 4, true)) !== 0) return false
  }
  return true
}

/**
 * True when the block's checksum is right: the sum of its bytes with the checksum field taken as spaces. Old Sun tars summed signed bytes,
 * so that sum is accepted as well (as GNU tar and Go do).
 */
export function checksumMatches(block: Buffer, view: DataView, offset: number): boolean {
  const stored = parseNumber(block, offset + at.checksum[0], at.checksum[1])
  // Four bytes at once, in two lanes of 16 bits: 256 bytes a lane are at most 65,280, so none carries into the other:
  // 200 ns a block in place of 430.
  let lanes = 0
  for (let i = offset; i < offset + BLOCK; i += 4) {
    const word = view.getInt32(i, true)
    lanes = (lanes + (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff)) | 0
  }
  let sum = (lanes & 0xffff) + (lanes >>> 16)
  for (let i = offset + at.checksum[0]; i < offset + at.checksum[0] + at.checksum[1]; i++) sum += 0x20 - block[i]!
  if (stored === sum) return true
  let high = 0
  for (let i = offset; i < offset + BLOCK; i++) if (block[i]! >= 0x80 && (i < offset + 148 || i >= offset + 156)) high++
  return high > 0 && stored === sum - 256 * high
}

/** The typeflag byte as it stands. */
export function typeflagOf(block: Buffer, offset: number): number {
  return block[offset + TYPEFLAG]!
}

export function formatOf(block: Buffer, offset: number): HeaderFormat {
  // "ustar\0" is POSIX (star marks itself at the very end), "ustar  \0" is GNU.
  const m = offset + 257
  if (block[m] !== 0x75 || block[m + 1] !== 0x73 || block[m + 2] !== 0x74 || block[m + 3] !== 0x61 || block[m + 4] !== 0x72) return 'v7'
  if (block[m + 5] === 0) {
    const t = offset + 508
    return block[t] === 0x74 && block[t + 1] === 0x61 && block[t + 2] === 0x72 && block[t + 3] === 0 ? 'star' : 'ustar'
  }
  return block[m + 5] === 0x20 && block[m + 6] === 0x20 && block[m + 7] === 0 ? 'gnu' : 'v7'
}

/** A numeric field as a number or, beyond 2^53, a bigint that is exact; undefined when it is malformed or leaves int64. */
export function parseNumber(block: Buffer, start: number, length: number): number | bigint | undefined {
  const end = start + length
  let i = start
  let byte = block[i]!
  if ((byte & 0x80) !== 0) return parseBase256(block, start, end)
  while (byte === 0x20 || byte === 0) {
    if (++i === end) return 0
    byte = block[i]!
  }
  let value = 0
  while (byte >= 0x30 && byte <= 0x37) {
    value = value * 8 + (byte - 0x30)
    if (++i === end) return value
    byte = block[i]!
  }
  // Spaces, then a NUL or the field's end. What follows a NUL is padding, whatever it holds.
  while (byte === 0x20) {
    if (++i === end) return value
    byte = block[i]!
  }
  return byte === 0 ? value : undefined
}

/** GNU's and star's binary numbers: two's complement, big-endian, below the marking top bit; the next bit is the sign. */
function parseBase256(block: Buffer, start: number, end: number): number | bigint | undefined {
  const negative = (block[start]! & 0x40) !== 0
  let value = BigInt(negative ? block[start]! | ~0x7f : block[start]! & 0x7f)
  for (let i = start + 1; i < end; i++) value = (value << 8n) | BigInt(block[i]!)
  if (value > INT64_MAX || value < -INT64_MAX - 1n) return undefined
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}

function number(block: Buffer, offset: number, field: Field, what: string): number {
  const value = parseNumber(block, offset + field[0], field[1])
  if (typeof value !== 'number') throw invalid(`${what} is not a number that can be used`)
  return value
}

function timeNs(block: Buffer, offset: number, field: Field, what: string): bigint {
  const value = parseNumber(block, offset + field[0], field[1])
  if (value === undefined) throw invalid(`${what} is not a number`)
  return BigInt(value) * NS
}

/** Bytes up to the first NUL, in memory of their own: the block may lie in a buffer that is read into again. */
function bytes(block: Buffer, offset: number, field: Field): Buffer {
  const start = offset + field[0]
  const limit = start + field[1]
  let end = start
  while (end < limit && block[end] !== 0) end++
  return end === start ? EMPTY : Buffer.from(block.subarray(start, end))
}

function text(block: Buffer, offset: number, field: Field): string {
  const start = offset + field[0]
  if (block[start] === 0) return ''
  const limit = start + field[1]
  let end = start
  while (end < limit && block[end] !== 0) end++
  // "root" is what nearly every layer says; comparing it is 80 ns cheaper than decoding it.
  if (end === start + 4 && block[start] === 0x72 && block[start + 1] === 0x6f && block[start + 2] === 0x6f && block[start + 3] === 0x74) return 'root'
  return block.toString('utf8', start, end)
}

/**
 * The size field: how many bytes of body follow the block, before PAX has its say.
 * Throws INVALID_ARCHIVE when it is negative, malformed or beyond 2^53.
 */
export function sizeOf(block: Buffer, offset: number): number {
  const size = number(block, offset, at.size, 'the size')
  if (size < 0) throw invalid('the size is negative')
  return size
}

/** Check an id or a device number: 0 to 2^32 - 1. Throws INVALID_ARCHIVE. */
export function checkUint32(value: number, what: string): number {
  if (!(value >= 0 && value <= 0xffff_ffff)) throw invalid(`${what} ${value} is outside 0..4294967295`)
  return value
}

/**
 * Decode the block at `offset`, whose checksum has been verified and whose typeflag is not one of the meta types (L, K, x, g).
 * Everything in the result owns its memory. `sizeBytes` is the size field for a file, and 0 for everything else; `uid` and `gid` are as the
 * field says and are checked by the parser, as PAX may replace them. Throws INVALID_ARCHIVE.
 */
export function decodeHeader(block: Buffer, offset: number): TarHeader {
  const flag = block[offset + TYPEFLAG]!
  const type = typeByFlag.get(flag)
  if (type === undefined) throw invalid(`unknown type flag ${flag >= 0x21 && flag < 0x7f ? `'${String.fromCharCode(flag)}'` : flag}`)
  const format = formatOf(block, offset)
  const device = type === 'char' || type === 'block'
  const header: TarHeader = {
    name: bytes(block, offset, at.name),
    type,
    mode: numericMode(block, offset),
    uid: number(block, offset, at.uid, 'the uid'),
    gid: number(block, offset, at.gid, 'the gid'),
    // The size of anything but a file is not believed. Go's archive/tar, which containerd and dockerd read with, takes types '1' to '6' as
    // header-only, and so takes the block behind a hard link "of 512 bytes" as the next header, as GNU tar does for links. A parser that
    // skips that block as a body hides an entry that they see (or shows one that they do not): the differential of a smuggled file.
    sizeBytes: type === 'file' ? sizeOf(block, offset) : 0,
    mtimeNs: timeNs(block, offset, at.mtime, 'the mtime'),
    linkname: type === 'link' || type === 'symlink' ? bytes(block, offset, at.linkname) : EMPTY,
    uname: format === 'v7' ? '' : text(block, offset, at.uname),
    gname: format === 'v7' ? '' : text(block, offset, at.gname),
    devMajor: device && format !== 'v7' ? checkUint32(number(block, offset, at.devMajor, 'the device major'), 'device major') : 0,
    devMinor: device && format !== 'v7' ? checkUint32(number(block, offset, at.devMinor, 'the device minor'), 'device minor') : 0,
  }
  if (format === 'ustar') {
    if (block[offset + at.prefix[0]] !== 0) addPrefix(header, bytes(block, offset, at.prefix))
  } else if (format === 'star') {
    addPrefix(header, bytes(block, offset, at.starPrefix))
    header.atimeNs = timeNs(block, offset, at.starAtime, 'the atime')
    header.ctimeNs = timeNs(block, offset, at.starCtime, 'the ctime')
  } else if (format === 'gnu') {
    decodeGnuTimes(header, block, offset)
  }
  return header
}

/** Set-id, sticky and permission bits; some writers put the file type above them. */
function numericMode(block: Buffer, offset: number): number {
  const mode = parseNumber(block, offset + at.mode[0], at.mode[1])
  if (mode === undefined) throw invalid('the mode is not a number')
  return typeof mode === 'number' ? ((mode % 0o10000) + 0o10000) % 0o10000 : Number(BigInt.asUintN(12, mode))
}

function addPrefix(header: TarHeader, prefix: Buffer): void {
  if (prefix.length > 0) header.name = Buffer.concat([prefix, Buffer.from('/'), header.name])
}

/** GNU has times where ustar has the prefix. Go before 1.8 wrote a prefix under GNU's magic: what is no number, but ASCII, is one. */
function decodeGnuTimes(header: TarHeader, block: Buffer, offset: number): void {
  const hasAtime = block[offset + at.gnuAtime[0]] !== 0
  const hasCtime = block[offset + at.gnuCtime[0]] !== 0
  if (!hasAtime && !hasCtime) return
  const atime = hasAtime ? parseNumber(block, offset + at.gnuAtime[0], at.gnuAtime[1]) : 0
  const ctime = hasCtime ? parseNumber(block, offset + at.gnuCtime[0], at.gnuCtime[1]) : 0
  if (atime === undefined || ctime === undefined) {
    const prefix = bytes(block, offset, at.prefix)
    if (prefix.every(byte => byte < 0x80)) addPrefix(header, prefix)
    return
  }
  if (hasAtime) header.atimeNs = BigInt(atime) * NS
  if (hasCtime) header.ctimeNs = BigInt(ctime) * NS
}

/** What `encodeHeader` writes. Whoever calls has decided what goes into PAX records; nothing is cut silently here. */
export interface HeaderFields {
  readonly typeflag: number
  /** At most 100 bytes, after the prefix has been split off. */
  readonly name: Buffer
  /** At most 155 bytes; not with format 'gnu'. */
  readonly prefix?: Buffer
  /** At most 100 bytes. */
  readonly linkname?: Buffer
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly sizeBytes?: number
  /** Whole seconds since 1970. */
  readonly mtimeSeconds?: number
  /** ASCII, at most 32 bytes each. */
  readonly uname?: string
  readonly gname?: string
  readonly devMajor?: number
  readonly devMinor?: number
  /** Default 'ustar'. */
  readonly format?: 'ustar' | 'gnu'
}

/** The typeflag byte of an entry type. */
export function flagOf(type: EntryType): number {
  return flagByType[type]
}

/** True when a non-negative integer fits the octal digits of a field of so many bytes (one is the final NUL). */
export function fitsOctal(value: number, length: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < 8 ** (length - 1)
}

/**
 * Encode one block. Numbers that fit are octal with a final NUL; others are base-256, which GNU tar, Go, libarchive and star all read.
 * Throws RangeError for a string that does not fit its field, or a number that fits neither form: the caller's mistake.
 */
export function encodeHeader(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(BLOCK)
  putBytes(block, at.name, fields.name)
  putNumber(block, at.mode, fields.mode ?? 0)
  putNumber(block, at.uid, fields.uid ?? 0)
  putNumber(block, at.gid, fields.gid ?? 0)
  putNumber(block, at.size, fields.sizeBytes ?? 0)
  putNumber(block, at.mtime, fields.mtimeSeconds ?? 0)
  block[TYPEFLAG] = fields.typeflag
  if (fields.linkname !== undefined) putBytes(block, at.linkname, fields.linkname)
  block.write(fields.format === 'gnu' ? 'ustar  \0' : 'ustar\x0000', 257, 'latin1')
  if (fields.uname) putBytes(block, at.uname, Buffer.from(fields.uname))
  if (fields.gname) putBytes(block, at.gname, Buffer.from(fields.gname))
  putNumber(block, at.devMajor, fields.devMajor ?? 0)
  putNumber(block, at.devMinor, fields.devMinor ?? 0)
  if (fields.prefix !== undefined) putBytes(block, at.prefix, fields.prefix)
  let sum = 8 * 0x20
  for (let i = 0; i < BLOCK; i++) sum += block[i]!
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, at.checksum[0], 'latin1')
  return block
}

function putBytes(block: Buffer, field: Field, value: Buffer): void {
  if (value.length > field[1]) throw new RangeError(`a tar header field of ${field[1]} bytes cannot hold ${value.length}`)
  value.copy(block, field[0])
}

function putNumber(block: Buffer, [offset, length]: Field, value: number): void {
  if (fitsOctal(value, length)) {
    block.write(value.toString(8).padStart(length - 1, '0'), offset, 'latin1')
    return
  }
  if (!Number.isSafeInteger(value)) throw new RangeError(`a tar header cannot hold the number ${value}`)
  let rest = BigInt(value)
  if (BigInt.asIntN(length * 8 - 1, rest) !== rest) throw new RangeError(`a tar header field of ${length} bytes cannot hold ${value}`)
  for (let i = offset + length - 1; i >= offset; i--) {
    block[i] = Number(rest & 0xffn)
    rest >>= 8n
  }
  block[offset]! |= 0x80
}
