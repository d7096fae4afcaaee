// open(): choose the driver, open the stores over one data root, roll back what crashed processes left. The Storage object is what users hold.
//
// Lock order, outermost first: an intent's own lock, a volume's lock, a layer's or a volume's mount-count lock, the catalogue lock (StoreLock), the
// lock on volumes/metadata.db. Nobody takes an outer lock while holding an inner one; drivers take none.

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { finishDrops } from './check/drop.ts'
import type { MigrateOptions, MigrateResult } from './check/migrate.ts'
import type { PruneOptions, PruneResult } from './check/prune.ts'
import type { RepairOptions, RepairResult } from './check/repair.ts'
import type { CheckOptions, CheckParts, Finding } from './check/types.ts'
import { ContainerStore } from './containers/store.ts'
import type { Driver, DriverModule, DriverSource, StatusEntry } from './driver.ts'
import { readDaemonConfig } from './daemon-config.ts'
import { asStorageError, StorageError, told } from './errors.ts'
import { makeDirectories } from './fs/make-directories.ts'
import { openImageStore } from './images/store.ts'
import type { ImageStore } from './images/index.ts'
import { buildCacheReferences, openLayerStore, RwLayers } from './layers/index.ts'
import type { DataRoot, DiskLayerStore, Durability } from './layers/index.ts'
import { Snapshotter } from './snapshots/snapshotter.ts'
import { selectDriver } from './select-driver.ts'
import type { DriverChoice } from './select-driver.ts'
import { nativeReason } from './sys/native.ts'
import { fileSystemName } from './sys/statfs.ts'
import { privileges } from './sys/privileges.ts'
import type { ArchiveLimits } from './tar/types.ts'
import { maxThreads } from './sys/threads.ts'
import { closedError, untilClosed } from './until-closed.ts'
import { dockerdHolds } from './volumes/metadata.ts'
import { VolumeStore } from './volumes/store.ts'
import type { VolumeDriver } from './volumes/index.ts'
import type { DiskUsage, DiskUsageOptions } from './usage.ts'

export interface OpenOptions {
  /** The data root, in Docker's layout; made when missing. Default: `defaultRoot()`. */
  readonly root?: string
  /** A driver by name. Default: the environment's DOCKER_DRIVER, the `config`'s, else chosen by what the root holds and the host can do. */
  readonly driver?: string
  /** A daemon.json, whose data-root, storage-driver and storage-opts stand in for what is not given here. */
  readonly config?: string
  /** `--storage-opt` pairs, e.g. `overlay2.size=10G`. */
  readonly storageOptions?: readonly string[]
  /** Change nothing, and roll nothing back. Default false; true whatever is asked while a dockerd uses the root. */
  readonly readOnly?: boolean
  /** Default `full`. */
  readonly durability?: Durability
  /** What is accepted from archives before LIMIT_EXCEEDED; `load` and `import` may say otherwise. Each limit has a default. */
  readonly limits?: ArchiveLimits
  /** Drivers beside the built-in ones; a name replaces the built-in of that name. */
  readonly drivers?: readonly DriverModule[]
  /** Volume drivers beside the local one. */
  readonly volumeDrivers?: readonly VolumeDriver[]
}

export interface StorageInfo {
  readonly root: string
  readonly driver: string
  /** Why this driver, and why not the others. */
  readonly reason: string
  readonly others: readonly { readonly name: string; readonly reason: string }[]
  /** The driver's lines of `docker info`. */
  readonly status: readonly StatusEntry[]
  readonly readOnly: boolean
  readonly readOnlyReason?: string
  readonly durability: Durability
  readonly images: number
  readonly containers: number
  readonly layers: number
  /** Threads that extract, write and compare. */
  readonly threads: number
  /** Why native calls are absent; missing when they are there. */
  readonly nativeReason?: string
  /** Extraction happens in a thread that is jailed into the layer. */
  readonly jailed: boolean
  readonly kernel: string
  readonly node: string
}

/** `/var/lib/layerstack` for root, `$XDG_DATA_HOME/layerstack` for others: never Docker's own, which has to be named. */
export function defaultRoot(): string {
  if (process.geteuid?.() === 0) return '/var/lib/layerstack'
  return path.join(process.env['XDG_DATA_HOME'] || path.join(os.homedir(), '.local', 'share'), 'layerstack')
}

export class Storage implements AsyncDisposable {
  readonly root: string
  readonly driver: Driver
  readonly layers: DiskLayerStore
  readonly images: ImageStore
  readonly containers: ContainerStore
  /** containerd's model: keyed snapshots on image layers or on each other. Loads its catalogue on first use. */
  readonly snapshots: Snapshotter
  readonly volumes: VolumeStore
  readonly #kept: StorageParts
  #closed = false

  constructor(parts: StorageParts) {
    const open = <T extends object>(store: T): T => untilClosed(store, `the storage ${parts.root.path}`, () => this.#closed)
    this.root = parts.root.path
    this.driver = parts.driver
    this.layers = open(parts.layers)
    this.images = open(parts.images)
    this.containers = open(parts.containers)
    // Says so itself: it can be closed alone.
    this.snapshots = parts.snapshots
    this.volumes = open(parts.volumes)
    this.#kept = parts
  }

  get readOnly(): boolean { return this.#kept.root.readOnly }

  /** @throws CLOSED */
  #parts(op: string): StorageParts {
    if (this.#closed) throw closedError(`the storage ${this.root}`, op)
    return this.#kept
  }

  async info(): Promise<StorageInfo> {
    const { choice, open, readOnlyReason } = this.#parts('info')
    let layers = 0
    for await (const _ of this.layers.list(() => undefined)) layers++
    return {
      root: this.root, driver: this.driver.name, reason: choice.reason, others: await choice.others(), status: await this.driver.status(),
      readOnly: this.readOnly, ...(readOnlyReason === undefined ? {} : { readOnlyReason }),
      durability: open.durability ?? 'full', images: (await this.images.ids()).length, containers: this.containers.list().length, layers,
      threads: maxThreads, ...(nativeReason === undefined ? {} : { nativeReason }), jailed: privileges().chroot,
      kernel: os.release(), node: process.version,
    }
  }

  /**
   * Disk use of all that the data root holds, shared bytes counted once. What stands in the catalogues is read from there; containers' own layers, volumes and what is
   * orphaned are counted file by file, in threads, unless `storedOnly`.
   */
  async diskUsage(options: DiskUsageOptions = {}): Promise<DiskUsage> {
    const { diskUsage } = await import('./usage.ts')
    return await diskUsage(this, this.#parts('diskUsage').root, options)
  }

  /**
   * Look the data root over and tell what is wrong, as it is found: records against each other and against the driver's layers, and, unless `quick`, every layer's
   * content against its tar-split and its digest, in threads. Reads only, also in a root that other processes or a dockerd work in. Nothing found but notices: clean.
   * @throws ABORTED, and what reading says (PERMISSION_DENIED, IO)
   */
  async *check(options: CheckOptions = {}): AsyncGenerator<Finding> {
    const { check } = await import('./check/check.ts')
    yield* check(this.#parts('check'), options)
  }

  /**
   * Do what `check` says a repair would do, or, without `apply`, tell it. Rebuilds what is certain; exchanges damaged layers for good copies from archives given with
   * `from`; else sets them aside with the images that need them; removes what is proved to be nobody's. Called again, it has nothing to do.
   * @throws READ_ONLY (also while a dockerd runs), ABORTED, NO_SPACE, and what opening an archive throws
   */
  async repair(options: RepairOptions = {}): Promise<RepairResult> {
    const { repair } = await import('./check/repair.ts')
    return await repair(this.#parts('repair'), options)
  }

  /**
   * Remove what nobody refers to: images without a name (`all`: without a container), what interrupted work left, what repair has set aside, and, with `volumes`,
   * anonymous volumes. Containers stay.
   * @throws READ_ONLY (also while a dockerd runs), ABORTED, LOCKED
   */
  async prune(options: PruneOptions = {}): Promise<PruneResult> {
    const { prune } = await import('./check/prune.ts')
    return await prune(this.#parts('prune'), options)
  }

  /**
   * Move images, names, history and container layers to another driver, chain ids kept, everything verified through tar-split before the old side is dropped; then
   * this storage is closed. Stopped or killed at any point nothing is lost: call it again. Snapshots are not moved.
   * @throws INVALID_ARGUMENT, FAILED_PRECONDITION (a dockerd runs, snapshots), IN_USE (a mounted or running container), and what opening the new driver throws
   */
  async migrate(options: MigrateStorageOptions): Promise<MigrateResult> {
    const { to, rootTo, storageOptions, ...rest } = options
    const parts = this.#parts('migrate')
    const rootPath = rootTo === undefined ? this.root : path.resolve(rootTo)
    if (to === this.driver.name && rootPath === this.root) throw new StorageError('INVALID_ARGUMENT', `cannot migrate from ${to} to itself`, { op: 'migrate', driver: to, hint: 'name another driver, or another data root' })
    if (await dockerdHolds(this.root)) throw new StorageError('FAILED_PRECONDITION', `cannot migrate: a running dockerd uses ${this.root}`, { op: 'migrate', path: this.root, hint: 'stop dockerd first' })
    for (const { name } of this.snapshots.walkSync()) {
      throw new StorageError('FAILED_PRECONDITION', `cannot migrate: there are snapshots, such as ${name}, and they are not moved`, { op: 'migrate', key: name, hint: 'remove them first' })
    }
    const { config: _, ...same } = parts.open
    const target = await openStorage({ ...same, root: rootPath, driver: to, readOnly: false, storageOptions: storageOptions ?? [] })
    try {
      const { migrate } = await import('./check/migrate.ts')
      const result = await migrate(parts, target.#kept, rest)
      if (result.dropped) await this.close()
      return result
    } catch (error) {
      throw told(error, `migrating from ${this.driver.name} to ${to}`, { op: 'migrate' })
    } finally {
      await target.close()
    }
  }

  /** Idempotent; from then on everything else says CLOSED. Mounts that are held stay until they are unmounted or the process ends. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.snapshots.close()
    await this.driver.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export interface MigrateStorageOptions extends MigrateOptions {
  /** The driver to move to. */
  readonly to: string
  /** The data root to move to; volumes stay where they are. Default: this one. */
  readonly rootTo?: string
  /** `--storage-opt` pairs of the new driver. */
  readonly storageOptions?: readonly string[]
}

interface StorageParts extends CheckParts {
  readonly open: OpenStorageOptions
  readonly choice: DriverChoice
  readonly readOnlyReason: string | undefined
}

/** What drivers there are, loaded or to be loaded. */
export type OpenStorageOptions = Omit<OpenOptions, 'drivers'> & { readonly drivers: readonly (DriverModule | DriverSource)[] }

/** `open` with the drivers given; lib/open.ts binds the built-in ones. */
export async function openStorage(options: OpenStorageOptions): Promise<Storage> {
  const config = options.config === undefined ? {} : readDaemonConfig(options.config)
  const root = prepareRoot(options.root ?? config.root ?? defaultRoot(), options.readOnly === true)
  const readOnlyReason = await dockerdHolds(root) ? 'a running dockerd holds the lock on volumes/metadata.db' : options.readOnly === true ? 'asked for' : undefined
  const readOnly = readOnlyReason !== undefined
  // Before the choice, which goes by what lies there.
  if (!readOnly) await finishDrops(root, options.drivers)
  const choice = await selectDriver({ root, modules: options.drivers, driver: options.driver, environment: process.env['DOCKER_DRIVER'], configured: config.driver, readOnly })
  // The file's options are for the driver that it names.
  const pairs = [...(config.driver === undefined || config.driver === choice.name ? config.storageOptions ?? [] : []), ...options.storageOptions ?? []]
  const driver = await choice.module.open({ home: path.join(root, choice.name), options: choice.module.parseOptions(pairs), readOnly, durable: (options.durability ?? 'full') === 'full' })
  try {
    const dataRoot: DataRoot = {
      path: root, driverName: choice.name, readOnly, ...(readOnlyReason === undefined || options.readOnly === true ? {} : { readOnlyReason }),
      durability: inMemory(root, path.join(root, choice.name)) ? 'none' : options.durability ?? 'full', ...(options.limits === undefined ? {} : { limits: options.limits }),
    }
    const layers = await openLayerStore(dataRoot, driver)
    const images = await openImageStore({ root: dataRoot, layers, layerMetadata: id => driver.metadata(id) })
    layers.addReferences(async () => buildCacheReferences(dataRoot))
    const volumes = new VolumeStore(dataRoot, options.volumeDrivers)
    const rw = new RwLayers(layers)
    const containers = new ContainerStore(dataRoot, layers, rw, images, volumes)
    const snapshots = new Snapshotter({ root: dataRoot, driver, layers })
    // Last, when everybody who refers to layers has said so.
    if (!readOnly) {
      // A mount that a killed process has left would keep its layer from being removed.
      await rw.recover()
      await layers.recover()
      await volumes.recover()
    }
    await snapshots.recover()
    return new Storage({ open: options, root: dataRoot, driver, layers, images, containers, snapshots, volumes, choice, readOnlyReason })
  } catch (error) {
    await driver.close()
    throw told(error, `opening ${root}`, { op: 'open', path: root })
  }
}

/** What lies in memory survives no power cut: there a sync promises nothing, and its way through the thread pool costs 0.1 ms. */
function inMemory(...places: readonly string[]): boolean {
  return places.every(place => ['tmpfs', 'ramfs'].includes(fileSystemName(place)))
}

/** Absolute and without links, since paths in it go into mounts. */
function prepareRoot(asked: string, readOnly: boolean): string {
  const wanted = path.resolve(asked)
  try {
    if (!fs.existsSync(wanted)) {
      if (readOnly) throw new StorageError('NOT_FOUND', `opening ${wanted}: it does not exist`, { op: 'open', path: wanted })
      makeDirectories(wanted, 0o710)
    }
    if (!fs.statSync(wanted).isDirectory()) throw new StorageError('INVALID_ARGUMENT', `opening ${wanted}: it is not a directory`, { op: 'open', path: wanted })
    return fs.realpathSync(wanted)
  } catch (error) {
    throw asStorageError(error, `opening ${wanted}`, { op: 'open', path: wanted, hint: 'give another data root with --root' })
  }
}
