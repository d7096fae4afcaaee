// Moves everything that a driver holds in a data root to another driver: layers with their chain ids, images, names, container layers. Copies first, verifies
// what was copied, and only then lets go of the old side. Stopped at any point, it goes on when it is called again: what is there is not copied twice.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { jobsModule } from '../diff/jobs-module.ts'
import type { WriteArguments, WriteOutcome } from '../diff/jobs.ts'
import { StorageError } from '../errors.ts'
import { atomicWrite, syncDirectory } from '../fs/atomic.ts'
import { copyTree } from '../fs/copy.ts'
import { removeTree } from '../fs/remove-tree.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { giveTo, handedOver, handOverNote, withDriver } from '../containers/index.ts'
import type { ContainerRecord, ContainerStore } from '../containers/index.ts'
import { ImageDb } from '../images/image-db.ts'
import type { ImageStore } from '../images/index.ts'
import { Repositories } from '../images/repositories.ts'
import { ensureDir, imageDir, ownState, RwLayers, treeOf } from '../layers/index.ts'
import type { DataRoot, DiskLayerStore, Layer } from '../layers/index.ts'
import { syncModule } from '../layers/sync-job.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import { dropLayers, droppedPath, lockDrop } from './drop.ts'

/** One driver's stores over one data root. */
export interface MigrateSide {
  readonly root: DataRoot
  readonly layers: DiskLayerStore
  readonly images: ImageStore
  readonly containers: ContainerStore
}

export type MigrateProgress =
  | { readonly phase: 'layer' | 'verify'; readonly chainId: ChainId; readonly bytes: number; readonly done: number; readonly total: number }
  | { readonly phase: 'image'; readonly imageId: Digest; readonly done: number; readonly total: number }
  | { readonly phase: 'container'; readonly name: string; readonly done: number; readonly total: number }
  | { readonly phase: 'drop' }

export interface MigrateOptions {
  /** Leave the old side as it is, but for containers, which belong to one driver at a time. Default false. */
  readonly keep?: boolean
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: MigrateProgress) => void) | undefined
}

export interface MigrateResult {
  readonly layers: number
  readonly images: number
  readonly containers: number
  /** Layers that an earlier call had copied. */
  readonly layersBefore: number
  /** Things that the new driver could not keep (owners without privileges, sockets), counted. With any, the old side stays. */
  readonly notKept: number
  /** The old side is gone. */
  readonly dropped: boolean
}

/**
 * @throws IN_USE for a container that is mounted or running, FAILED_PRECONDITION for a side that is read-only because a dockerd runs, CORRUPT when a layer is not
 * what it was, LIMIT_EXCEEDED for more layers than the new driver carries, ABORTED, NO_SPACE
 */
export async function migrate(from: MigrateSide, to: MigrateSide, options: MigrateOptions = {}): Promise<MigrateResult> {
  const records = from.containers.list()
  const rw = { from: new RwLayers(from.layers), to: new RwLayers(to.layers) }
  for (const record of records) refuseBusy(rw.from, record)
  const layers = await parentsFirst(from.layers)
  // Nothing else refers to them until their image is there: an earlier call's layers and ours stay all the same.
  const wanted = new Set(layers.map(layer => layer.chainId))
  to.layers.addReferences(async () => wanted)

  let notKept = 0, layersBefore = 0
  for (const [done, layer] of layers.entries()) {
    const known = await to.layers.find(layer.chainId)
    if (known !== undefined) { layersBefore++; continue }
    notKept += await copyLayer(from, to, layer, options, bytes => options.onProgress?.({ phase: 'layer', chainId: layer.chainId, bytes, done, total: layers.length }))
  }
  const images = await copyImages(from, to, options)
  await copyDistribution(from.root, to.root)
  for (const [done, record] of records.entries()) {
    options.onProgress?.({ phase: 'container', name: record.name, done, total: records.length })
    notKept += await copyContainer(from, to, rw, record, options)
  }
  for (const [done, layer] of layers.entries()) {
    let bytes = 0
    // To the end, where the digest of what came is compared with the layer's.
    for await (const chunk of to.layers.tar(layer.chainId, options.signal === undefined ? {} : { signal: options.signal })) {
      bytes += chunk.length
      options.onProgress?.({ phase: 'verify', chainId: layer.chainId, bytes, done, total: layers.length })
    }
  }
  const result = { layers: layers.length, images, containers: records.length, layersBefore, notKept }
  const dropping = options.keep !== true && notKept === 0
  if (dropping) options.onProgress?.({ phase: 'drop' })
  ensureDir(ownState.dir(from.root), 0o700)
  // From here on the new side is complete, if nobody changed the old one meanwhile; nobody can until it is no more.
  const held = dropping ? lockDrop(droppedPath(from.root)) : undefined
  if (dropping && held === undefined) {
    throw new StorageError('LOCKED', `cannot migrate: another process is deleting what ${from.root.driverName} held before`, { op: 'migrate', hint: 'call it again' })
  }
  try {
    // Container layers are not synced as they are made; the old ones go in a moment.
    if (to.root.durability === 'full') await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [to.root.path, path.join(to.root.path, to.root.driverName)])
    // The old side's own note, where it can have one: opened as it was, it has all of its containers again.
    await (from.root.readOnly ? to : from).layers.operation('hand-over', async operation => await from.layers.locked(async () => {
      await refuseChanged(from, to, records)
      for (const record of records) refuseBusy(rw.from, record)
      if (from.root.path === to.root.path) await operation.undo(handedOver, handOverNote(from.root, records.map(({ id }) => id)))
      for (const record of records) await handOver(from.root, to.root, record)
      if (dropping) await unlist(from)
    }))
    if (dropping) await dropLayers(from.root, from.root.readOnly ? undefined : from.layers.driver)
  } finally {
    held?.releaseAndUnlink()
  }
  return { ...result, dropped: dropping }
}

/** Images, names and containers that came since they were copied would be lost. */
async function refuseChanged(from: MigrateSide, to: MigrateSide, records: readonly ContainerRecord[]): Promise<void> {
  const there = new Set(new ImageDb(to.root).list()), known = new Set(records.map(({ id }) => id)), names = new Repositories(to.root).read()
  const isNew = new ImageDb(from.root).list().some(id => !there.has(id)) || from.containers.list().some(({ id }) => !known.has(id))
    || new Repositories(from.root).read().all().some(({ ref, imageId }) => names.get(ref) !== imageId)
  if (isNew) throw new StorageError('FAILED_PRECONDITION', 'cannot migrate: images, names or containers were made meanwhile', { op: 'migrate', hint: 'call it again; what was copied is not copied twice' })
}

function refuseBusy(rw: RwLayers, { id, name, running }: ContainerRecord): void {
  if (!running && (rw.find(id) === undefined || rw.mountCount(id) === 0)) return
  throw new StorageError('IN_USE', `cannot migrate: container ${name} is ${running ? 'running' : 'mounted'}`, { op: 'migrate', key: id, hint: 'stop and unmount all containers first' })
}

async function parentsFirst(layers: DiskLayerStore): Promise<Layer[]> {
  const all = new Map<ChainId, Layer>()
  for await (const layer of layers.list()) all.set(layer.chainId, layer)
  const sorted = new Map<ChainId, Layer>()
  const visit = (layer: Layer | undefined): void => {
    if (layer === undefined || sorted.has(layer.chainId)) return
    if (layer.parent !== undefined) visit(all.get(layer.parent))
    sorted.set(layer.chainId, layer)
  }
  for (const layer of all.values()) visit(layer)
  return [...sorted.values()]
}

/** Returns how many things were not kept. */
async function copyLayer(from: MigrateSide, to: MigrateSide, layer: Layer, { signal }: MigrateOptions, onProgress: (bytes: number) => void): Promise<number> {
  return await to.layers.operation('migrate', async operation => {
    const stream = from.layers.tar(layer.chainId, signal === undefined ? {} : { signal })
    const [made] = await to.layers.register(operation, [{ source: { stream }, diffId: layer.diffId, onProgress, label: layer.chainId }], layer.parent)
    return made?.skippedCount ?? 0
  }, signal)
}

async function copyImages(from: MigrateSide, to: MigrateSide, options: MigrateOptions): Promise<number> {
  const old = new ImageDb(from.root), made = new ImageDb(to.root)
  const ids = old.list()
  for (const [done, id] of ids.entries()) {
    options.onProgress?.({ phase: 'image', imageId: id, done, total: ids.length })
    await to.layers.operation('migrate', operation => to.images.create(old.read(id), { operation }), options.signal)
  }
  await to.layers.locked(async () => {
    for (const id of ids) {
      for (const key of ['parent', 'lastUpdated', 'builtLocally'] as const) {
        const value = old.metadata(id, key)
        if (value !== undefined) await made.setMetadata(id, key, value)
      }
    }
    await new Repositories(to.root).change(names => { for (const { ref, imageId } of new Repositories(from.root).read().all()) names.set(ref, imageId, { force: true }) })
  })
  return ids.length
}

/** Which blobs hold which layers, so that dockerd does not fetch again what is there. */
async function copyDistribution(from: DataRoot, to: DataRoot): Promise<void> {
  const source = path.join(imageDir(from), 'distribution'), target = path.join(imageDir(to), 'distribution')
  if (fs.existsSync(source) && !fs.existsSync(target)) await copyTree(source, target)
}

/** Copies it anew each time: until it is handed over, the old one may still be changed. Returns how many things were not kept. */
async function copyContainer(from: MigrateSide, to: MigrateSide, rw: { readonly from: RwLayers; readonly to: RwLayers }, record: ContainerRecord, { signal }: MigrateOptions): Promise<number> {
  const files = rw.from.find(record.id)
  if (files === undefined) return 0
  await rw.to.remove(record.id)
  const image = files.parent === undefined ? undefined : (await from.layers.get(files.parent)).cacheId
  let skipped = 0
  const written = async function* (upper: LayerId, lower: LayerId | undefined): AsyncGenerator<Buffer, void> {
    skipped += (yield* layerDiff(from, upper, lower, signal)).skipped.length
  }
  const limits = to.layers.driver.supports.quota ? storageOptions(from.root, record.id) : undefined
  await rw.to.create(record.id, {
    ...(files.parent === undefined ? {} : { parent: files.parent }), ...(limits === undefined ? {} : { storageOptions: limits }), ...(files.idMap === undefined ? {} : { idMap: files.idMap }), ...(files.chowned === undefined ? {} : { chown: files.chowned }),
    content: { init: files.initId === undefined ? empty() : written(files.initId, image), own: written(files.mountId, files.initId ?? image) },
  })
  const made = rw.to.get(record.id)
  const [before, after] = [await digestOf(layerDiff(from, files.mountId, files.initId ?? image, signal)), await digestOf(layerDiff(to, made.mountId, made.initId, signal))]
  if (before !== after) {
    await rw.to.remove(record.id)
    throw new StorageError('CORRUPT', `migrating container ${record.name}: its changes are ${before} there and ${after} here`, { op: 'migrate', key: record.id, hint: 'it may have been changed meanwhile: unmount it and try again' })
  }
  return skipped
}

async function* empty(): AsyncGenerator<Buffer> {
  yield Buffer.alloc(1024) // a tar of nothing: its two closing blocks
}

/** What differs between two layers as they show. */
async function* layerDiff({ layers: { driver } }: MigrateSide, upper: LayerId, lower: LayerId | undefined, signal: AbortSignal | undefined): AsyncGenerator<Buffer, WriteOutcome> {
  const args: WriteArguments = { upper: treeOf(await driver.content(upper)), ...(lower === undefined ? {} : { lower: treeOf(await driver.content(lower)) }) }
  return yield* streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', args, { signal })
}

async function digestOf(tar: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of tar) hash.update(chunk)
  return `sha256:${hash.digest('hex')}`
}

function storageOptions(root: DataRoot, id: string): Readonly<Record<string, string>> | undefined {
  const file = path.join(root.path, 'containers', id, 'hostconfig.json')
  if (!fs.existsSync(file)) return undefined
  const { StorageOpt } = JSON.parse(fs.readFileSync(file, 'utf8')) as { StorageOpt?: Readonly<Record<string, string>> | null }
  return StorageOpt ?? undefined
}

/** The container's own files say whose it is. In another root they are copied, the one that says so last. */
async function handOver(from: DataRoot, to: DataRoot, record: ContainerRecord): Promise<void> {
  if (from.path === to.path) return await giveTo(from, record.id, to.driverName)
  const source = path.join(from.path, 'containers', record.id), target = path.join(to.path, 'containers', record.id)
  const config = withDriver(fs.readFileSync(path.join(source, 'config.v2.json'), 'utf8'), to.driverName)
  ensureDir(path.dirname(target), 0o710)
  const draft = path.join(path.dirname(target), `.new-${record.id}`)
  await removeTree(draft)
  await copyTree(source, draft)
  await atomicWrite(path.join(draft, 'config.v2.json'), config, { mode: 0o600, sync: to.durability !== 'none' })
  await removeTree(target)
  fs.renameSync(draft, target)
}

/** The catalogue goes by one rename, and with it everything that names the layers. */
async function unlist({ root, containers }: MigrateSide): Promise<void> {
  const doomed = droppedPath(root)
  await removeTree(doomed)
  // What another root has taken over; in the same root none is left.
  for (const { id } of containers.list()) await removeTree(path.join(root.path, 'containers', id))
  if (!fs.existsSync(imageDir(root))) return
  fs.renameSync(imageDir(root), doomed)
  if (root.durability === 'none') return
  // A power cut must not bring back a catalogue whose layers are half deleted.
  for (const dir of [path.dirname(doomed), path.dirname(imageDir(root))]) await syncDirectory(dir)
}
