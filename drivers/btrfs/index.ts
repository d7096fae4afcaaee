// The btrfs driver: every layer is a subvolume, a child begins as a snapshot of its parent. Docker's layout; all by ioctl, no program is run.
// What a layer changed is read from the file system's own trees (changed-paths.ts).

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { CreateOptions, Driver, HomeFacts, HomeProblem, LayerContent, Mount, OpenDriverOptions, StatusEntry, Usage } from '../../lib/driver.ts'
import { layerSize } from '../../lib/driver-options.ts'
import { asStorageError, isErrno, StorageError } from '../../lib/errors.ts'
import { syncDirectory, writeInPlace } from '../../lib/fs/atomic.ts'
import { removeTree } from '../../lib/fs/remove-tree.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import {
  createSubvolume, destroyQgroup, destroySubvolume, destroySubvolumeById, enableQuota, hasQuota, limitExclusive, nestedSubvolumes, snapshotSubvolume, subvolumeInfo,
} from '../../lib/sys/btrfs.ts'
import { mountTable } from '../../lib/sys/mount.ts'
import { runJob } from '../../lib/sys/threads.ts'
import { changedPathsModule, parentName } from './changed-paths.ts'
import type { ChangedPathsArguments } from './changed-paths.ts'
import { inspectHome } from './inspect.ts'
import { parseOptions } from './options.ts'
import type { BtrfsOptions } from './options.ts'
import { probe, supportsHere } from './probe.ts'

export type { BtrfsOptions } from './options.ts'

/**
 * dockerd knows `subvolumes/<id>` and `quotas/<id>`, and lists neither; layers in the making and in removal lie in a folder of ours on the same
 * file system, so that one rename shows or hides them. Who is whose parent the file system knows: a snapshot carries its source's uuid.
 */
class Btrfs implements Driver {
  readonly name = 'btrfs'
  readonly supports = supportsHere
  readonly #home: string
  readonly #options: BtrfsOptions
  readonly #readOnly: boolean

  constructor(home: string, options: BtrfsOptions, readOnly: boolean) {
    this.#home = home
    this.#options = options
    this.#readOnly = readOnly
  }

  #dir(id: LayerId): string { return path.join(this.#home, 'subvolumes', id) }
  #quota(id: LayerId): string { return path.join(this.#home, 'quotas', id) }
  #own(folder: 'new' | 'gone', name = ''): string { return path.join(this.#home, 'layerstack', folder, name) }

  /** Steps: reserve the id by a folder in `new`; make the subvolume inside it; its limit, and the file that dockerd keeps of it; one rename. */
  async create(id: LayerId, options: CreateOptions = {}): Promise<void> {
    this.#mustWrite('create', id)
    const size = layerSize('btrfs', options.storageOptions, options.writable === true, undefined)
    const { minSpaceBytes = 0 } = this.#options
    if (size !== undefined && size < minSpaceBytes) {
      throw new StorageError('INVALID_ARGUMENT', `btrfs: storage size cannot be less than ${minSpaceBytes} bytes (btrfs.min_space)`, { driver: 'btrfs', op: 'create', key: id })
    }
    const { parent } = options
    if (parent !== undefined) this.#existing(parent)
    const staging = this.#own('new', id), dir = this.#dir(id)
    try {
      fs.mkdirSync(staging, 0o700)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw asStorageError(error, `btrfs: creating layer ${id}`, { driver: 'btrfs', op: 'create', key: id })
      throw new StorageError('ALREADY_EXISTS', `btrfs: layer ${id} is being created, or a crash left it half made`,
        { driver: 'btrfs', op: 'create', key: id, path: staging, hint: 'remove the layer to clear what a crash left' })
    }
    try {
      if (fs.existsSync(dir)) throw new StorageError('ALREADY_EXISTS', `btrfs: layer ${id} already exists`, { driver: 'btrfs', op: 'create', key: id, errno: 'EEXIST' })
      const tree = path.join(staging, 'tree')
      if (parent === undefined) {
        createSubvolume(tree)
        fs.chmodSync(tree, 0o755)
      } else snapshotSubvolume(this.#dir(parent), tree)
      if (size !== undefined) {
        enableQuota(this.#home)
        limitExclusive(tree, BigInt(size))
        await writeInPlace(this.#quota(id), String(size))
      }
      fs.renameSync(tree, dir)
      fs.rmdirSync(staging)
    } catch (error) {
      await this.#clear(staging)
      if (!StorageError.is(error, 'ALREADY_EXISTS')) fs.rmSync(this.#quota(id), { force: true })
      throw asStorageError(error, `btrfs: creating layer ${id}`, { driver: 'btrfs', op: 'create', key: id })
    }
    await syncDirectory(path.dirname(dir))
  }

  async mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    return [{ type: 'bind', source: this.#existing(id), options: ['bind', access] }]
  }

  async content(id: LayerId): Promise<LayerContent> {
    const dir = this.#existing(id)
    const name = parentName({ path: dir, subvolumes: path.dirname(dir) })
    const parentPath = name === undefined ? undefined : path.join(path.dirname(dir), name)
    return { kind: 'tree', path: dir, ...(parentPath !== undefined && fs.existsSync(parentPath) ? { parentPath } : {}) }
  }

  async changedPaths(id: LayerId): Promise<readonly Buffer[] | undefined> {
    const content = await this.content(id)
    if (content.kind !== 'tree' || content.parentPath === undefined) return undefined
    const args: ChangedPathsArguments = { path: content.path, parentPath: content.parentPath }
    const packed = await runJob<ChangedPathsArguments, Uint8Array | undefined>(changedPathsModule, 'changedPathsJob', args)
    if (packed === undefined) return undefined
    const names: Buffer[] = []
    const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
    for (let from = 0, end = bytes.indexOf(0); end >= 0; from = end + 1, end = bytes.indexOf(0, from)) names.push(bytes.subarray(from, end))
    return names
  }

  /** One rename, so that the layer is whole or not there; its quota file; then the subvolume. A kill is made up for by the next call or open. */
  async remove(id: LayerId): Promise<void> {
    this.#mustWrite('remove', id)
    const dir = this.#dir(id)
    try {
      if (fs.existsSync(dir)) {
        refuseMounts(dir, id)
        // A folder of this call's own, as others may be removing the same layer.
        const gone = this.#own('gone', `${randomBytes(8).toString('hex')}.${id}`)
        fs.mkdirSync(gone, { mode: 0o700 })
        try {
          fs.renameSync(dir, path.join(gone, 'tree'))
        } catch (error) {
          fs.rmdirSync(gone)
          if (!isErrno(error, 'ENOENT')) throw error
        }
      }
      fs.rmSync(this.#quota(id), { force: true })
      for (const name of fs.readdirSync(this.#own('gone'))) if (name.slice(17) === id) await this.#clear(this.#own('gone', name))
      await this.#clear(this.#own('new', id))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return // somebody else removed it first
      throw asStorageError(error, `btrfs: removing layer ${id}`, { driver: 'btrfs', op: 'remove', key: id })
    }
  }

  /** Remove a folder of ours with the subvolume in it, and those that a container made inside that, innermost first. */
  async #clear(folder: string): Promise<void> {
    const tree = path.join(folder, 'tree')
    const info = subvolumeInfo(tree)
    if (info !== undefined) {
      refuseMounts(tree, path.basename(folder))
      this.#destroyInside(tree, info.id)
      destroySubvolume(tree)
      destroyQgroup(this.#home, info.id)
    }
    // A folder, where dockerd fell back on a copy, or nothing.
    await removeTree(folder)
  }

  #destroyInside(tree: string, id: number): void {
    const fd = fs.openSync(tree, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
    let inside: number[]
    try { inside = nestedSubvolumes(fd, id) } finally { fs.closeSync(fd) }
    for (const nested of inside) {
      this.#destroyInside(tree, nested)
      destroySubvolumeById(tree, nested)
      destroyQgroup(tree, nested)
    }
  }

  async exists(id: LayerId): Promise<boolean> {
    return fs.existsSync(this.#dir(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    const dir = path.join(this.#home, 'subvolumes')
    if (!fs.existsSync(dir)) return
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      if (entry.isDirectory() && isLayerId(entry.name)) yield entry.name
    }
  }

  inspect(facts: HomeFacts): Iterable<HomeProblem> {
    return inspectHome(this.#home, facts, folder => this.#clear(folder))
  }

  /** Files touched since the snapshot was taken, at their full allocated size: a byte changed in a big file counts all of it, as an overlay's copy would. */
  async usage(id: LayerId): Promise<Usage> {
    return await runJob<string, Usage>(changedPathsModule, 'subvolumeUsageJob', this.#existing(id))
  }

  /** `Btrfs` alone is what docker info prints since 23.0. */
  async status(): Promise<readonly StatusEntry[]> {
    return [['Btrfs', ''], ['Quota', hasQuota(this.#home) ? 'qgroups' : 'off until the first limit']]
  }

  /** dockerd shows nothing for btrfs. */
  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    this.#existing(id)
    return {}
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }

  /** Take up the removals that a kill interrupted. What still cannot be removed stays hidden, and is reported when its layer is removed again. */
  async resumeRemovals(): Promise<void> {
    const folder = path.join(this.#home, 'layerstack', 'gone')
    for (const name of fs.readdirSync(folder)) {
      try {
        await this.#clear(path.join(folder, name))
      } catch (error) {
        // ENOENT: whoever was at it has come to its end.
        if (!isErrno(error, 'ENOENT', 'EPERM', 'EBUSY', 'ENOTEMPTY', 'EIO', 'EROFS')) throw error
      }
    }
  }

  #existing(id: LayerId): string {
    const dir = this.#dir(id)
    if (!fs.existsSync(dir)) throw new StorageError('NOT_FOUND', `btrfs: no such layer: ${id}`, { driver: 'btrfs', key: id })
    return dir
  }

  #mustWrite(op: string, id: LayerId): void {
    if (this.#readOnly) throw new StorageError('READ_ONLY', `btrfs: cannot ${op} layer ${id}: the storage is open read-only`, { driver: 'btrfs', op, key: id })
  }
}

/** The kernel would detach what is mounted inside a subvolume that is removed, and whoever mounted it would lose it. */
function refuseMounts(dir: string, id: string): void {
  const mount = mountTable().find(({ target }) => target === dir || target.startsWith(`${dir}/`))
  if (mount === undefined) return
  throw new StorageError('BUSY', `btrfs: removing layer ${id}: something is mounted at ${mount.target}`,
    { driver: 'btrfs', op: 'remove', key: id, path: mount.target, errno: 'EBUSY', hint: `umount ${mount.target}` })
}

async function open({ home, options, readOnly = false }: OpenDriverOptions<BtrfsOptions>): Promise<Driver> {
  if (readOnly) {
    if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `btrfs: ${home} does not exist`, { driver: 'btrfs', op: 'open', path: home })
    return new Btrfs(fs.realpathSync(home), options, true)
  }
  const probed = await probe(home)
  if (!probed.ok) throw new StorageError(probed.code, probed.reason, { driver: 'btrfs', op: 'open', path: home, hint: probed.hint })
  try {
    const folders: readonly (readonly [string, number])[] = [
      ['.', 0o710], ['subvolumes', 0o710], ['quotas', 0o700], ['layerstack', 0o700], ['layerstack/new', 0o700], ['layerstack/gone', 0o700],
    ]
    for (const [name, mode] of folders) {
      const dir = path.join(home, name)
      if (fs.existsSync(dir)) continue
      fs.mkdirSync(dir, { recursive: true, mode })
      fs.chmodSync(dir, mode)
    }
    const driver = new Btrfs(fs.realpathSync(home), options, false)
    await driver.resumeRemovals()
    return driver
  } catch (error) {
    throw asStorageError(error, `btrfs: opening ${home}`, { driver: 'btrfs', op: 'open' })
  }
}

export default defineDriver<BtrfsOptions>({ name: 'btrfs', probe, parseOptions, open })
