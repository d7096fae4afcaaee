// Staging: extract layers into new driver layers where nobody sees them, with everything that the catalogue will need in a write-set. Publishing
// is the store's business.

import { setMaxListeners } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { randomBytes } from 'node:crypto'
import type { Driver, LayerContent } from '../driver.ts'
import { jobsModule } from '../diff/jobs-module.ts'
import type { FileRange } from '../diff/index.ts'
import type { ApplyArguments, ApplyOutcome, SettleArguments } from '../diff/jobs.ts'
import { StorageError } from '../errors.ts'
import { randomId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { maxThreads, runJob } from '../sys/threads.ts'
import { layerDb } from './data-root.ts'
import type { Intent } from './intents.ts'
import { tarSplitName } from './layer-files.ts'
import type { DataRoot, LayerToRegister } from './types.ts'

export interface StagedLayer {
  readonly cacheId: LayerId
  readonly writeSet: string
  readonly outcome: ApplyOutcome
}

export interface StagingPlace {
  readonly root: DataRoot
  readonly driver: Driver
  readonly intent: Intent
  readonly signal: AbortSignal | undefined
}

/**
 * Extract `layers`, bottom first, above the driver layer `below`. Drivers whose layers are independent get all of them at once, as many threads
 * as there are; a complete tree needs its parent's first. The first failure stops the others.
 */
export async function stageLayers(place: StagingPlace, layers: readonly LayerToRegister[], below: LayerId | undefined, firstIndex: number): Promise<StagedLayer[]> {
  const { root, driver, intent } = place
  const staged = layers.map(() => ({ cacheId: randomId(), writeSet: path.join(layerDb.tmp(root), `write-set-${randomBytes(8).toString('hex')}`) }))
  intent.note('layer', staged.map(layer => layer.cacheId))
  intent.note('path', staged.map(layer => layer.writeSet))

  const stop = new AbortController()
  // Every layer listens; Node warns from the eleventh on.
  setMaxListeners(0, stop.signal)
  const onAbort = (): void => stop.abort()
  place.signal?.addEventListener('abort', onAbort, { once: true })
  if (place.signal?.aborted) stop.abort()
  const running: Promise<StagedLayer>[] = []
  const busy = driver.supports.independentLayers && maxThreads > 1 && layers.length >= maxThreads
  try {
    const start = (i: number): Promise<StagedLayer> => {
      const work = extract(place, layers[i] as LayerToRegister, staged[i] as Target, firstIndex + i, busy, stop.signal).catch((error: unknown) => { stop.abort(); throw error })
      work.catch(() => undefined)
      running[i] = work
      return work
    }
    for (const [i, target] of staged.entries()) {
      if (stop.signal.aborted) break
      const parent = i === 0 ? below : staged[i - 1]?.cacheId
      await driver.create(target.cacheId, parent === undefined ? {} : { parent })
      if (!driver.supports.independentLayers) await start(i)
    }
    // The longest first: what is short fills the gaps at the end.
    // Aborted meanwhile: then some may not have been laid out, and none is needed.
    if (driver.supports.independentLayers && !stop.signal.aborted) for (const i of [...layers.keys()].sort((a, b) => fileBytes(layers[b]) - fileBytes(layers[a]))) start(i).catch(() => undefined)
    const done = await settleAll(running)
    if (place.signal?.aborted) throw new StorageError('ABORTED', 'extracting layers: aborted', { op: 'register' })
    if (driver.supports.independentLayers) for (const layer of done) await settleImplied(driver, layer)
    return done
  } catch (error) {
    stop.abort()
    await Promise.allSettled(running)
    throw error
  } finally {
    place.signal?.removeEventListener('abort', onAbort)
  }
}

function fileBytes(layer: LayerToRegister | undefined): number {
  return layer !== undefined && 'file' in layer.source ? layer.source.file.length : 0
}

/** All results, or the first failure that is not merely a consequence of another's abort. */
async function settleAll<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(work)
  const failures = results.flatMap(result => result.status === 'rejected' ? [result.reason as unknown] : [])
  const cause = failures.find(error => !StorageError.is(error, 'ABORTED')) ?? failures[0]
  if (cause !== undefined) throw cause
  return results.map(result => (result as PromiseFulfilledResult<T>).value)
}

interface Target {
  readonly cacheId: LayerId
  readonly writeSet: string
}

/** Below this a second job costs more than it saves. */
const hashElsewhereBytes = 4 * 1024 * 1024

async function extract(place: StagingPlace, layer: LayerToRegister, target: Target, index: number, busy: boolean, signal: AbortSignal): Promise<StagedLayer> {
  const content = await place.driver.content(target.cacheId)
  fs.mkdirSync(target.writeSet, { mode: 0o700 })
  const tarSplitFd = fs.openSync(path.join(target.writeSet, tarSplitName), 'wx', 0o644)
  try {
    fs.fchmodSync(tarSplitFd, 0o644)
    const file = 'file' in layer.source ? layer.source.file : undefined
    const hashedElsewhere = file !== undefined && file.length >= hashElsewhereBytes && maxThreads > 1
    const args: ApplyArguments = { dir: content.path, tarSplitFd, ...applyFormat(content), source: file, plain: 'stream' in layer.source && layer.source.plain === true, hashedElsewhere, inflateHere: busy, limits: layer.limits ?? place.root.limits?.layer }
    const applied = runJob<ApplyArguments, ApplyOutcome>(jobsModule, 'applyJob', args, {
      signal, onProgress: layer.onProgress, input: 'stream' in layer.source ? layer.source.stream : undefined,
    })
    const hashed = hashedElsewhere ? runJob<FileRange, string>(jobsModule, 'hashJob', file, { signal }) : undefined
    const outcome = hashed === undefined ? await applied : await withDigest(applied, hashed)
    if (layer.blobDigest !== undefined && layer.blobDigest !== outcome.blobDigest) {
      throw new StorageError('DIGEST_MISMATCH', `layer ${index}: the blob's digest is ${outcome.blobDigest}, and its descriptor says ${layer.blobDigest}`, { op: 'register', ...(layer.label === undefined ? {} : { key: layer.label }) })
    }
    if (layer.diffId !== undefined && layer.diffId !== outcome.diffId) {
      throw new StorageError('DIGEST_MISMATCH', `invalid diffID for layer ${index}: expected "${layer.diffId}", got "${outcome.diffId}"`,
        { op: 'register', key: layer.label ?? layer.diffId, hint: 'the archive was altered or damaged after the image was made' })
    }
    return { ...target, outcome }
  } catch (error) {
    if (layer.label === undefined || !StorageError.is(error) || error.code === 'DIGEST_MISMATCH') throw error
    throw new StorageError(error.code, `layer ${index} (${layer.label}): ${error.message}`, error.info, { cause: error })
  } finally {
    fs.closeSync(tarSplitFd)
  }
}

/** Both are waited for, whichever fails: the descriptors that they use are closed afterwards. */
async function withDigest(applied: Promise<ApplyOutcome>, hashed: Promise<string>): Promise<ApplyOutcome> {
  const [outcome, digest] = await settleAll<ApplyOutcome | string>([applied, hashed]) as [ApplyOutcome, string]
  return { ...outcome, blobDigest: digest, diffId: outcome.diffId === '' ? digest : outcome.diffId }
}

/** How a layer is laid down in this content. */
export function applyFormat(content: LayerContent): Pick<ApplyArguments, 'format' | 'xattrPrefix'> {
  if (content.kind === 'tree') return { format: 'remove' }
  return { format: content.whiteouts === 'fuse-overlayfs' ? 'overlay' : content.whiteouts, xattrPrefix: content.xattrPrefix }
}

/** Directories that the layer used without naming them take over what they hide; only possible now that the layers below are complete. */
async function settleImplied(driver: Driver, layer: StagedLayer): Promise<void> {
  if (layer.outcome.impliedDirectories.length === 0) return
  const content = await driver.content(layer.cacheId)
  if (content.kind !== 'branch' || content.lowers.length === 0) return
  const args: SettleArguments = {
    dir: content.path, names: layer.outcome.impliedDirectories,
    lower: { layers: content.lowers, whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix },
  }
  await runJob<SettleArguments, void>(jobsModule, 'settleImpliedJob', args)
}
