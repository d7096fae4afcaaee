// A layer's tar as a stream of entries: names cleaned, whiteouts and opaque marks told apart, contents digested where asked for. Holds one chunk's
// entries at a time; knows neither stores nor trees.

import { StorageError } from '../errors.ts'
import { baseOf, childPath, parentOf } from '../fs/rooted.ts'
import { inPlinkDirectory, parseMark, plinkDirectory } from '../diff/whiteouts.ts'
import { cleanName } from '../tar/names.ts'
import { TarParser } from '../tar/parser.ts'
import type { TarHeader, TarLimits, TarSink } from '../tar/types.ts'
import { ContentDigest } from './digest.ts'
import type { EntriesOptions, LayerEntry } from './types.ts'

/** Is this aufs' bookkeeping: its marks for itself, and the bodies of its hard links? */
function isMeta(path: Buffer, kind: string | undefined): boolean {
  return kind === 'meta' || inPlinkDirectory(path) || path.equals(plinkDirectory)
}

/** What a header says, as an entry; undefined for aufs' bookkeeping. @throws INVALID_ARCHIVE for a whiteout of nothing */
export function entryOf(header: TarHeader): Mutable<LayerEntry> | undefined {
  const path = cleanName(header.name)
  if (path.length > longestPath) throw new StorageError('LIMIT_EXCEEDED', `a name of ${path.length} bytes is longer than Linux takes (${longestPath})`)
  const mark = parseMark(baseOf(path))
  if (isMeta(path, mark?.kind)) return undefined
  const parent = parentOf(path)
  const target = mark?.kind === 'whiteout' ? (parent.length === 0 ? mark.of : childPath(parent, mark.of)) : mark?.kind === 'opaque' ? parent : path
  // Built in one go and added to after that: with spreads an entry took twice the memory.
  const entry: Mutable<LayerEntry> = {
    // The parser's buffers are views of its chunks.
    path: Buffer.from(target), type: header.type, mode: header.mode, uid: header.uid, gid: header.gid, uname: header.uname, gname: header.gname,
    sizeBytes: header.type === 'file' ? header.sizeBytes : 0, mtimeNs: header.mtimeNs,
    linkname: header.type === 'link' ? Buffer.from(cleanName(header.linkname)) : header.type === 'symlink' ? Buffer.from(header.linkname) : empty,
    devMajor: header.devMajor, devMinor: header.devMinor,
  }
  if (mark?.kind === 'whiteout' || mark?.kind === 'opaque') entry.mark = mark.kind
  if (header.xattrs !== undefined && header.xattrs.size > 0) entry.xattrs = header.xattrs
  return entry
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] }
const empty = Buffer.alloc(0)
/** PATH_MAX: what is longer no layer can be extracted with, and trees stay shallow enough to be walked by recursion. */
const longestPath = 4096

class EntrySink implements TarSink {
  readonly ready: LayerEntry[] = []
  readonly #digests: boolean
  #entry: Mutable<LayerEntry> | undefined
  #digest: ContentDigest | undefined

  constructor(digests: boolean) {
    this.#digests = digests
  }

  entry(header: TarHeader): void {
    this.#entry = entryOf(header)
    this.#digest = this.#digests && header.type === 'file' && this.#entry?.mark === undefined ? new ContentDigest(header.sizeBytes) : undefined
  }

  data(bytes: Buffer, offset: number): void {
    this.#digest?.update(bytes, offset)
  }

  end(): void {
    if (this.#entry === undefined) return
    if (this.#digest !== undefined) this.#entry.digest = this.#digest.finish()
    this.ready.push(this.#entry)
  }
}

/**
 * The entries of an uncompressed tar, in its order. A directory's name may end in a slash or not, names may be absolute or begin with `./`: paths are
 * cleaned. Time and memory grow with the entries; holes of sparse files cost nothing.
 * @throws INVALID_ARCHIVE, LIMIT_EXCEEDED, ABORTED, and what the source throws
 */
export async function* readEntries(
  tar: AsyncIterable<Buffer>, { digests = false, signal, onProgress }: EntriesOptions = {}, limits?: TarLimits,
): AsyncGenerator<LayerEntry, void, undefined> {
  const sink = new EntrySink(digests)
  const parser = new TarParser(sink, limits)
  let bytes = 0
  for await (const chunk of tar) {
    if (signal?.aborted) throw new StorageError('ABORTED', 'reading a layer: aborted')
    parser.write(chunk)
    bytes += chunk.length
    onProgress?.(bytes)
    yield* sink.ready
    sink.ready.length = 0
  }
  parser.finish()
  yield* sink.ready
}
