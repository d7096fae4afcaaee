// An image archive as files that can be asked for by name, whatever it came as: a tar in a file (used in place), a stream or a compressed tar
// (spooled first), or a directory. Owns the descriptors; decides nothing about what the files mean.

import fs from 'node:fs'
import path from 'node:path'
import { createHash, randomBytes } from 'node:crypto'
import type { FileRange } from '../diff/index.ts'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { readDescriptor } from '../fs/read-descriptor.ts'
import { hexOf } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { ownState } from '../layers/data-root.ts'
import type { DataRoot, Operation } from '../layers/types.ts'
import { decompress, detectCompression, MAGIC_BYTES, ratioLimit } from '../tar/compression.ts'
import { exceeded } from '../tar/parser.ts'
import type { ArchiveLimits } from '../tar/types.ts'
import { indexTar, readFully } from './tar-index.ts'
import type { TarIndex } from './tar-index.ts'

/** Where an archive comes from: a path, an open descriptor (not closed), or a stream. */
export type ArchiveSource = string | number | AsyncIterable<Uint8Array>

export interface Archive {
  /** What messages call it. */
  readonly name: string
  /** True for a directory, whose names are all ours. */
  readonly isDirectory: boolean
  /** The content of a regular file. The descriptor belongs to the archive. Undefined when there is none. @throws INVALID_ARCHIVE */
  find(name: string): FileRange | undefined
  /** All bytes of the archive itself, uncompressed; absent for a directory. */
  whole?(): FileRange
  /** Close what `find` opened; ranges that it gave are no longer valid. (An archive in one file keeps its descriptor until `close`.) */
  closeFiles(): void
  close(): void
}

/** Read a small file whole. @throws INVALID_ARCHIVE, LIMIT_EXCEEDED */
export function readSmall(archive: Archive, name: string, limits: ArchiveLimits): Buffer | undefined {
  const range = archive.find(name)
  if (range === undefined) return undefined
  const most = limits.jsonBytes ?? 8 * 1024 * 1024
  if (range.length > most) throw exceeded('jsonBytes', `${name} in ${archive.name} has ${range.length} bytes, and ${most} are allowed`)
  const bytes = Buffer.alloc(range.length)
  readFully(range.fd, bytes, range.offset)
  return bytes
}

/** The path of a blob in an OCI layout. */
export function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`
}

/** A blob's bytes, verified. @throws INVALID_ARCHIVE when it is missing or has another size, DIGEST_MISMATCH */
export function readBlob(archive: Archive, digest: Digest, sizeBytes: number, limits: ArchiveLimits): Buffer {
  const bytes = readSmall(archive, blobPath(digest), limits)
  if (bytes === undefined) throw new StorageError('INVALID_ARCHIVE', `blob ${digest} is missing in ${archive.name}`, { key: digest })
  checkBlobSize(digest, bytes.length, sizeBytes)
  const actual = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  if (actual !== digest) throw new StorageError('DIGEST_MISMATCH', `invalid blob: expected ${digest}, got ${actual}`, { key: digest })
  return bytes
}

export function checkBlobSize(digest: Digest, actual: number, expected: number): void {
  if (actual !== expected) {
    throw new StorageError('INVALID_ARCHIVE', `blob ${digest} has ${actual} bytes, and its descriptor says ${expected}`, { key: digest })
  }
}

class TarArchive implements Archive {
  readonly isDirectory = false
  readonly name: string
  readonly #fd: number
  readonly #sizeBytes: number
  readonly #index: TarIndex
  readonly #owned: boolean

  constructor(name: string, fd: number, sizeBytes: number, index: TarIndex, owned: boolean) {
    this.name = name
    this.#fd = fd
    this.#sizeBytes = sizeBytes
    this.#index = index
    this.#owned = owned
  }

  find(name: string): FileRange | undefined {
    const place = this.#index.find(name)
    return place === undefined ? undefined : { fd: this.#fd, ...place }
  }

  whole(): FileRange {
    return { fd: this.#fd, offset: 0, length: this.#sizeBytes }
  }

  closeFiles(): void { /* one descriptor serves all files */ }

  close(): void {
    if (this.#owned) fs.closeSync(this.#fd)
  }
}

class DirectoryArchive implements Archive {
  readonly isDirectory = true
  readonly name: string
  readonly #open = new Map<string, FileRange>()

  constructor(dir: string) {
    this.name = dir
  }

  find(name: string): FileRange | undefined {
    const known = this.#open.get(name)
    if (known !== undefined) return known
    const parts = name.split('/')
    if (parts.some(part => part === '' || part === '.' || part === '..' || part.includes('\0'))) return undefined
    try {
      // No link is followed: a layout must not be able to make us read, and put into a layer, a file from elsewhere.
      for (let i = 1; i < parts.length; i++) {
        const dir = path.join(this.name, ...parts.slice(0, i))
        if (!fs.lstatSync(dir).isDirectory()) throw notPlain(dir)
      }
      const file = path.join(this.name, ...parts)
      // O_NONBLOCK: a fifo must not hold us up before we see that it is one.
      const fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK)
      const stat = fs.fstatSync(fd)
      if (!stat.isFile()) {
        fs.closeSync(fd)
        throw notPlain(file)
      }
      const range = { fd, offset: 0, length: stat.size }
      this.#open.set(name, range)
      return range
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined
      if (isErrno(error, 'ELOOP', 'ENXIO', 'EISDIR')) throw notPlain(path.join(this.name, ...parts))
      throw asStorageError(error, `reading ${name} of the layout ${this.name}`)
    }
  }

  closeFiles(): void {
    for (const { fd } of this.#open.values()) fs.closeSync(fd)
    this.#open.clear()
  }

  close(): void { this.closeFiles() }
}

function notPlain(file: string): StorageError {
  return new StorageError('INVALID_ARCHIVE', `${file} is not a regular file`, { path: file, hint: 'links and special files are not followed in an image layout' })
}

export interface OpenArchiveOptions {
  /** Names a new file for what cannot be read in place; whoever names it removes it. */
  readonly spoolTo: () => Promise<string>
  readonly limits: ArchiveLimits
  readonly signal?: AbortSignal | undefined
  /** Bytes spooled so far. */
  readonly onSpool?: (bytes: number) => void
}

/**
 * Open an archive. An uncompressed tar in a regular file (also `/dev/stdin` or a descriptor that is one) is used in place, without a copy;
 * everything else that is not a directory is written, decompressed, to the file that `spoolTo` names.
 * @throws NOT_FOUND, INVALID_ARCHIVE, LIMIT_EXCEEDED, …
 */
export async function openArchive(source: ArchiveSource, options: OpenArchiveOptions): Promise<Archive> {
  if (typeof source !== 'string' && typeof source !== 'number') return await spooled('the archive', source, options)
  const opened = typeof source === 'number' ? { fd: source, owned: false } : openPath(source)
  const name = typeof source === 'number' ? `descriptor ${source}` : source
  let keep = false
  try {
    const stat = fs.fstatSync(opened.fd)
    if (stat.isDirectory() && typeof source === 'string') return new DirectoryArchive(source)
    if (stat.isFile()) {
      const head = Buffer.alloc(Math.min(MAGIC_BYTES, stat.size))
      readFully(opened.fd, head, 0)
      if (detectCompression(head) === 'none') {
        const index = await indexTar(opened.fd, stat.size, options.limits, options.signal)
        keep = true
        return new TarArchive(name, opened.fd, stat.size, index, opened.owned)
      }
    }
    return await spooled(name, readDescriptor(opened.fd, stat.isFile() ? { offset: 0, length: stat.size } : undefined), options)
  } finally {
    if (opened.owned && !keep) fs.closeSync(opened.fd)
  }
}

function openPath(file: string): { fd: number; owned: boolean } {
  try {
    return { fd: fs.openSync(file, fs.constants.O_RDONLY), owned: true }
  } catch (error) {
    // A socket cannot be opened anew through /dev/stdin, but the descriptor itself is there.
    if (file === '/dev/stdin' && isErrno(error, 'ENXIO')) return { fd: 0, owned: false }
    throw asStorageError(error, `opening the archive ${file}`, { path: file })
  }
}

async function spooled(name: string, source: AsyncIterable<Uint8Array>, { spoolTo, signal, limits, onSpool }: OpenArchiveOptions): Promise<Archive> {
  const file = await spoolTo()
  const fd = fs.openSync(file, 'wx+', 0o600)
  try {
    let sizeBytes = 0
    for await (const chunk of decompress(source, { ...ratioLimit(limits.expansionRatio), ...(limits.spoolBytes === undefined ? {} : { maxBytes: limits.spoolBytes }) })) {
      if (signal?.aborted) throw new StorageError('ABORTED', `reading ${name}: aborted`)
      await writeAll(fd, chunk)
      sizeBytes += chunk.length
      onSpool?.(sizeBytes)
    }
    return new TarArchive(name, fd, sizeBytes, await indexTar(fd, sizeBytes, limits, signal), true)
  } catch (error) {
    fs.closeSync(fd)
    throw asStorageError(error, `spooling ${name}`)
  }
}

/** A new name in `layerstack/tmp`, removed when the operation ends. */
export async function temporaryFile(root: DataRoot, operation: Operation, what: string): Promise<string> {
  const file = path.join(ownState.tmp(root), `${what}-${randomBytes(8).toString('hex')}`)
  await operation.temporary(file)
  return file
}

/** Write at the descriptor's position, or at one of the file, off the main thread. */
export async function writeAll(fd: number, bytes: Uint8Array, offset?: number): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += await new Promise<number>((resolve, reject) => {
      fs.write(fd, bytes, at, bytes.length - at, offset === undefined ? null : offset + at, (error, written) => error ? reject(error) : resolve(written))
    })
  }
}
