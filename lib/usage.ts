// Honest disk usage of a data root: what images share is counted once, and what could be reclaimed is the total less the union of the layers in
// use, never a sum over images (cli#1798), so that nothing is ever negative. What no catalogue knows gets rows of its own. Changes nothing.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from './errors.ts'
import { namesIn } from './fs/names-in.ts'
import { treeUsage } from './fs/usage.ts'
import { isLayerId } from './ids.ts'
import type { ChainId, Digest, LayerId } from './ids.ts'
import type { ImageRecord } from './images/index.ts'
import { allIntents, buildCacheDir, driverLayersInUse, imageDir, layerDb, ownState, readBuildCache, readRwFiles, rwLayerIds, tarSplitName } from './layers/index.ts'
import type { BuildCache, DataRoot, Layer } from './layers/index.ts'
import type { Storage } from './storage.ts'

/** Bytes; undefined where they were not to be counted (`storedOnly`). */
export type Bytes = number | undefined

export interface DiskUsageOptions {
  /** Count no files one by one: what is in no catalogue has no size then. Milliseconds, however much there is. Default false. */
  readonly storedOnly?: boolean
  readonly signal?: AbortSignal
}

export interface ImageUsage {
  readonly id: Digest
  readonly references: readonly string[]
  /** RFC 3339. */
  readonly created?: string
  /** Apparent bytes, from the layers' stored sizes. */
  readonly sizeBytes: number
  /** Of that, in layers that other images use as well. */
  readonly sharedBytes: number
  readonly uniqueBytes: number
  readonly containers: number
}

export interface ContainerUsage {
  readonly id: string
  readonly name: string
  readonly imageId?: Digest
  /** Allocated bytes of its own layer; for a driver of complete trees, of the whole copy. */
  readonly sizeBytes: Bytes
  /** Of the layer of mount points below it. */
  readonly initBytes: Bytes
  readonly logBytes: number
  readonly volumes: number
  readonly mounted: boolean
  /** Mounted, or running for all that dockerd has noted. */
  readonly active: boolean
}

export interface VolumeUsage {
  readonly name: string
  /** Containers and others that refer to it. */
  readonly links: number
  /** Allocated bytes; 0 for one whose data lies elsewhere. */
  readonly sizeBytes: Bytes
}

export interface BuildCacheUsage {
  /** The driver's layer. */
  readonly id: LayerId
  readonly sizeBytes: Bytes
}

export interface OrphanUsage {
  readonly id: LayerId
  readonly sizeBytes: Bytes
}

export type UsageType =
  | 'Images' | 'Containers' | 'Local Volumes' | 'Build Cache' | 'Container logs' | 'Container init layers' | 'Tar-split' | 'Snapshots'
  | 'Layers without image' | 'Orphans' | 'Other drivers' | 'Temporary files'

export interface UsageRow {
  readonly type: UsageType
  readonly total: number
  readonly active: number
  readonly sizeBytes: Bytes
  readonly reclaimableBytes: Bytes
}

export interface DiskUsage {
  readonly rows: readonly UsageRow[]
  /** Those that have a name, or that no other is made from. */
  readonly images: readonly ImageUsage[]
  readonly containers: readonly ContainerUsage[]
  readonly volumes: readonly VolumeUsage[]
  /** What BuildKit has for itself; what it shares with images is among these. */
  readonly buildCache: readonly BuildCacheUsage[]
  /** Driver layers that nobody knows. */
  readonly orphans: readonly OrphanUsage[]
}

export async function diskUsage(storage: Storage, root: DataRoot, options: DiskUsageOptions): Promise<DiskUsage> {
  return await new Count(storage, root, options).all()
}

class Count {
  readonly #storage: Storage
  readonly #root: DataRoot
  readonly #options: DiskUsageOptions

  constructor(storage: Storage, root: DataRoot, options: DiskUsageOptions) {
    this.#storage = storage
    this.#root = root
    this.#options = options
  }

  async all(): Promise<DiskUsage> {
    const layers = new Map<ChainId, Layer>()
    for await (const layer of this.#storage.layers.list(() => undefined)) layers.set(layer.chainId, layer)
    const sizeOf = (ids: Iterable<ChainId>): number => sum([...ids].map(id => layers.get(id)?.sizeBytes ?? 0))
    const records = await this.#storage.images.records({ onDamaged: () => undefined, layers: layers.values() })
    const buildCache = this.#readBuildCache()
    // Together: each is a walk in a thread of its own.
    const [containers, volumes, others, files] = await Promise.all([this.#containers(), this.#volumes(), this.#otherLayers(layers, buildCache), this.#files(buildCache)])
    const cached = others.buildCache
    const held = containers.flatMap(({ id }) => readRwFiles(this.#root, id)?.parent ?? [])
    const inUse = withParents(layers, [...held, ...this.#storage.snapshots.inventory().images])
    const ofImages = new Set(records.flatMap(image => image.layers).filter(id => layers.has(id)))
    const without = [...layers.keys()].filter(id => !ofImages.has(id))
    const images = imagesOf(records, containers, sizeOf)
    const idle = containers.filter(container => !container.active)
    const row = (type: UsageType, total: number, active: number, sizeBytes: Bytes, reclaimableBytes: Bytes): UsageRow => ({ type, total, active, sizeBytes, reclaimableBytes })
    const optional = (item: UsageRow): UsageRow[] => item.total > 0 ? [item] : []
    return {
      rows: [
        row('Images', images.length, images.filter(image => image.containers > 0).length, sizeOf(ofImages), sizeOf([...ofImages].filter(id => !inUse.has(id)))),
        row('Containers', containers.length, containers.length - idle.length, total(containers), total(idle)),
        row('Local Volumes', volumes.length, volumes.filter(({ links }) => links > 0).length, total(volumes), total(volumes.filter(({ links }) => links === 0))),
        row('Build Cache', cached.length, 0, plus(total(cached), files.buildCache.sizeBytes), total(cached)),
        row('Container logs', files.logs.count, files.logs.count, files.logs.sizeBytes, 0),
        ...optional(row('Container init layers', containers.length, containers.length - idle.length, added(containers.map(it => it.initBytes)), added(idle.map(it => it.initBytes)))),
        row('Tar-split', files.tarSplit.count, files.tarSplit.count, files.tarSplit.sizeBytes, 0),
        ...optional(row('Snapshots', others.snapshots.length, others.snapshots.length, total(others.snapshots), 0)),
        ...optional(row('Layers without image', without.length, without.filter(id => inUse.has(id)).length, sizeOf(without), sizeOf(without.filter(id => !inUse.has(id))))),
        ...optional(row('Orphans', others.orphans.length, 0, total(others.orphans), total(others.orphans))),
        ...optional(row('Other drivers', files.otherDrivers.count, 0, files.otherDrivers.sizeBytes, 0)),
        ...optional(row('Temporary files', files.temporary.count, 0, files.temporary.sizeBytes, files.temporary.sizeBytes)),
      ],
      images, containers, volumes, buildCache: cached, orphans: others.orphans,
    }
  }

  // ---- layers ----------------------------------------------------------------------------------------------------------------

  /** Of a driver's layer that no catalogue has the size of. 0 when it goes meanwhile. */
  async #layerBytes(id: LayerId): Promise<Bytes> {
    if (this.#options.storedOnly === true) return undefined
    try {
      return (await this.#storage.driver.usage(id)).sizeBytes
    } catch (error) {
      if (StorageError.is(error, 'NOT_FOUND') || isErrno(error, 'ENOENT')) return 0
      throw error
    }
  }

  async #treeBytes(dir: string): Promise<Bytes> {
    if (!fs.existsSync(dir)) return 0
    if (this.#options.storedOnly === true) return undefined
    const { signal } = this.#options
    return (await treeUsage(dir, { signal })).sizeBytes
  }

  async #containers(): Promise<ContainerUsage[]> {
    const { containers } = this.#storage
    return await Promise.all(containers.list().map(async ({ id, name, imageId, state }) => {
      const files = readRwFiles(this.#root, id)
      const mounted = containers.mountState(id).holders > 0
      return {
        id, name, ...(imageId === undefined ? {} : { imageId }),
        sizeBytes: files === undefined ? 0 : await this.#layerBytes(files.mountId), initBytes: files?.initId === undefined ? 0 : await this.#layerBytes(files.initId),
        logBytes: sum(logsIn(path.join(this.#root.path, 'containers', id)).map(file => allocated(file) ?? 0)),
        volumes: Object.values(containers.mountPoints(id).points).filter(({ Type }) => Type === 'volume').length,
        mounted, active: mounted || ['running', 'paused', 'restarting'].includes(state.status),
      }
    }))
  }

  async #volumes(): Promise<VolumeUsage[]> {
    const { volumes } = this.#storage
    const links = volumes.referenceCounts()
    return await Promise.all(volumes.list({ driver: ['local'] }).map(async ({ name, mountpoint, options }) => ({
      name, links: links.get(name) ?? 0, sizeBytes: options['device'] === undefined ? await this.#treeBytes(mountpoint) : 0,
    })))
  }

  /** A damaged file has no records: what lies in the driver then counts as orphaned, as dockerd has lost it. */
  #readBuildCache(): BuildCache {
    try {
      return readBuildCache(this.#root)
    } catch (error) {
      if (StorageError.is(error, 'CORRUPT')) return { driverLayers: new Map(), layers: new Set() }
      throw error
    }
  }

  /** The driver's layers that the layer database does not have. */
  async #otherLayers(layers: ReadonlyMap<ChainId, Layer>, cache: BuildCache): Promise<{ snapshots: OrphanUsage[]; buildCache: BuildCacheUsage[]; orphans: OrphanUsage[] }> {
    const { driver, snapshots } = this.#storage
    // Listed first: what comes to be known meanwhile is no orphan, and what is being made is in an intent before it exists.
    const there: LayerId[] = []
    for await (const id of driver.list()) there.push(id)
    const working = new Set([...allIntents(this.#root)].flatMap(intent => intent.layers))
    const ofSnapshots = new Map([...snapshots.ownLayers()].map(({ id, usage }) => [id, usage?.sizeBytes]))
    const read = new Set([...rwLayerIds(this.#root), ...[...layers.values()].map(layer => layer.cacheId)])
    // Read again, and only where that leaves something: layers may have been registered since.
    const known = there.every(id => read.has(id)) ? read : driverLayersInUse(this.#root)
    const rest = there.filter(id => !known.has(id))
    const sized = (ids: readonly LayerId[], sizes: ReadonlyMap<LayerId, Bytes>): Promise<OrphanUsage[]> =>
      Promise.all(ids.map(async id => ({ id, sizeBytes: sizes.get(id) ?? await this.#layerBytes(id) })))
    return {
      snapshots: await sized([...ofSnapshots.keys()], ofSnapshots),
      // What it shares with images is counted there.
      buildCache: await sized(rest.filter(id => cache.driverLayers.has(id)), cache.driverLayers),
      orphans: await sized(rest.filter(id => !working.has(id) && !ofSnapshots.has(id) && !cache.driverLayers.has(id)), new Map()),
    }
  }

  // ---- files beside layers ---------------------------------------------------------------------------------------------------

  async #files(cache: BuildCache): Promise<Record<'logs' | 'tarSplit' | 'buildCache' | 'otherDrivers' | 'temporary', { count: number; sizeBytes: Bytes }>> {
    const { path: root, driverName } = this.#root
    const containers = path.join(root, 'containers')
    const logs = namesIn(containers, 'ENOTDIR').flatMap(id => logsIn(path.join(containers, id)))
    const tarSplits = namesIn(layerDb.layers(this.#root), 'ENOTDIR').flatMap(name => allocated(path.join(layerDb.layers(this.#root), name, tarSplitName)) ?? [])
    const others = namesIn(path.join(root, 'image'), 'ENOTDIR').filter(name => name !== driverName && isLayerId(name)).flatMap(name => [path.join(root, name), path.join(path.dirname(imageDir(this.#root)), name)])
    const temporary = [path.join(root, 'tmp'), layerDb.tmp(this.#root), ownState.tmp(this.#root)].flatMap(dir => namesIn(dir, 'ENOTDIR').map(name => path.join(dir, name)))
    const trees = async (dirs: readonly string[]): Promise<Bytes> => added(await Promise.all(dirs.map(dir => this.#treeBytes(dir))))
    const cacheFiles = namesIn(buildCacheDir(this.#root), 'ENOTDIR').filter(name => name.endsWith('.db')).map(name => path.join(buildCacheDir(this.#root), name))
    return {
      logs: { count: logs.length, sizeBytes: sum(logs.map(file => allocated(file) ?? 0)) },
      tarSplit: { count: tarSplits.length, sizeBytes: sum(tarSplits) },
      buildCache: { count: cache.driverLayers.size, sizeBytes: plus(sum(cacheFiles.map(file => allocated(file) ?? 0)), await this.#treeBytes(path.join(buildCacheDir(this.#root), 'content', 'blobs'))) },
      otherDrivers: { count: others.length / 2, sizeBytes: await trees(others) },
      temporary: { count: temporary.length, sizeBytes: await trees(temporary) },
    }
  }
}

function withParents(layers: ReadonlyMap<ChainId, Layer>, tops: Iterable<ChainId>): Set<ChainId> {
  const found = new Set<ChainId>()
  for (const top of tops) for (let next: ChainId | undefined = top; next !== undefined && !found.has(next); next = layers.get(next)?.parent) found.add(next)
  return found
}

/** Docker's list: an image that others are made from and that has no name shows in those. */
function imagesOf(records: readonly ImageRecord[], containers: readonly ContainerUsage[], sizeOf: (ids: Iterable<ChainId>) => number): ImageUsage[] {
  const parents = new Set(records.map(image => image.parent))
  const shown = records.filter(image => image.references.length > 0 || !parents.has(image.id))
  const users = new Map<ChainId, number>()
  for (const image of shown) for (const id of new Set(image.layers)) users.set(id, (users.get(id) ?? 0) + 1)
  return shown.map(image => {
    const sizeBytes = sizeOf(image.layers)
    const sharedBytes = sizeOf(image.layers.filter(id => (users.get(id) ?? 0) > 1))
    return {
      id: image.id, references: image.references, ...(image.created === undefined ? {} : { created: image.created }), sizeBytes, sharedBytes, uniqueBytes: sizeBytes - sharedBytes,
      containers: containers.filter(container => container.imageId === image.id).length,
    }
  })
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((all, size) => all + size, 0)
}

/** One that is not known leaves the sum unknown. */
function plus(a: Bytes, b: Bytes): Bytes {
  return a === undefined || b === undefined ? undefined : a + b
}

function added(sizes: readonly Bytes[]): Bytes {
  return sizes.reduce(plus, 0)
}

function total(items: readonly { readonly sizeBytes: Bytes }[]): Bytes {
  return added(items.map(({ sizeBytes }) => sizeBytes))
}

/** Those of json-file, rotated ones among them, and of the `local` log driver. */
function logsIn(dir: string): string[] {
  const local = path.join(dir, 'local-logs')
  return [...namesIn(dir).filter(name => /-json\.log(\.\d+(\.gz)?)?$/.test(name)).map(name => path.join(dir, name)), ...namesIn(local).map(name => path.join(local, name))]
}

/** Never the apparent size: a sparse file holds what it holds. Undefined when there is none. */
function allocated(file: string): number | undefined {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false })
  return stat === undefined ? undefined : stat.blocks * 512
}
