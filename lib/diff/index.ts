// Layers as trees, for everybody: apply a layer to a directory, list what changed, write the changes as a layer. The work runs in
// threads with synchronous calls; here are the asynchronous faces. Knows no store and no driver.

import path from 'node:path'
import type { Change, WhiteoutFormat } from '../driver.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import type { TarLimits } from '../tar/types.ts'
import { jobsModule } from './jobs-module.ts'
import type { ApplyArguments, ApplyOutcome, ChangesArguments, WriteArguments, WriteOutcome } from './jobs.ts'
import type { TreeSpec } from './tree-view.ts'
import type { WriteOptions } from './write-layer.ts'

export type { FileRange } from './chunks.ts'
export type { ApplyOutcome, WriteOutcome } from './jobs.ts'
export type { Skipped } from './entry-metadata.ts'
export type { TreeSpec } from './tree-view.ts'
export type { WriteOptions, WriteSummary } from './write-layer.ts'

export interface ApplyLayerOptions {
  /**
   * How deletions are laid down: `overlay` (0:0 devices and the opaque xattr, for a branch), `aufs` (`.wh.` names, for a branch), or `remove` (what the
   * tree has is removed). `fuse-overlayfs` is as `overlay`. Default `remove`.
   */
  readonly whiteouts?: WhiteoutFormat | 'remove'
  /** Where overlay keeps its marks. Default `trusted.overlay.`; `user.overlay.` in a user namespace. */
  readonly xattrPrefix?: 'trusted.overlay.' | 'user.overlay.'
  readonly limits?: TarLimits
  readonly signal?: AbortSignal
  /** Bytes of the source taken so far. */
  readonly onProgress?: (bytes: number) => void
}

/**
 * Apply one layer to `dir`. `source` yields its tar: plain, or compressed with gzip, zstd, xz or bzip2, told by its first bytes. Nothing outside
 * `dir` is touched, whatever the names and links in the layer say; owners, devices and foreign xattrs need root, and are noted in
 * xattrs or reported in `skipped` without.
 * @returns the diffID, sizes, and what could not be kept
 * @throws INVALID_ARCHIVE, LIMIT_EXCEEDED, NO_SPACE, ABORTED, …; what was applied until then stays in `dir`
 */
export function applyLayer(source: AsyncIterable<Uint8Array>, dir: string, options: ApplyLayerOptions = {}): Promise<ApplyOutcome> {
  const args: ApplyArguments = { dir: path.resolve(dir), format: options.whiteouts === 'fuse-overlayfs' ? 'overlay' : options.whiteouts ?? 'remove', xattrPrefix: options.xattrPrefix, limits: options.limits }
  return runJob(jobsModule, 'applyJob', args, { input: source, signal: options.signal, onProgress: options.onProgress })
}

export interface ChangesOptions {
  /**
   * What `upper` is: an overlay or aufs branch over `lower`, or, with `none`, a complete tree to be compared with the complete tree
   * `lower`. Default `overlay`.
   */
  readonly whiteouts?: WhiteoutFormat | 'none'
  readonly xattrPrefix?: 'trusted.overlay.' | 'user.overlay.'
  /**
   * With `none`, where `upper` is a snapshot of `lower`: the names, bytes without a leading slash, outside which nothing differs, as a driver's
   * `changedPaths()` gives them. Nothing else is looked at, so the work grows with what changed.
   */
  readonly only?: readonly Buffer[] | undefined
  readonly signal?: AbortSignal
}

/** The pair of trees that `upper` and `lower` stand for. */
export function treesOf(upper: string, lower: string | readonly string[] | undefined, options: ChangesOptions): { upper: TreeSpec; lower: TreeSpec | undefined } {
  const whiteouts = options.whiteouts ?? 'overlay'
  // A thread's working directory is its own.
  const lowers = (lower === undefined ? [] : typeof lower === 'string' ? [lower] : lower).map(dir => path.resolve(dir))
  const top = path.resolve(upper)
  const extra = options.xattrPrefix === undefined ? {} : { xattrPrefix: options.xattrPrefix }
  if (whiteouts === 'none' && lowers.length > 1) throw new TypeError('a complete tree is compared with one other, not with a list')
  return {
    upper: { layers: whiteouts === 'none' ? [top] : [top, ...lowers], whiteouts, ...extra },
    lower: lowers.length === 0 ? undefined : { layers: lowers, whiteouts, ...extra },
  }
}

/**
 * What changed in `upper` over `lower` (a directory, or overlay branches nearest first): A added, C changed, D deleted, directories before
 * their entries, in byte order. Redirected and opaque directories and metacopy files are followed; the work grows with `upper`, not with `lower`.
 * Without a `lower` everything is added.
 */
export async function* listChanges(upper: string, lower?: string | readonly string[], options: ChangesOptions = {}): AsyncGenerator<Change> {
  yield* changesOf({ ...treesOf(upper, lower, options), only: packNames(options.only) }, options.signal)
}

/** Names as one piece of memory, which threads take over at once. */
export function packNames(names: readonly Buffer[] | undefined): Uint8Array | undefined {
  return names === undefined ? undefined : Buffer.concat(names.flatMap(name => [name, nul]))
}
const nul = Buffer.alloc(1)

/**
 * listChanges for trees that are described already. Begun here, in slices that leave the event loop its turn: what most containers changed is told before
 * a thread would have started (60 ms). What takes longer is handed to one.
 */
export async function* changesOf(trees: ChangesArguments, signal?: AbortSignal): AsyncGenerator<Change> {
  const { changesHere } = await import('./changes-here.ts')
  let last: Change | undefined
  const begun = changesHere(trees, signal)
  for (;;) {
    const next = await begun.next()
    if (next.done === true) {
      if (next.value === 'all') return
      break
    }
    last = next.value
    yield next.value
  }
  // The thread begins anew; as the order is always the same, it is known what has been told.
  const told = last === undefined ? undefined : inOrder(last.path)
  for await (const change of changesInThread(trees, signal)) if (told === undefined || Buffer.compare(inOrder(change.path), told) > 0) yield change
}

/** Names that compare as they are walked: a directory, then what is in it, then what sorts behind it. */
function inOrder(name: Buffer): Buffer {
  const key = Buffer.from(name)
  for (let at = key.indexOf(slash); at >= 0; at = key.indexOf(slash, at + 1)) key[at] = 0
  return key
}
const slash = 0x2f

async function* changesInThread(trees: ChangesArguments, signal: AbortSignal | undefined): AsyncGenerator<Change> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of streamJob<ChangesArguments, number>(jobsModule, 'changesJob', trees, { signal })) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let from = 0
    for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, from)) {
      yield { kind: String.fromCharCode(bytes[from] ?? 0) as Change['kind'], path: bytes.subarray(from + 1, at) }
      from = at + 1
    }
    rest = bytes.subarray(from)
  }
}

export interface WriteLayerOptions extends ChangesOptions, Pick<WriteOptions, 'sparse'> {}

/**
 * Write what changed in `upper` over `lower` as an uncompressed layer tar: deterministic, whiteouts in `.wh.` form, times to the nanosecond.
 * Yields chunks of up to 1 MiB; the generator returns the diffID and length.
 */
export function writeLayer(upper: string, lower?: string | readonly string[], options: WriteLayerOptions = {}): AsyncGenerator<Buffer, WriteOutcome> {
  const { sparse } = options
  return streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob',
    { ...treesOf(upper, lower, options), options: { only: packNames(options.only), ...(sparse === undefined ? {} : { sparse }) } }, { signal: options.signal })
}
