// One driver on one backing for one round: a store of its own, layers made without ceremony, containers created, mounted, unmounted and removed one
// step at a time, so that each step can be timed. Times nothing itself.

import fs from 'node:fs'
import path from 'node:path'
import { listChanges, writeLayer } from '../diff/index.ts'
import type { Driver, DriverModule } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { parseLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import type { Durability } from '../layers/index.ts'
import { openStorage } from '../storage.ts'
import type { Storage } from '../storage.ts'
import { syncFileSystem } from '../sys/files.ts'
import { performMounts, unmount } from '../sys/mount.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'

/** A container that is shown at `dir`. */
export interface Shown {
  readonly id: LayerId
  readonly dir: string
}

export interface StageOptions {
  /** A folder on the backing. */
  readonly dir: string
  readonly module: DriverModule
  readonly modules: readonly DriverModule[]
  readonly durability: Durability
}

export class Stage {
  readonly dir: string
  readonly storage: Storage
  readonly driver: Driver
  readonly #shared = new Map<string, Promise<LayerId>>()
  readonly #kept = new Set<LayerId>()
  readonly #layers: LayerId[] = []
  readonly #mounted = new Map<LayerId, readonly string[]>()
  readonly #durability: Durability
  #count = 0

  constructor(dir: string, storage: Storage, durability: Durability) {
    this.#durability = durability
    this.dir = dir
    this.storage = storage
    this.driver = storage.driver
  }

  static async open({ dir, module, modules, durability }: StageOptions): Promise<Stage> {
    const root = path.join(dir, module.name)
    return new Stage(dir, await openStorage({ root, driver: module.name, drivers: modules, durability }), durability)
  }

  async #create(parent: LayerId | undefined, writable: boolean): Promise<LayerId> {
    const id = parseLayerId(`bench-${++this.#count}`)
    this.#layers.push(id)
    await this.driver.create(id, { writable, ...(parent === undefined ? {} : { parent }) })
    return id
  }

  /** An image layer, filled where its content lies, as extraction does; `fill` adds, and replaces whole files. */
  async layer(parent: LayerId | undefined, fill: (dir: string) => void | Promise<void>): Promise<LayerId> {
    const id = await this.#create(parent, false)
    await fill((await this.driver.content(id)).path)
    return id
  }

  /** An image that several visits of a round share: made at first need, removed with the stage. */
  shared(name: string, make: () => Promise<LayerId>): Promise<LayerId> {
    const known = this.#shared.get(name)
    if (known !== undefined) return known
    const made = (async () => {
      const from = this.#layers.length
      const id = await make()
      for (const layer of this.#layers.slice(from)) this.#kept.add(layer)
      return id
    })()
    this.#shared.set(name, made)
    return made
  }

  /** A container layer; nothing is mounted. */
  async container(parent: LayerId): Promise<LayerId> {
    return await this.#create(parent, true)
  }

  /** Show a container by the mounts that its driver describes; without the right to mount, a plain tree is used where it lies. */
  async mount(id: LayerId): Promise<Shown> {
    const mounts = await this.driver.mounts(id, 'rw')
    const [only] = mounts
    if (!privileges().mount) {
      if (mounts.length === 1 && only !== undefined && only.options.includes('bind')) return { id, dir: only.source }
      throw new StorageError('PERMISSION_DENIED', `${this.driver.name}: this process may not mount`, { op: 'bench', hint: 'run as root' })
    }
    const target = path.join(this.dir, `at-${this.driver.name}-${id}`)
    fs.mkdirSync(target)
    // Noted first, so that a mount that fails half-way leaves no directory.
    this.#mounted.set(id, [target])
    this.#mounted.set(id, performMounts(mounts, target))
    return { id, dir: target }
  }

  unmount({ id, dir }: Shown): void {
    const targets = this.#mounted.get(id)
    if (targets === undefined) return
    this.driver.unmounting?.(id, dir)
    for (const target of targets) unmount(target)
    fs.rmdirSync(dir)
    this.#mounted.delete(id)
  }

  async remove(id: LayerId): Promise<void> {
    await this.driver.remove(id)
    const at = this.#layers.lastIndexOf(id)
    if (at >= 0) this.#layers.splice(at, 1)
  }

  /** What of the container differs from its parent, as a layer's tar; returns its length. */
  async diff(id: LayerId, parent: LayerId): Promise<number> {
    const { upper, lower, options } = await this.#sides(id, parent)
    let bytes = 0
    for await (const chunk of writeLayer(upper, lower, options)) bytes += chunk.length
    return bytes
  }

  /** The same as a list; returns how many. */
  async changes(id: LayerId, parent: LayerId): Promise<number> {
    const { upper, lower, options } = await this.#sides(id, parent)
    let count = 0
    for await (const _ of listChanges(upper, lower, options)) count++
    return count
  }

  async #sides(id: LayerId, parent: LayerId): Promise<{ upper: string; lower: string | readonly string[]; options: Parameters<typeof writeLayer>[2] }> {
    const content = await this.driver.content(id)
    if (content.kind === 'branch') return { upper: content.path, lower: content.lowers, options: { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix } }
    const { path: lower } = await this.driver.content(parent)
    return { upper: content.path, lower, options: { whiteouts: 'none', only: await this.driver.changedPaths?.(id) } }
  }

  /** Let the backing write out what it keeps back, so that it does not do so under the next measurement; not where nothing is to be synced. */
  settle(): void {
    if (this.#durability !== 'none') this.#sync()
  }

  #sync(): void {
    if (nativeReason === undefined) syncFileSystem(this.dir)
  }

  /** Bytes of the backing in use, after it has settled. */
  usedBytes(): number {
    this.#sync()
    const { blocks, bfree, bsize } = fs.statfsSync(this.dir)
    return (blocks - bfree) * bsize
  }

  /** The end of a visit, also of one that failed: unmount and remove what is not shared, newest first. */
  async clear(): Promise<void> {
    for (const [id, [target = '']] of this.#mounted) this.unmount({ id, dir: target })
    for (const id of [...this.#layers].reverse()) if (!this.#kept.has(id)) await this.remove(id)
  }

  /** Layers are left: the backing goes away as a whole. */
  async close(): Promise<void> {
    await this.clear()
    await this.storage.close()
  }
}
