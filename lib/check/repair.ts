// repair(): does what check says a repair would do, phase by phase, and looks again after each, as one repair makes another possible or needless. Deletes only what
// is proved to be nobody's; what is damaged and cannot be made good is set aside, not deleted. Asked again, it has nothing to do.

import type { ArchiveSource } from '../images/archive.ts'
import { asStorageError, StorageError } from '../errors.ts'
import type { Digest } from '../ids.ts'
import { readOnlyError } from '../layers/store-lock.ts'
import { Archives } from './archives.ts'
import { keyOf, problems, severityOf, told } from './check.ts'
import type { CheckParts, CheckProgress, Finding, MendTools, Phase, Problem } from './types.ts'
import { look, nameOf } from './view.ts'

export interface RepairOptions {
  /** Do it. Default false: only say what would be done, and what it would give back. */
  readonly apply?: boolean
  /** Archives (Docker's or OCI layouts: a path, a descriptor or a stream) that damaged and missing layers and images are taken from, by diffID and image id. */
  readonly from?: readonly ArchiveSource[]
  /** Structure alone: damaged content is not looked for. Default false. */
  readonly quick?: boolean
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: CheckProgress) => void) | undefined
  /** Told when a step is done, or, without `apply`, planned. */
  readonly onStep?: ((step: RepairStep) => void) | undefined
}

export interface RepairStep {
  readonly finding: Finding
  /** `planned`: without `apply`. `left`: it was tried, or is not to be tried; `why` says what stands in the way. */
  readonly outcome: 'planned' | 'done' | 'left'
  readonly why?: string
}

export interface RepairResult {
  readonly steps: readonly RepairStep[]
  /** Bytes that the steps give back. */
  readonly gainBytes: number
  /** Images that have been, or would be, set aside and need loading again. */
  readonly reload: readonly string[]
  /** What is still wrong afterwards, notices left out; without `apply`: what would be left alone. */
  readonly remaining: readonly Finding[]
}

const phases: readonly Phase[] = ['settle', 'structure', 'content', 'catalogue', 'remove']
/** A chain of damages takes a round each; whatever is not mended by then is not going to be. */
const mostRounds = 64

/** @throws READ_ONLY (also while a dockerd runs), ABORTED, what opening an archive throws */
export async function repair(parts: CheckParts, options: RepairOptions = {}): Promise<RepairResult> {
  if (options.apply !== true) return await plan(parts, options)
  if (parts.root.readOnly) throw readOnlyError(parts.root, 'repair')
  const sources = options.from ?? []
  if (sources.length === 0) return await apply(parts, new Archives(), options)
  return await parts.layers.run('repair', async operation => {
    const archives = await Archives.open(parts.root, operation, sources)
    try {
      return await apply({ ...parts, ownIntent: operation.intent.record().name }, archives, options)
    } finally {
      archives.close()
    }
  }, options.signal)
}

async function plan(parts: CheckParts, options: RepairOptions): Promise<RepairResult> {
  const steps: RepairStep[] = [], remaining: Finding[] = []
  const reload = new Set<string>()
  const found: Problem[] = []
  for await (const problem of problems(parts, checkOptions(options))) found.push(problem)
  for (const problem of inOrder(found)) {
    const finding = await told(problem)
    if (finding.repair === undefined) {
      if (finding.severity !== 'notice') remaining.push(finding)
      continue
    }
    for (const image of finding.images ?? []) if (mayNeedReload(problem)) reload.add(image)
    const step = { finding, outcome: 'planned' } as const
    steps.push(step)
    options.onStep?.(step)
  }
  return { steps, remaining, reload: [...reload].sort(), gainBytes: gainOf(steps) }
}

function mayNeedReload({ kind }: Problem): boolean {
  return ['content-missing', 'content-damaged', 'tar-split-damaged', 'layer-record-damaged', 'layer-parent-missing', 'image-damaged', 'image-layers-missing', 'name-without-image'].includes(kind)
}

function checkOptions({ quick, signal, onProgress }: RepairOptions): { readonly quick: boolean; readonly signal: AbortSignal | undefined; readonly onProgress: RepairOptions['onProgress'] } {
  return { quick: quick === true, signal, onProgress }
}

function inOrder(found: readonly Problem[]): Problem[] {
  return [...found].sort((a, b) => phases.indexOf(a.phase ?? 'remove') - phases.indexOf(b.phase ?? 'remove'))
}

async function apply(parts: CheckParts, archives: Archives, options: RepairOptions): Promise<RepairResult> {
  const tools: MendTools = { ...parts, archives, signal: options.signal }
  const steps: RepairStep[] = []
  const tried = new Map<string, Tried>()
  const before = await imagesInUse(parts)
  // Content is read once; what a phase has changed is looked at again by structure, and at the end by content once more.
  let deep = options.quick !== true
  for (let round = 0; round < mostRounds; round++) {
    const found: Problem[] = []
    for await (const problem of problems(parts, { ...checkOptions(options), quick: !deep })) found.push(problem)
    const open = inOrder(found).filter(problem => problem.mend !== undefined && mayTry(tried.get(keyOf(problem)), steps))
    const [first] = open
    if (first === undefined) {
      if (deep || options.quick === true) return { steps, remaining: await remainingOf(found), reload: await missingOf(parts, before, steps), gainBytes: gainOf(steps) }
      deep = true
      continue
    }
    const phase = first.phase ?? 'remove'
    deep = false
    for (const problem of open.filter(one => (one.phase ?? 'remove') === phase)) {
      if (options.signal?.aborted === true) throw new StorageError('ABORTED', 'repairing: aborted', { op: 'repair' })
      const finding = await told(problem)
      const why = await attempt(problem, tools)
      const step: RepairStep = why === undefined ? { finding, outcome: 'done' } : { finding, outcome: 'left', why }
      const earlier = tried.get(keyOf(problem))
      if (earlier === undefined) steps.push(step)
      else steps[steps.indexOf(earlier.step)] = step
      tried.set(keyOf(problem), { step, done: countDone(steps) })
      if (earlier === undefined || why !== earlier.step.why) options.onStep?.(step)
    }
  }
  throw new StorageError('FAILED_PRECONDITION', `repair found more after ${mostRounds} rounds`, { op: 'repair', hint: 'another process may be damaging the data root' })
}

/** The last try at a problem, and how many steps were done by then. */
interface Tried { readonly step: RepairStep; readonly done: number }

/** What was left is tried again when other steps have been done since, as they may have cleared its way; what was done and is there again is told, not mended for ever. */
function mayTry(tried: Tried | undefined, steps: readonly RepairStep[]): boolean {
  return tried === undefined || tried.step.outcome === 'left' && countDone(steps) > tried.done
}

function countDone(steps: readonly RepairStep[]): number {
  return steps.filter(step => step.outcome === 'done').length
}

/** Undefined when it is done. One that fails stops no other. */
async function attempt(problem: Problem, tools: MendTools): Promise<string | undefined> {
  try {
    const result = await problem.mend?.(tools)
    return result === undefined ? undefined : result.left
  } catch (error) {
    if (error instanceof TypeError) throw error
    const failure = asStorageError(error, `repairing ${problem.path}`)
    if (failure.code === 'ABORTED' || failure.code === 'NO_SPACE') throw failure
    return failure.message
  }
}

async function remainingOf(found: readonly Problem[]): Promise<Finding[]> {
  const remaining: Finding[] = []
  for (const problem of found) if (severityOf(problem) !== 'notice') remaining.push(await told(problem))
  return remaining
}

function gainOf(steps: readonly RepairStep[]): number {
  return steps.reduce((sum, { finding, outcome }) => outcome === 'left' ? sum : sum + finding.gainBytes, 0)
}

/** What an image is called, for each that is in use now. */
async function imagesInUse(parts: CheckParts): Promise<Map<string, string>> {
  return new Map([...(await look(parts)).images.values()].map(image => [image.id, nameOf(image)]))
}

/** Images that went, and names whose image was never found. */
async function missingOf(parts: CheckParts, before: ReadonlyMap<string, string>, steps: readonly RepairStep[]): Promise<string[]> {
  const view = await look(parts)
  const gone = [...before].flatMap(([id, name]) => view.images.has(id as Digest) ? [] : [name])
  const names = steps.flatMap(({ finding: { kind, subject } }) => kind === 'name-without-image' && view.names?.has(subject) !== true ? [subject] : [])
  return [...new Set([...gone, ...names])].sort()
}
