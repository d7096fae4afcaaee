// prune(): gives back what nobody refers to: images without a name, or without a container; what interrupted work left; what repair has set aside; anonymous volumes.
// The bytes that it tells are allocated ones, of what has really gone.

import path from 'node:path'
import { StorageError } from '../errors.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { treeUsage } from '../fs/usage.ts'
import type { ChainId, Digest } from '../ids.ts'
import { decodeConfig } from '../images/config.ts'
import { ImageDb } from '../images/image-db.ts'
import type { RemovedItem } from '../images/index.ts'
import { driverLayersInUse } from '../layers/in-use.ts'
import { readOnlyError } from '../layers/store-lock.ts'
import { anonymousLabel } from '../volumes/index.ts'
import { Archives } from './archives.ts'
import { problems, severityOf, told } from './check.ts'
import { usageOf } from './driver-problems.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Finding, Problem } from './types.ts'
import { listSetAside } from './set-aside.ts'
import { look } from './view.ts'
import type { ImageEntry, View } from './view.ts'

export interface PruneOptions {
  /** Every image that no container uses, not only those without a name. Default false. */
  readonly all?: boolean
  /** Anonymous volumes that no container uses as well. Default false. */
  readonly volumes?: boolean
  /** Only images made before this moment. */
  readonly until?: Date
  /** Only tell what would go. Default false. */
  readonly dryRun?: boolean
  readonly signal?: AbortSignal | undefined
}

export interface PruneResult {
  /** As `images.remove` tells it: names that went, images, layers. */
  readonly images: readonly RemovedItem[]
  /** What interrupted work left, and what repair had set aside. */
  readonly leftovers: readonly Finding[]
  readonly volumes: readonly string[]
  /** Allocated bytes. */
  readonly reclaimedBytes: number
}

/** @throws READ_ONLY (also while a dockerd runs), ABORTED, LOCKED when volumes are being pruned by another process */
export async function prune(parts: CheckParts, options: PruneOptions = {}): Promise<PruneResult> {
  if (options.dryRun !== true && parts.root.readOnly) throw readOnlyError(parts.root, 'prune')
  const images = await pruneImages(parts, options)
  const aside = await pruneSetAside(parts, options)
  const left = await pruneLeftovers(parts, options)
  const volumes = options.volumes === true ? await pruneVolumes(parts, options) : { names: [], bytes: 0 }
  return { images: images.items, leftovers: [...aside.findings, ...left.findings], volumes: volumes.names, reclaimedBytes: images.bytes + aside.bytes + left.bytes + volumes.bytes }
}

function mustGoOn({ signal }: PruneOptions): void {
  if (signal?.aborted === true) throw new StorageError('ABORTED', 'pruning: aborted', { op: 'prune' })
}

// ---- images -----------------------------------------------------------------------------------------------------------------

async function pruneImages(parts: CheckParts, options: PruneOptions): Promise<{ readonly items: readonly RemovedItem[]; readonly bytes: number }> {
  const view = await look(parts)
  const doomed = doomedImages(parts, view, options)
  const freed = await bytesOfLayers(parts, view, layersOf(view, doomed))
  if (options.dryRun === true) {
    const items = [...doomed.values()].flatMap(({ id, references }): RemovedItem[] => [...references.map(untagged => ({ untagged })), { deleted: id }])
    return { items: [...items, ...[...freed.keys()].map(deleted => ({ deleted }))], bytes: sum(freed.values()) }
  }
  const items: RemovedItem[] = []
  for (const { id, references } of doomed.values()) {
    mustGoOn(options)
    // By each of its names, without force: what came into use meanwhile stays.
    for (const name of references.length === 0 ? [id] : references) {
      try {
        items.push(...await parts.images.remove(name))
      } catch (error) {
        if (!StorageError.is(error, 'IN_USE') && !StorageError.is(error, 'NOT_FOUND')) throw error
      }
    }
  }
  const gone = new Set(items.flatMap(item => 'deleted' in item ? [item.deleted as string] : []))
  return { items, bytes: sum([...freed].flatMap(([id, bytes]) => gone.has(id) ? [bytes] : [])) }
}

/** With the nameless parents that go with them. */
function doomedImages(parts: CheckParts, view: View, { all, until }: PruneOptions): Map<Digest, ImageEntry> {
  const db = new ImageDb(parts.root)
  const used = new Set([...view.containers.values()].flatMap(({ record }) => record?.imageId ?? []))
  const parentOf = new Map([...view.images.keys()].flatMap(id => { const parent = db.parent(id); return parent === undefined ? [] : [[id, parent] as const] }))
  const doomed = new Map<Digest, ImageEntry>()
  for (let grown = -1; grown !== doomed.size;) {
    grown = doomed.size
    for (const image of view.images.values()) {
      const { id, chain, damage, references } = image
      if (doomed.has(id) || used.has(id) || chain === undefined || damage !== undefined || all !== true && references.length > 0) continue
      const children = [...parentOf].filter(([, parent]) => parent === id)
      if (children.some(([child]) => !doomed.has(child)) || until !== undefined && createdMs(db, id) >= until.getTime()) continue
      doomed.set(id, image)
    }
  }
  return doomed
}

/** When the config does not say: never. */
function createdMs(db: ImageDb, id: Digest): number {
  const ms = Date.parse(decodeConfig(db.read(id), 'CORRUPT').created ?? '')
  return Number.isNaN(ms) ? 0 : ms
}

/** Layers that only these images need. */
function layersOf(view: View, doomed: ReadonlyMap<Digest, ImageEntry>): Set<ChainId> {
  const kept = new Set<ChainId>(view.referredByOthers)
  for (const { id, chain } of view.images.values()) if (!doomed.has(id)) for (const layer of chain ?? []) kept.add(layer)
  return new Set([...doomed.values()].flatMap(({ chain }) => (chain ?? []).filter(layer => !kept.has(layer) && view.layers.has(layer))))
}

async function bytesOfLayers(parts: CheckParts, view: View, ids: ReadonlySet<ChainId>): Promise<Map<ChainId, number>> {
  const found = new Map<ChainId, number>()
  for (const id of ids) {
    const entry = view.layers.get(id)
    if (entry !== undefined) found.set(id, await sizeOf(entry.dir) + (entry.cacheId === undefined ? 0 : await usageOf(parts, entry.cacheId)))
  }
  return found
}

// ---- leftovers --------------------------------------------------------------------------------------------------------------

async function pruneSetAside(parts: CheckParts, options: PruneOptions): Promise<{ readonly findings: readonly Finding[]; readonly bytes: number }> {
  const findings: Finding[] = []
  for (const item of listSetAside(parts.root)) {
    mustGoOn(options)
    let sizeBytes = await sizeOf(item.dir)
    for (const id of item.driverLayers) sizeBytes += await usageOf(parts, id)
    findings.push({ kind: 'set-aside', area: 'leftovers', severity: 'notice', subject: item.subject, path: item.dir, sizeBytes, gainBytes: sizeBytes, reason: item.reason, repair: 'remove it' })
    if (options.dryRun === true) continue
    const used = driverLayersInUse(parts.root), snapshots = new Set(parts.snapshots.driverIds())
    // Its note goes last: as long as it is there, the layers are known.
    for (const id of item.driverLayers) if (!used.has(id) && !snapshots.has(id)) await parts.driver.remove(id)
    await removeTree(item.dir)
  }
  return { findings, bytes: sum(findings.map(finding => finding.gainBytes)) }
}

/** Leftovers may hide others, as a layer hides its parent; a few rounds find all. */
async function pruneLeftovers(parts: CheckParts, options: PruneOptions): Promise<{ readonly findings: readonly Finding[]; readonly bytes: number }> {
  const findings: Finding[] = []
  const seen = new Set<string>()
  for (let round = 0; round < 8; round++) {
    const found: Problem[] = []
    for await (const problem of problems(parts, { quick: true, signal: options.signal })) if (isLeftover(problem) && !seen.has(problem.path + problem.subject)) found.push(problem)
    if (found.length === 0) break
    for (const problem of found) {
      mustGoOn(options)
      seen.add(problem.path + problem.subject)
      const finding = await told(problem)
      if (options.dryRun !== true) {
        try {
          if (await problem.mend?.({ ...parts, archives: new Archives(), signal: options.signal }) !== undefined) continue
        } catch (error) {
          // What cannot be removed is check's to tell.
          if (!StorageError.is(error) || error.code === 'ABORTED') throw error
          continue
        }
      }
      findings.push(finding)
    }
    if (options.dryRun === true) break
  }
  return { findings, bytes: sum(findings.map(finding => finding.gainBytes)) }
}

function isLeftover(problem: Problem): boolean {
  return severityOf(problem) === 'leftover' && problem.mend !== undefined && problem.gains === true
}

// ---- volumes ----------------------------------------------------------------------------------------------------------------

async function pruneVolumes({ volumes }: CheckParts, options: PruneOptions): Promise<{ readonly names: readonly string[]; readonly bytes: number }> {
  if (options.dryRun !== true) {
    const { deleted, reclaimedBytes } = await volumes.prune(options.signal === undefined ? {} : { signal: options.signal })
    return { names: deleted, bytes: reclaimedBytes }
  }
  const names: string[] = []
  let bytes = 0
  for (const { name, driver, labels, options: given, mountpoint } of volumes.list()) {
    if (driver !== 'local' || labels?.[anonymousLabel] === undefined || Object.keys(given).length > 0 || volumes.references(name).length > 0 || volumes.mountCount(name) > 0) continue
    names.push(name)
    bytes += (await treeUsage(path.resolve(mountpoint))).sizeBytes
  }
  return { names, bytes }
}

function sum(numbers: Iterable<number>): number {
  let total = 0
  for (const n of numbers) total += n
  return total
}
