// Writes the changes between two trees as a layer's tar: deterministic, so that the same trees give the same bytes on every driver.
//
// Entries come in byte order of their paths, a directory before what is in it; deletions are `.wh.` names (mode 0600, root, time 0), and opaque marks
// are not used, since a whiteout per hidden entry says the same. Times keep their nanoseconds; user and group names are left out.
// Files with large holes are written as PAX 1.0 sparse (see `sparse`); dockerd reads those, but cannot write such a layer out again.

import fs from 'node:fs'
import { baseOf } from '../fs/rooted.ts'
import { dataRanges, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG } from '../sys/files.ts'
import type { DataRange } from '../sys/files.ts'
import { mapOwner } from '../sys/idmap.ts'
import type { IdMap } from '../sys/idmap.ts'
import { TarWriter } from '../tar/writer.ts'
import type { EntryType, TarHeader } from '../tar/types.ts'
import type { Skipped } from './entry-metadata.ts'
import { compareTrees, linkedElsewhere, statOf, vanished, xattrsOf } from './compare.ts'
import type { TreeChange } from './compare.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'
import { markName, whiteoutPrefix } from './whiteouts.ts'

export interface WriteOptions {
  /**
   * `auto` (default) writes a file as sparse when its holes come to 64 MiB or more; `always` from the first hole; `never` writes zeros.
   */
  readonly sparse?: 'auto' | 'always' | 'never'
  /** As in CompareOptions. */
  readonly only?: Uint8Array | undefined
  /** Write the owners as they are called on the other side of a mapping. Ids within xattrs (ACLs) stay. @throws FAILED_PRECONDITION for one that has no place there */
  readonly owners?: { readonly map: IdMap; readonly to: 'host' | 'container' } | undefined
}

export interface WriteSummary {
  readonly entries: number
  /** Names that vanished or changed their kind while they were read. */
  readonly skipped: readonly Skipped[]
}

const autoSparseBytes = 64 * 1024 * 1024
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants
const noBytes = Buffer.alloc(0)

/** Write the changes from `lower` to `upper` (all of `upper` without a lower) to `emit`, whose buffers are valid during the call only. */
export function writeLayerSync(upper: TreeSpec, lower: TreeSpec | undefined, emit: (bytes: Buffer) => void, options: WriteOptions = {}, onStep?: () => void): WriteSummary {
  const steps = writeLayerSteps(upper, lower, emit, options, onStep)
  for (;;) {
    const next = steps.next()
    if (next.done === true) return next.value
  }
}

/** The same, with a rest after each entry and each MiB of a file: for a thread that has other work. */
export function* writeLayerSteps(upper: TreeSpec, lower: TreeSpec | undefined, emit: (bytes: Buffer) => void, options: WriteOptions = {}, onStep?: () => void): Generator<void, WriteSummary> {
  const writer = new LayerWriter(emit, options.sparse ?? 'auto', options.owners)
  const compare = (everywhere: boolean): Generator<TreeChange> => compareTrees(upper, lower, {
    only: options.only, everywhere, onUnchangedLink: (node, parents) => writer.unchangedLink(node, parents), ...(onStep === undefined ? {} : { onStep }),
  })
  function* write(change: TreeChange): Generator<void> {
    if (change.kind === 'D') writer.whiteout(change.name)
    else yield* writer.node(change.node)
    yield
  }
  let reached: Buffer | undefined
  for (const change of compare(false)) {
    if (lower !== undefined && linkedElsewhere(change)) { reached = nameOf(change); break }
    yield* write(change)
  }
  if (reached !== undefined) {
    writer.walkAgain(true)
    for (const change of compare(true)) {
      if (Buffer.compare(inOrder(nameOf(change)), inOrder(reached)) < 0) continue
      writer.walkAgain(false)
      yield* write(change)
    }
  }
  return writer.finish()
}

function nameOf(change: TreeChange): Buffer {
  return change.kind === 'D' ? change.name : change.node.name
}

/** Names that compare as the walk meets them: a directory's before all that begins with it. */
function inOrder(name: Buffer): Buffer {
  return name.map(byte => byte === 0x2f ? 0 : byte) as Buffer
}

class LayerWriter {
  readonly #tar: TarWriter
  readonly #sparse: 'auto' | 'always' | 'never'
  readonly #owners: WriteOptions['owners']
  readonly #skipped: Skipped[] = []
  #entries = 0
  #walkingAgain = false
  /** `dev:ino` of files with several names: the name written, or the unchanged names that wait for one to be written. */
  readonly #written = new Map<string, Buffer>()
  readonly #unchanged = new Map<string, UnchangedName[]>()
  /** Directories (latin1) that have an entry, and headers of unchanged ones that may need one. */
  readonly #directories = new Set<string>()
  readonly #parents = new Map<string, TarHeader>()
  readonly #chunk = Buffer.allocUnsafeSlow(1024 * 1024)

  constructor(emit: (bytes: Buffer) => void, sparse: 'auto' | 'always' | 'never', owners: WriteOptions['owners']) {
    this.#tar = new TarWriter(emit)
    this.#sparse = sparse
    this.#owners = owners
  }

  #headerOf(node: TreeNode): TarHeader {
    const header = headerOf(node)
    return this.#owners === undefined ? header : Object.assign(header, mapOwner(this.#owners.map, this.#owners.to, header))
  }

  whiteout(name: Buffer): void {
    this.#put({ ...plain, name: markName(name), type: 'file', mode: 0o600 })
    this.#tar.end()
  }

  /** From `true` to `false` what is met was met before: it has been written where it had to be, and what waits is collected afresh. */
  walkAgain(again: boolean): void {
    if (again) this.#unchanged.clear()
    this.#walkingAgain = again
  }

  /** An unchanged name of an inode of which another name is written: a link keeps them together. */
  unchangedLink(node: TreeNode, parents: readonly TreeNode[]): void {
    try {
      const key = inodeKey(node.st)
      const unchanged = { name: node.name, parents: parents.map(parent => this.#parent(parent)) }
      const target = this.#written.get(key)
      if (target !== undefined) {
        if (!this.#walkingAgain) this.#linkUnchanged(unchanged, target)
        return
      }
      const names = this.#unchanged.get(key)
      if (names === undefined) this.#unchanged.set(key, [unchanged])
      else names.push(unchanged)
    } catch (error) {
      this.#skipIfGone(node, error)
    }
  }

  #skipIfGone(node: TreeNode, error: unknown): void {
    if (!(error instanceof Vanished)) throw error
    this.#skipped.push({ path: node.name.toString(), what: 'entry', reason: 'vanished or changed its kind while it was read' })
  }

  #parent(node: TreeNode): TarHeader {
    const key = node.name.toString('latin1')
    const known = this.#parents.get(key)
    if (known !== undefined) return known
    const header = read(() => this.#headerOf(node))
    this.#parents.set(key, header)
    return header
  }

  #linkUnchanged({ name, parents }: UnchangedName, target: Buffer): void {
    // A link alone would leave it to the reader which owner and mode the directories around it have.
    for (const parent of parents) this.#directory(parent)
    this.#link(name, target)
  }

  #directory(header: TarHeader): void {
    const key = header.name.toString('latin1')
    if (this.#directories.has(key)) return
    this.#directories.add(key)
    this.#put(header)
    this.#tar.end()
  }

  *node(node: TreeNode): Generator<void> {
    try {
      yield* this.#node(node)
    } catch (error) {
      this.#skipIfGone(node, error)
    }
  }

  *#node(node: TreeNode): Generator<void> {
    if (baseOf(node.name).subarray(0, whiteoutPrefix.length).equals(whiteoutPrefix)) {
      this.#skipped.push({ path: node.name.toString(), what: 'entry', reason: 'a layer would take its name for a deletion' })
      return
    }
    const header = read(() => this.#headerOf(node))
    if (header.type === 'directory') { this.#directory(header); return }
    if (this.#isFurtherName(node)) return
    if (header.type === 'file') { yield* this.#file(node, header); return }
    this.#put(header)
    this.#tar.end()
    this.#remember(node)
  }

  finish(): WriteSummary {
    this.#tar.finish()
    return { entries: this.#entries, skipped: this.#skipped }
  }

  #isFurtherName(node: TreeNode): boolean {
    if (node.st.nlink < 2n) return false
    const first = this.#written.get(inodeKey(node.st))
    if (first === undefined) return false
    this.#link(node.name, first)
    return true
  }

  #remember(node: TreeNode): void {
    if (node.st.nlink < 2n) return
    const key = inodeKey(node.st)
    this.#written.set(key, node.name)
    for (const unchanged of this.#unchanged.get(key) ?? []) this.#linkUnchanged(unchanged, node.name)
    this.#unchanged.delete(key)
  }

  #link(name: Buffer, target: Buffer): void {
    this.#put({ ...plain, name, type: 'link', mode: 0o644, linkname: target })
    this.#tar.end()
  }

  *#file(node: TreeNode, header: TarHeader): Generator<void> {
    // NONBLOCK: a fifo put in the file's place must not hang us.
    const fd = read(() => fs.openSync(node.dataPath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
    try {
      const st = fs.fstatSync(fd)
      if (!st.isFile()) throw new Vanished()
      header.sizeBytes = st.size
      const ranges = this.#ranges(fd, st)
      if (ranges !== undefined) header.sparse = ranges
      this.#put(header)
      for (const range of ranges ?? [{ offset: 0, length: st.size }]) yield* this.#copy(fd, range)
      this.#tar.end()
      this.#remember(node)
    } finally {
      fs.closeSync(fd)
    }
  }

  /** The stored runs, when the file is to be written as sparse. */
  #ranges(fd: number, st: fs.Stats): readonly DataRange[] | undefined {
    const threshold = this.#sparse === 'always' ? 1 : autoSparseBytes
    if (this.#sparse === 'never' || st.size - st.blocks * 512 < threshold) return undefined
    const ranges = dataRanges(fd, st.size)
    const stored = ranges.reduce((sum, range) => sum + range.length, 0)
    return st.size - stored < threshold ? undefined : ranges
  }

  *#copy(fd: number, range: DataRange): Generator<void> {
    const end = range.offset + range.length
    for (let at = range.offset; at < end;) {
      const want = Math.min(this.#chunk.length, end - at)
      const got = fs.readSync(fd, this.#chunk, 0, want, at)
      // Shrunk while it was read: the header has promised its size, so zeros fill it up, as a read of the hole would.
      if (got === 0) this.#chunk.fill(0, 0, want)
      const n = got === 0 ? want : got
      this.#tar.data(this.#chunk.subarray(0, n))
      at += n
      if (at < end) yield
    }
  }

  #put(header: TarHeader): void {
    this.#entries++
    this.#tar.entry(header)
  }
}

interface UnchangedName {
  readonly name: Buffer
  /** Headers of the directories above that may not have an entry yet, outermost first. */
  readonly parents: readonly TarHeader[]
}

/** What was listed is not there any more, or is something else. */
class Vanished extends Error {}

function read<T>(from: () => T): T {
  try {
    return from()
  } catch (error) {
    throw vanished(error) ? new Vanished() : error
  }
}

/** All but a file's size. */
function headerOf(node: TreeNode): TarHeader {
  const stat = statOf(node)
  const header: TarHeader = {
    ...plain, name: node.name, type: 'file', mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, mtimeNs: node.st.mtimeNs,
  }
  const xattrs = xattrsOf(node)
  if (xattrs.size > 0) header.xattrs = xattrs
  if (node.st.isDirectory()) {
    header.type = 'directory'
    header.name = node.name.length === 0 ? rootName : Buffer.concat([node.name, slash])
  } else if (node.st.isSymbolicLink()) {
    header.type = 'symlink'
    header.mode = 0o777
    header.linkname = fs.readlinkSync(node.path, { encoding: 'buffer' })
  } else if ((stat.mode & S_IFMT) !== S_IFREG) {
    header.type = specialTypes[stat.mode & S_IFMT] ?? 'fifo'
    header.devMajor = header.type === 'fifo' ? 0 : stat.major
    header.devMinor = header.type === 'fifo' ? 0 : stat.minor
  }
  return header
}

const plain = {
  mode: 0, uid: 0, gid: 0, sizeBytes: 0, mtimeNs: 0n, linkname: noBytes, uname: '', gname: '', devMajor: 0, devMinor: 0,
} satisfies Partial<TarHeader>
const rootName = Buffer.from('./')
const slash = Buffer.from('/')
const specialTypes: Readonly<Record<number, EntryType>> = { [S_IFCHR]: 'char', [S_IFBLK]: 'block', [S_IFIFO]: 'fifo' }

function inodeKey(st: fs.BigIntStats): string {
  return `${st.dev}:${st.ino}`
}
