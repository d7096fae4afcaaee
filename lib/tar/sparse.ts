// Sparse maps: where the stored bytes of a file with holes belong. GNU's old type S, and PAX formats 0.0, 0.1 and 1.0; writes 1.0.
// Owns the maps' syntax and their validation, never the bytes of a file.

import { StorageError } from '../errors.ts'
import { BLOCK, parseNumber } from './header.ts'
import { SPARSE_MAP, type PaxRecords } from './pax.ts'
import type { SparseRegion } from './types.ts'

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', `invalid tar header: ${what}`, { hint: 'the archive is damaged' })
}

/**
 * Check a map as Go's archive/tar does: offsets and lengths not negative, ascending, not overlapping, inside the file; and that it accounts for
 * exactly the bytes that the archive stores. Returns it without its empty regions (GNU tar ends a map with one to tell the size).
 * Throws INVALID_ARCHIVE.
 */
export function checkSparse(map: readonly SparseRegion[], sizeBytes: number, storedBytes: number): SparseRegion[] {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw invalid('the size of a sparse file is not a number that can be used')
  let end = 0
  let stored = 0
  for (const { offset, length } of map) {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) throw invalid('a sparse region is negative or too large')
    if (offset < end) throw invalid('sparse regions overlap or are out of order')
    // Both are at most 2^53, so the difference is exact where a sum might not be.
    if (length > sizeBytes - offset) throw invalid('a sparse region lies beyond the end of its file')
    end = offset + length
    stored += length
  }
  if (stored !== storedBytes) throw invalid(`a sparse map accounts for ${stored} bytes of ${storedBytes}`)
  return map.filter(region => region.length > 0)
}

/** What `readOldSparse` found in one block. */
export interface OldSparsePart {
  readonly regions: SparseRegion[]
  /** Another block of 21 regions follows. */
  readonly more: boolean
}

/** The full size of a type S file, from its main header. Throws INVALID_ARCHIVE. */
export function oldSparseSize(block: Buffer, offset: number): number {
  const size = parseNumber(block, offset + 483, 12)
  if (typeof size !== 'number' || size < 0) throw invalid('the size of a sparse file is not a number that can be used')
  return size
}

/** The four regions of a type S main header (at 386), or the 21 of an extension block (at 0). Throws INVALID_ARCHIVE. */
export function readOldSparse(block: Buffer, offset: number, extension: boolean): OldSparsePart {
  const first = offset + (extension ? 0 : 386)
  const count = extension ? 21 : 4
  const regions: SparseRegion[] = []
  for (let i = 0; i < count; i++) {
    const start = first + i * 24
    // GNU tar and libarchive stop at an empty offset as well.
    if (block[start] === 0) break
    const regionOffset = parseNumber(block, start, 12)
    const length = parseNumber(block, start + 12, 12)
    if (typeof regionOffset !== 'number' || typeof length !== 'number') throw invalid('a sparse region is not a number that can be used')
    regions.push({ offset: regionOffset, length })
  }
  return { regions, more: block[first + count * 24] !== 0 }
}

/** Which PAX sparse format the records announce, by Go's rules; undefined for none, or a version that nobody knows (then it is a plain file). */
export function paxSparseVersion(records: PaxRecords): '0.x' | '1.0' | undefined {
  const major = textOf(records, 'GNU.sparse.major')
  const minor = textOf(records, 'GNU.sparse.minor')
  if (major === '0' && (minor === '0' || minor === '1')) return '0.x'
  if (major === '1' && minor === '0') return '1.0'
  if (major !== '' || minor !== '') return undefined
  return textOf(records, SPARSE_MAP) !== '' ? '0.x' : undefined
}

/** The full size that the records give the sparse file, or undefined. Throws INVALID_ARCHIVE. */
export function paxSparseSize(records: PaxRecords): number | undefined {
  const text = textOf(records, 'GNU.sparse.size') || textOf(records, 'GNU.sparse.realsize')
  return text === '' ? undefined : decimal(text)
}

/** The map of format 0.0 or 0.1, which lies in the records. Throws INVALID_ARCHIVE. */
export function readPaxSparse0(records: PaxRecords): SparseRegion[] {
  const map = textOf(records, SPARSE_MAP)
  const numbers = map === '' ? [] : map.split(',').map(decimal)
  if (numbers.length !== 2 * decimal(textOf(records, 'GNU.sparse.numblocks'))) throw invalid('a sparse map has not the number of regions that it says')
  return pairs(numbers)
}

function textOf(records: PaxRecords, key: string): string {
  return records.get(key)?.toString('latin1') ?? ''
}

function decimal(text: string): number {
  const number = Number(text)
  if (!/^[0-9]{1,16}$/.test(text) || !Number.isSafeInteger(number)) throw invalid('a sparse map holds what is not a number that can be used')
  return number
}

function pairs(numbers: readonly number[]): SparseRegion[] {
  const regions: SparseRegion[] = []
  for (let i = 0; i + 1 < numbers.length; i += 2) regions.push({ offset: numbers[i]!, length: numbers[i + 1]! })
  return regions
}

/** The map of format 1.0, which is the first whole blocks of the file's stored bytes: decimal lines, the count first. Fed block by block. */
export class SparseMapReader {
  #numbers: number[] = []
  #digits = ''

  /** True when the map is complete with this block; what is left of the block is padding. Throws INVALID_ARCHIVE. */
  block(bytes: Buffer, offset: number): boolean {
    for (let i = offset; i < offset + BLOCK; i++) {
      const byte = bytes[i]!
      if (byte === 0x0a) {
        this.#numbers.push(decimal(this.#digits))
        this.#digits = ''
        if (this.#numbers.length === 1 + 2 * this.#numbers[0]!) return true
      } else {
        this.#digits += String.fromCharCode(byte)
        if (this.#digits.length > 16) throw invalid('a sparse map holds what is not a number that can be used')
      }
    }
    return false
  }

  regions(): SparseRegion[] {
    return pairs(this.#numbers.slice(1))
  }
}

/** Encode a map as format 1.0 has it, padded to whole blocks. A file that ends in a hole gets an empty region at its end, as GNU tar wants it. */
export function encodeSparseMap(map: readonly SparseRegion[], sizeBytes: number): Buffer {
  const last = map.at(-1)
  const regions = last !== undefined && last.offset + last.length === sizeBytes ? map : [...map, { offset: sizeBytes, length: 0 }]
  const text = Buffer.from(`${regions.length}\n${regions.map(region => `${region.offset}\n${region.length}\n`).join('')}`, 'latin1')
  return Buffer.concat([text, Buffer.alloc((BLOCK - text.length % BLOCK) % BLOCK)])
}

/**
 * The regions grown to whole blocks and merged: GNU tar reads the stored bytes of each region from a block of its own, so a region that ends
 * elsewhere than at the end of the file would shift all that follows.
 */
export function alignSparse(map: readonly SparseRegion[], sizeBytes: number): SparseRegion[] {
  const aligned: SparseRegion[] = []
  for (const { offset, length } of map) {
    if (length === 0) continue
    const start = offset - offset % BLOCK
    const end = Math.min(sizeBytes, offset + length + (BLOCK - (offset + length) % BLOCK) % BLOCK)
    const before = aligned.at(-1)
    if (before !== undefined && before.offset + before.length >= start) {
      aligned[aligned.length - 1] = { offset: before.offset, length: end - before.offset }
    } else aligned.push({ offset: start, length: end - start })
  }
  return aligned
}
