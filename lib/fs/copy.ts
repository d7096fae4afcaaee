// The copy engine: a tree with everything that a layer can hold. Data, holes, hard links, symlinks, devices, fifos, sockets, owners, modes,
// xattrs, and times in nanoseconds, the directories' last. Never follows a link, never overwrites, and a failed copy removes what it made.

import fs from 'node:fs'
import { asStorageError, StorageError } from '../errors.ts'
import { canStandAlone, withOwnUmask } from '../sys/jail.ts'
import { maxThreads, runJob } from '../sys/threads.ts'
import type { JobContext } from '../sys/threads.ts'
import { addCounts, copyOther, noCounts } from './copy-entry.ts'
import type { Copy, CopyReport } from './copy-entry.ts'
import { complete, fill, fillGuarded } from './copy-fill.ts'
import type { Left } from './copy-fill.ts'
import { openCareful, openKnowing } from './copy-new-file.ts'
import { guardedSide, plainSide } from './copy-sides.ts'
import type { Side } from './copy-sides.ts'
import { failWork, isFailed, isMade, sharedWork, Work } from './copy-work.ts'
import { openat2Works } from './openat2-place.ts'
import { removeTreeSync } from './remove-tree.ts'
import { joinPath, readNames } from './walk.ts'

export type { CopyReport } from './copy-entry.ts'

export interface CopyOptions {
  /** `to` is an existing directory that receives the content, and the source's own attributes. Default false: `to` must not exist. */
  readonly into?: boolean
  /**
   * Somebody who is not trusted, such as a container, may change either tree meanwhile: then every name is resolved inside its root by the kernel (openat2-place.ts), and
   * nothing outside is read, made or changed, whatever is swapped for a link when (CVE-2018-15664); what a failed copy has made is left (see removeTree). Default false.
   * Without openat2(2) as if false.
   */
  readonly changing?: boolean
}

/** One copy, as the threads that work on it are told. */
interface CopyJob {
  readonly from: Uint8Array
  readonly to: Uint8Array
  readonly options: CopyOptions
  readonly shared: SharedArrayBuffer
}

/** What a thread has done, and what it leaves to the last: nothing, where it has done all. */
interface Part { readonly report: CopyReport; readonly left?: Left }

/** What only a thread has: an umask of its own, an abort, and others to call for help. */
interface Thread { readonly noMask: boolean; readonly check: () => void; readonly onMuch?: () => void }

/**
 * Copy the file or tree `from` to `to`.
 * @throws ALREADY_EXISTS (`to`), NOT_FOUND (`from`), NO_SPACE, PERMISSION_DENIED, …; nothing made is left
 */
export function copyTreeSync(from: string | Buffer, to: string | Buffer, options: CopyOptions = {}, check: () => void = () => undefined): CopyReport {
  const job: CopyJob = { from: Buffer.from(from), to: Buffer.from(to), options, shared: sharedWork() }
  try {
    return begin(job, { noMask: false, check }).report
  } catch (error) {
    const first = failure(job, error)
    if (mustClean(job)) clean(job, first)
    throw first
  }
}

function failure({ from, to }: CopyJob, error: unknown): StorageError {
  return asStorageError(error, `copying ${Buffer.from(from)} to ${Buffer.from(to)}`, { op: 'copy' })
}

/** What others write to is removed as carefully as it was made, by whoever called. */
function mustClean({ options, shared }: CopyJob): boolean {
  return isMade(shared) && options.changing !== true
}

function clean({ to, options }: CopyJob, first: Error): void {
  const target = Buffer.from(to)
  try {
    if (options.into !== true) removeTreeSync(target)
    else for (const name of readNames(target)) removeTreeSync(joinPath(target, name))
  } catch (error) {
    // The first failure is what the caller must hear; what could not be cleaned is added to it.
    first.message += ` (and removing the partial copy failed: ${(error as Error).message})`
  }
}

function parentOf(path: Buffer): Buffer {
  const at = path.lastIndexOf(0x2f)
  return at < 0 ? Buffer.from('.') : at === 0 ? Buffer.from('/') : path.subarray(0, at)
}

/** The first thread's part: makes the target, and with no help all that is in it. */
function begin(job: CopyJob, thread: Thread): Part {
  const { options } = job
  const source = Buffer.from(job.from), target = Buffer.from(job.to)
  const work = new Work(job.shared, true)
  const stat = fs.lstatSync(source, { bigint: true })
  if (options.into === true) {
    if (readNames(target).length > 0) throw new StorageError('FAILED_PRECONDITION', `copying into ${target}: the directory is not empty`, { op: 'copy', path: target.toString() })
  } else {
    if (fs.lstatSync(target, { throwIfNoEntry: false }) !== undefined) throw new StorageError('ALREADY_EXISTS', `copying to ${target}: it exists`, { op: 'copy', path: target.toString(), errno: 'EEXIST' })
    if (stat.isDirectory()) fs.mkdirSync(target, 0o700)
  }
  work.made()
  if (stat.isDirectory() && !(options.changing === true && openat2Works())) return fillPart(job, work, thread)
  const sides: Side[] = []
  try {
    for (const root of [source, target]) sides.push((stat.isDirectory() ? guardedSide : plainSide)(root))
    const [from, to] = sides as [Side, Side]
    const { dev } = fs.lstatSync(stat.isDirectory() ? target : parentOf(target), { bigint: true })
    const copy: Copy = { device: dev, from, to, open: openCareful, linked: new Map(), counts: noCounts(), check: thread.check }
    if (stat.isDirectory()) fillGuarded(Buffer.alloc(0), stat, copy)
    else copyOther(Buffer.alloc(0), source, stat, copy)
    return { report: copy.counts }
  } finally {
    for (const side of sides) side.close()
  }
}

function plainCopy({ from, to, options }: CopyJob, { noMask, check }: Thread): Copy {
  const target = Buffer.from(to)
  return {
    device: fs.lstatSync(target, { bigint: true }).dev, from: plainSide(Buffer.from(from)), to: plainSide(target),
    // A directory that was there already is not ours, and may be open to others.
    open: options.into === true ? openCareful : openKnowing(noMask), linked: new Map(), counts: noCounts(), check,
  }
}

function fillPart(job: CopyJob, work: Work, thread: Thread): Part {
  const copy = plainCopy(job, thread)
  try {
    const left = fill(copy, work, thread.onMuch)
    if (!work.alone) return { report: copy.counts, left }
    complete(left, copy)
    return { report: copy.counts }
  } catch (error) {
    failWork(job.shared)
    throw error
  }
}

/**
 * `copyTreeSync` in worker threads, so that the event loop goes on: a large tree, unless it is `changing`, by as many as there are processors.
 * @throws as it, and ABORTED by the signal
 */
export async function copyTree(from: string | Buffer, to: string | Buffer, options: CopyOptions & { readonly signal?: AbortSignal | undefined } = {}): Promise<CopyReport> {
  const { signal, ...rest } = options
  const job: CopyJob = { from: absolute(from), to: absolute(to), options: rest, shared: sharedWork() }
  /** Helpers that have found no thread yet need none once the work is done. */
  const over = new AbortController()
  const helping: Promise<Part | undefined>[] = []
  const help = async (): Promise<Part | undefined> => {
    try {
      return await runJob<CopyJob, Part>(import.meta.url, 'copyHelpJob', job, { signal: signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]) })
    } catch (error) {
      // Where it has begun, it has said so in the shared words; the first thread may have ended for that, before this is heard.
      if (over.signal.aborted && StorageError.is(error, 'ABORTED') && !isFailed(job.shared)) return undefined
      failWork(job.shared)
      throw error
    }
  }
  const onProgress = (): void => {
    while (helping.length < maxThreads - 1) {
      const helped = help()
      helped.catch(() => undefined) // heard below, perhaps much later
      helping.push(helped)
    }
  }
  try {
    const first = runJob<CopyJob, Part>(import.meta.url, 'copyTreeJob', job, { signal, onProgress }).finally(() => over.abort())
    const results = await Promise.allSettled([first, ...await first.then(() => helping, () => helping)])
    const reasons = results.flatMap(result => result.status === 'rejected' ? [result.reason as unknown] : [])
    // Helpers that were told to stop are not what failed.
    if (reasons.length > 0) throw reasons.find(reason => !StorageError.is(reason, 'ABORTED')) ?? reasons[0]
    if (isFailed(job.shared)) throw new TypeError('a thread of a copy failed and did not say so')
    const parts = results.flatMap(result => result.status === 'fulfilled' && result.value !== undefined ? [result.value] : [])
    const counts = noCounts()
    for (const { report } of parts) addCounts(counts, report)
    const lefts = parts.flatMap(({ left }) => left ?? [])
    if (lefts.length > 0) {
      const left: Left = { directories: lefts.flatMap(({ directories }) => directories), linked: lefts.flatMap(({ linked }) => linked) }
      addCounts(counts, await runJob<EndJob, CopyReport>(import.meta.url, 'copyEndJob', { ...job, left }, { signal }))
    }
    return counts
  } catch (error) {
    const first = failure(job, error)
    if (mustClean(job)) first.message += await runJob<CopyJob, string>(import.meta.url, 'copyCleanJob', job).catch((e: Error) => ` (and removing the partial copy failed: ${e.message})`)
    throw first
  }
}

/** A worker's own working directory may differ (jail.ts). */
function absolute(path: string | Buffer): Buffer {
  const bytes = Buffer.from(path)
  return bytes[0] === 0x2f ? bytes : Buffer.concat([Buffer.from(`${process.cwd()}/`), bytes])
}

type EndJob = CopyJob & { readonly left: Left }

async function unmasked<T>(work: (noMask: boolean) => T): Promise<T> {
  return canStandAlone() ? await withOwnUmask(() => work(true)) : work(false)
}

/** For threads.ts only. */
export function copyTreeJob(job: CopyJob, context: JobContext): Promise<Part> {
  return unmasked(noMask => begin(job, { noMask, check: () => context.checkAborted(), onMuch: () => context.progress(0) }))
}

/** For threads.ts only. */
export function copyHelpJob(job: CopyJob, context: JobContext): Promise<Part> {
  return unmasked(noMask => fillPart(job, new Work(job.shared, false), { noMask, check: () => context.checkAborted() }))
}

/** For threads.ts only. */
export function copyEndJob(job: EndJob, context: JobContext): CopyReport {
  const copy = plainCopy(job, { noMask: false, check: () => context.checkAborted() })
  complete(job.left, copy)
  return copy.counts
}

/** For threads.ts only. Returns what could not be removed, to be said with the first failure. */
export function copyCleanJob(job: CopyJob): string {
  const first = new Error('')
  clean(job, first)
  return first.message
}
