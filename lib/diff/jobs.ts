// The work on layers that runs in threads (lib/sys/threads): apply, write, compare and re-assemble, each a function of structured-clone
// arguments. Jailed into the tree where the process may, resolved name by name elsewhere.

import fs from 'node:fs'
import { createHash } from 'node:crypto'
import zlib from 'node:zlib'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { setOwnership } from '../fs/override-stat.ts'
import { openat2Place, openat2Works } from '../fs/openat2-place.ts'
import { jailedPlace, resolvingPlace } from '../fs/rooted.ts'
import type { ClosablePlace } from '../fs/openat2-place.ts'
import type { Place } from '../fs/rooted.ts'
import { canJail, canStandAlone, inJail, withOwnUmask } from '../sys/jail.ts'
import { nativeReason } from '../sys/native.ts'
import { nodeTime, setTimes } from '../sys/files.ts'
import { setXattr } from '../sys/xattr.ts'
import type { JobContext } from '../sys/threads.ts'
import { decompress, detectCompression, ratioLimit } from '../tar/compression.ts'
import { cleanName } from '../tar/names.ts'
import { TarParser } from '../tar/parser.ts'
import { TarAssembler, TarSplitPacker, TarSplitReader } from '../tar/tar-split.ts'
import type { TarLimits } from '../tar/types.ts'
import { LayerApplier } from './apply.ts'
import type { ApplyFormat, ApplySummary } from './apply.ts'
import { compareTrees, printedPath, statOf, xattrsOf } from './compare.ts'
import { TreeView } from './tree-view.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'
import { writeLayerSync } from './write-layer.ts'
import type { WriteOptions, WriteSummary } from './write-layer.ts'

/** The address of this module for runJob. */
export const jobsModule = import.meta.url

/** A part of a file that this process has open; it is read by position, so that threads can share the descriptor. */
export interface FileRange {
  readonly fd: number
  readonly offset: number
  readonly length: number
}

export interface ApplyArguments {
  readonly dir: string
  readonly format: ApplyFormat
  readonly xattrPrefix?: string | undefined
  /** Where the bytes come from; absent: from the job's input. */
  readonly source?: FileRange | undefined
  /** True: what comes from the input is not compressed. Default false: its first bytes tell. */
  readonly plain?: boolean | undefined
  /** True: another job hashes the source (hashJob); the digest of its bytes is then left empty here. Default false. */
  readonly hashedElsewhere?: boolean | undefined
  /** True: all processors have work, so that gzip is inflated in the job's own thread. Default false. */
  readonly inflateHere?: boolean | undefined
  /** A descriptor that receives the gzipped tar-split; absent: none is made. */
  readonly tarSplitFd?: number | undefined
  readonly limits?: TarLimits | undefined
  /** Name of the source in messages. */
  readonly label?: string | undefined
}

export interface ApplyOutcome extends ApplySummary {
  /** `sha256:…` of the uncompressed tar: the layer's diffID. */
  readonly diffId: string
  /** Bytes of the uncompressed tar. */
  readonly tarBytes: number
  /** `sha256:…` and length of the bytes as they came. The same as the two above when they were not compressed. */
  readonly blobDigest: string
  readonly blobBytes: number
}

/** 1 MiB reads: smaller ones cost a system call each, larger ones fall out of the cache between read, hash and write. */
const chunkBytes = 1024 * 1024

function* rangeChunks(range: FileRange, context: JobContext, reuse: boolean): Generator<Buffer> {
  const shared = reuse ? Buffer.allocUnsafeSlow(chunkBytes) : undefined
  const end = range.offset + range.length
  for (let at = range.offset; at < end;) {
    context.checkAborted()
    const buffer = shared ?? Buffer.allocUnsafeSlow(chunkBytes)
    const n = fs.readSync(range.fd, buffer, 0, Math.min(chunkBytes, end - at), at)
    if (n === 0) throw new StorageError('INVALID_ARCHIVE', `unexpected end of the archive: ${end - at} bytes are missing`, { op: 'read' })
    at += n
    yield buffer.subarray(0, n)
  }
}

function* inputChunks(context: JobContext): Generator<Buffer> {
  for (let chunk = context.read(); chunk !== undefined; chunk = context.read()) if (chunk.length > 0) yield chunk
}

/** Enough of the beginning to tell a compression by: the longest magic, xz's, has 6 bytes. */
function peek(range: FileRange): Buffer {
  const bytes = Buffer.alloc(Math.min(16, range.length))
  return bytes.subarray(0, fs.readSync(range.fd, bytes, 0, bytes.length, range.offset))
}

/** What the kernel refuses becomes a StorageError with its code; mistakes of the caller stay TypeErrors. */
async function reporting<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw error instanceof TypeError ? error : asStorageError(error, what)
  }
}

/** Run `work` with names resolving inside `dir`. */
function inPlace<T>(dir: string, work: (place: Place) => T | Promise<T>): Promise<T> {
  return reporting(`working in ${dir}`, () => {
    if (!fs.statSync(dir).isDirectory()) throw new StorageError('INVALID_ARGUMENT', `${dir} is not a directory`, { path: dir, errno: 'ENOTDIR' })
    if (canJail()) return inJail(dir, () => work(jailedPlace()))
    const unjailed = (): T | Promise<T> => openat2Works() ? closing(openat2Place(dir, { follow: true }), work) : work(resolvingPlace(dir))
    return canStandAlone() ? withOwnUmask(unjailed) : unjailed()
  })
}

async function closing<T>(place: ClosablePlace, work: (place: Place) => T | Promise<T>): Promise<T> {
  try {
    return await work(place)
  } finally {
    place.close()
  }
}

/** Apply one layer to a directory, hashing it and noting its tar-split on the way. */
export async function applyJob(args: ApplyArguments, context: JobContext): Promise<ApplyOutcome> {
  const blobHash = createHash('sha256')
  let blobBytes = 0
  const source = args.source
  const compression = source === undefined ? undefined : detectCompression(peek(source))
  const plain = compression === 'none' || source === undefined && args.plain === true
  const hashSource = args.hashedElsewhere !== true
  function* counted(chunks: Iterable<Buffer>): Generator<Buffer> {
    for (const chunk of chunks) {
      blobBytes += chunk.length
      if (!plain && hashSource) blobHash.update(chunk)
      yield chunk
    }
  }
  const raw = counted(source === undefined ? inputChunks(context) : rangeChunks(source, context, plain))
  const limit = ratioLimit(args.limits?.expansionRatio)
  // Loaded, and the first chunk fetched, outside the jail, as a decompressor may load a module for it.
  const here = plain ? raw : source !== undefined && args.inflateHere === true && compression === 'gzip' ? (await import('../tar/gunzip.ts')).gunzip(raw, limit) : undefined
  const tar = here === undefined ? decompress(raw, limit)[Symbol.asyncIterator]() : undefined
  const first = tar === undefined ? undefined : await tar.next()

  return inPlace(args.dir, async place => {
    const diffHash = createHash('sha256')
    const split = args.tarSplitFd === undefined ? undefined : new GzipMembers(args.tarSplitFd)
    const applier = new LayerApplier(place, args.format, args.xattrPrefix)
    const sink = split === undefined ? applier : new TarSplitPacker(json => split.write(json), applier)
    const parser = new TarParser(sink, args.limits)
    let tarBytes = 0
    let reported = 0
    const take = (chunk: Buffer): void => {
      tarBytes += chunk.length
      if (!plain || hashSource) diffHash.update(chunk)
      parser.write(chunk)
      if (blobBytes - reported >= 4 * chunkBytes) { reported = blobBytes; context.progress(blobBytes) }
    }
    try {
      if (here !== undefined) for (const chunk of here) take(chunk)
      else for (let next = first; next?.done === false; next = await tar?.next()) { context.checkAborted(); take(next.value) }
      parser.finish()
      if (sink instanceof TarSplitPacker) sink.finish()
      split?.finish()
      const summary = applier.finish()
      context.progress(blobBytes)
      const diffId = plain && !hashSource ? '' : `sha256:${diffHash.digest('hex')}`
      return { ...summary, diffId, tarBytes, blobBytes, blobDigest: plain ? diffId : hashSource ? `sha256:${blobHash.digest('hex')}` : '' }
    } finally {
      applier.abort()
    }
  })
}

/** Hash a part of a file, beside the job that applies it: sha256 is a third of that one's work, and reading twice costs a tenth. */
export function hashJob(source: FileRange, context: JobContext): string {
  const hash = createHash('sha256')
  for (const chunk of rangeChunks(source, context, true)) hash.update(chunk)
  return `sha256:${hash.digest('hex')}`
}

/**
 * gzip as a row of members, each from one sync call: no stream, and concatenated members are one gzip file (RFC 1952 § 2.2), which Go's
 * reader takes as well. Level 1: the JSON shrinks to a tenth at any level.
 */
class GzipMembers {
  readonly #fd: number
  #pending: Buffer[] = []
  #pendingBytes = 0
  #any = false

  constructor(fd: number) { this.#fd = fd }

  write(bytes: Buffer): void {
    this.#pending.push(Buffer.from(bytes))
    this.#pendingBytes += bytes.length
    if (this.#pendingBytes >= chunkBytes) this.#flush()
  }

  finish(): void {
    if (this.#pendingBytes > 0 || !this.#any) this.#flush()
  }

  #flush(): void {
    this.#any = true
    const member = zlib.gzipSync(Buffer.concat(this.#pending), { level: 1 })
    for (let done = 0; done < member.length;) done += fs.writeSync(this.#fd, member, done)
    this.#pending = []
    this.#pendingBytes = 0
  }
}

export interface WriteArguments {
  readonly upper: TreeSpec
  readonly lower?: TreeSpec | undefined
  readonly options?: WriteOptions | undefined
}

export interface WriteOutcome extends WriteSummary {
  readonly diffId: string
  readonly tarBytes: number
}

/** Write the changes of `upper` over `lower` as a tar to the job's output. */
export function writeJob(args: WriteArguments, context: JobContext): Promise<WriteOutcome> {
  return reporting(`writing the changes of ${args.upper.layers[0]}`, () => {
    const hash = createHash('sha256')
    let tarBytes = 0
    const out = new Batches(context)
    const summary = writeLayerSync(args.upper, args.lower, bytes => {
      hash.update(bytes)
      tarBytes += bytes.length
      out.add(bytes)
    }, args.options, context.checkAborted)
    out.flush()
    return { ...summary, diffId: `sha256:${hash.digest('hex')}`, tarBytes }
  })
}

/** Collects small buffers into chunks, as each chunk costs a message. A chunk's memory is given away with it. */
class Batches {
  readonly #context: JobContext
  readonly #sizeBytes: number
  #buffer: Buffer
  #used = 0

  constructor(context: JobContext, sizeBytes = chunkBytes) {
    this.#context = context
    this.#sizeBytes = sizeBytes
    this.#buffer = Buffer.allocUnsafeSlow(sizeBytes)
  }

  /** Free memory, `wanted` bytes of it where that is little. What is filled from its beginning is added without a copy. */
  room(wanted: number): Buffer {
    if (this.#buffer.length - this.#used < Math.min(wanted, 64 * 1024)) this.flush()
    return this.#buffer.subarray(this.#used)
  }

  add(bytes: Buffer): void {
    if (bytes.buffer === this.#buffer.buffer) {
      this.#used += bytes.length
      return
    }
    for (let done = 0; done < bytes.length;) {
      if (this.#used === this.#buffer.length) this.flush()
      const n = Math.min(bytes.length - done, this.#buffer.length - this.#used)
      bytes.copy(this.#buffer, this.#used, done, done + n)
      this.#used += n
      done += n
    }
  }

  flush(): void {
    this.#context.checkAborted()
    if (this.#used > 0) this.#context.write(this.#buffer.subarray(0, this.#used), true)
    this.#used = 0
    if (this.#buffer.length === 0) this.#buffer = Buffer.allocUnsafeSlow(this.#sizeBytes)
  }
}

export interface ChangesArguments {
  readonly upper: TreeSpec
  readonly lower?: TreeSpec | undefined
  /** As in CompareOptions. */
  readonly only?: Uint8Array | undefined
}

/** List changes to the job's output: each a letter, the path with its leading slash, and a NUL. Returns their number. */
export function changesJob(args: ChangesArguments, context: JobContext): Promise<number> {
  return reporting(`listing the changes of ${args.upper.layers[0]}`, () => {
    const out = new Batches(context)
    let count = 0
    for (const change of compareTrees(args.upper, args.lower, { only: args.only, onStep: context.checkAborted })) {
      count++
      out.add(Buffer.concat([Buffer.from(change.kind), printedPath(change.kind === 'D' ? change.name : change.node.name), Buffer.alloc(1)]))
    }
    out.flush()
    return count
  })
}

/** What waits on the other side (hash, file) is woken once for each: with 1 MiB a save took 6 % more processor time, with 256 KiB 12 %. */
const assembledBytes = 4 * chunkBytes

export interface AssembleArguments {
  /** The directory that holds the layer's files: its branch, or its complete tree. */
  readonly dir: string
  /** The gzipped tar-split. */
  readonly tarSplitFd: number
}

/** Rebuild the layer's tar, bit for bit, to the job's output; who reads it compares its digest. @throws CORRUPT for a file that was altered */
export async function assembleJob(args: AssembleArguments, context: JobContext): Promise<void> {
  const { size } = fs.fstatSync(args.tarSplitFd)
  const lines = decompress(rangeChunks({ fd: args.tarSplitFd, offset: 0, length: size }, context, false))[Symbol.asyncIterator]()
  // The first chunk is fetched outside the jail, as a decompressor may load a module for it.
  const first = await lines.next()
  await inPlace(args.dir, async place => {
    const out = new Batches(context, assembledBytes)
    const reader = new TarSplitReader()
    const assembler = new TarAssembler(
      name => fs.openSync(place.path(cleanName(name)), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW),
      bytes => out.add(bytes), wanted => out.room(wanted))
    for (let next = first; next.done !== true; next = await lines.next()) for (const entry of reader.push(next.value)) assembler.add(entry)
    for (const entry of reader.finish()) assembler.add(entry)
    out.flush()
  })
}

export interface SettleArguments {
  readonly dir: string
  /** As in ApplySummary. */
  readonly names: readonly string[]
  readonly lower: TreeSpec
}

/**
 * Give directories that a layer implied, but did not name, the owner, mode, xattrs and times of the directory below, which they would otherwise
 * hide behind 0755 root: `tmp/x` alone must not close /tmp. Needs the layers below to be complete.
 */
export async function settleImpliedJob(args: SettleArguments): Promise<void> {
  const view = new TreeView(args.lower)
  const found: { name: Buffer; node: TreeNode; stat: ReturnType<typeof statOf>; xattrs: Map<string, Buffer> }[] = []
  for (const text of args.names) {
    const name = Buffer.from(text, 'latin1')
    let node: TreeNode | undefined = view.root()
    for (const part of text.split('/')) node = node?.st.isDirectory() === true ? view.child(node, Buffer.from(part, 'latin1')) : undefined
    if (node?.st.isDirectory() === true) found.push({ name, node, stat: statOf(node), xattrs: xattrsOf(node) })
  }
  if (found.length === 0) return
  await inPlace(args.dir, place => {
    // Deepest first, so that a parent's time is set after everything in it.
    for (const { name, node, stat, xattrs } of found.reverse()) {
      const path = place.path(name)
      setOwnership(path, stat)
      for (const [key, value] of xattrs) {
        try {
          setXattr(path, key, value)
        } catch (error) {
          // What may not be set here could not be read from the layer below either, but for ACLs across file systems.
          if (!isErrno(error, 'EOPNOTSUPP', 'EPERM', 'EACCES')) throw error
        }
      }
      if (nativeReason === undefined) setTimes(path, node.st.atimeNs, node.st.mtimeNs)
      else fs.lutimesSync(path, nodeTime(node.st.atimeNs), nodeTime(node.st.mtimeNs))
    }
  })
}
