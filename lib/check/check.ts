// check(): looks a data root over and tells what is wrong, in order of areas, as it is found. Reads only. What is under way is not wrong: what one look finds
// counts when the next look finds it again.

import { setTimeout as sleep } from 'node:timers/promises'
import { isErrno, StorageError } from '../errors.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { containerProblems } from './container-problems.ts'
import { driverProblems } from './driver-problems.ts'
import { imageProblems } from './image-problems.ts'
import { damaged, layerProblems } from './layer-problems.ts'
import { leftoverProblems } from './leftover-problems.ts'
import { checkAreas, findingKinds } from './types.ts'
import type { CheckOptions, CheckParts, Finding, Problem } from './types.ts'
import { inParallel, verifyLayer } from './verify.ts'
import { look } from './view.ts'
import type { LayerEntry, View } from './view.ts'
import { volumeProblems } from './volume-problems.ts'

/** Between two looks. The first does where nobody else is at work; the others are longer than anything takes that no lock and no intent tells of. */
const pausesMs = [5, 100, 400]

/** Findings, as they are found. */
export async function* check(parts: CheckParts, options: CheckOptions = {}): AsyncGenerator<Finding> {
  for await (const problem of problems(parts, options)) yield await told(problem)
}

/** The same with the deeds behind them. */
export async function* problems(parts: CheckParts, options: CheckOptions = {}): AsyncGenerator<Problem> {
  const areas = new Set(options.only ?? checkAreas)
  for (const area of areas) if (!checkAreas.includes(area)) throw new TypeError(`no area of check is called ${JSON.stringify(area)}: there are ${checkAreas.join(', ')}`)
  const { view, found } = await lastingProblems(parts, options.signal)
  for (const problem of found) if (areas.has(findingKinds[problem.kind][0])) yield problem
  if (options.quick !== true && areas.has('layers')) yield* contentProblems(parts, view, found, options)
}

async function lastingProblems(parts: CheckParts, signal: AbortSignal | undefined): Promise<{ readonly view: View; readonly found: readonly Problem[] }> {
  let { view, found } = await lookOver(parts)
  for (const pauseMs of pausesMs) {
    // A lone notice is not worth a wait, unless it is one only because of something that may pass.
    if (found.every(problem => severityOf(problem) === 'notice' && (problem.doubtful !== true || view.quiet))) break
    await pause(pauseMs, signal)
    const wasQuiet: boolean = view.quiet
    const before = new Set(found.map(keyOf))
    const again = await lookOver(parts)
    view = again.view
    found = again.found.filter(problem => before.has(keyOf(problem)))
    if (wasQuiet && view.quiet) break
  }
  return { view, found }
}

/** What is read may be removed between the look at its name and the look into it: then once more. */
async function lookOver(parts: CheckParts): Promise<{ view: View; found: readonly Problem[] }> {
  for (let tries = 20; ; tries--) {
    try {
      const view = await look(parts)
      return { view, found: structureProblems(parts, view) }
    } catch (error) {
      if (tries === 0 || !isErrno(error, 'ENOENT', 'ENOTDIR')) throw error
    }
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal })
  } catch {
    throw new StorageError('ABORTED', 'checking: aborted', { op: 'check' })
  }
}

export function keyOf({ kind, subject, path }: Pick<Problem, 'kind' | 'subject' | 'path'>): string {
  return `${kind}\0${subject}\0${path}`
}

function structureProblems(parts: CheckParts, view: View): Problem[] {
  const all = [...driverProblems(parts, view), ...layerProblems(parts, view), ...imageProblems(parts, view), ...containerProblems(parts, view), ...volumeProblems(parts), ...leftoverProblems(parts, view)]
  return withoutConsequences(view, all)
}

/** A layer's missing content is told once, whoever notices; an image whose layer is damaged is told with that layer. */
function withoutConsequences(view: View, all: readonly Problem[]): Problem[] {
  const byDriver = new Set(all.flatMap(problem => problem.kind === 'content-missing' && !problem.subject.startsWith('sha256:') ? [problem.subject] : []))
  // The driver speaks of its own ids; where the layer is one of the database, that is its name.
  const chainOf = new Map([...view.layers.values()].flatMap(entry => entry.cacheId === undefined || entry.layer === undefined ? [] : [[entry.cacheId as string, entry] as const]))
  // Where the file by which a layer exists is lost, and can be written anew, the layer is not.
  const curable = new Set(all.flatMap(({ kind, subject, mend }) => kind === 'lower-damaged' && mend !== undefined && !view.driverLayers.has(subject as LayerId) ? [subject] : []))
  return all.flatMap((problem): Problem[] => {
    if (curable.size > 0) {
      const ids = problem.kind === 'content-missing' ? [view.layers.get(problem.subject as ChainId)?.cacheId] : problem.kind === 'mount-layers-missing' ? view.containersLayers.get(problem.subject)?.ids : []
      if (ids?.some(id => id !== undefined && curable.has(id)) === true) return []
    }
    const entry = chainOf.get(problem.subject)
    if (problem.kind !== 'content-missing' || entry === undefined || !byDriver.has(problem.subject)) return [problem]
    return [damaged(view, entry, 'content-missing', problem.path, problem.reason)]
  })
}

/** Every layer's content that structure has not told of already. */
async function* contentProblems(parts: CheckParts, view: View, found: readonly Problem[], options: CheckOptions): AsyncGenerator<Problem> {
  const told = new Set(found.filter(problem => severityOf(problem) === 'damage').map(problem => problem.subject))
  const entries = [...view.layers.values()].filter(entry => entry.layer !== undefined && !told.has(entry.chainId) && !told.has(entry.layer.cacheId) && entry.layer.cacheId !== undefined)
  // A broken link of one layer hides all that stand on it.
  const homeIsDamaged = found.some(problem => findingKinds[problem.kind][0] === 'driver' && severityOf(problem) === 'damage')
  const bytesOf = new Map<LayerEntry, number>()
  let done = 0
  const report = (): void => options.onProgress?.({ done, total: entries.length, bytes: [...bytesOf.values()].reduce((sum, bytes) => sum + bytes, 0) })
  for await (const problem of inParallel(entries, async entry => {
    const fault = await verify(parts, view, entry, homeIsDamaged, options.signal, bytes => { bytesOf.set(entry, bytes); report() })
    done++
    report()
    return fault
  })) if (problem !== undefined) yield problem
}

async function verify(parts: CheckParts, view: View, entry: LayerEntry, homeIsDamaged: boolean, signal: AbortSignal | undefined, onProgress: (bytes: number) => void): Promise<Problem | undefined> {
  if (entry.layer === undefined) return undefined
  const result = await verifyLayer(parts.driver, entry.layer, entry.dir, { signal, onProgress })
  if (typeof result === 'number') {
    onProgress(result)
    return undefined
  }
  if (result.unplaced === true && homeIsDamaged) return undefined
  // Removed, or mended, while it was read.
  const now = (await look(parts)).layers.get(entry.chainId)
  if (now?.layer === undefined || now.layer.cacheId !== entry.layer.cacheId) return undefined
  const again = await verifyLayer(parts.driver, now.layer, now.dir, { signal })
  return typeof again === 'number' ? undefined : damaged(view, entry, again.kind, again.path, again.reason)
}

export function severityOf({ kind, doubtful }: Pick<Problem, 'kind' | 'doubtful'>): Finding['severity'] {
  return doubtful === true ? 'notice' : findingKinds[kind][1]
}

/** The finding alone, with its sizes. */
export async function told(problem: Problem): Promise<Finding> {
  const { kind, subject, path, reason, repair, images, measure, gains } = problem
  const sizeBytes = await measure?.() ?? 0
  return {
    kind, area: findingKinds[kind][0], severity: severityOf(problem), subject, path, sizeBytes, reason, gainBytes: gains === true && repair !== undefined ? sizeBytes : 0,
    ...(repair === undefined ? {} : { repair }), ...(images === undefined ? {} : { images }),
  }
}
