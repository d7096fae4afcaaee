// The Snapshotter: containerd's model over any driver. Makes, shows, commits and removes snapshots; the catalogue keeps their names, sessions
// what is half made, the driver the bytes. Knows no wire.

import fs from 'node:fs'
import path from 'node:path'
import type { Driver, Mount, Usage } from '../driver.ts'
import { asStorageError, StorageError, told } from '../errors.ts'
import { isDigest } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { layerDb, ownState } from '../layers/index.ts'
import type { DataRoot, DiskLayerStore } from '../layers/index.ts'
import { readOnlyError } from '../layers/store-lock.ts'
import { syncModule } from '../layers/sync-job.ts'
import { wallClockNs } from '../sys/clock.ts'
import { fileSystemName } from '../sys/statfs.ts'
import { runJob } from '../sys/threads.ts'
import { Catalogue, notFound } from './catalogue.ts'
import { parseFilters } from './filter.ts'
import { writeInfo } from './info-codec.ts'
import { inventoryOf } from './inventory.ts'
import { checkKey, checkLabels, updateLabels } from './labels.ts'
import { mountAt } from './mounted.ts'
import { decodeRecord } from './record.ts'
import { hasDeadSession, Session } from './session.ts'
import type { CommitSnapshotOptions, SnapshotInfo, SnapshotInventory, SnapshotOptions, SnapshotRecord, WalkOptions } from './types.ts'
import { Sweeper } from './sweeper.ts'
import { UsageCache } from './usage-cache.ts'
import { Writer } from './wire.ts'

export interface SnapshotterParts {
  readonly root: DataRoot
  readonly driver: Driver
  readonly layers: DiskLayerStore
}

interface LayerRoot { readonly kind: 'branch' | 'tree'; readonly uid: number; readonly gid: number; readonly mode: number }

/**
 * Snapshots over one driver and data root. Several processes may use one root at once. Nothing is loaded or written before the first call.
 * Errors of all methods: CLOSED after close, READ_ONLY, PREREQUISITE_MISSING without the package lmdb, CORRUPT.
 */
export class Snapshotter implements AsyncDisposable {
  readonly #root: DataRoot
  readonly #driver: Driver
  readonly #layers: DiskLayerStore
  readonly #dirs: { readonly own: string; readonly sessions: string; readonly mounts: string }
  readonly #usages: UsageCache
  /** What lies in memory survives no power cut, whatever is synced. */
  readonly #volatile: boolean
  readonly #described = new Map<string, { readonly value: Buffer; readonly mounts: readonly Mount[] }>()
  readonly #roots = new Map<LayerId, LayerRoot>()
  #catalogue: Catalogue | undefined
  #session: Session | undefined
  #sweeper: Sweeper | undefined
  #mounted = 0
  #closed = false

  constructor({ root, driver, layers }: SnapshotterParts) {
    this.#root = root
    this.#driver = driver
    this.#layers = layers
    const own = path.join(ownState.dir(root), 'snapshots', root.driverName)
    this.#dirs = { own, sessions: path.join(own, 'sessions'), mounts: path.join(own, 'mounts') }
    this.#usages = new UsageCache(id => driver.usage(id))
    this.#volatile = ['tmpfs', 'ramfs'].includes(fileSystemName(root.path))
    layers.addReferences(async () => this.#read()?.heldImages() ?? [])
  }

  // ---- making ----------------------------------------------------------------------------------------------------------------

  /**
   * A new writable snapshot on `parent`, a committed snapshot or an image layer's chain id; without one, on an empty directory (0755).
   * Returns the mounts that show it, for the caller to perform.
   * @throws NOT_FOUND (parent), INVALID_ARGUMENT (parent not committed; key; labels), ALREADY_EXISTS, LIMIT_EXCEEDED (depth)
   */
  async prepare(key: string, parent?: string, options: SnapshotOptions = {}): Promise<readonly Mount[]> {
    return await this.#told('prepare', key, () => this.#make('active', key, parent, options))
  }

  /** A new read-only snapshot: `parent` as it is, or an empty directory. Nothing is copied or laid out. @throws as `prepare` */
  async view(key: string, parent?: string, options: SnapshotOptions = {}): Promise<readonly Mount[]> {
    return await this.#told('view', key, () => this.#make('view', key, parent, options))
  }

  /** What the operating system said is told with what was tried. */
  async #told<T>(op: string, key: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw told(error, key === '' ? `${op} snapshots` : `${op} snapshot ${key}`, { op, ...(key === '' ? {} : { key }) })
    }
  }

  async #make(kind: 'active' | 'view', key: string, parentKey: string | undefined, options: SnapshotOptions): Promise<readonly Mount[]> {
    const catalogue = this.#write('prepare')
    checkKey(key)
    const parent = parentKey === '' ? undefined : parentKey
    const labels = checkLabels(options.labels)
    const wanted = { name: key, ...(parent === undefined ? {} : { parent }) }
    if (kind === 'view' && parent !== undefined && !this.#isImageLayer(parent)) {
      // Nothing to lay out: one transaction is all.
      const nowNs = wallClockNs()
      const draft = { ...wanted, kind, labels, id: this.#begun().fleeting(), ownLayer: false, createdNs: nowNs, updatedNs: nowNs }
      const { record, value } = catalogue.createOnParent(draft, this.#isImageLayer)
      return await this.#mountsOf(record, value)
    }
    const above = catalogue.checkNew(wanted, this.#isImageLayer)
    const session = this.#begun()
    const id = session.next()
    let made: { readonly record: SnapshotRecord; readonly value: Buffer } | undefined
    const finish = async (parentRef: string, parentLayer: LayerId | undefined): Promise<void> => {
      const ownLayer = kind === 'active' || parentLayer === undefined
      if (ownLayer) await this.#layOut(id, parentLayer)
      const nowNs = wallClockNs()
      const record: SnapshotRecord = { ...wanted, kind, labels, id, ownLayer, parentRef, createdNs: nowNs, updatedNs: nowNs }
      made = { record, value: catalogue.create(record, this.#isImageLayer) }
    }
    try {
      if (above !== undefined) await finish(above.id, above.id)
      else if (parent === undefined) await finish('', undefined)
      else {
        await this.#layers.run('prepare-snapshot', async operation => {
          await operation.hold(parent as ChainId)
          const layer = await this.#layers.find(parent as ChainId)
          if (layer === undefined) throw notFound(parent, 'parent snapshot')
          await finish(layer.chainId, layer.cacheId)
        })
      }
    } catch (error) {
      // Only a failed removal leaves the id to the session, and so to whoever comes after this process.
      if (made === undefined) await this.#driver.remove(id)
      session.settled(id)
      // The driver's complaint about a layer that somebody removed meanwhile is the caller's NOT_FOUND.
      if (above !== undefined && catalogue.find(above.name)?.id !== above.id) throw notFound(above.name, 'parent snapshot')
      throw asStorageError(error, `preparing snapshot ${key}`, { op: 'prepare', key })
    }
    session.settled(id)
    // The assignment inside the closure is invisible to the compiler.
    const { record, value } = made as unknown as { readonly record: SnapshotRecord; readonly value: Buffer }
    return await this.#mountsOf(record, value)
  }

  async #layOut(id: LayerId, parent: LayerId | undefined): Promise<void> {
    await this.#driver.create(id, { writable: true, ...(parent === undefined ? {} : { parent }) })
    if (parent === undefined) return
    const below = await this.#rootOf(parent)
    if (below.kind === 'tree') {
      // A copy that is not on the device may be an empty tree after a power cut, under a snapshot that was acknowledged.
      if (this.#syncsData) await this.#syncData((await this.#driver.content(id)).path)
      return
    }
    // The upper directory's own attributes are what the mount's root shows.
    const { uid, gid, mode } = below
    if (uid === 0 && gid === 0 && mode === 0o755) return
    const { path: dir } = await this.#driver.content(id)
    fs.chownSync(dir, uid, gid)
    fs.chmodSync(dir, mode)
  }

  /** What a child's root takes over. Kept, since a committed layer does not change and asking an overlay costs a call per layer below. */
  async #rootOf(layer: LayerId): Promise<LayerRoot> {
    const known = this.#roots.get(layer)
    if (known !== undefined) return known
    const content = await this.#driver.content(layer)
    const { uid, gid, mode } = fs.statSync(content.path)
    const root = { kind: content.kind, uid, gid, mode: mode & 0o7777 }
    if (this.#roots.size >= 1024) this.#roots.clear()
    this.#roots.set(layer, root)
    return root
  }

  async #syncData(dir: string): Promise<void> {
    await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [dir])
  }

  /**
   * Turn an active snapshot into a committed one called `name`; `key` is free again. It may be mounted meanwhile. Labels are those given here.
   * With durability `full` the file system is synced first; nothing is copied, compressed or counted.
   * @throws ALREADY_EXISTS (name), NOT_FOUND, FAILED_PRECONDITION (not active), INVALID_ARGUMENT, NOT_SUPPORTED (another parent)
   */
  async commit(name: string, key: string, options: CommitSnapshotOptions = {}): Promise<void> {
    await this.#told('commit', key, () => this.#commit(name, key, options))
  }

  async #commit(name: string, key: string, options: CommitSnapshotOptions): Promise<void> {
    const catalogue = this.#write('commit')
    checkKey(name, 'snapshot name')
    checkKey(key)
    const labels = checkLabels(options.labels)
    const wanted = { ...options, labels }
    if (this.#syncsData) {
      // Checked first, so that nothing is synced for a commit that cannot be.
      const active = catalogue.checkCommit(name, key, wanted, this.#isImageLayer)
      await this.#syncData((await this.#driver.content(active.id)).path)
    }
    const { id } = catalogue.commit(name, key, wanted, wallClockNs(), this.#isImageLayer)
    this.#usages.later(id, usage => { if (!this.#closed) this.#catalogue?.setUsage(name, id, usage) })
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  /** The mounts of an active snapshot or a view; the same ones at every call. @throws NOT_FOUND, FAILED_PRECONDITION (committed) */
  async mounts(key: string): Promise<readonly Mount[]> {
    const value = this.#read()?.findValue(key)
    const known = value === undefined ? undefined : this.#described.get(key)
    if (value !== undefined && known?.value.equals(value) === true) return known.mounts
    const record = value === undefined ? undefined : decodeRecord(value)
    if (record?.kind === 'committed' || record === undefined && this.#isImageLayer(key)) {
      throw new StorageError('FAILED_PRECONDITION', `snapshot ${key} is committed and has no mounts`, { op: 'mounts', key, hint: 'make a view on it' })
    }
    if (record === undefined || value === undefined) throw notFound(key)
    return await this.#mountsOf(record, value)
  }

  async #mountsOf(record: SnapshotRecord, value: Buffer): Promise<readonly Mount[]> {
    const mounts = await (record.ownLayer ? this.#driver.mounts(record.id, record.kind === 'active' ? 'rw' : 'ro') : this.#driver.mounts(await this.#parentLayer(record), 'ro'))
    // The same for as long as the record is; asking the driver again costs 30 µs.
    if (this.#described.size >= 4096) this.#described.clear()
    this.#described.set(record.name, { value, mounts })
    return mounts
  }

  async #parentLayer({ parentRef }: SnapshotRecord): Promise<LayerId> {
    return isDigest(parentRef) ? (await this.#layers.get(parentRef as ChainId)).cacheId : parentRef as LayerId
  }

  /** @throws NOT_FOUND */
  async stat(key: string): Promise<SnapshotInfo> {
    const record = this.#read()?.find(key)
    return record !== undefined ? infoOf(record) : await this.#imageLayerInfo(key)
  }

  /** `stat`'s answer as containerd.services.snapshots.v1.Info, which is what the catalogue holds. @throws NOT_FOUND */
  async statBytes(key: string): Promise<Uint8Array> {
    return this.#read()?.findInfo(key) ?? writeInfo(new Writer(), await this.#imageLayerInfo(key)).finish()
  }

  async #imageLayerInfo(key: string): Promise<SnapshotInfo> {
    const layer = isDigest(key) ? await this.#layers.find(key as ChainId) : undefined
    if (layer === undefined) throw notFound(key)
    const madeNs = fs.statSync(layerDb.layer(this.#root, layer.chainId), { bigint: true }).mtimeNs
    return { name: key, kind: 'committed', ...(layer.parent === undefined ? {} : { parent: layer.parent }), labels: {}, createdNs: madeNs, updatedNs: madeNs }
  }

  /**
   * Disk use of the snapshot alone, parents not counted (for drivers of complete trees: of the whole tree); of a view, nothing. Committed: counted
   * once. Active: counted now, or some moments ago where counting takes long. @throws NOT_FOUND
   */
  async usage(key: string): Promise<Usage> {
    const record = this.#read()?.find(key)
    if (record === undefined) {
      const layer = isDigest(key) ? await this.#layers.find(key as ChainId) : undefined
      if (layer === undefined) throw notFound(key)
      return await this.#usages.active(layer.cacheId)
    }
    if (record.kind === 'view') return { sizeBytes: 0, inodes: 0 }
    if (record.usage !== undefined) return record.usage
    try {
      if (record.kind === 'active') return await this.#usages.active(record.id)
      const usage = await this.#usages.fresh(record.id)
      if (!this.#root.readOnly) this.#catalogue?.setUsage(key, record.id, usage)
      return usage
    } catch (error) {
      // Removed while it was being counted.
      if (this.#read()?.find(key)?.id !== record.id) throw notFound(key)
      throw error
    }
  }

  /** The driver layers that snapshots have, each with its disk use where that has been counted. */
  *ownLayers(): Generator<{ readonly id: LayerId; readonly usage?: Usage }> {
    for (const { id, ownLayer, usage } of this.#read()?.records() ?? []) if (ownLayer) yield { id, ...(usage === undefined ? {} : { usage }) }
  }

  /**
   * Snapshots that match any of the filters (containerd's language, e.g. `kind==active,labels.x`), in no particular order; all without filters. Calls on the same
   * Snapshotter are fine in between. One that exists all the while comes once. @throws INVALID_ARGUMENT for a filter
   */
  async *walk(filters: readonly string[] = [], options: WalkOptions = {}): AsyncGenerator<SnapshotInfo> {
    for (const info of this.walkSync(filters)) yield info
    if (options.imageLayers === false) return
    const matches = parseFilters(filters)
    for await (const layer of this.#layers.list(() => undefined)) {
      if (this.#read()?.find(layer.chainId) !== undefined) continue
      const info = await this.#imageLayerInfo(layer.chainId)
      if (matches(info)) yield info
    }
  }

  /** `walk` without image layers and without a promise for each snapshot. */
  *walkSync(filters: readonly string[] = []): Generator<SnapshotInfo> {
    const matches = parseFilters(filters)
    for (const record of this.#read()?.records() ?? []) {
      const info = infoOf(record)
      if (matches(info)) yield info
    }
  }

  /** `walkSync` in the form of `statBytes`; without filters nothing is decoded. */
  *walkBytes(filters: readonly string[] = []): Generator<Uint8Array> {
    if (filters.length === 0) yield* this.#read()?.infoBytes() ?? []
    else for (const info of this.walkSync(filters)) yield writeInfo(new Writer(), info).finish()
  }

  // ---- changing --------------------------------------------------------------------------------------------------------------

  /**
   * Change labels; nothing else can change. Without field paths, or with `labels`, they are replaced; `labels.K` sets K, or removes it when it is
   * missing or empty in `labels`. @throws NOT_FOUND, INVALID_ARGUMENT for another field path
   */
  async update(info: { readonly name: string; readonly labels?: Readonly<Record<string, string>> }, fieldPaths: readonly string[] = []): Promise<SnapshotInfo> {
    const catalogue = this.#write('update')
    const given = checkLabels(info.labels)
    if (catalogue.find(info.name) === undefined && this.#isImageLayer(info.name)) {
      throw new StorageError('FAILED_PRECONDITION', `cannot update snapshot ${info.name}: it is an image layer, which has no labels`, { op: 'update', key: info.name })
    }
    return infoOf(catalogue.update(info.name, wallClockNs, old => updateLabels(old, given, fieldPaths)))
  }

  /**
   * Remove a snapshot of any kind. It is gone when this resolves; its directories are deleted a second later in the background, or by
   * `cleanup()`, or by the next process that changes snapshots.
   * An image layer can only be removed when no image uses it.
   * @throws NOT_FOUND, FAILED_PRECONDITION `cannot remove snapshot …: it has a child`
   */
  async remove(key: string): Promise<void> {
    await this.#told('remove', key, () => this.#remove(key))
  }

  async #remove(key: string): Promise<void> {
    const catalogue = this.#write('remove')
    if (this.#isImageLayer(key) && catalogue.find(key) === undefined) return await this.#removeImageLayer(key as ChainId)
    const { id } = catalogue.remove(key)
    this.#usages.forget(id)
    this.#described.delete(key)
    this.#roots.delete(id)
    this.#sweeper?.soon()
  }

  async #removeImageLayer(chainId: ChainId): Promise<void> {
    const removed = await this.#layers.release(chainId)
    if (removed.some(layer => layer.chainId === chainId)) return
    throw new StorageError('FAILED_PRECONDITION', `cannot remove snapshot ${chainId}: it is an image layer in use`,
      { op: 'remove', key: chainId, hint: 'remove the snapshots made on it and the images that have it' })
  }

  /**
   * Delete what no snapshot refers to: the directories of removed snapshots, and what processes that are gone left half made. What is being made
   * is passed over. @throws what the driver says about a layer that cannot be deleted; it stays noted, and the others are deleted all the same
   */
  async cleanup(): Promise<void> {
    await this.#told('clean up', '', async () => {
      this.#write('clean up')
      await this.#sweeper?.now()
    })
  }

  /** For whoever opens a data root: roll back what crashed. Costs a directory listing when nothing did. */
  async recover(): Promise<void> {
    if (this.#root.readOnly || !hasDeadSession(this.#dirs.sessions)) return
    await this.cleanup()
  }

  /** The driver layers that snapshots use, for checks of what is orphaned. */
  driverIds(): LayerId[] {
    return [...this.#read()?.ids() ?? []]
  }

  /** All that it has in the driver and holds of the image layers, for checks. */
  inventory(): SnapshotInventory { return inventoryOf(this.#read()) }

  // ---- using -----------------------------------------------------------------------------------------------------------------

  /**
   * Mount an active snapshot or view, give its path to `use`, and unmount it whatever happens. Without the right to mount, only what is a plain
   * directory (vfs) can be shown, and it is given as it is. @throws as `mounts`, and what mounting says
   */
  async withMount<T>(key: string, use: (dir: string) => T | Promise<T>): Promise<T> {
    const mounts = await this.mounts(key)
    this.#write('mount')
    return await mountAt(mounts, this.#dirs.mounts, `${this.#begun().name}-${++this.#mounted}`, use)
  }

  /** Idempotent. Snapshots stay. A deletion under way is finished; the rest waits for the next process. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#usages.close()
    await this.#sweeper?.close()
    this.#session?.close()
    await this.#catalogue?.close()
    this.#catalogue = undefined
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  // ---- inside ----------------------------------------------------------------------------------------------------------------

  readonly #isImageLayer = (key: string): boolean => isDigest(key) && fs.existsSync(layerDb.layer(this.#root, key as ChainId))

  /** The catalogue for reading; undefined while there is none. */
  #read(): Catalogue | undefined {
    if (this.#closed) throw closed()
    this.#dropBroken()
    if (this.#catalogue !== undefined) return this.#catalogue
    const exists = fs.existsSync(path.join(this.#dirs.own, 'data.mdb'))
    if (!exists) return undefined
    return this.#catalogue = Catalogue.open(this.#dirs.own, { sync: this.#sync, readOnly: this.#root.readOnly })
  }

  /** After a full disk: what failed was not written, and a fresh look at the file works on. */
  #dropBroken(): void {
    if (this.#catalogue?.broken !== true) return
    const [catalogue, sweeper] = [this.#catalogue, this.#sweeper]
    this.#catalogue = undefined
    this.#sweeper = undefined
    void sweeper?.close()
    catalogue.close().catch(() => undefined)
  }

  #write(op: string): Catalogue {
    if (this.#closed) throw closed()
    if (this.#root.readOnly) throw readOnlyError(this.#root, op)
    this.#dropBroken()
    if (this.#catalogue !== undefined && this.#sweeper !== undefined) return this.#catalogue
    for (const dir of [this.#dirs.sessions, this.#dirs.mounts]) fs.mkdirSync(dir, { recursive: true, mode: 0o700 })
    const catalogue = this.#catalogue ?? Catalogue.open(this.#dirs.own, { sync: this.#sync, readOnly: false })
    if (catalogue === undefined) throw new StorageError('CORRUPT', `the snapshot catalogue ${this.#dirs.own} cannot be opened`, { op, path: this.#dirs.own })
    this.#sweeper = new Sweeper({ catalogue, driver: this.#driver, layers: this.#layers, isImageLayer: this.#isImageLayer, dirs: this.#dirs, home: path.join(this.#root.path, this.#root.driverName), sync: this.#sync })
    return this.#catalogue = catalogue
  }

  get #syncsData(): boolean { return this.#root.durability === 'full' && !this.#volatile }
  get #sync(): boolean { return this.#root.durability !== 'none' && !this.#volatile }

  #begun(): Session {
    return this.#session ??= Session.begin(this.#dirs.sessions, this.#sync)
  }
}

function infoOf({ name, kind, parent, labels, createdNs, updatedNs }: SnapshotRecord): SnapshotInfo {
  return { name, kind, ...(parent === undefined ? {} : { parent }), labels, createdNs, updatedNs }
}

function closed(): StorageError {
  return new StorageError('CLOSED', 'the snapshotter is closed', { op: 'snapshots' })
}
