// The vfs driver: every layer is a complete directory tree, a child begins as a copy of its parent. Works everywhere, without root and without
// native calls; what is then lost is counted and shown. The copying is lib/fs/copy.ts's.

import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { CreateOptions, Driver, HomeFacts, HomeProblem, LayerContent, Mount, OpenDriverOptions, ProbeResult, StatusEntry, Supports, Usage } from '../../lib/driver.ts'
import { parseSize } from '../../lib/driver-options.ts'
import { asStorageError, errnoOf, isErrno, StorageError } from '../../lib/errors.ts'
import { writeInPlace } from '../../lib/fs/atomic.ts'
import { probeMethod } from '../../lib/fs/copy-data.ts'
import type { CopyMethod } from '../../lib/fs/copy-data.ts'
import { copyTree } from '../../lib/fs/copy.ts'
import { makeDirectories, nearestExisting } from '../../lib/fs/make-directories.ts'
import { refuse } from '../../lib/fs/probe-folder.ts'
import { removeTree } from '../../lib/fs/remove-tree.ts'
import { treeUsage } from '../../lib/fs/usage.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { assignProject, limitProject, projectOf, projectUsage, whyNoProjectQuota } from '../../lib/sys/quota.ts'
import { fileSystemName } from '../../lib/sys/statfs.ts'
import { inspectHome } from './inspect.ts'
import { parseOptions, quotaUnsupported, sizeOfLayer } from './options.ts'
import type { VfsOptions } from './options.ts'

export type { VfsOptions } from './options.ts'

/**
 * dockerd knows `dir/<id>` alone and never lists the home, so what it has no place for lies in a folder of ours: layers in the making and in
 * removal (same file system, so one rename shows or hides them), and each layer's parent, which dockerd keeps in layerdb only.
 */
class Vfs implements Driver {
  readonly name = 'vfs'
  readonly supports: Supports
  readonly #home: string
  readonly #readOnly: boolean
  readonly #options: VfsOptions
  readonly #kept = { noted: 0, lost: 0, xattrsMissing: 0 }
  readonly #whyNoQuota: string | undefined
  readonly #durable: boolean
  #method: CopyMethod | undefined

  constructor(home: string, options: VfsOptions, readOnly: boolean, durable: boolean) {
    this.#durable = durable
    this.#whyNoQuota = whyNoProjectQuota(home)
    this.supports = supportsHere(home)
    this.#home = home
    this.#options = options
    this.#readOnly = readOnly
  }

  #dir(id: LayerId): string { return path.join(this.#home, 'dir', id) }
  #own(folder: 'new' | 'gone' | 'parents', id: LayerId): string { return path.join(this.#home, 'layerstack', folder, id) }

  /**
   * Steps: reserve the id by a folder in `new`; make or copy the tree inside it; write the parent down; one rename to `dir/<id>`. A kill leaves
   * nothing that shows, and `remove(id)` clears it. The copy is not synced: whoever registers the layer syncs the file system once.
   */
  async create(id: LayerId, options: CreateOptions = {}): Promise<void> {
    this.#mustWrite('create', id)
    const size = sizeOfLayer(options, this.#options, this.#whyNoQuota)
    const { parent } = options
    if (parent !== undefined) this.#existing(parent)
    const staging = this.#own('new', id), dir = this.#dir(id)
    try {
      fs.mkdirSync(staging, 0o700)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw asStorageError(error, `vfs: creating layer ${id}`, { driver: 'vfs', op: 'create', key: id })
      throw new StorageError('ALREADY_EXISTS', `vfs: layer ${id} is being created, or a crash left it half made`,
        { driver: 'vfs', op: 'create', key: id, path: staging, hint: 'remove the layer to clear what a crash left' })
    }
    let recorded = false
    try {
      this.#mustNotExist(id)
      const tree = path.join(staging, 'tree')
      // Before anything is made in it: what is there already would not be counted.
      const project = size === undefined ? 0 : assignProject(staging)
      if (parent === undefined) {
        fs.mkdirSync(tree, 0o755)
        fs.chmodSync(tree, 0o755)
      } else {
        const report = await copyTree(this.#dir(parent), tree)
        for (const key of ['noted', 'lost', 'xattrsMissing'] as const) this.#kept[key] += report[key]
        // Again: the copy took its time, and dockerd asks nobody. Between layerstack's processes the reservation decides.
        this.#mustNotExist(id)
        recorded = true
        await writeInPlace(this.#own('parents', id), parent, { mode: 0o600, sync: this.#durable })
      }
      // The copy of the parent is not the container's doing: a limit means the same for every driver.
      if (size !== undefined) limitProject(staging, project, projectUsage(staging, project) + size)
      fs.renameSync(tree, dir)
      fs.rmdirSync(staging)
    } catch (error) {
      if (recorded) fs.rmSync(this.#own('parents', id), { force: true })
      await removeTree(staging)
      throw asStorageError(error, `vfs: creating layer ${id}`, { driver: 'vfs', op: 'create', key: id })
    }
  }

  #mustNotExist(id: LayerId): void {
    if (fs.existsSync(this.#dir(id))) throw new StorageError('ALREADY_EXISTS', `vfs: layer ${id} already exists`, { driver: 'vfs', op: 'create', key: id, errno: 'EEXIST' })
  }

  async mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    return [{ type: 'bind', source: this.#existing(id), options: ['bind', access] }]
  }

  /** `parentPath` is known for layers made here, not for dockerd's, whose parents only the caller knows. */
  async content(id: LayerId): Promise<LayerContent> {
    const dir = this.#existing(id)
    const parent = this.#parentOf(id)
    return { kind: 'tree', path: dir, ...(parent !== undefined && fs.existsSync(this.#dir(parent)) ? { parentPath: this.#dir(parent) } : {}) }
  }

  #parentOf(id: LayerId): LayerId | undefined {
    try {
      const text = fs.readFileSync(this.#own('parents', id), 'utf8')
      return isLayerId(text) ? text : undefined
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined
      throw error
    }
  }

  /** One rename, so that the layer is whole or not there; then its parent's name; then its tree. A kill is made up for by the next call or open. */
  async remove(id: LayerId): Promise<void> {
    this.#mustWrite('remove', id)
    const gone = this.#own('gone', id)
    try {
      if (fs.existsSync(this.#dir(id))) {
        await removeTree(gone)
        fs.renameSync(this.#dir(id), gone)
      }
      fs.rmSync(this.#own('parents', id), { force: true })
      for (const rest of [gone, this.#own('new', id)]) {
        if (!fs.existsSync(rest)) continue
        const project = this.#whyNoQuota === undefined ? projectOf(rest) : 0
        await removeTree(rest)
        if (project !== 0) limitProject(this.#home, project, 0)
      }
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return // somebody else removed it first
      throw asStorageError(error, `vfs: removing layer ${id}`, { driver: 'vfs', op: 'remove', key: id })
    }
  }

  async exists(id: LayerId): Promise<boolean> {
    return fs.existsSync(this.#dir(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    const dir = path.join(this.#home, 'dir')
    if (!fs.existsSync(dir)) return
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      if (entry.isDirectory() && isLayerId(entry.name)) yield entry.name
    }
  }

  inspect(facts: HomeFacts): Iterable<HomeProblem> {
    return inspectHome(this.#home, facts)
  }

  /** The whole tree, for the layer is a whole tree; blocks that a reflink shares are counted in each. */
  async usage(id: LayerId): Promise<Usage> {
    return await treeUsage(this.#existing(id))
  }

  async status(): Promise<readonly StatusEntry[]> {
    const { mknod } = privileges()
    const { noted, lost, xattrsMissing } = this.#kept
    if (!this.#readOnly) this.#method ??= probeMethod(path.join(this.#home, 'layerstack'))
    const missing = nativeReason === undefined ? undefined : `not kept (${nativeReason})`
    const xattrs = missing ?? (this.#options.bestEffortXattrs === true ? 'best-effort' : 'kept')
    const owners = this.supports.ownership && mknod ? 'kept' : nativeReason === undefined ? 'noted in user.containers.override_stat' : 'not kept'
    const entries: StatusEntry[] = [['Backing Filesystem', fileSystemName(this.#home)]]
    if (this.#method !== undefined) entries.push(['Copy method', this.#method])
    entries.push(['Extended file attributes', xattrs], ['Owners and devices', owners], ['Times', nativeReason === undefined ? 'nanoseconds' : 'microseconds'])
    if (noted + lost + xattrsMissing > 0) entries.push(['Not kept in copies', `${lost} files' owner or device, ${xattrsMissing} attributes; ${noted} noted`])
    return entries
  }

  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    return { SourceDir: this.#existing(id) }
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }

  #existing(id: LayerId): string {
    const dir = this.#dir(id)
    if (!fs.existsSync(dir)) throw new StorageError('NOT_FOUND', `vfs: no such layer: ${id}`, { driver: 'vfs', key: id })
    return dir
  }

  #mustWrite(op: string, id: LayerId): void {
    if (this.#readOnly) throw new StorageError('READ_ONLY', `vfs: cannot ${op} layer ${id}: the storage is open read-only`, { driver: 'vfs', op, key: id })
  }
}

function supportsHere(base: string): Supports {
  const { chown, native, userNamespace } = privileges()
  return { nativeMounts: false, independentLayers: false, maxDepth: Number.MAX_SAFE_INTEGER, quota: whyNoProjectQuota(base) === undefined, ownership: native && chown && !userNamespace }
}

async function probe(home: string): Promise<ProbeResult> {
  const base = nearestExisting(home)
  try {
    fs.accessSync(base, fs.constants.W_OK | fs.constants.X_OK)
    return { ok: true, supports: supportsHere(base) }
  } catch (error) {
    return refuse('PREREQUISITE_MISSING', `vfs cannot write to ${base}: ${errnoOf(error) ?? String(error)}`, 'choose a writable data root')
  }
}

async function open({ home, options, readOnly = false, durable = true }: OpenDriverOptions<VfsOptions>): Promise<Driver> {
  if (readOnly) {
    if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `vfs: ${home} does not exist`, { driver: 'vfs', op: 'open', path: home })
    return new Vfs(fs.realpathSync(home), options, true, false)
  }
  const whyNoQuota = options.size === undefined || parseSize(options.size) === 0 ? undefined : whyNoProjectQuota(nearestExisting(home))
  if (whyNoQuota !== undefined) throw quotaUnsupported(whyNoQuota)
  try {
    const folders: readonly (readonly [string, number])[] = [['.', 0o710], ['dir', 0o710], ['layerstack', 0o700], ['layerstack/new', 0o700], ['layerstack/gone', 0o700], ['layerstack/parents', 0o700]]
    for (const [name, mode] of folders) {
      makeDirectories(path.join(home, name), mode)
    }
    const real = fs.realpathSync(home)
    await resumeRemovals(path.join(real, 'layerstack', 'gone'))
    dropStaleNotes(real)
    return new Vfs(real, options, false, durable)
  } catch (error) {
    throw asStorageError(error, `vfs: opening ${home}`, { driver: 'vfs', op: 'open' })
  }
}

/** dockerd removes layers of ours without knowing our notes of their parents. */
function dropStaleNotes(home: string): void {
  const notes = fs.readdirSync(path.join(home, 'layerstack', 'parents'))
  for (const name of notes) {
    // In this order: a layer in the making shows as one or the other at any moment.
    if (fs.existsSync(path.join(home, 'layerstack', 'new', name)) || fs.existsSync(path.join(home, 'dir', name)) || !isLayerId(name)) continue
    fs.rmSync(path.join(home, 'layerstack', 'parents', name), { force: true })
  }
}

/** Take up the removals that a kill interrupted. What still cannot be removed stays hidden, and is reported when its layer is removed again. */
async function resumeRemovals(gone: string): Promise<void> {
  for (const name of fs.readdirSync(gone)) {
    try {
      await removeTree(path.join(gone, name))
    } catch (error) {
      if (!isErrno(error, 'EPERM', 'EACCES', 'EBUSY', 'ENOTEMPTY', 'EIO', 'EROFS')) throw error
    }
  }
}

export default defineDriver<VfsOptions>({ name: 'vfs', probe, parseOptions, open })
