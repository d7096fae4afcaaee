// PAX extended headers: records of "length key=value\n" with binary values, laid over a decoded header, and the reverse.
// Owns what each key means; values are bytes and are decoded only where a number or a user name is wanted.

import { StorageError } from '../errors.ts'
import { checkUint32 } from './header.ts'
import type { TarHeader } from './types.ts'

const NS = 1_000_000_000n
const SCHILY_XATTR = 'SCHILY.xattr.'
const LIBARCHIVE_XATTR = 'LIBARCHIVE.xattr.'
/** Go's map of sparse format 0.1; the pairs of 0.0 are turned into it. */
export const SPARSE_MAP = 'GNU.sparse.map'

/** Records by key, in the order of their (last) appearance. Keys are UTF-8 in PAX; values are bytes. */
export type PaxRecords = Map<string, Buffer>

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', `invalid tar header: ${what}`, { hint: 'the archive is damaged, or its writer does not follow PAX' })
}

/**
 * Parse the body of an extended header (type x or g). A later record replaces an earlier one of the same key. The offset and numbytes records
 * of GNU sparse format 0.0, the only ones that repeat, are joined into `GNU.sparse.map` as format 0.1 has it.
 * Values are views of `body`. Throws INVALID_ARCHIVE for a malformed record, a NUL in a key, or in the value of path, linkpath, uname or gname.
 */
export function parsePax(body: Buffer): PaxRecords {
  const records: PaxRecords = new Map()
  const pairs: Buffer[] = []
  let start = 0
  while (start < body.length) {
    let length = 0
    let i = start
    // Nine digits are beyond any limit on extended headers, and keep the sum exact.
    for (; i < body.length && i - start < 9; i++) {
      const digit = body[i]! - 0x30
      if (digit < 0 || digit > 9) break
      length = length * 10 + digit
    }
    const end = start + length
    if (i === start || body[i] !== 0x20 || length < 5 || end > body.length || body[end - 1] !== 0x0a) {
      throw invalid('malformed PAX record')
    }
    const equals = body.indexOf(0x3d, i + 1)
    if (equals < 0 || equals >= end) throw invalid('PAX record without "="')
    const key = body.toString('utf8', i + 1, equals)
    const value = body.subarray(equals + 1, end - 1)
    if (key.includes('\0')) throw invalid('NUL in the key of a PAX record')
    if ((key === 'path' || key === 'linkpath' || key === 'uname' || key === 'gname') && value.includes(0)) throw invalid(`NUL in PAX ${key}`)
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      if ((pairs.length % 2 === 0) !== (key === 'GNU.sparse.offset') || value.includes(0x2c)) throw invalid('sparse records out of order')
      pairs.push(value)
    } else {
      records.delete(key)
      records.set(key, value)
    }
    start = end
  }
  if (pairs.length > 0) records.set(SPARSE_MAP, Buffer.from(pairs.map(pair => pair.toString('latin1')).join(','), 'latin1'))
  return records
}

/**
 * Lay the records over a header. An empty value deletes the record, so that the header's own field stands. GNU.sparse.* is left to sparse.ts.
 * The result's bytes are views of the records' buffer. Throws INVALID_ARCHIVE.
 */
export function applyPax(header: TarHeader, records: PaxRecords): void {
  let xattrs: Map<string, Buffer> | undefined
  let archived: Map<string, Buffer> | undefined
  for (const [key, value] of records) {
    // An attribute may well be empty; other keys are deleted by an empty value.
    if (value.length === 0 && !key.startsWith(SCHILY_XATTR) && !key.startsWith(LIBARCHIVE_XATTR)) continue
    switch (key) {
      case 'path': header.name = value; break
      case 'linkpath': if (header.type === 'link' || header.type === 'symlink') header.linkname = value; break
      case 'size': {
        const size = integer(value, key)
        if (header.type === 'file') header.sizeBytes = size
        break
      }
      case 'uid': header.uid = checkUint32(integer(value, key), 'uid'); break
      case 'gid': header.gid = checkUint32(integer(value, key), 'gid'); break
      case 'uname': header.uname = value.toString('utf8'); break
      case 'gname': header.gname = value.toString('utf8'); break
      case 'mtime': header.mtimeNs = parsePaxTime(value); break
      case 'atime': header.atimeNs = parsePaxTime(value); break
      case 'ctime': header.ctimeNs = parsePaxTime(value); break
      default:
        if (key.startsWith(SCHILY_XATTR)) (xattrs ??= new Map()).set(key.slice(SCHILY_XATTR.length), value)
        else if (key.startsWith(LIBARCHIVE_XATTR)) (archived ??= new Map()).set(decodeUrl(key.slice(LIBARCHIVE_XATTR.length)), decodeBase64(value))
    }
  }
  if (archived !== undefined) {
    // libarchive writes each attribute in both forms; SCHILY's is the value itself.
    for (const [key, value] of xattrs ?? []) archived.set(key, value)
    xattrs = archived
  }
  if (xattrs !== undefined) header.xattrs = xattrs
}

function integer(value: Buffer, key: string): number {
  const text = value.toString('latin1')
  const number = Number(text)
  if (!/^\+?[0-9]{1,19}$/.test(text) || !Number.isSafeInteger(number)) throw invalid(`PAX ${key} is not a number that can be used`)
  return number
}

/** Seconds since 1970 with any number of decimals; finer than nanoseconds is cut, as Go does. Throws INVALID_ARCHIVE. */
export function parsePaxTime(value: Buffer): bigint {
  const match = /^([+-]?)([0-9]{1,19})(?:\.([0-9]*))?$/.exec(value.toString('latin1'))
  if (match === null) throw invalid('PAX time is not a number')
  const ns = BigInt(match[2]!) * NS + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  return match[1] === '-' ? -ns : ns
}

/** The shortest decimal form: "-0.5", "2208988800.123456789", "7". */
export function formatPaxTime(ns: bigint): string {
  const size = ns < 0n ? -ns : ns
  const fraction = (size % NS).toString().padStart(9, '0').replace(/0+$/, '')
  return `${ns < 0n ? '-' : ''}${size / NS}${fraction === '' ? '' : `.${fraction}`}`
}

/** The key of an extended attribute's record, and its value: SCHILY's form, or libarchive's where the name holds a "=", which would end the key. */
export function xattrRecord(name: string, value: Buffer): [key: string, value: Buffer] {
  if (name === '' || name.includes('\0')) throw new StorageError('INVALID_ARGUMENT', `cannot write an extended attribute named ${JSON.stringify(name)}`)
  if (!name.includes('=')) return [SCHILY_XATTR + name, value]
  const escaped = name.replace(/[%=]/g, character => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
  return [LIBARCHIVE_XATTR + escaped, Buffer.from(value.toString('base64').replace(/=+$/, ''), 'latin1')]
}

function decodeUrl(text: string): string {
  const bytes = Buffer.from(text)
  const out = Buffer.allocUnsafe(bytes.length)
  let size = 0
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes[i] === 0x25 ? Number.parseInt(bytes.toString('latin1', i + 1, i + 3), 16) : Number.NaN
    if (Number.isNaN(code)) out[size++] = bytes[i]!
    else {
      out[size++] = code
      i += 2
    }
  }
  return out.toString('utf8', 0, size)
}

function decodeBase64(value: Buffer): Buffer {
  const text = value.toString('latin1')
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw invalid('LIBARCHIVE.xattr value is not base64')
  return Buffer.from(text, 'base64')
}

/** Encode records, sorted by key as Go's writer does, so that equal records give equal bytes. */
export function encodePax(records: PaxRecords): Buffer {
  const parts: Buffer[] = []
  for (const key of [...records.keys()].sort(compareBytes)) {
    const value = records.get(key)!
    const keyBytes = Buffer.from(key)
    // The length counts its own digits.
    const rest = keyBytes.length + value.length + 3
    let length = rest + String(rest).length
    if (rest + String(length).length !== length) length = rest + String(length).length
    parts.push(Buffer.from(`${length} `), keyBytes, Buffer.from('='), value, Buffer.from('\n'))
  }
  return Buffer.concat(parts)
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
