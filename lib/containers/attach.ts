// Gives a new container its mounts: reads what was asked for, makes the volumes and refers to them, and fills the empty ones from the image.
// Source: moby daemon/volumes.go (registerMountPoints), daemon/create_unix.go.

import fs from 'node:fs'
import { isErrno, StorageError } from '../errors.ts'
import { resolvingPlace } from '../fs/rooted.ts'
import { anonymousLabel, cleanPath, mergeTmpfsOptions, mountPointOf, parseVolumePoint, parseVolumesFrom, randomVolumeName } from '../volumes/index.ts'
import type { MountPoint, MountSpec, VolumeStore } from '../volumes/index.ts'
import { recordOf } from './mount-points.ts'
import type { ContainerMounts, MountHostConfig, MountPointRecord } from './mount-points.ts'

/** The mounts of a container, in the words of docker's command line. */
export interface ContainerMountOptions {
  /** `-v`, as the engine reads it; sources that are paths are absolute. */
  readonly binds?: readonly string[]
  /** `--mount`. */
  readonly mounts?: readonly MountSpec[]
  /** `--tmpfs`: destination → options. */
  readonly tmpfs?: Readonly<Record<string, string>>
  /** `--volumes-from`: CONTAINER[:MODE]. */
  readonly volumesFrom?: readonly string[]
  /** The driver of volumes that name none. */
  readonly volumeDriver?: string
}

export interface AttachRequest {
  /** The container's id, which is the reference. */
  readonly id: string
  readonly options: ContainerMountOptions
  /** Destinations of the image's and the container's own VOLUMEs. */
  readonly imageVolumes: readonly string[]
  readonly volumes: VolumeStore
  /** Another container's mounts, for volumes-from. */
  readonly mountsOf: (ref: string) => ContainerMounts
  /** Run `work` with the container's root, mounted. */
  readonly withRoot: <T>(work: (root: string) => Promise<T>) => Promise<T>
  readonly signal?: AbortSignal | undefined
}

export interface Attached {
  readonly mounts: ContainerMounts
  readonly hostConfig: MountHostConfig
  /** The container's record, and with it the references in it, can be seen: give those of this process back. */
  settle(): Promise<void>
  /** There will be no container: give all back. */
  undo(): Promise<void>
}

export async function attachMounts(request: AttachRequest): Promise<Attached> {
  const { options, volumes, id } = request
  const attaching = new Attaching(request)
  try {
    for (const from of options.volumesFrom ?? []) await attaching.volumesFrom(from)
    for (const text of options.binds ?? []) await attaching.bind(text)
    for (const [destination, data] of Object.entries(options.tmpfs ?? {})) attaching.tmpfs(destination, data)
    for (const mount of options.mounts ?? []) await attaching.mount(mount)
    await attaching.imageVolumes()
    await attaching.fill()
  } catch (error) {
    await attaching.undo()
    throw error
  }
  const { binds, mounts, tmpfs, volumesFrom, volumeDriver } = options
  return {
    mounts: { points: attaching.points, tmpfs: attaching.tmpfsMounts },
    hostConfig: {
      Binds: binds === undefined || binds.length === 0 ? null : binds, VolumesFrom: volumesFrom === undefined || volumesFrom.length === 0 ? null : volumesFrom,
      VolumeDriver: volumeDriver ?? '', ...(tmpfs === undefined ? {} : { Tmpfs: attaching.tmpfsMounts }), ...(mounts === undefined || mounts.length === 0 ? {} : { Mounts: mounts }),
    },
    settle: async () => { for (const name of attaching.used) await volumes.release(name, id) },
    undo: () => attaching.undo(),
  }
}

class Attaching {
  readonly points: Record<string, MountPointRecord> = {}
  readonly tmpfsMounts: Record<string, string> = {}
  readonly used = new Set<string>()
  readonly #request: AttachRequest
  /** Anonymous volumes made for this container. */
  readonly #made: string[] = []
  readonly #copies: { readonly volume: string; readonly destination: string; readonly subpath: string | undefined }[] = []
  /** Destinations taken by -v and --mount, which may not take one twice; they go before volumes-from. */
  readonly #taken = new Set<string>()

  constructor(request: AttachRequest) { this.#request = request }

  #take(destination: string, shown: string): void {
    if (this.#taken.has(destination) || this.tmpfsMounts[destination] !== undefined) throw duplicate(shown)
    this.#taken.add(destination)
  }

  async volumesFrom(text: string): Promise<void> {
    const { container, mode } = parseVolumesFrom(text)
    const readOnly = mode.split(',').includes('ro')
    for (const point of Object.values(this.#request.mountsOf(container).points)) {
      if (point.Type === 'volume') await this.#use(point.Name, point.Driver)
      this.points[point.Destination] = { ...point, RW: point.RW && !readOnly }
    }
  }

  async bind(text: string): Promise<void> {
    const point = parseVolumePoint(text, { volumeDriver: this.#request.options.volumeDriver ?? '' })
    if (this.#taken.has(point.Destination)) throw duplicate(point.Destination)
    this.#take(point.Destination, point.Destination)
    await this.#add(point, false)
  }

  tmpfs(destination: string, data: string): void {
    const point = mountPointOf({ Type: 'tmpfs', Target: destination })
    mergeTmpfsOptions(data)
    this.#take(point.Destination, point.Destination)
    this.tmpfsMounts[point.Destination] = data
  }

  async mount(mount: MountSpec): Promise<void> {
    const point = mountPointOf(mount)
    if (point.Type === 'image') {
      throw new StorageError('NOT_SUPPORTED', `mounting the image ${mount.Source} at ${mount.Target}: mounts of images are not supported`,
        { op: 'create', hint: 'make a container of the image, and use --volumes-from or -v' })
    }
    this.#take(point.Destination, mount.Target ?? '')
    await this.#add(point, mount.BindOptions?.CreateMountpoint !== true)
  }

  async #add(point: MountPoint, skipCreation: boolean): Promise<void> {
    if (point.Type !== 'volume') {
      this.points[point.Destination] = recordOf(point, skipCreation)
      return
    }
    const { DriverConfig: config, Labels: labels, Subpath: subpath } = point.Spec.VolumeOptions ?? {}
    const volume = await this.#create(point.Name, {
      ...(config?.Name || this.#request.options.volumeDriver ? { driver: config?.Name || this.#request.options.volumeDriver } : {}),
      ...(config?.Options === undefined ? {} : { options: config.Options }), ...(labels === undefined ? {} : { labels }),
    })
    this.points[point.Destination] = recordOf({ ...point, Name: volume.name, Source: volume.mountpoint, Driver: volume.driver }, false)
    if (point.CopyData) this.#copies.push({ volume: volume.name, destination: point.Destination, subpath })
  }

  async #create(name: string, options: { readonly driver?: string | undefined; readonly options?: Readonly<Record<string, string>>; readonly labels?: Readonly<Record<string, string>> }):
  Promise<{ name: string; driver: string; mountpoint: string }> {
    const { volumes, id } = this.#request
    const actual = name || randomVolumeName()
    const { driver, labels, ...rest } = options
    const all = name === '' ? { ...labels, [anonymousLabel]: '' } : labels
    const { volume, fresh } = await volumes.createForUse(actual, { ...rest, ...(driver === undefined ? {} : { driver }), ...(all === undefined ? {} : { labels: all }), reference: id, transient: true })
    this.used.add(actual)
    if (fresh && name === '') this.#made.push(actual)
    return volume
  }

  async #use(name: string, driver: string): Promise<void> {
    // A volume that has gone is made again, as dockerd does.
    await this.#create(name, driver === '' ? {} : { driver })
  }

  /** An anonymous volume for each VOLUME of the image at which nothing else is mounted. */
  async imageVolumes(): Promise<void> {
    for (const place of this.#request.imageVolumes) {
      const destination = cleanPath(place)
      if (this.points[destination] !== undefined || this.tmpfsMounts[destination] !== undefined) continue
      await this.#add(mountPointOf({ Type: 'volume', Target: destination }), false)
    }
  }

  async fill(): Promise<void> {
    const { volumes, id, withRoot, signal } = this.#request
    if (this.#copies.length === 0) return
    await withRoot(async root => {
      const place = resolvingPlace(root)
      for (const { volume, destination, subpath } of this.#copies) {
        const source = inRoot(root, place.follow(Buffer.from(destination.slice(1))))
        const stat = statOf(source)
        if (stat === undefined) continue
        if (!stat.isDirectory()) {
          throw new StorageError('INVALID_ARGUMENT', `cannot mount volume over existing file, file exists ${destination}`,
            { op: 'create', path: destination })
        }
        await volumes.fill(volume, source, { reference: id, subpath, ...(signal === undefined ? {} : { signal }) })
      }
    })
  }

  async undo(): Promise<void> {
    const { volumes, id } = this.#request
    for (const name of this.used) await volumes.release(name, id)
    for (const name of this.#made) await volumes.remove(name, { force: true })
  }
}

function inRoot(root: string, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), name])
}

function statOf(file: Buffer): fs.Stats | undefined {
  try {
    return fs.lstatSync(file)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

function duplicate(destination: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `Duplicate mount point: ${destination}`, { op: 'create', path: destination })
}
