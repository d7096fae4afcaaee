// The aufs driver: dockerd 20.10's layout, each layer a branch, deletions as `.wh.` files, stacked by the kernel's aufs where there is one. Describes
// mounts and contents; without aufs a store can still be read and migrated.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { CreateOptions, Driver, HomeFacts, HomeProblem, LayerContent, Mount, OpenDriverOptions, StatusEntry, Usage } from '../../lib/driver.ts'
import { splitPair } from '../../lib/driver-options.ts'
import { asStorageError, isErrno, StorageError } from '../../lib/errors.ts'
import { writeInPlace } from '../../lib/fs/atomic.ts'
import { removeTree } from '../../lib/fs/remove-tree.ts'
import { treeUsage } from '../../lib/fs/usage.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { linkNoFollow } from '../../lib/sys/files.ts'
import { isMountpoint } from '../../lib/sys/mount.ts'
import { fileSystemName } from '../../lib/sys/statfs.ts'
import { inspectHome } from './inspect.ts'
import { draftSuffix, folders, layoutOf, readAncestors, removingSuffix } from './layout.ts'
import type { Layout } from './layout.ts'
import { aufsMounts } from './mount-options.ts'
import { examine, supportsHere } from './probe.ts'

export class Aufs implements Driver {
  readonly name = 'aufs'
  readonly supports = supportsHere
  readonly keepsMountpoints = true
  readonly #layout: Layout
  readonly #dirperm1: boolean
  readonly #readOnly: boolean
  readonly #durable: boolean

  constructor(home: string, dirperm1: boolean, readOnly: boolean) {
    this.#layout = layoutOf(home)
    this.#dirperm1 = dirperm1
    this.#readOnly = readOnly
    this.#durable = !['tmpfs', 'ramfs'].includes(fileSystemName(home))
  }

  /** Steps: the branch, which reserves the id; the mount point; the mark in the parent; last the file of ancestors, by which the layer exists. */
  async create(id: LayerId, options: CreateOptions = {}): Promise<void> {
    this.#mustWrite('create', id)
    this.#checkOptions(id, options)
    const { parent } = options
    const ancestors = parent === undefined ? [] : [parent, ...readAncestors(this.#layout, parent)]
    if (ancestors.length > this.supports.maxDepth) {
      throw new StorageError('LIMIT_EXCEEDED', `aufs: creating layer ${id} on ${parent}: max depth exceeded: ${ancestors.length} layers below, ${this.supports.maxDepth} are possible`,
        { driver: 'aufs', op: 'create', key: id, hint: 'squash some of the layers, or use overlay2' })
    }
    const diff = this.#layout.diff(id), mnt = this.#layout.mnt(id), layers = this.#layout.layers(id)
    const exists = (): StorageError => new StorageError('ALREADY_EXISTS', `aufs: layer ${id} already exists`, { driver: 'aufs', op: 'create', key: id, errno: 'EEXIST', hint: 'if it does not show, a crash left it half made: remove it' })
    try {
      fs.mkdirSync(diff, 0o755)
    } catch (error) {
      throw isErrno(error, 'EEXIST') ? exists() : asStorageError(error, `aufs: creating layer ${id}`, { driver: 'aufs', op: 'create', key: id })
    }
    const draft = `${layers}${draftSuffix}`
    try {
      fs.chmodSync(diff, 0o755)
      fs.mkdirSync(mnt, { recursive: true, mode: 0o755 })
      fs.chmodSync(mnt, 0o755)
      if (parent !== undefined) fs.writeFileSync(this.#layout.committed(parent), '', { mode: 0o600 })
      await writeInPlace(draft, ancestors.map(ancestor => `${ancestor}\n`).join(''), { sync: this.#durable })
      linkNoFollow(draft, layers)
      fs.rmSync(draft)
    } catch (error) {
      fs.rmSync(draft, { force: true })
      if (isErrno(error, 'EEXIST')) throw exists() // another's layer, whose branch was missing: its mount point stays
      for (const dir of [diff, mnt]) await removeTree(dir)
      throw asStorageError(error, `aufs: creating layer ${id}`, { driver: 'aufs', op: 'create', key: id })
    }
  }

  #checkOptions(id: LayerId, { storageOptions, writable }: CreateOptions): void {
    const [key] = Object.keys(storageOptions ?? {})
    if (key === undefined) return
    const info = { driver: 'aufs', op: 'create', key: id }
    if (key.toLowerCase() !== 'size') throw new StorageError('INVALID_ARGUMENT', `aufs: unknown option ${key}`, info)
    if (writable !== true) throw new StorageError('INVALID_ARGUMENT', '--storage-opt size is only supported for ReadWrite Layers', info)
    throw new StorageError('NOT_SUPPORTED', '--storage-opt is not supported for aufs', { ...info, hint: 'use overlay2 on xfs or ext4 with project quota, or btrfs' })
  }

  async mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    const ancestors = readAncestors(this.#layout, id)
    const readOnly = access === 'ro' || fs.existsSync(this.#layout.committed(id))
    if (ancestors.length === 0) return [{ type: 'bind', source: this.#layout.diff(id), options: ['bind', readOnly ? 'ro' : 'rw'] }]
    return aufsMounts([id, ...ancestors].map(layer => this.#layout.diff(layer)), readOnly ? 'ro' : 'rw', this.#dirperm1)
  }

  async content(id: LayerId): Promise<LayerContent> {
    const lowers = readAncestors(this.#layout, id).map(layer => this.#layout.diff(layer))
    return { kind: 'branch', path: this.#layout.diff(id), whiteouts: 'aufs', xattrPrefix: 'trusted.overlay.', lowers }
  }

  mountpoint(id: LayerId): string {
    return this.#layout.mnt(id)
  }

  /** Pseudo-links, hard links that aufs keeps between branches while it is mounted, become real ones. Absent or failing, moby goes on too. */
  unmounting(id: LayerId, target: string): void {
    if (fs.existsSync(path.join(this.#layout.diff(id), '.wh..wh.plnk'))) spawnSync('auplink', [target, 'flush'], { stdio: 'ignore', timeout: 60_000 })
  }

  /** The file of ancestors first, so that the layer is whole or not there; then the rest, under dockerd's name for what is being removed. */
  async remove(id: LayerId): Promise<void> {
    this.#mustWrite('remove', id)
    const mnt = this.#layout.mnt(id)
    if (isMountpoint(mnt)) throw new StorageError('BUSY', `aufs: removing layer ${id}: it is mounted at ${mnt}`, { driver: 'aufs', op: 'remove', key: id, path: mnt, hint: 'unmount it first' })
    try {
      for (const file of [this.#layout.layers(id), `${this.#layout.layers(id)}${draftSuffix}`]) fs.rmSync(file, { force: true })
      for (const dir of [mnt, this.#layout.diff(id)]) {
        const doomed = `${dir}${removingSuffix}`
        await removeTree(doomed)
        if (fs.existsSync(dir)) fs.renameSync(dir, doomed)
        await removeTree(doomed)
      }
      fs.rmSync(this.#layout.committed(id), { force: true })
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return // somebody else removed it first
      throw asStorageError(error, `aufs: removing layer ${id}`, { driver: 'aufs', op: 'remove', key: id })
    }
  }

  async exists(id: LayerId): Promise<boolean> {
    return fs.existsSync(this.#layout.layers(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    const dir = path.join(this.#layout.home, 'layers')
    if (!fs.existsSync(dir)) return
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      if (entry.isFile() && isLayerId(entry.name) && !entry.name.endsWith(draftSuffix)) yield entry.name
    }
  }

  inspect(facts: HomeFacts): Iterable<HomeProblem> {
    return inspectHome(this.#layout, facts)
  }

  async usage(id: LayerId): Promise<Usage> {
    readAncestors(this.#layout, id)
    return await treeUsage(this.#layout.diff(id))
  }

  async status(): Promise<readonly StatusEntry[]> {
    let dirs = 0
    for await (const _ of this.list()) dirs++
    return [['Root Dir', this.#layout.home], ['Backing Filesystem', fileSystemName(this.#layout.home)], ['Dirs', String(dirs)], ['Dirperm1 Supported', String(this.#dirperm1)]]
  }

  /** dockerd shows nothing for aufs. */
  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    readAncestors(this.#layout, id)
    return {}
  }

  async close(): Promise<void> {
    // Nothing is held open: mounts belong to whoever performed them.
  }

  #mustWrite(op: string, id: LayerId): void {
    if (this.#readOnly) throw new StorageError('READ_ONLY', `aufs: cannot ${op} layer ${id}: the storage is open read-only`, { driver: 'aufs', op, key: id })
  }
}

/** Lay the home out, take up removals that a kill interrupted, and open it without asking the kernel for aufs. */
export async function openUnprobed(home: string, dirperm1: boolean): Promise<Aufs> {
  try {
    for (const [name, mode] of folders) {
      const dir = path.join(home, name)
      if (fs.existsSync(dir)) continue
      fs.mkdirSync(dir, { recursive: true, mode })
      fs.chmodSync(dir, mode)
    }
    const real = fs.realpathSync(home)
    for (const folder of ['diff', 'mnt']) {
      for (const name of fs.readdirSync(path.join(real, folder))) if (name.endsWith(removingSuffix)) await resumeRemoval(path.join(real, folder, name))
    }
    return new Aufs(real, dirperm1, false)
  } catch (error) {
    throw asStorageError(error, `aufs: opening ${home}`, { driver: 'aufs', op: 'open' })
  }
}

/** What still cannot be removed stays, and is reported when its layer is removed again. */
async function resumeRemoval(dir: string): Promise<void> {
  try {
    await removeTree(dir)
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'EBUSY', 'ENOTEMPTY', 'EIO', 'EROFS')) throw error
  }
}

/** It has none, as in Docker. */
export type AufsOptions = Readonly<Record<string, never>>

async function open({ home, readOnly = false }: OpenDriverOptions<AufsOptions>): Promise<Driver> {
  if (readOnly) {
    if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `aufs: ${home} does not exist`, { driver: 'aufs', op: 'open', path: home })
    return new Aufs(fs.realpathSync(home), false, true)
  }
  const examined = examine(home)
  if (!examined.ok) throw new StorageError(examined.code, examined.reason, { driver: 'aufs', op: 'open', path: home, hint: examined.hint })
  return await openUnprobed(home, examined.dirperm1)
}

export default defineDriver<AufsOptions>({
  name: 'aufs', open,
  async probe(home) {
    const examined = examine(home)
    return examined.ok ? { ok: true, supports: supportsHere } : examined
  },
  parseOptions(pairs) {
    for (const pair of pairs) throw new StorageError('INVALID_ARGUMENT', `aufs: unknown option ${splitPair(pair)[0]}`, { driver: 'aufs', hint: 'it has none' })
    return {}
  },
})
