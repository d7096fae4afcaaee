// Container layers: a writable layer, above an init layer of mount points, above an image's top layer. Makes, mounts, diffs and removes
// them; what a container is otherwise is lib/containers' business.

import fs from 'node:fs'
import path from 'node:path'
import { changesOf, packNames } from '../diff/index.ts'
import type { TreeSpec } from '../diff/index.ts'
import { jobsModule } from '../diff/jobs-module.ts'
import type { ApplyArguments, WriteArguments, WriteOutcome } from '../diff/jobs.ts'
import type { SeedEntry, SeedPlan } from '../diff/seed.ts'
import type { WriteHereOptions } from '../diff/write-here.ts'
import type { WriteOptions } from '../diff/write-layer.ts'
import type { Change, Driver, KnownEntry, LayerContent, Mount, Usage } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { syncDirectorySync } from '../fs/atomic.ts'
import { Remembered } from '../fs/remembered.ts'
import { randomHex, randomId } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { idMapOptions, mapOwner } from '../sys/idmap.ts'
import type { IdMap } from '../sys/idmap.ts'
import { isMountpoint, performMounts, unmount } from '../sys/mount.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import { layerDb, ownState } from './data-root.ts'
import { MountCounts } from './mount-counts.ts'
import { listRwNames, newWriteSet, readRwFiles, rwFileNames, writeRwFiles } from './rw-files.ts'
import type { RwFiles } from './rw-files.ts'
import { RunningOperation } from './operation.ts'
import type { DiskLayerStore } from './store.ts'
import { applyFormat } from './stage.ts'
import { readOnlyError } from './store-lock.ts'
import { syncModule } from './sync-job.ts'
import type { Operation } from './types.ts'

/** What the init layer holds, so that an engine's mount points never show in a diff. Source: moby daemon/initlayer/setup_unix.go. */
const initEntries: readonly SeedEntry[] = [
  ...['dev', 'proc', 'sys', 'dev/pts', 'dev/shm', 'etc'].map(name => ({ name, type: 'directory' as const, mode: 0o755 })),
  ...['.dockerenv', 'etc/resolv.conf', 'etc/hosts', 'etc/hostname', 'dev/console'].map(name => ({ name, type: 'file' as const, mode: 0o755 })),
  { name: 'etc/mtab', type: 'symlink' as const, mode: 0o777, linkname: '/proc/mounts' },
]

export interface CreateRwOptions {
  readonly parent?: ChainId
  readonly storageOptions?: Readonly<Record<string, string>>
  /** Show its owners shifted wherever it is mounted; on disk, and so in diffs, they stay. Default: as they are. */
  readonly idMap?: IdMap
  /** With `idMap`: the init layer gets the parent's files with their owners shifted on disk, and no mount shifts them. Default false. */
  readonly chown?: boolean
  /** What it holds, as tars against its parent and against its init layer, when it comes from elsewhere. Default: mount points, and nothing. */
  readonly content?: { readonly init: AsyncIterable<Uint8Array>; readonly own: AsyncIterable<Uint8Array> }
  /** Make it as a part of an operation that also makes the record that keeps it (see `record` of `remove`). */
  readonly within?: { readonly operation: Operation; readonly record: string }
}

export interface RemoveRwOptions {
  /** Also when it is mounted. Default false. */
  readonly force?: boolean
  /**
   * The folder that keeps the container layer, below the data root: it vanishes in the same step. If a crash leaves one of the two, the layer goes
   * when the folder has gone, and stays when the folder is there.
   */
  readonly record?: string
  /** The files that the folder most probably holds: spares a look. */
  readonly recordFiles?: readonly string[]
  /**
   * Asked when the layer has vanished: does something refer to its parent that will release it? Spares a look at all that refers to layers; without it,
   * or when it says no, the parent goes as far as nobody needs it.
   */
  readonly parentIsKept?: () => Promise<boolean>
}

/** The mapping that mounts have to do. */
const mountedMap = ({ idMap, chowned }: RwFiles): IdMap | undefined => chowned === true ? undefined : idMap

interface Seeds {
  readonly plan: SeedPlan
  /** The same, as a removal wants it. */
  readonly holds: readonly KnownEntry[]
}

export class RwLayers {
  readonly #layers: DiskLayerStore
  readonly #driver: Driver
  readonly #counts: MountCounts
  readonly #remembered = new Remembered<RwFiles>()
  /** What the init layer on an image layer is made of: a chain id says what shows there, whichever driver layers it has. */
  readonly #seeds = new Map<ChainId, Seeds>()

  constructor(layers: DiskLayerStore) {
    this.#layers = layers
    this.#driver = layers.driver
    this.#counts = new MountCounts(ownState.mounts(layers.root))
    layers.addReferences(async () => this.#parents())
  }

  #parents(): ChainId[] {
    return this.names().flatMap(name => readRwFiles(this.#layers.root, name)?.parent ?? [])
  }

  names(): string[] {
    return listRwNames(this.#layers.root)
  }

  find(name: string): RwFiles | undefined {
    return this.#remembered.get(this.#dirOf(name), () => readRwFiles(this.#layers.root, name))
  }

  #dirOf(name: string): string {
    return `${layerDb.mounts(this.#layers.root)}/${name}`
  }

  get(name: string): RwFiles {
    const files = this.find(name)
    if (files === undefined) throw new StorageError('NOT_FOUND', `mount does not exist: ${name}`, { key: name })
    return files
  }

  /** Make init and writable layer, then make them known under `name`. @throws ALREADY_EXISTS `mount already exists with name` */
  async create(name: string, options: CreateRwOptions = {}): Promise<RwFiles> {
    if (options.idMap !== undefined) idMapOptions(options.idMap)
    const shifted = options.chown === true ? options.idMap : undefined
    if (options.chown === true && shifted === undefined) throw new StorageError('INVALID_ARGUMENT', 'owners can be changed to an id mapping only, and there is none', { key: name })
    const mountId = randomId()
    const initId = `${mountId}-init` as LayerId
    const mustBeFree = (): void => {
      if (this.find(name) !== undefined) throw new StorageError('ALREADY_EXISTS', `mount already exists with name: ${name}`, { key: name })
    }
    const writeSet = newWriteSet(this.#layers.root)
    const work = async (operation: RunningOperation): Promise<RwFiles> => {
      const parent = await this.#layers.locked(async () => {
        mustBeFree()
        // Found and held in one step, so that it cannot be removed in between.
        const layer = options.parent === undefined ? undefined : await this.#layers.get(options.parent)
        operation.intent.noteAll([
          ...(layer === undefined ? [] : [['hold', layer.chainId] as const]), ['layer', mountId], ['layer', initId], ['path', writeSet],
          ...(options.within === undefined ? [] : [['container', `${name} ${options.within.record}`] as const]),
        ])
        return layer?.cacheId
      })
      await this.#driver.create(initId, { writable: true, ...(parent === undefined ? {} : { parent }) })
      if (options.content === undefined) await this.#seedInit(initId, options.parent, parent, shifted)
      else await this.#apply(initId, options.content.init)
      await this.#driver.create(mountId, { writable: true, parent: initId, ...(options.storageOptions === undefined ? {} : { storageOptions: options.storageOptions }) })
      if (options.content !== undefined) await this.#apply(mountId, options.content.own)
      if (shifted !== undefined) await this.#chownRoot(mountId, shifted)
      await this.#syncTree(mountId)
      const files = { mountId, initId, ...(options.parent === undefined ? {} : { parent: options.parent }), ...(options.idMap === undefined ? {} : { idMap: options.idMap }), ...(shifted === undefined ? {} : { chowned: true }) }
      await this.#layers.locked(async () => {
        mustBeFree()
        writeRwFiles(this.#layers.root, name, files, writeSet)
        this.#remembered.set(this.#dirOf(name), files)
      })
      operation.kept.add(mountId).add(initId)
      return files
    }
    if (options.within === undefined) return await this.#layers.run('create-container', work)
    if (!(options.within.operation instanceof RunningOperation)) throw new TypeError('create needs the operation that it was given')
    return await work(options.within.operation)
  }

  /** A complete tree is a copy of the image: without a sync, a power cut could leave a container that was acknowledged with empty files. A branch holds names alone. */
  async #syncTree(id: LayerId): Promise<void> {
    if (this.#layers.root.durability !== 'full') return
    const content = await this.#driver.content(id, true)
    if (content.kind === 'tree') await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [content.path])
  }

  async #apply(id: LayerId, tar: AsyncIterable<Uint8Array>): Promise<void> {
    const content = await this.#driver.content(id, true)
    await runJob<ApplyArguments, unknown>(jobsModule, 'applyJob', { dir: content.path, ...applyFormat(content) }, { input: tar })
  }

  async #seedInit(initId: LayerId, chainId: ChainId | undefined, parent: LayerId | undefined, shifted: IdMap | undefined): Promise<void> {
    let seeds = chainId === undefined ? undefined : this.#seeds.get(chainId)
    const { planSeeds, seedLayer } = await import('../diff/seed.ts')
    // Layer by layer what lies below is needed for the plan alone.
    const content = await this.#driver.content(initId, seeds !== undefined)
    if (seeds === undefined) {
      const plan = planSeeds(treeOf(content), initEntries)
      seeds = { plan, holds: plan.map(({ name, type }) => ({ name: name.toString(), isDirectory: type === 'directory' })) }
      // For hosts that see many images the map is emptied now and then.
      if (this.#seeds.size >= 256) this.#seeds.clear()
      if (chainId !== undefined) this.#seeds.set(chainId, seeds)
    }
    const { plan } = seeds
    const { format, xattrPrefix } = applyFormat(content)
    if (shifted === undefined) return seedLayer(content.path, format, xattrPrefix, plan)
    if (parent !== undefined) {
      const args: WriteArguments = { upper: treeOf(await this.#driver.content(parent)), options: { owners: { map: shifted, to: 'host' } } }
      await this.#apply(initId, streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', args))
    }
    seedLayer(content.path, format, xattrPrefix, plan.map(entry => ({ ...entry, ...mapOwner(shifted, 'host', entry) })))
    await this.#chownRoot(initId, shifted)
  }

  /** A layer's own directory is what the container's root shows. */
  async #chownRoot(id: LayerId, map: IdMap): Promise<void> {
    const { path: dir } = await this.#driver.content(id, true)
    const { uid, gid } = mapOwner(map, 'host', { uid: 0, gid: 0 })
    fs.chownSync(dir, uid, gid)
  }

  // ---- mounting --------------------------------------------------------------------------------------------------------------

  /** Describe the mounts of a container's root, for an engine that performs them. */
  async mounts(name: string, access: 'rw' | 'ro' = 'rw'): Promise<readonly Mount[]> {
    return await this.#mountsOf(this.get(name), access)
  }

  async #mountsOf(files: RwFiles, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    const mounts = await this.#driver.mounts(files.mountId, access)
    const idMap = mountedMap(files)
    return idMap === undefined ? mounts : mounts.map(mount => ({ ...mount, options: [...mount.options, ...idMapOptions(idMap)] }))
  }

  /** Where a mount of it is performed: none is needed for a plain directory whose owners show as they are. */
  #placeOf(files: RwFiles): string | undefined {
    const { mountId } = files
    return this.#driver.mountpoint?.(mountId) ?? (mountedMap(files) === undefined ? undefined : path.join(ownState.mounts(this.#layers.root), `${mountId}.mnt`))
  }

  /** Mount it, or find it mounted, and count one more holder. `persistent`: the hold outlives this process. Returns the path. */
  async mount(name: string, options: { readonly persistent?: boolean } = {}): Promise<string> {
    this.#mustWrite('mount')
    const files = this.get(name)
    const { mountId } = files
    const mounts = await this.#mountsOf(files, 'rw')
    const [mount] = mounts
    if (mount === undefined) throw new StorageError('CORRUPT', `the driver ${this.#driver.name} describes no mount for ${mountId}`, { key: name })
    // A bind of a plain directory needs no mount: the directory is the answer, as in Docker.
    const target = mountedMap(files) === undefined && (mount.options.includes('bind') || mount.options.includes('rbind')) ? undefined : this.#placeOf(files)
    await this.#counts.hold(mountId, options.persistent === true, () => {
      // It may have been removed while this waited for the lock.
      if (this.get(name).mountId !== mountId) throw new StorageError('NOT_FOUND', `mount does not exist: ${name}`, { key: name })
      if (target === undefined || !makeMountpoint(target, this.#driver.keepsMountpoints === true) && isMountpoint(target)) return
      try {
        performMounts(mounts, target)
      } catch (error) {
        if (this.#driver.keepsMountpoints !== true) fs.rmdirSync(target)
        throw error
      }
    }, () => this.#takeDown(files))
    return target ?? mount.source
  }

  /** Give one hold back; the last one unmounts. @throws FAILED_PRECONDITION when it is not mounted */
  async unmount(name: string, options: { readonly persistent?: boolean } = {}): Promise<void> {
    this.#mustWrite('unmount')
    const files = this.get(name)
    await this.#counts.drop(files.mountId, options.persistent === true, () => this.#takeDown(files))
  }

  /** How many hold it. */
  mountCount(name: string): number {
    return this.#counts.count(this.get(name).mountId)
  }

  /** Where it is mounted, or undefined. */
  mountedAt(name: string): string | undefined {
    const target = this.#placeOf(this.get(name))
    return target !== undefined && isMountpoint(target) ? target : undefined
  }

  /** Unmount it whoever holds it: of a container that will never be. Nothing is fine. */
  async forget(name: string): Promise<void> {
    const files = this.find(name)
    if (files !== undefined) await this.#counts.clear(files.mountId, () => this.#takeDown(files))
  }

  #takeDown(files: RwFiles): void {
    const target = this.#placeOf(files)
    if (target === undefined || !fs.existsSync(target)) return
    this.#driver.unmounting?.(files.mountId, target)
    unmount(target)
    if (this.#driver.keepsMountpoints === true) return
    try {
      // On recent kernels the rmdir also takes the mount out of other mount namespaces (moby#36047), the cure for EBUSY.
      fs.rmdirSync(target)
    } catch (error) {
      // Whoever was still writing when it was unmounted by force has written into the folder below: that goes with the layer, and the next mount lies over it.
      if (!isErrno(error, 'ENOTEMPTY')) throw error
    }
  }

  /**
   * End the holds of processes that were killed, and with the last one the mount. One that is busy (somebody stands in it) stays until its container is removed.
   * Called when the store is opened; costs a directory listing when nothing is mounted.
   */
  async recover(): Promise<void> {
    const noted = this.#counts.noted().filter(id => this.#counts.count(id) === 0)
    if (noted.length === 0) return
    const files = new Map(this.names().flatMap(name => {
      try {
        const found = this.find(name)
        return found === undefined ? [] : [[found.mountId, found] as const]
      } catch (error) {
        // A damaged record keeps no store from opening; `check` tells of it.
        if (StorageError.is(error, 'CORRUPT')) return []
        throw error
      }
    }))
    for (const id of noted) {
      try {
        await this.#counts.settle(id, () => this.#takeDown(files.get(id) ?? { mountId: id }))
      } catch (error) {
        if (!isErrno(error, 'EBUSY', 'EPERM')) throw error
      }
    }
  }

  // ---- what changed ----------------------------------------------------------------------------------------------------------

  /** Changes against the init layer, so that what the engine put there does not show. */
  async *changes(name: string, signal?: AbortSignal): AsyncGenerator<Change> {
    yield* changesOf({ ...await this.#trees(name), only: await this.#changedPaths(name) }, signal)
  }

  /** The changes as a layer's tar. `shared`: as in WriteHereOptions. */
  async *tar(name: string, options: WriteOptions & WriteHereOptions = {}): AsyncGenerator<Buffer, WriteOutcome> {
    const { signal, shared, ...write } = options
    const args: WriteArguments = { ...await this.#trees(name), options: { ...write, ...this.#unshifted(name), only: await this.#changedPaths(name) } }
    const own = await this.#driver.content(this.get(name).mountId, true)
    const { isSmall, writeHere } = await import('../diff/write-here.ts')
    if (own.kind === 'branch' && isSmall(own.path)) return yield* writeHere(args, { signal, shared })
    return yield* streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', args, { signal })
  }

  /** What the driver knows about where changes can be, if it compares with the same tree as we do. */
  async #changedPaths(name: string): Promise<Uint8Array | undefined> {
    const { mountId, initId } = this.get(name)
    if (this.#driver.changedPaths === undefined || initId === undefined) return undefined
    const content = await this.#driver.content(mountId)
    if (content.kind !== 'tree' || content.parentPath !== (await this.#driver.content(initId)).path) return undefined
    return packNames(await this.#driver.changedPaths(mountId))
  }

  /** The whole file system as one tar, as a container sees it. */
  async *exportTar(name: string, options: WriteOptions & { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<Buffer, WriteOutcome> {
    const { signal, ...write } = options
    const { upper } = await this.#trees(name)
    return yield* streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', { upper, options: { ...write, ...this.#unshifted(name) } }, { signal })
  }

  /** Layers have the image's owners, whatever the container's are. */
  #unshifted(name: string): Pick<WriteOptions, 'owners'> {
    const { idMap, chowned } = this.get(name)
    return chowned === true && idMap !== undefined ? { owners: { map: idMap, to: 'container' } } : {}
  }

  async #trees(name: string): Promise<{ upper: TreeSpec; lower: TreeSpec | undefined }> {
    const { mountId, initId, parent } = this.get(name)
    const content = await this.#driver.content(mountId)
    // The init layer as it shows, which a branch's lowers are but for the first overlay driver: that has it copied into the container's own.
    const below = initId ?? (parent === undefined ? undefined : (await this.#layers.get(parent)).cacheId)
    return { upper: treeOf(content), lower: below === undefined ? undefined : treeOf(await this.#driver.content(below)) }
  }

  /** Disk use of the writable layer alone; for a driver of complete trees, of the whole copy. */
  async usage(name: string): Promise<Usage> {
    return await this.#driver.usage(this.get(name).mountId)
  }

  /** The driver and its folders of the layer, as `docker inspect` shows them under GraphDriver. */
  async graphDriver(name: string): Promise<{ readonly Name: string; readonly Data: Readonly<Record<string, string>> }> {
    return { Name: this.#driver.name, Data: await this.#driver.metadata(this.get(name).mountId) }
  }

  // ---- removing --------------------------------------------------------------------------------------------------------------

  /** Remove the layers and their entry. @throws IN_USE while it is mounted, unless `force` unmounts it; idempotent */
  async remove(name: string, options: RemoveRwOptions = {}): Promise<void> {
    this.#mustWrite('remove')
    const files = this.find(name)
    if (files === undefined && options.record === undefined) return
    await this.#layers.run('remove-container', async operation => {
      const vanish = (): Promise<void> => this.#layers.locked(async () => this.#vanish(operation, name, files, options))
      if (files === undefined) return await vanish()
      // With the counts locked until it has vanished: nobody can mount it meanwhile.
      await this.#counts.clear(files.mountId, async holders => {
        if (holders > 0 && options.force !== true) {
          throw new StorageError('IN_USE', `container layer ${name} is mounted by ${holders}`, { op: 'remove', key: name, hint: 'unmount it, or remove it with force' })
        }
        this.#takeDown(files)
        await vanish()
      })
      if (files.parent !== undefined && await options.parentIsKept?.() === true) operation.spared.add(files.parent)
    })
  }

  #vanish(operation: RunningOperation, name: string, files: RwFiles | undefined, { record, recordFiles }: RemoveRwOptions): void {
    const { root } = this.#layers
    const parent = files?.parent
    const ids = files === undefined ? [] : [files.mountId, ...(files.initId === undefined ? [] : [files.initId])]
    const doomed = path.join(layerDb.tmp(root), `removing-${randomHex(8)}`)
    // Beside it, as it may be a file system of its own; dockerd takes no folder of this name for a container.
    const doomedRecord = record === undefined ? undefined : path.join(path.dirname(record), `.gone-${path.basename(record)}`)
    operation.intent.noteAll([
      ...ids.map(id => ['layer', id] as const), ['path', doomed], ...(parent === undefined ? [] : [['freed', parent] as const]),
      ...(doomedRecord === undefined ? [] : [['path', doomedRecord] as const, ['container', `${name} ${record}`] as const]),
    ])
    const sync = root.durability !== 'none'
    if (record !== undefined && doomedRecord !== undefined && fs.existsSync(record)) {
      fs.renameSync(record, doomedRecord)
      if (recordFiles !== undefined) operation.folders.set(doomedRecord, recordFiles)
      if (sync) syncDirectorySync(path.dirname(record))
    }
    const entry = path.join(layerDb.mounts(root), name)
    // Somebody else may have removed it first.
    if (fs.existsSync(entry)) {
      fs.renameSync(entry, doomed)
      if (files !== undefined) operation.folders.set(doomed, rwFileNames(files))
      if (sync) syncDirectorySync(layerDb.mounts(root))
    }
    for (const id of ids) operation.dropped.set(id, id === files?.initId && parent !== undefined ? this.#seeds.get(parent)?.holds : undefined)
  }

  #mustWrite(op: string): void {
    if (this.#layers.root.readOnly) throw readOnlyError(this.#layers.root, op)
  }
}

/** False when it was there before. `kept`: it nearly always is, and to learn that from an exception costs 10 µs. */
function makeMountpoint(target: string, kept: boolean): boolean {
  if (kept && fs.existsSync(target)) return false
  try {
    fs.mkdirSync(target, { mode: 0o700 })
    return true
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false
    throw error
  }
}

/** The tree that a layer shows, parents included. */
export function treeOf(content: LayerContent): TreeSpec {
  if (content.kind === 'tree') return { layers: [content.path], whiteouts: 'none' }
  return { layers: [content.path, ...content.lowers], whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix }
}
