// The work on layers that runs in threads (lib/sys/threads): apply, write and compare, each a function of structured-clone arguments. What puts a
// layer's tar together again is in assemble.ts, which loads less.

import fs from 'node:fs'
import { createHash } from 'node:crypto'
import zlib from 'node:zlib'
import { isErrno } from '../errors.ts'
import { setOwnership } from '../fs/override-stat.ts'
import { nativeReason } from '../sys/native.ts'
import { nodeTime, setTimes } from '../sys/files.ts'
import { setXattr } from '../sys/xattr.ts'
import type { JobContext } from '../sys/threads.ts'
import { decompress, detectCompression, ratioLimit } from '../tar/compression.ts'
import { TarParser } from '../tar/parser.ts'
import { TarSplitPacker } from '../tar/tar-split.ts'
import type { TarLimits } from '../tar/types.ts'
import { LayerApplier } from './apply.ts'
import type { ApplyFormat, ApplySummary } from './apply.ts'
import { Batches, chunkBytes, rangeChunks } from './chunks.ts'
import type { FileRange } from './chunks.ts'
import { compareTrees, printedPath, statOf, xattrsOf } from './compare.ts'
import { inPlace, reporting } from './in-place.ts'
import { TreeView } from './tree-view.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'
import { writeLayerSync } from './write-layer.ts'
import type { WriteOptions, WriteSummary } from './write-layer.ts'

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

function* inputChunks(context: JobContext): Generator<Buffer> {
  for (let chunk = context.read(); chunk !== undefined; chunk = context.read()) if (chunk.length > 0) yield chunk
}

/** Enough of the beginning to tell a compression by: the longest magic, xz's, has 6 bytes. */
function peek(range: FileRange): Buffer {
  const bytes = Buffer.alloc(Math.min(16, range.length))
  return bytes.subarray(0, fs.readSync(range.fd, bytes, 0, bytes.length, range.offset))
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
