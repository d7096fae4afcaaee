// Named and anonymous volumes in Docker's layout: creates, finds, mounts, counts references, removes and prunes them, whichever process asks.
// What a driver holds is the driver's; labels and the anonymous mark are in metadata.db.
//
// Lock order: a volume's own lock, then its driver's mount-count lock, then the database's. The container store takes volumes' locks while it
// holds none of its own.

import fs from 'node:fs'
import path from 'node:path'
import { errnoOf, StorageError, told } from '../errors.ts'
import { syncDirectorySync } from '../fs/atomic.ts'
import { treeUsage } from '../fs/usage.ts'
import { ensureDir } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'
import { readOnlyError } from '../layers/store-lock.ts'
import { lock, tryLock } from '../sys/lock.ts'
import type { DriverVolume, HoldOptions, VolumeDriver } from './driver.ts'
import { listMatcher, pruneMatcher } from './filters.ts'
import type { VolumeFilters } from './filters.ts'
import { copyOf, fillSubpath, fillVolume, finishAbandonedFill, finishFill, hasUnfinishedFill, restoredFrom } from './fill.ts'
import type { Produce } from './fill.ts'
import { LocalVolumeDriver } from './local-driver.ts'
import { VolumeDatabase } from './metadata.ts'
import { anonymousLabel, randomVolumeName } from './name.ts'
import { OwedHolds } from './owed-holds.ts'
import { fileKey, volumePaths } from './paths.ts'
import { pruneVolumes } from './prune.ts'
import { VolumeReferences } from './references.ts'
import type { ReferenceFile } from './references.ts'
import { pin, recoverPins, unpinSubpath } from './subpath.ts'
import { inspectOf, mustAgree, nullIfEmpty, volumeOf } from './volume.ts'
import type { CreateVolumeOptions, MountedVolume, PruneVolumesOptions, ReferenceSource, RestoreVolumeOptions, Volume, VolumeInspect } from './volume.ts'

// A volume may be filled or removed under its lock.
const lockTimeoutMs = 600_000

export class VolumeStore {
  readonly #root: DataRoot
  readonly #drivers = new Map<string, VolumeDriver>()
  readonly #database: VolumeDatabase
  readonly #references: VolumeReferences
  readonly #sources: ReferenceSource[] = []
  readonly #owed = new OwedHolds()

  /** `drivers` are beside the local one, or in its place. */
  constructor(root: DataRoot, drivers: readonly VolumeDriver[] = []) {
    this.#root = root
    for (const driver of [new LocalVolumeDriver(root), ...drivers]) this.#drivers.set(driver.name, driver)
    this.#database = new VolumeDatabase(root)
    this.#references = new VolumeReferences(root)
    if (root.readOnly) return
    ensureDir(volumePaths.dir(root), 0o701)
    for (const dir of [volumePaths.own, volumePaths.locks, volumePaths.mounts, volumePaths.references, volumePaths.trash, volumePaths.subpaths]) ensureDir(dir(root), 0o700)
  }

  /** Tell who else refers to volumes: asked before any is removed. */
  addReferences(source: ReferenceSource): void {
    this.#sources.push(source)
  }

  // ---- finding ---------------------------------------------------------------------------------------------------------------

  find(name: string): Volume | undefined {
    const found = this.#findDriver(name)
    return found === undefined ? undefined : volumeOf(found.driver, found.volume, this.#database.get(name))
  }

  /** @throws NOT_FOUND `get NAME: no such volume` */
  get(name: string): Volume {
    const volume = this.find(name)
    if (volume === undefined) throw new StorageError('NOT_FOUND', `get ${name}: no such volume`, { key: name })
    return volume
  }

  #findDriver(name: string): { driver: VolumeDriver; volume: DriverVolume } | undefined {
    for (const driver of this.#drivers.values()) {
      const volume = driver.find(name)
      if (volume !== undefined) return { driver, volume }
    }
    return undefined
  }

  /** @throws NOT_FOUND */
  #driverOf(name: string): VolumeDriver {
    const found = this.#findDriver(name)
    if (found === undefined) throw new StorageError('NOT_FOUND', `get ${name}: no such volume`, { key: name })
    return found.driver
  }

  /** By name. Filters: `dangling`, `name`, `driver`, `label`. @throws INVALID_ARGUMENT `invalid filter 'x'` */
  list(filters: VolumeFilters = {}): Volume[] {
    const referenced = filters['dangling'] === undefined ? new Map<string, number>() : this.referenceCounts()
    const matches = listMatcher(filters, name => referenced.has(name))
    const metadata = this.#database.all()
    return [...this.#drivers.values()].flatMap(driver => driver.list().map(volume => volumeOf(driver, volume, metadata.get(volume.name))))
      .filter(matches).sort((a, b) => a.name < b.name ? -1 : 1)
  }

  inspect(name: string): VolumeInspect {
    return inspectOf(this.get(name))
  }

  /** Allocated bytes of its data. Not counted are volumes that are mounted from elsewhere. */
  async sizeBytes(name: string): Promise<number> {
    const { mountpoint } = this.get(name)
    return (await treeUsage(mountpoint)).sizeBytes
  }

  // ---- references ------------------------------------------------------------------------------------------------------------

  /** Who refers to it: containers' ids, and what `use` was given, `but` one of these. */
  references(name: string, but?: string): string[] {
    const told = this.#sources.flatMap(source => [...source()].flatMap(({ volume, reference }) => volume === name ? [reference] : []))
    return [...new Set([...told, ...this.#references.of(name).filter(one => one !== but)])].sort()
  }

  /** Volumes by name → how many refer to each; without those that nobody refers to. */
  referenceCounts(): Map<string, number> { return this.#references.counts(this.#sources.flatMap(source => [...source()])) }

  /**
   * Refer to a volume, so that nobody removes it, also after a restart, until `release`. A `transient` reference ends with this process at the
   * latest, one `untilBoot` with the boot. False when the reference was there already: the same twice is one.
   * @throws NOT_FOUND
   */
  async use(name: string, reference: string, options: { readonly transient?: boolean; readonly untilBoot?: boolean } = {}): Promise<boolean> {
    return await this.#locked('use', name, () => {
      this.get(name)
      return this.#references.add(name, reference, options)
    })
  }

  /** Give a reference back. False when it was not there. */
  async release(name: string, reference: string): Promise<boolean> {
    return await this.#locked('release', name, () => this.#references.remove(name, reference))
  }

  /** Run `work` while no other process creates, removes, fills or begins to use the volume. */
  async withLock<T>(name: string, work: () => T | Promise<T>): Promise<T> {
    return await this.#locked('lock', name, work)
  }

  async #locked<T>(op: string, name: string, work: () => T | Promise<T>): Promise<T> {
    if (this.#root.readOnly) throw readOnlyError(this.#root, `${op} a volume`)
    try {
      const held = await lock(path.join(volumePaths.locks(this.#root), fileKey(name)), { timeoutMs: lockTimeoutMs })
      let result: T
      try {
        result = await work()
      } catch (error) {
        // A full or failing disk may have stopped it halfway: the file stays, and tells whoever opens the root next where to look.
        if (errnoOf(error) !== undefined) held.release()
        else held.releaseAndUnlink()
        throw error
      }
      // Unlinked while held: there would be a file for every name that ever was.
      held.releaseAndUnlink()
      return result
    } catch (error) {
      throw told(error, `${op} ${name}`, { op, key: name })
    }
  }

  // ---- life ------------------------------------------------------------------------------------------------------------------

  /**
   * Make a volume, or return the one there is. Without a name: an anonymous one.
   * @throws ALREADY_EXISTS when it exists with another driver, other options or other labels than were asked for (Docker ignores the latter two);
   * INVALID_ARGUMENT (name, options), NOT_FOUND (driver)
   */
  async create(name: string | undefined, options: CreateVolumeOptions = {}): Promise<Volume> {
    const anonymous = name === undefined || name === ''
    const actual = anonymous ? randomVolumeName() : name
    const labels = anonymous ? { ...options.labels, [anonymousLabel]: '' } : options.labels
    return (await this.createForUse(actual, { ...options, ...(labels === undefined ? {} : { labels }) })).volume
  }

  /** `create`, which also says whether the volume is new. With `transient`, the reference ends with this process. */
  async createForUse(name: string, options: CreateVolumeOptions & { readonly transient?: boolean } = {}): Promise<{ readonly volume: Volume; readonly fresh: boolean }> {
    return await this.#locked('create', name, async () => {
      const { labels, reference, transient = false } = options
      const existing = this.find(name)
      if (existing !== undefined) {
        mustAgree(existing, options)
        if (reference !== undefined) this.#references.add(name, reference, { transient })
        return { volume: existing, fresh: false }
      }
      const driver = this.#driver(options.driver ?? 'local')
      if (reference !== undefined) this.#references.add(name, reference, { transient, madeVolume: labels?.[anonymousLabel] !== undefined })
      try {
        driver.check(name, options.options ?? {})
        this.#syncLocks()
        // First what it is called, then that it exists: a volume without its labels would be another volume.
        await this.#database.set({ Name: name, Driver: driver.name, Labels: nullIfEmpty(labels), Options: nullIfEmpty(options.options) })
        try {
          await driver.create(name, options.options ?? {})
        } catch (error) {
          await this.#database.delete(name)
          throw error
        }
      } catch (error) {
        if (reference !== undefined) this.#references.remove(name, reference)
        if (!StorageError.is(error)) throw error
        throw new StorageError(error.code, `create ${name}: ${error.message}`, { op: 'create', key: name, ...error.info }, { cause: error })
      }
      return { volume: this.get(name), fresh: true }
    })
  }

  /** Before what a volume is and that it exists are changed, one after the other: the lock's file tells, after a power cut too, where to look. */
  #syncLocks(): void { if (this.#root.durability !== 'none') syncDirectorySync(volumePaths.locks(this.#root)) }

  #driver(name: string): VolumeDriver {
    const driver = this.#drivers.get(name)
    if (driver === undefined) throw new StorageError('NOT_FOUND', `error looking up volume plugin ${name}: plugin "${name}" not found`,
      { key: name, hint: `there are: ${[...this.#drivers.keys()].join(', ')}` })
    return driver
  }

  /**
   * Remove a volume with its data. With `force`, one that is not there is fine.
   * @throws NOT_FOUND, IN_USE `remove NAME: volume is in use - [ids]`
   */
  async remove(name: string, options: { readonly force?: boolean } = {}): Promise<void> {
    await this.#locked('remove', name, async () => {
      const found = this.#findDriver(name)
      if (found === undefined) {
        await this.#clearHalfMade(fileKey(name))
        if (options.force === true) return
        throw new StorageError('NOT_FOUND', `get ${name}: no such volume`, { op: 'remove', key: name })
      }
      await this.#removeLocked(name, found.driver)
    })
  }

  /** `by`: the reference that goes with it. */
  async #removeLocked(name: string, driver: VolumeDriver, by?: string): Promise<void> {
    await this.#owed.payBack(name, driver)
    const holders = this.references(name, by)
    if (holders.length > 0) {
      throw new StorageError('IN_USE', `remove ${name}: volume is in use - [${holders.join(', ')}]`,
        { op: 'remove', key: name, hint: 'remove the containers that use it first' })
    }
    this.#syncLocks()
    try {
      await driver.remove(name)
    } catch (error) {
      if (!StorageError.is(error, 'IN_USE')) throw error
      throw new StorageError('IN_USE', `remove ${name}: ${error.message}`, error.info, { cause: error })
    }
    await this.#database.delete(name)
    this.#references.clear(name)
  }

  /** Remove volumes that nobody refers to or has mounted: anonymous ones, with `all` also named ones. @throws LOCKED `a prune operation is already running` */
  async prune(options: PruneVolumesOptions = {}): Promise<{ readonly deleted: readonly string[]; readonly reclaimedBytes: number }> {
    if (this.#root.readOnly) throw readOnlyError(this.#root, 'prune volumes')
    const matches = pruneMatcher({ ...options.filters, ...(options.all === true ? { all: ['true'] } : {}) })
    try {
      const referenced = this.referenceCounts()
      // As Docker does, only the local driver's, and only those without options.
      const candidates = this.list().filter(matches).filter(volume => volume.driver === 'local' && Object.keys(volume.options).length === 0 && !referenced.has(volume.name))
      return await pruneVolumes(this.#root, candidates.map(volume => volume.name), name => this.#pruneOne(name), options.signal)
    } catch (error) {
      throw told(error, 'pruning volumes', { op: 'prune' })
    }
  }

  /** Undefined when it was taken into use, or removed, meanwhile. */
  async #pruneOne(name: string): Promise<number | undefined> {
    return await this.#locked('prune', name, async () => {
      const found = this.#findDriver(name)
      if (found === undefined || found.driver.mountCount(name) > 0 || this.references(name).length > 0) return undefined
      const { sizeBytes } = await treeUsage(found.volume.mountpoint)
      await this.#removeLocked(name, found.driver)
      return sizeBytes
    })
  }

  // ---- mounting --------------------------------------------------------------------------------------------------------------

  /** Mount it, or join those who have; the hold ends with `unmount`, disposal or this process. @throws NOT_FOUND */
  async mount(name: string, options: HoldOptions = {}): Promise<MountedVolume> {
    if (this.#root.readOnly) throw readOnlyError(this.#root, 'mount a volume')
    const driver = this.#driverOf(name)
    const where = await driver.mount(name, options)
    let held = true
    const unmount = async (): Promise<void> => {
      if (!held) return
      held = false
      try {
        await driver.unmount(name, options)
      } catch (error) {
        // To be called again.
        held = true
        throw error
      }
    }
    try {
      if (hasUnfinishedFill(where)) await this.#locked('mount', name, () => finishFill(where))
    } catch (error) {
      await unmount()
      throw error
    }
    return { path: where, unmount, [Symbol.asyncDispose]: unmount }
  }

  /**
   * Fill the volume, or its subpath, from the directory `source` of an image, if it is empty (fill.ts). `reference` is who asks: others that refer
   * to the volume may have it mounted. True when it was filled.
   */
  async fill(name: string, source: string | Buffer, options: { readonly reference: string; readonly subpath?: string | undefined; readonly signal?: AbortSignal }): Promise<boolean> {
    return await this.#fill(name, copyOf(source, options.signal), options)
  }

  async #fill(name: string, produce: Produce, options: { readonly reference?: string; readonly subpath?: string | undefined }): Promise<boolean> {
    return await this.#locked('fill', name, async () => {
      const driver = this.#driverOf(name)
      const data = await driver.mount(name)
      try {
        // The directory itself must stay for those who hold it, and for its project, which limits its size.
        const limited = driver.find(name)?.options['size'] !== undefined
        const inUse = limited || driver.mountCount(name) > 1 || this.references(name).some(other => other !== options.reference)
        const sync = this.#root.durability === 'full'
        if (!options.subpath) return await fillVolume(data, produce, { sync, inUse })
        return await fillSubpath(data, options.subpath, produce, { sync })
      } finally {
        await this.#owed.giveBack(name, driver)
      }
    })
  }

  // ---- backup ----------------------------------------------------------------------------------------------------------------

  /**
   * The volume as a tar: its own directory as `./`, then all it holds, with owners, modes, times to the nanosecond, xattrs, links, devices and
   * holes. What changes meanwhile is in it or not. @throws NOT_FOUND
   */
  async *export(name: string, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer, void> {
    const { writeVolume } = await import('./backup.ts')
    const mounted = await this.mount(name)
    try {
      yield* writeVolume(mounted.path, options.signal)
    } finally {
      await mounted.unmount()
    }
  }

  /**
   * Make a volume of a tar, compressed or not; one that exists must be empty. It is empty or complete, whatever happens. Names of layer tars
   * (`.wh.NAME`) are read as those.
   * @throws FAILED_PRECONDITION `the volume is not empty`, INVALID_ARCHIVE, …; what was made new is removed again
   */
  async import(name: string, source: AsyncIterable<Uint8Array>, options: RestoreVolumeOptions = {}): Promise<Volume> {
    const { signal, onProgress } = options
    return await this.#restore('import', name, options, restoredFrom(source, { ...(this.#root.limits?.layer === undefined ? {} : { limits: this.#root.limits.layer }), ...(signal === undefined ? {} : { signal }), ...(onProgress === undefined ? {} : { onProgress }) }))
  }

  /**
   * Make a volume as another is now; files share their blocks where the file system can. What changes meanwhile is in it or not.
   * @throws NOT_FOUND (`from`), FAILED_PRECONDITION when the new one exists and is not empty
   */
  async clone(from: string, name: string, options: RestoreVolumeOptions = {}): Promise<Volume> {
    await using source = await this.mount(from)
    return await this.#restore('clone', name, options, copyOf(source.path, options.signal))
  }

  async #restore(op: string, name: string, options: RestoreVolumeOptions, produce: Produce): Promise<Volume> {
    const { signal, onProgress: _, ...create } = options
    if (signal?.aborted) throw new StorageError('ABORTED', `${op} ${name}: aborted before it began`, { op, key: name })
    const { volume, fresh } = await this.createForUse(name, create)
    try {
      if (!await this.#fill(name, produce, {})) throw new StorageError('FAILED_PRECONDITION', `${op} ${name}: the volume is not empty`, { op, key: name, hint: 'name a new volume' })
      return volume
    } catch (error) {
      if (fresh) await this.remove(name, { force: true })
      throw error
    }
  }

  /** Give a hold back. @throws FAILED_PRECONDITION when it is not mounted, NOT_FOUND */
  async unmount(name: string, options: HoldOptions = {}): Promise<void> {
    await this.#driverOf(name).unmount(name, options)
  }

  /** How many hold it. */
  mountCount(name: string): number { return this.#driverOf(name).mountCount(name) }

  /**
   * Bind a path inside the volume, which must be mounted, to a mount point of our own, safe from exchanges (subpath.ts). Returns where. It stands
   * for this process, or, `keptFor` somebody, until `unpin`.
   */
  pin(name: string, subpath: string, keptFor?: string): string {
    return pin(this.#root, this.get(name).mountpoint, subpath, keptFor)
  }

  /** Undo `pin`; not there is fine. */
  unpin(where: string): void {
    unpinSubpath(where)
  }

  // ---- after a crash ---------------------------------------------------------------------------------------------------------

  /** Nobody of this name will come to be: give back what it referred to, and remove what was made for it alone. Nothing is fine. */
  async forgetUser(reference: string): Promise<void> {
    for (const file of this.#references.called(reference)) await this.#takeBack(file)
  }

  async #takeBack({ volume, reference, madeVolume }: ReferenceFile): Promise<void> {
    await this.#locked('recover', volume, async () => {
      await this.#owed.payBack(volume, this.#findDriver(volume)?.driver)
      // The lock's file goes with this, and with it the sign that somebody was killed at it.
      if (this.#findDriver(volume) === undefined) await this.#clearHalfMade(fileKey(volume))
      const found = madeVolume === true ? this.#findDriver(volume) : undefined
      if (found !== undefined && found.driver.mountCount(volume) === 0 && this.references(volume, reference).length === 0) await this.#removeLocked(volume, found.driver, reference)
      // Last, or a kill meanwhile would leave a volume of which nobody knows whose it was.
      this.#references.remove(volume, reference)
    })
  }

  /** Of the volume with this key, whose lock is held: what there is without the volume. */
  async #clearHalfMade(key: string): Promise<void> {
    await this.#database.delete(...[...this.#database.all().keys()].filter(name => fileKey(name) === key && this.#findDriver(name) === undefined))
    for (const driver of this.#drivers.values()) await driver.clear?.(key)
    this.#references.tidy(key)
  }

  /** A lock file that nobody holds says which volume a killed process was at: what it half made there goes. */
  async #clearInterrupted(): Promise<void> {
    for (const key of fs.readdirSync(volumePaths.locks(this.#root))) {
      // Without native calls the lock's own file lies beside it, and goes with it.
      if (!/^[a-f0-9]{64}$/.test(key)) continue
      const held = tryLock(path.join(volumePaths.locks(this.#root), key))
      if (held === undefined) continue
      try {
        await this.#clearHalfMade(key)
      } finally {
        held.releaseAndUnlink()
      }
    }
  }

  /** Undo what crashed processes left: mounts without users, half-removed volumes, anonymous volumes of containers that never came to be. */
  async recover(): Promise<void> {
    for (const driver of this.#drivers.values()) await driver.recover?.()
    for (const { name, mountpoint } of this.#drivers.get('local')?.list() ?? []) if (hasUnfinishedFill(mountpoint)) await finishAbandonedFill(path.join(volumePaths.locks(this.#root), fileKey(name)), mountpoint)
    recoverPins(this.#root)
    await this.#clearInterrupted()
    for (const file of this.#references.dead()) await this.#takeBack(file)
  }
}
