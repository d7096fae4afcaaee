// Container layers: a writable layer, above an init layer of mount points, above an image's top layer. Makes, mounts, diffs and removes
// them; what a container is otherwise is lib/containers' business.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { changesOf } from '../diff/index.ts'
import type { TreeSpec } from '../diff/index.ts'
import { jobsModule } from '../diff/jobs.ts'
import type { SeedArguments, SeedEntry, WriteArguments, WriteOutcome } from '../diff/jobs.ts'
import type { WriteOptions } from '../diff/write-layer.ts'
import type { Change, Driver, LayerContent, Mount, Usage } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { randomId } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { isMountpoint, performMount, unmount } from '../sys/mount.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import { layerDb, ownState } from './data-root.ts'
import { MountCounts } from './mount-counts.ts'
import { listRwNames, readRwFiles, writeRwFiles } from './rw-files.ts'
import type { RwFiles } from './rw-files.ts'
import type { DiskLayerStore } from './store.ts'
import { applyFormat } from './stage.ts'

/** What the init layer holds, so that an engine's mount points never show in a diff. Source: moby daemon/initlayer/setup_unix.go. */
const initEntries: readonly SeedEntry[] = [
  ...['dev', 'proc', 'sys', 'dev/pts', 'dev/shm', 'etc'].map(name => ({ name, type: 'directory' as const, mode: 0o755 })),
  ...['.dockerenv', 'etc/resolv.conf', 'etc/hosts', 'etc/hostname', 'dev/console'].map(name => ({ name, type: 'file' as const, mode: 0o755 })),
  { name: 'etc/mtab', type: 'symlink' as const, mode: 0o777, linkname: '/proc/mounts' },
]

export interface CreateRwOptions {
  readonly parent?: ChainId
  readonly storageOptions?: Readonly<Record<string, string>>
}

export class RwLayers {
  readonly #layers: DiskLayerStore
  readonly #driver: Driver
  readonly #counts: MountCounts

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
    return readRwFiles(this.#layers.root, name)
  }

  get(name: string): RwFiles {
    const files = this.find(name)
    if (files === undefined) throw new StorageError('NOT_FOUND', `mount does not exist: ${name}`, { key: name })
    return files
  }

  /** Make init and writable layer, then make them known under `name`. @throws ALREADY_EXISTS `mount already exists with name` */
  async create(name: string, options: CreateRwOptions = {}): Promise<RwFiles> {
    const mountId = randomId()
    const initId = `${mountId}-init` as LayerId
    return await this.#layers.run('create-container', async operation => {
      const mustBeFree = (): void => {
        if (this.find(name) !== undefined) throw new StorageError('ALREADY_EXISTS', `mount already exists with name: ${name}`, { key: name })
      }
      await this.#layers.locked(async () => {
        mustBeFree()
        if (options.parent !== undefined) operation.intent.note('hold', [options.parent])
      })
      operation.intent.note('layer', [mountId, initId])
      const parent = options.parent === undefined ? undefined : (await this.#layers.get(options.parent)).cacheId
      await this.#driver.create(initId, { writable: true, ...(parent === undefined ? {} : { parent }) })
      await this.#seedInit(initId)
      await this.#driver.create(mountId, { writable: true, parent: initId, ...(options.storageOptions === undefined ? {} : { storageOptions: options.storageOptions }) })
      const files = { mountId, initId, ...(options.parent === undefined ? {} : { parent: options.parent }) }
      await this.#layers.locked(async () => {
        mustBeFree()
        writeRwFiles(this.#layers.root, name, files)
      })
      operation.kept.add(mountId).add(initId)
      return files
    })
  }

  async #seedInit(initId: LayerId): Promise<void> {
    const content = await this.#driver.content(initId)
    const args: SeedArguments = {
      dir: content.path, ...applyFormat(content), entries: initEntries,
      tree: treeOf(content), lower: content.kind === 'branch' && content.lowers.length > 0 ? lowerOf(content) : undefined,
    }
    await runJob<SeedArguments, void>(jobsModule, 'seedJob', args)
  }

  // ---- mounting --------------------------------------------------------------------------------------------------------------

  /** Describe the mounts of a container's root, for an engine that performs them. */
  async mounts(name: string, access: 'rw' | 'ro' = 'rw'): Promise<readonly Mount[]> {
    return await this.#driver.mounts(this.get(name).mountId, access)
  }

  /** Mount it, or find it mounted, and count one more holder. `persistent`: the hold outlives this process. Returns the path. */
  async mount(name: string, options: { readonly persistent?: boolean } = {}): Promise<string> {
    const { mountId } = this.get(name)
    const [mount] = await this.#driver.mounts(mountId, 'rw')
    if (mount === undefined) throw new StorageError('CORRUPT', `the driver ${this.#driver.name} describes no mount for ${mountId}`, { key: name })
    // A bind of a plain directory needs no mount: the directory is the answer, as in Docker.
    const target = mount.options.includes('bind') || mount.options.includes('rbind') ? undefined : this.#driver.mountpoint?.(mountId)
    await this.#counts.hold(mountId, options.persistent === true, () => {
      if (target === undefined || isMountpoint(target)) return
      if (!fs.existsSync(target)) fs.mkdirSync(target, { mode: 0o700 })
      try {
        performMount(mount, target)
      } catch (error) {
        fs.rmdirSync(target)
        throw error
      }
    })
    return target ?? mount.source
  }

  /** Give one hold back; the last one unmounts. @throws FAILED_PRECONDITION when it is not mounted */
  async unmount(name: string, options: { readonly persistent?: boolean } = {}): Promise<void> {
    const { mountId } = this.get(name)
    await this.#counts.drop(mountId, options.persistent === true, () => this.#takeDown(mountId))
  }

  /** How many hold it. */
  mountCount(name: string): number {
    return this.#counts.count(this.get(name).mountId)
  }

  /** Where it is mounted, or undefined. */
  mountedAt(name: string): string | undefined {
    const target = this.#driver.mountpoint?.(this.get(name).mountId)
    return target !== undefined && isMountpoint(target) ? target : undefined
  }

  #takeDown(mountId: LayerId): void {
    const target = this.#driver.mountpoint?.(mountId)
    if (target === undefined || !fs.existsSync(target)) return
    unmount(target)
    // On recent kernels the rmdir also takes the mount out of other mount namespaces (moby#36047), the cure for EBUSY.
    fs.rmdirSync(target)
  }

  // ---- what changed ----------------------------------------------------------------------------------------------------------

  /** Changes against the init layer, so that what the engine put there does not show. */
  async *changes(name: string, signal?: AbortSignal): AsyncGenerator<Change> {
    const { mountId } = this.get(name)
    if (this.#driver.changes !== undefined) yield* this.#driver.changes(mountId)
    else yield* changesOf(await this.#trees(name), signal)
  }

  /** The changes as a layer's tar. */
  async *tar(name: string, options: WriteOptions & { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<Buffer, WriteOutcome> {
    const { signal, ...write } = options
    return yield* streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', { ...await this.#trees(name), options: write }, { signal })
  }

  /** The whole file system as one tar, as a container sees it. */
  async *exportTar(name: string, options: WriteOptions & { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<Buffer, WriteOutcome> {
    const { signal, ...write } = options
    const { upper } = await this.#trees(name)
    return yield* streamJob<WriteArguments, WriteOutcome>(jobsModule, 'writeJob', { upper, options: write }, { signal })
  }

  async #trees(name: string): Promise<{ upper: TreeSpec; lower: TreeSpec | undefined }> {
    const { mountId, initId, parent } = this.get(name)
    const content = await this.#driver.content(mountId)
    if (content.kind === 'branch') return { upper: treeOf(content), lower: content.lowers.length === 0 ? undefined : lowerOf(content) }
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
  async remove(name: string, options: { readonly force?: boolean } = {}): Promise<void> {
    const files = this.find(name)
    if (files === undefined) return
    await this.#counts.clear(files.mountId, holders => {
      if (holders > 0 && options.force !== true) {
        throw new StorageError('IN_USE', `container layer ${name} is mounted by ${holders}`, { op: 'remove', key: name, hint: 'unmount it, or remove it with force' })
      }
      this.#takeDown(files.mountId)
    })
    await this.#layers.run('remove-container', async operation => {
      const doomed = path.join(layerDb.tmp(this.#layers.root), `removing-${randomBytes(8).toString('hex')}`)
      const ids = [files.mountId, ...(files.initId === undefined ? [] : [files.initId])]
      operation.intent.note('layer', ids)
      operation.intent.note('path', [doomed])
      await this.#layers.locked(async () => fs.renameSync(path.join(layerDb.mounts(this.#layers.root), name), doomed))
      for (const id of ids) operation.dropped.add(id)
    })
  }
}

function treeOf(content: LayerContent): TreeSpec {
  if (content.kind === 'tree') return { layers: [content.path], whiteouts: 'none' }
  return { layers: [content.path, ...content.lowers], whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix }
}

function lowerOf(content: Extract<LayerContent, { kind: 'branch' }>): TreeSpec {
  return { layers: content.lowers, whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix }
}
