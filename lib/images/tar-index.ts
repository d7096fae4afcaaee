// The index of an archive that is an open, seekable file: where each entry's content lies. Reads headers by position and nothing else, so a
// 10 GB archive costs a few system calls per entry. Never extracts, never follows a link on disk.

import fs from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { StorageError } from '../errors.ts'
import { BLOCK, checksumMatches, decodeHeader, isZeroBlock, sizeOf, typeflagOf } from '../tar/header.ts'
import { cleanName } from '../tar/names.ts'
import { exceeded } from '../tar/parser.ts'
import { applyPax, parsePax } from '../tar/pax.ts'
import type { PaxRecords } from '../tar/pax.ts'
import { paxSparseVersion } from '../tar/sparse.ts'
import type { EntryType } from '../tar/types.ts'

export interface IndexLimits {
  /** Entries of the outer archive. Default 1,000,000. */
  readonly entries?: number
  /** Bytes of one PAX header or long name. Default 1 MiB. */
  readonly extendedHeaderBytes?: number
  /** Bytes of all names together. Default 128 MiB. */
  readonly indexBytes?: number
}

interface Entry {
  readonly type: EntryType
  readonly offset: number
  readonly length: number
  readonly link: string
  /** Stored with a map of its holes: its bytes are not its content. */
  readonly sparse: boolean
}

/** As many as Linux follows in one path. */
const mostLinks = 40
const LONG_NAME = 0x4c, LONG_LINK = 0x4b, PAX = 0x78, PAX_GLOBAL = 0x67, OLD_SPARSE = 0x53

/** Names are bytes, kept as latin1 so that every name has one key. */
export class TarIndex {
  readonly #entries: ReadonlyMap<string, Entry>

  constructor(entries: ReadonlyMap<string, Entry>) {
    this.#entries = entries
  }

  get size(): number { return this.#entries.size }

  /**
   * The place of a file's content, links inside the archive followed (`docker save` before 25 writes a repeated layer as `../<id>/layer.tar`).
   * Undefined when there is no such file. @throws INVALID_ARCHIVE
   */
  find(name: string): { readonly offset: number; readonly length: number } | undefined {
    const entry = this.#resolve(keyOf(Buffer.from(name)), { left: mostLinks })
    if (entry === undefined) return undefined
    if (entry.sparse) {
      throw new StorageError('INVALID_ARCHIVE', `${JSON.stringify(name)} is stored as a sparse file`,
        { hint: 'write the archive without sparse files (tar without -S)' })
    }
    return entry.type === 'file' ? { offset: entry.offset, length: entry.length } : undefined
  }

  #resolve(key: string, budget: { left: number }): Entry | undefined {
    let at = ''
    const parts = key.split('/')
    for (const [i, part] of parts.entries()) {
      const here = at === '' ? part : `${at}/${part}`
      const entry = this.#entries.get(here)
      if (entry?.type === 'symlink' || entry?.type === 'link') {
        if (budget.left-- <= 0) throw new StorageError('INVALID_ARCHIVE', `too many levels of symbolic links at ${JSON.stringify(key)} in the archive`)
        const absolute = entry.type === 'link' || entry.link.startsWith('/')
        const target = keyOf(Buffer.from(absolute ? entry.link : `${at}/${entry.link}`, 'latin1'))
        return this.#resolve([target, ...parts.slice(i + 1)].join('/'), budget)
      }
      if (i === parts.length - 1) return entry
      at = here
    }
    return undefined
  }
}

function keyOf(name: Buffer): string {
  return cleanName(name).toString('latin1')
}

function invalid(what: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', what, { hint: 'the archive is damaged, truncated, or not a tar archive' })
}

/** Index the tar in `fd`, which has `sizeBytes` bytes. @throws INVALID_ARCHIVE, LIMIT_EXCEEDED, ABORTED */
export async function indexTar(fd: number, sizeBytes: number, limits: IndexLimits = {}, signal?: AbortSignal): Promise<TarIndex> {
  const { entries: mostEntries = 1_000_000, extendedHeaderBytes = 1024 * 1024, indexBytes = 128 * 1024 * 1024 } = limits
  const entries = new Map<string, Entry>()
  const block = Buffer.alloc(BLOCK), view = new DataView(block.buffer, block.byteOffset, BLOCK)
  let at = 0, count = 0, nameBytes = 0
  let longName: Buffer | undefined, longLink: Buffer | undefined, records: PaxRecords | undefined
  let blocks = 0
  while (at < sizeBytes) {
    // Headers are read synchronously (about 3 µs each); other work gets its turn between.
    if (++blocks % 512 === 0) {
      await nextTurn()
      if (signal?.aborted) throw new StorageError('ABORTED', 'reading the archive: aborted')
    }
    readFully(fd, block, at)
    at += BLOCK
    if (isZeroBlock(view, 0)) break
    if (!checksumMatches(block, view, 0)) throw invalid('invalid tar header: the checksum is wrong')
    const flag = typeflagOf(block, 0)
    if (flag === LONG_NAME || flag === LONG_LINK || flag === PAX || flag === PAX_GLOBAL) {
      const length = sizeOf(block, 0)
      if (length > extendedHeaderBytes) {
        throw exceeded('extendedHeaderBytes', `an extended header of ${length} bytes is larger than ${extendedHeaderBytes} bytes`)
      }
      const body = Buffer.alloc(length)
      readFully(fd, body, at)
      at += padded(length)
      if (flag === PAX) records = parsePax(body)
      else if (flag === LONG_NAME) longName = untilNul(body)
      else if (flag === LONG_LINK) longLink = untilNul(body)
      continue
    }
    const header = decodeHeader(block, 0)
    if (records !== undefined) applyPax(header, records)
    // The precedence of GNU's long names over PAX is Go's, as in lib/tar/parser.ts.
    if (longName !== undefined && longName.length > 0) header.name = longName
    if (longLink !== undefined && longLink.length > 0) header.linkname = longLink
    // Old GNU sparse maps go on in blocks of their own: a byte says whether another one follows (GNU tar manual, Sparse Formats).
    for (let more = flag === OLD_SPARSE && block[482] !== 0; more; more = block[504] !== 0) {
      readFully(fd, block, at)
      at += BLOCK
    }
    // Only where the records are of a sparse format that the parser knows as well: a name that one of them believes and the other does not would hide a file.
    const paxSparse = records !== undefined && paxSparseVersion(records) !== undefined
    const sparse = flag === OLD_SPARSE || paxSparse
    const sparseName = paxSparse && flag !== OLD_SPARSE ? records?.get('GNU.sparse.name') : undefined
    if (sparseName !== undefined && sparseName.length > 0) header.name = sparseName
    longName = longLink = records = undefined
    if (++count > mostEntries) throw exceeded('entries', `the archive has more than ${mostEntries} entries`)
    nameBytes += header.name.length + header.linkname.length
    if (nameBytes > indexBytes) throw exceeded('indexBytes', `the names in the archive have more than ${indexBytes} bytes`)
    const isFile = header.type === 'file' && !(flag === 0 && header.name.at(-1) === 0x2f)
    const length = isFile ? header.sizeBytes : 0
    const missing = length - (sizeBytes - at)
    if (missing > 0) throw invalid(`unexpected end of archive: ${missing} bytes of ${JSON.stringify(header.name.toString())} are missing`)
    // A later entry of a name replaces the earlier one, as extracting it would.
    const type = isFile ? 'file' : header.type === 'file' ? 'directory' : header.type
    entries.set(keyOf(header.name), { type, offset: at, length, link: header.linkname.toString('latin1'), sparse })
    at += padded(length)
  }
  if (longName !== undefined || longLink !== undefined || records !== undefined) throw invalid('unexpected end of archive: an extended header has no entry')
  return new TarIndex(entries)
}

function padded(length: number): number {
  return Math.ceil(length / BLOCK) * BLOCK
}

function untilNul(body: Buffer): Buffer {
  const nul = body.indexOf(0)
  return nul < 0 ? body : body.subarray(0, nul)
}

/** Fill the buffer from this position. @throws INVALID_ARCHIVE at the end of the file */
export function readFully(fd: number, buffer: Buffer, position: number): void {
  for (let got = 0; got < buffer.length;) {
    const n = fs.readSync(fd, buffer, got, buffer.length - got, position + got)
    if (n === 0) throw invalid('unexpected end of archive: a block is cut short')
    got += n
  }
}
