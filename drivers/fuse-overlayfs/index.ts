// The fuse-overlayfs driver: overlay2's layout, stacked by a program instead of the kernel, for user namespaces and kernels without overlay. Makes and
// removes layers as overlay2 does (its layers.ts), and describes other mounts.

import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { CreateOptions, Driver, HomeFacts, HomeProblem, LayerContent, Mount, OpenDriverOptions, StatusEntry, Supports, Usage } from '../../lib/driver.ts'
import { splitPair } from '../../lib/driver-options.ts'
import { asStorageError, StorageError } from '../../lib/errors.ts'
import { treeUsage } from '../../lib/fs/usage.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { fileSystemName } from '../../lib/sys/statfs.ts'
import { inspectHome } from '../overlay2/inspect.ts'
import { createLayer, removeLayer, resumeRemovals } from '../overlay2/layers.ts'
import { layerOfLink, layoutOf, linkFolder, notFound, readLink, readLowers } from '../overlay2/layout.ts'
import type { Layout } from '../overlay2/layout.ts'
import { mountOptions } from './mount-options.ts'
import { probe, supportsHere } from './probe.ts'

const driver = 'fuse-overlayfs'

class FuseOverlayfs implements Driver {
  readonly name = driver
  readonly supports: Supports = supportsHere()
  readonly #layout: Layout
  readonly #readOnly: boolean
  readonly #durable: boolean

  constructor(home: string, readOnly: boolean) {
    this.#layout = layoutOf(home, { driver, workMode: 0o710 })
    this.#readOnly = readOnly
    this.#durable = !['tmpfs', 'ramfs'].includes(fileSystemName(home))
  }

  async create(id: LayerId, options: CreateOptions = {}): Promise<void> {
    this.#mustWrite('create', id)
    const invalid = (message: string): StorageError => new StorageError('INVALID_ARGUMENT', `${driver}: ${message}`, { driver, op: 'create', key: id })
    if (id === linkFolder) throw invalid(`${JSON.stringify(id)} is the folder of links, not a layer id`)
    const [option] = Object.keys(options.storageOptions ?? {})
    if (option !== undefined && option.toLowerCase() !== 'size') throw invalid(`unknown option ${option}`)
    if (option !== undefined && options.writable !== true) throw invalid('--storage-opt size is only supported for ReadWrite Layers')
    if (option !== undefined) throw new StorageError('NOT_SUPPORTED', `${driver} has no size limits`, { driver, op: 'create', key: id, hint: 'use overlay2 on xfs or ext4 with project quota, or btrfs' })
    await createLayer(this.#layout, id, options, this.#durable)
  }

  async mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    const layout = this.#layout
    const lowers = readLowers(layout, id)
    const own = readLink(layout, id)
    const readOnly = access === 'ro' || fs.existsSync(path.join(layout.dir(id), 'committed'))
    if (lowers.length === 0) return [{ type: 'bind', source: layout.diff(id), options: ['bind', readOnly ? 'ro' : 'rw'] }]
    const links = (names: readonly string[]): string[] => names.map(name => layout.link(name))
    const options = readOnly ? mountOptions(links([own, ...lowers])) : mountOptions(links(lowers), layout.diff(id), layout.work(id))
    return [{ type: `fuse3.${driver}`, source: driver, options }]
  }

  async content(id: LayerId, own = false): Promise<LayerContent> {
    return {
      kind: 'branch', path: this.#existing(id), whiteouts: 'fuse-overlayfs', xattrPrefix: privileges().userNamespace ? 'user.overlay.' : 'trusted.overlay.', lowers: own ? [] : this.#lowerDirs(id),
    }
  }

  mountpoint(id: LayerId): string {
    return this.#layout.merged(id)
  }

  async remove(id: LayerId): Promise<void> {
    this.#mustWrite('remove', id)
    if (id !== linkFolder) await removeLayer(this.#layout, id)
  }

  async exists(id: LayerId): Promise<boolean> {
    return id !== linkFolder && fs.existsSync(this.#layout.dir(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    for (const entry of fs.readdirSync(this.#layout.home, { withFileTypes: true })) {
      if (entry.isDirectory() && entry.name !== linkFolder && isLayerId(entry.name)) yield entry.name
    }
  }

  inspect(facts: HomeFacts): Iterable<HomeProblem> {
    return inspectHome(this.#layout, facts)
  }

  async usage(id: LayerId): Promise<Usage> {
    return await treeUsage(this.#existing(id))
  }

  /** dockerd prints nothing for this driver; the file system below is what users ask for. */
  async status(): Promise<readonly StatusEntry[]> {
    return [['Backing Filesystem', fileSystemName(this.#layout.home)]]
  }

  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    const layout = this.#layout
    const upper = this.#existing(id)
    const lowers = this.#lowerDirs(id)
    return { ...(lowers.length > 0 ? { LowerDir: lowers.join(':') } : {}), MergedDir: layout.merged(id), UpperDir: upper, WorkDir: layout.work(id) }
  }

  async close(): Promise<void> {
    // Nothing is held open: a mount's program belongs to whoever performed the mount.
  }

  /** The layer's diff directory. @throws NOT_FOUND */
  #existing(id: LayerId): string {
    if (id === linkFolder || !fs.existsSync(this.#layout.dir(id))) throw notFound(this.#layout, id)
    return this.#layout.diff(id)
  }

  #lowerDirs(id: LayerId): string[] {
    return readLowers(this.#layout, id).map(name => this.#layout.diff(layerOfLink(this.#layout, name, id)))
  }

  #mustWrite(op: string, id: LayerId): void {
    if (this.#readOnly) throw new StorageError('READ_ONLY', `${driver}: cannot ${op} layer ${id}: the storage is open read-only`, { driver, op, key: id })
  }
}

/** It has none, as in Docker. */
export type FuseOverlayfsOptions = Readonly<Record<string, never>>

async function open({ home, readOnly = false }: OpenDriverOptions<FuseOverlayfsOptions>): Promise<Driver> {
  if (readOnly) {
    if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `${driver}: ${home} does not exist`, { driver, op: 'open', path: home })
    return new FuseOverlayfs(fs.realpathSync(home), true)
  }
  const probed = await probe(home)
  if (!probed.ok) throw new StorageError(probed.code, probed.reason, { driver, op: 'open', path: home, hint: probed.hint })
  try {
    for (const [dir, mode] of [[home, 0o710], [path.join(home, linkFolder), 0o700]] as const) {
      if (fs.existsSync(dir)) continue
      fs.mkdirSync(dir, { recursive: true, mode })
      fs.chmodSync(dir, mode)
    }
    const real = fs.realpathSync(home)
    await resumeRemovals(layoutOf(real, { driver }))
    return new FuseOverlayfs(real, false)
  } catch (error) {
    throw asStorageError(error, `${driver}: opening ${home}`, { driver, op: 'open' })
  }
}

export default defineDriver<FuseOverlayfsOptions>({
  name: driver, probe, open,
  parseOptions(pairs) {
    for (const pair of pairs) throw new StorageError('INVALID_ARGUMENT', `${driver}: unknown option ${splitPair(pair)[0]}`, { driver, hint: 'it has none' })
    return {}
  },
})
