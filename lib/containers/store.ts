// Containers as storage sees them: a record in Docker's layout and a container layer. Creates, mounts, diffs, commits, exports and removes;
// it runs nothing.

import fs from 'node:fs'
import path from 'node:path'
import type { Change, Mount, Usage } from '../driver.ts'
import { StorageError, told } from '../errors.ts'
import { syncDirectory } from '../fs/atomic.ts'
import { randomId } from '../ids.ts'
import type { Digest } from '../ids.ts'
import type { ImageStore } from '../images/index.ts'
import { ensureDir } from '../layers/index.ts'
import type { DataRoot, RwLayers } from '../layers/index.ts'
import type { LayerStore, Operation } from '../layers/index.ts'
import type { WriteOptions, WriteOutcome } from '../diff/index.ts'
import { checkContainerName, containerFiles, randomName, timestamp, writeContainer } from './config.ts'
import type { ContainerConfig, ContainerRecord } from './config.ts'
import type { CommitOptions, CommitResult } from './commit.ts'
import type { Attached, ContainerMountOptions } from './attach.ts'
import { describeMounts } from './describe-mounts.ts'
import { handedOver, takeBack } from './hand-over.ts'
import { mergeConfig } from './merge-config.ts'
import { readContainerMounts, readMountPoints } from './mount-points.ts'
import type { ContainerMounts } from './mount-points.ts'
import { ContainerRecords, volumesOf } from './records.ts'
import type { SpecOptions } from './oci-spec.ts'
import { isPrepared, prepareMounts, releaseKept } from './prepare.ts'
import { stateOf } from './state.ts'
import type { PreparedMounts } from './prepare.ts'
import type { IdMap } from '../sys/idmap.ts'
import type { VolumeStore } from '../volumes/index.ts'

export interface CreateContainerOptions {
  /** An image by name, id or unique prefix; absent: an empty root. */
  readonly image?: string
  /** Default: two words of the quarry. */
  readonly name?: string
  /** What differs from the image's own config; variables, labels, ports and volumes are united with it, as `docker create` does. */
  readonly config?: ContainerConfig
  /** Options of the writable layer, e.g. `{ size: '10G' }`. */
  readonly storageOptions?: Readonly<Record<string, string>>
  /**
   * For a container in a user namespace: its files show with these owners wherever it is mounted, through idmapped mounts; on disk, and so in diff and commit, they keep the
   * image's. Mounting is NOT_SUPPORTED where the kernel or the driver has none (overlay2, btrfs and vfs have them from Linux 5.19 on); nothing is chowned, unless `chown` asks for it.
   */
  readonly idMap?: IdMap
  /**
   * With `idMap`, for kernels and drivers that cannot mount so: the image's files are copied into the container with their owners shifted, which takes their space and time
   * again. Diff, commit and export give the image's owners all the same. Owners that the mapping has no place for are FAILED_PRECONDITION. Default false.
   */
  readonly chown?: boolean
  /** Volumes, binds and tmpfs. The image's own VOLUMEs become anonymous volumes whatever is given here. */
  readonly mounts?: ContainerMountOptions
  readonly signal?: AbortSignal
}

/** A mounted container; disposing gives the hold back. */
export interface MountedContainer extends AsyncDisposable {
  readonly path: string
  unmount(): Promise<void>
}

export class ContainerStore {
  readonly #root: DataRoot
  readonly #layers: LayerStore
  readonly #rw: RwLayers
  readonly #images: ImageStore
  readonly #volumes: VolumeStore
  readonly #records: ContainerRecords
  readonly #dir: string

  constructor(root: DataRoot, layers: LayerStore, rw: RwLayers, images: ImageStore, volumes: VolumeStore) {
    this.#root = root
    this.#layers = layers
    this.#rw = rw
    this.#images = images
    this.#volumes = volumes
    this.#dir = path.join(root.path, 'containers')
    this.#records = new ContainerRecords(this.#dir)
    if (!root.readOnly) ensureDir(this.#dir, 0o710)
    images.addUsers(async () => this.list().flatMap(({ id, imageId, running }) => imageId === undefined ? [] : [{ containerId: id, imageId, running }]))
    // Containers of every driver: what one of them refers to is in use, whoever asks.
    layers.addUndo(handedOver, note => takeBack(root, layers, note))
    layers.addUndo('anonymous-volume', name => this.#removeUnused(name))
    layers.addUndo('container-volumes', async id => {
      // Without a record nobody but the operation that failed can have it mounted.
      if (!fs.existsSync(path.join(this.#dir, id))) await rw.forget(id)
      await volumes.forgetUser(id)
    })
    volumes.addReferences(() => this.#records.ids().flatMap(id => this.#records.volumes(id).map(volume => ({ volume, reference: id }))))
  }

  // ---- finding ---------------------------------------------------------------------------------------------------------------

  /** All containers of this driver whose records can be read, newest first. */
  list(): ContainerRecord[] {
    return this.#records.ids().flatMap(id => this.#records.readable(id) ?? [])
      .filter(record => record.driver === this.#root.driverName)
      .sort((a, b) => compare(instant(b), instant(a)) || compare(a.id, b.id))
  }

  /** By id, name, or unique prefix of an id. @throws NOT_FOUND `No such container: X`, INVALID_ARGUMENT for an ambiguous prefix */
  get(ref: string): ContainerRecord {
    const found = this.find(ref)
    if (found === undefined) throw new StorageError('NOT_FOUND', `No such container: ${ref}`, { key: ref })
    return found
  }

  find(ref: string): ContainerRecord | undefined {
    if (/^[a-f0-9]{64}$/.test(ref)) return this.#records.get(ref)
    const all = this.list()
    const named = all.find(record => record.name === ref.replace(/^\//, ''))
    if (named !== undefined) return named
    if (!/^[a-f0-9]+$/.test(ref)) return undefined
    const matches = all.filter(record => record.id.startsWith(ref))
    if (matches.length > 1) throw new StorageError('INVALID_ARGUMENT', `multiple IDs found with provided prefix: ${ref}`, { key: ref })
    return matches[0]
  }

  // ---- life ------------------------------------------------------------------------------------------------------------------

  /** @throws NOT_FOUND (image), ALREADY_EXISTS (name), INVALID_ARGUMENT */
  async create(options: CreateContainerOptions = {}): Promise<ContainerRecord> {
    if (options.name !== undefined) checkContainerName(options.name)
    const id = randomId() as string
    const dir = path.join(this.#dir, id)
    return await this.#layers.operation('create', async operation => {
      const image = options.image === undefined ? undefined : await this.#images.basis(options.image)
      const top = image?.top
      const config = mergeConfig(options.config ?? {}, image?.config.config ?? {})
      const record: ContainerRecord = {
        id, name: options.name ?? randomName(), created: timestamp(), driver: this.#root.driverName, running: false, state: stateOf(undefined),
        config: { ...config, Image: options.image ?? '' }, ...(image === undefined ? {} : { imageId: image.id }),
      }
      if (options.name !== undefined) this.#mustBeFree(record.name)
      await this.#rw.create(id, {
        within: { operation, record: dir },
        ...(top === undefined ? {} : { parent: top }), ...(options.storageOptions === undefined ? {} : { storageOptions: options.storageOptions }),
        ...(options.idMap === undefined ? {} : { idMap: options.idMap }), ...(options.chown === undefined ? {} : { chown: options.chown }),
      })
      // What cannot be given back at once (a full disk) is given back by whoever settles the operation.
      if (options.mounts !== undefined || Object.keys(record.config.Volumes ?? {}).length > 0) await operation.undo('container-volumes', id)
      const { attachMounts } = await import('./attach.ts')
      const attached = await attachMounts({
        id, options: options.mounts ?? {}, imageVolumes: Object.keys(record.config.Volumes ?? {}), volumes: this.#volumes, signal: options.signal,
        mountsOf: ref => readContainerMounts(path.join(this.#dir, this.get(ref).id)), withRoot: work => this.#withLayer(id, work),
      })
      try {
        await this.#show(record, operation, options, attached)
      } catch (error) {
        await attached.undo()
        throw error
      }
      await attached.settle()
      return record
    }, options.signal)
  }

  /** The container's root, mounted, before there is a record of the container. */
  async #withLayer<T>(id: string, work: (root: string) => Promise<T>): Promise<T> {
    const root = await this.#rw.mount(id)
    try {
      return await work(root)
    } finally {
      await this.#rw.unmount(id)
    }
  }

  /** Made beside its place, and shown whole by one rename: until then the operation's end takes the container layer back. */
  async #show(record: ContainerRecord, operation: Operation, options: CreateContainerOptions, attached: Attached): Promise<void> {
    const sync = this.#root.durability !== 'none'
    const staging = path.join(this.#dir, `.new-${record.id}`)
    await operation.temporary(staging)
    fs.mkdirSync(staging, { mode: 0o710 })
    fs.chmodSync(staging, 0o710)
    writeContainer(staging, record, options.storageOptions, sync, { points: attached.mounts.points, hostConfig: attached.hostConfig })
    await this.#layers.locked(async () => {
      this.#mustBeFree(record.name)
      // The image may have been removed, by force, while its layers were held.
      if (record.imageId !== undefined) await this.#images.resolve(record.imageId)
      fs.renameSync(staging, path.join(this.#dir, record.id))
    })
    if (sync) await syncDirectory(this.#dir)
  }

  #mustBeFree(name: string): void {
    const holder = this.#records.ids().map(id => this.#records.readable(id)).find(record => record?.name === name && record.driver === this.#root.driverName)
    if (holder === undefined) return
    throw new StorageError('ALREADY_EXISTS', `Conflict. The container name "/${name}" is already in use by container "${holder.id}"`,
      { op: 'create', key: name, hint: 'remove or rename that container to be able to reuse that name' })
  }

  /** `volumes`: with the anonymous volumes that nobody else refers to. @throws IN_USE while it is mounted, unless `force` unmounts it */
  async remove(ref: string, options: { readonly force?: boolean; readonly volumes?: boolean } = {}): Promise<void> {
    try {
      await this.#remove(ref, options)
    } catch (error) {
      throw told(error, `removing container ${ref}`, { op: 'remove', key: ref })
    }
  }

  async #remove(ref: string, options: { readonly force?: boolean; readonly volumes?: boolean }): Promise<void> {
    const { id, running, imageId } = this.get(ref)
    if (running) throw new StorageError('IN_USE', `cannot remove container ${ref}: it is running`, { op: 'remove', key: ref, hint: 'stop it with the engine that started it' })
    const { volumes = false, ...rest } = options
    const dir = path.join(this.#dir, id)
    const anonymous = volumes ? volumesOf(readMountPoints(dir)).filter(name => this.#volumes.find(name)?.anonymous === true) : []
    if (anonymous.length > 0) return await this.#layers.operation('remove', operation => this.#removeWithVolumes(ref, rest, anonymous, operation))
    if (options.force === true || this.#rw.mountCount(id) === 0) await releaseKept(dir, this.#volumes)
    await this.#rw.remove(id, {
      ...rest, record: dir, recordFiles: containerFiles, parentIsKept: async () => imageId !== undefined && await this.#imageIsThere(imageId),
    })
    this.#records.forget(id)
  }

  /** An operation of its own around it: a kill behind the container's end must not leave volumes that nobody will ever ask for. */
  async #removeWithVolumes(ref: string, options: { readonly force?: boolean }, anonymous: readonly string[], operation: Operation): Promise<void> {
    for (const name of anonymous) await operation.undo('anonymous-volume', name)
    await this.#remove(ref, options)
    for (const name of anonymous) await this.#removeUnused(name)
  }

  async #removeUnused(volume: string): Promise<void> {
    if (this.#volumes.find(volume)?.anonymous !== true) return
    try {
      await this.#volumes.remove(volume, { force: true })
    } catch (error) {
      if (!StorageError.is(error, 'IN_USE')) throw error
    }
  }

  async #imageIsThere(id: Digest): Promise<boolean> {
    try {
      await this.#images.resolve(id)
      return true
    } catch (error) {
      if (StorageError.is(error, 'NOT_FOUND')) return false
      throw error
    }
  }

  // ---- its file system -------------------------------------------------------------------------------------------------------

  /**
   * Describe its mounts, for an engine that performs them: the root's, then, with a `target`, volumes, binds and tmpfs, shorter targets first, in
   * the options of OCI runtimes. Nothing is mounted here: `prepareMounts` mounts volumes that have a device, and pins subpaths.
   */
  async mounts(ref: string, access: 'rw' | 'ro' = 'rw'): Promise<readonly Mount[]> {
    const { id } = this.get(ref)
    const own = describeMounts(readContainerMounts(path.join(this.#dir, id)), point => {
      const subpath = point.Spec.VolumeOptions?.Subpath
      return point.Type === 'volume' && subpath ? path.join(point.Source, subpath) : point.Source
    })
    return [...await this.#rw.mounts(id, access), ...own]
  }

  /** Its mount points as `config.v2.json` has them, by destination, and those of `--tmpfs`. */
  mountPoints(ref: string): ContainerMounts {
    return readContainerMounts(path.join(this.#dir, this.get(ref).id))
  }

  /**
   * Make the mounts beside its root ready to be performed: volumes with a device are mounted, subpaths pinned against exchange, missing sources of
   * `-v` made. With `persistent` this outlives the process, and ends with `releaseMounts`, the container or the boot; a second call returns the same.
   * @throws NOT_FOUND (volume, subpath), FAILED_PRECONDITION (a subpath that leads out), NOT_SUPPORTED (recursive read-only)
   */
  async prepareMounts(ref: string, options: { readonly persistent?: boolean } = {}): Promise<PreparedMounts> {
    const { id } = this.get(ref)
    const dir = path.join(this.#dir, id)
    return await prepareMounts({ id, dir }, readContainerMounts(dir), this.#volumes, options.persistent === true)
  }

  /** Undo a persistent `prepareMounts`; nothing is fine. */
  async releaseMounts(ref: string): Promise<void> {
    await releaseKept(path.join(this.#dir, this.get(ref).id), this.#volumes)
  }

  /**
   * The config.json of an OCI bundle that a runtime such as runc starts, its root and volumes mounted to last: `unmount(ref, { persistent: true })`
   * and `releaseMounts(ref)` end that.
   */
  async spec(ref: string, options: Omit<SpecOptions, 'root' | 'mounts'> = {}): Promise<{ readonly config: Record<string, unknown>; readonly root: string; readonly notDone: readonly string[] }> {
    const record = this.get(ref)
    const { ociSpec } = await import('./oci-spec.ts')
    const wasPrepared = isPrepared(path.join(this.#dir, record.id))
    const prepared = await this.prepareMounts(ref, { persistent: true })
    try {
      // Prepared before: then the root is mounted as well, and one hold is enough.
      const mounted = this.mountState(ref).path
      const root = wasPrepared && mounted !== undefined ? mounted : await this.#rw.mount(record.id, { persistent: true })
      return { config: ociSpec(record, { ...options, root, mounts: prepared.mounts }), root, notDone: prepared.notDone }
    } catch (error) {
      if (!wasPrepared) await prepared.release()
      throw error
    }
  }

  /**
   * Mount it, or join those who have. The hold ends with `unmount`, with disposal, or with this process; a `persistent` one ends with
   * `unmount(ref, { persistent: true })` or the boot.
   */
  async mount(ref: string, options: { readonly persistent?: boolean } = {}): Promise<MountedContainer> {
    const { id } = this.get(ref)
    const mountedAt = await this.#mount(ref, id, options)
    let held = true
    const unmount = async (): Promise<void> => {
      if (!held) return
      held = false
      try {
        await this.#rw.unmount(id, options)
      } catch (error) {
        // To be called again.
        held = true
        throw error
      }
    }
    return { path: mountedAt, unmount, [Symbol.asyncDispose]: unmount }
  }

  async #mount(ref: string, id: string, options: { readonly persistent?: boolean }): Promise<string> {
    try {
      return await this.#rw.mount(id, options)
    } catch (error) {
      throw told(error, `mounting container ${ref}`, { op: 'mount', key: ref })
    }
  }

  /** Give a hold back. The last persistent one ends what `spec` has prepared, too. */
  async unmount(ref: string, options: { readonly persistent?: boolean } = {}): Promise<void> {
    const { id } = this.get(ref)
    await this.#rw.unmount(id, options)
    if (options.persistent === true && this.#rw.mountCount(id) === 0) await releaseKept(path.join(this.#dir, id), this.#volumes)
  }

  /**
   * Run `work` with the container's root and all its mounts in place below it, as a process in the container would find them. Needs the right to
   * mount. Missing mount points are made in the container's layer.
   */
  async withMounts<T>(ref: string, work: (path: string) => T | Promise<T>): Promise<T> {
    const { performMounts, undoMounts } = await mounting()
    await using prepared = await this.prepareMounts(ref)
    return await this.withMount(ref, async root => {
      const targets = performMounts(root, prepared.mounts)
      try {
        return await work(root)
      } finally {
        undoMounts(targets)
      }
    })
  }

  async withMount<T>(ref: string, work: (path: string) => T | Promise<T>): Promise<T> {
    const mounted = await this.mount(ref)
    try {
      return await work(mounted.path)
    } finally {
      await mounted.unmount()
    }
  }

  /** Where it is mounted, if it is, and by how many. */
  mountState(ref: string): { readonly path: string | undefined; readonly holders: number } {
    const { id } = this.get(ref)
    return { path: this.#rw.mountedAt(id), holders: this.#rw.mountCount(id) }
  }

  /** A added, C changed, D deleted, against its image; what an engine's mount points need does not show. */
  diff(ref: string, signal?: AbortSignal): AsyncGenerator<Change> {
    return this.#rw.changes(this.get(ref).id, signal)
  }

  /** The container's own layer as a tar: its changes against its image, as `commit` would keep them. */
  layerTar(ref: string, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer, WriteOutcome> {
    return this.#rw.tar(this.get(ref).id, options)
  }

  /** The whole file system as one tar. */
  export(ref: string, options: WriteOptions & { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer, WriteOutcome> {
    return this.#rw.exportTar(this.get(ref).id, options)
  }

  async usage(ref: string): Promise<Usage> {
    return await this.#rw.usage(this.get(ref).id)
  }

  /** What `docker inspect` shows under GraphDriver. */
  graphDriver(ref: string): Promise<{ readonly Name: string; readonly Data: Readonly<Record<string, string>> }> {
    return this.#rw.graphDriver(this.get(ref).id)
  }

  // ---- commit ----------------------------------------------------------------------------------------------------------------

  /** Make an image of the container: its changes become a layer on the image's. Works while it is mounted. */
  async commit(ref: string, options: CommitOptions = {}): Promise<CommitResult> {
    const { commitContainer } = await import('./commit.ts')
    return await commitContainer({ layers: this.#layers, rw: this.#rw, images: this.#images }, this.get(ref), options)
  }
}

/** Go writes fractions of any length, and 'Z' sorts after digits. */
function instant(record: ContainerRecord): string {
  return record.created.replace('Z', '')
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

// Not in the method itself: tsc 6.0 forgets to rewrite the name in a function with `await using`.
function mounting(): Promise<typeof import('./perform-mounts.ts')> {
  return import('./perform-mounts.ts')
}
