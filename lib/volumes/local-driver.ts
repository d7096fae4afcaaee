// The local driver, in Docker's layout: `volumes/<name>/_data`, `opts.json`. A volume is there when its `_data` is. Volumes with a device are
// mounted on `_data` by their first user and unmounted by the last, counted across processes.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError, told } from '../errors.ts'
import { atomicWriteSync, syncDirectorySync } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { parseLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { ensureDir } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'
import { MountCounts } from '../layers/mount-counts.ts'
import { isMountpoint, performMount, unmount } from '../sys/mount.ts'
import { assignProject, limitProject, projectOf, whyNoProjectQuota } from '../sys/quota.ts'
import type { DriverVolume, HoldOptions, VolumeDriver } from './driver.ts'
import { checkLocalOptions, givenOptions, localOptionsOf, maskPassword, mountArguments, needsMount, parseLocalOptions } from './local-options.ts'
import type { LocalOptions, Resolve } from './local-options.ts'
import { checkVolumeName } from './name.ts'
import { fileKey, volumePaths } from './paths.ts'

export class LocalVolumeDriver implements VolumeDriver {
  readonly name = 'local'
  readonly scope = 'local'
  readonly #root: DataRoot
  readonly #counts: MountCounts
  readonly #resolve: Resolve | undefined

  constructor(root: DataRoot, options: { readonly resolve?: Resolve } = {}) {
    this.#root = root
    this.#counts = new MountCounts(volumePaths.mounts(root))
    this.#resolve = options.resolve
  }

  #dir(name: string): string {
    checkVolumeName(name)
    return path.join(volumePaths.dir(this.#root), name)
  }

  #data(name: string): string {
    return path.join(this.#dir(name), '_data')
  }

  get #sync(): boolean { return this.#root.durability !== 'none' }

  // ---- what there is ---------------------------------------------------------------------------------------------------------

  find(name: string): DriverVolume | undefined {
    let dir: string
    try {
      dir = this.#dir(name)
    } catch (error) {
      if (StorageError.is(error, 'INVALID_ARGUMENT')) return undefined
      throw error
    }
    const mountpoint = path.join(dir, '_data')
    try {
      if (!fs.statSync(mountpoint).isDirectory()) return undefined
      return { name, mountpoint, createdAt: rfc3339(fs.statSync(dir).ctime), options: givenOptions(this.#options(name)) }
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
      throw error
    }
  }

  /** Without those whose options are damaged: `find` says how, and nobody else is stopped by it. */
  list(): DriverVolume[] {
    return namesIn(volumePaths.dir(this.#root)).flatMap(name => {
      try {
        return this.find(name) ?? []
      } catch (error) {
        if (StorageError.is(error, 'CORRUPT')) return []
        throw error
      }
    })
  }

  #options(name: string): LocalOptions | undefined {
    const file = path.join(this.#dir(name), 'opts.json')
    try {
      return parseLocalOptions(fs.readFileSync(file, 'utf8'), file)
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined
      throw told(error, `reading the options of volume ${name}`)
    }
  }

  // ---- life ------------------------------------------------------------------------------------------------------------------

  check(name: string, options: Readonly<Record<string, string>>): void {
    checkVolumeName(name)
    checkLocalOptions(options, () => whyNoProjectQuota(volumePaths.dir(this.#root)))
  }

  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    const dir = this.#dir(name)
    // What a killed creation or removal left has no `_data`, and holds nothing.
    if (fs.existsSync(dir) && this.find(name) === undefined) await removeTree(dir)
    ensureDir(dir, 0o701)
    fs.chmodSync(dir, 0o701)
    const saved = localOptionsOf(options)
    if (saved !== undefined) atomicWriteSync(path.join(dir, 'opts.json'), JSON.stringify(saved), { mode: 0o600, sync: this.#sync })
    // With its mode by one rename, whatever the umask: from here on the volume exists.
    const fresh = path.join(dir, `_new-${randomBytes(6).toString('hex')}`)
    fs.mkdirSync(fresh, { mode: 0o700 })
    fs.chmodSync(fresh, 0o755)
    if (saved !== undefined && saved.Quota.Size > 0) limitProject(fresh, assignProject(fresh), saved.Quota.Size)
    fs.renameSync(fresh, path.join(dir, '_data'))
    if (this.#sync) {
      syncDirectorySync(dir)
      syncDirectorySync(path.dirname(dir))
    }
  }

  async remove(name: string): Promise<void> {
    const dir = this.#dir(name)
    if (!fs.existsSync(dir)) return
    this.#mustBeOurs(name)
    await this.#takeDownStale(name)
    const trash = path.join(volumePaths.trash(this.#root), `${fileKey(name)}-${randomBytes(6).toString('hex')}`)
    const limited = (this.#options(name)?.Quota.Size ?? 0) > 0
    // Under the count's lock: nobody begins to mount what is about to vanish.
    let apart = false
    await this.#counts.clear(this.#key(name), holders => {
      if (holders > 0) throw new StorageError('IN_USE', 'volume has active mounts', { op: 'remove', key: name })
      // A bind of the same file system would not stop the removal of what is mounted there.
      if (isMountpoint(this.#data(name))) throw new StorageError('BUSY', `something is mounted on ${this.#data(name)}`,
        { op: 'remove', key: name, hint: `umount ${this.#data(name)}` })
      apart = this.#vanish(dir, trash)
    })
    if (this.#sync) syncDirectorySync(path.dirname(dir))
    if (limited) forgetLimit(apart ? dir : trash)
    await removeTree(apart ? dir : trash)
  }

  /** Make the volume cease to exist by one rename. True when `volumes` is a file system of its own, and the rest lies where it lay. */
  #vanish(dir: string, trash: string): boolean {
    try {
      fs.renameSync(dir, trash)
      return false
    } catch (error) {
      if (!isErrno(error, 'EXDEV', 'EBUSY')) throw error
      const data = path.join(dir, '_data')
      if (fs.existsSync(data)) fs.renameSync(data, path.join(dir, `_old-${randomBytes(6).toString('hex')}`))
      return true
    }
  }

  /** A `_data` that is a link would lead the removal elsewhere. */
  #mustBeOurs(name: string): void {
    const data = this.#data(name)
    let real: string
    try {
      real = fs.realpathSync.native(data)
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return
      throw error
    }
    if (real !== path.join(fs.realpathSync.native(volumePaths.dir(this.#root)), name, '_data')) {
      throw new StorageError('FAILED_PRECONDITION', `unable to remove a directory outside of the local volume root ${volumePaths.dir(this.#root)}: ${real}`,
        { op: 'remove', key: name, path: real })
    }
  }

  // ---- mounting --------------------------------------------------------------------------------------------------------------

  #key(name: string): LayerId {
    return parseLayerId(fileKey(name))
  }

  mountCount(name: string): number {
    return this.#counts.count(this.#key(name))
  }

  async mount(name: string, options: HoldOptions = {}): Promise<string> {
    const data = this.#data(name)
    const local = this.#options(name)
    const what = needsMount(local) ? { type: local.MountType, ...await mountArguments(local, this.#resolve) } : undefined
    await this.#counts.hold(this.#key(name), options.persistent === true, () => {
      // Looked at under the count's lock, which the removal takes as well.
      if (!fs.existsSync(data)) throw new StorageError('NOT_FOUND', `get ${name}: no such volume`, { op: 'mount', key: name })
      if (what === undefined || isMountpoint(data)) return
      try {
        performMount({ type: what.type, source: what.device, options: what.data === '' ? [] : what.data.split(',') }, data)
      } catch (error) {
        if (!StorageError.is(error)) throw error
        const message = maskPassword(`failed to mount local volume: mount ${what.device}:${data}, data: ${what.data}: ${error.message}`, what.data)
        throw new StorageError(error.code, message, { ...error.info, op: 'mount', key: name })
      }
    }, () => { if (what !== undefined && isMountpoint(data)) unmount(data) })
    return data
  }

  async unmount(name: string, options: HoldOptions = {}): Promise<void> {
    const data = this.#data(name)
    const mounted = needsMount(this.#options(name))
    try {
      await this.#counts.drop(this.#key(name), options.persistent === true, () => {
        if (mounted && isMountpoint(data)) unmount(data)
      })
    } catch (error) {
      if (!StorageError.is(error, 'FAILED_PRECONDITION')) throw error
      throw new StorageError('FAILED_PRECONDITION', `volume ${name} is not mounted`, { op: 'unmount', key: name })
    }
  }

  /** End the holds of the dead, and with them the mount, if nobody else holds it. */
  async #takeDownStale(name: string): Promise<void> {
    if (this.mountCount(name) > 0 || !this.#counted(name)) return
    await this.#counts.hold(this.#key(name), false, () => undefined)
    await this.unmount(name)
  }

  /** Is there a count, be it of the dead? Who was killed between mounting and counting has left the count's lock. */
  #counted(name: string): boolean {
    const file = path.join(volumePaths.mounts(this.#root), fileKey(name))
    return fs.existsSync(file) || fs.existsSync(`${file}.lock`)
  }

  /** What a killed creation or removal left: a folder without `_data`, which holds nothing. */
  async clear(key: string): Promise<void> {
    for (const name of namesIn(volumePaths.dir(this.#root))) {
      const dir = path.join(volumePaths.dir(this.#root), name)
      if (fileKey(name) === key && fs.lstatSync(dir).isDirectory() && !fs.existsSync(path.join(dir, '_data'))) await removeTree(dir)
    }
  }

  async recover(): Promise<void> {
    // Only mounts that we have a count of: those of a stopped dockerd, whose containers may live on, are not ours to end.
    const all = this.list().map(volume => volume.name)
    for (const name of all) await this.#takeDownStale(name)
    const known = new Set(all.map(fileKey))
    for (const key of new Set(namesIn(volumePaths.mounts(this.#root)).map(file => file.replace(/\.lock$/, '')))) {
      if (!/^[a-f0-9]{64}$/.test(key) || known.has(key) || this.#counts.count(parseLayerId(key)) > 0) continue
      await this.#counts.hold(parseLayerId(key), false, () => undefined)
      await this.#counts.drop(parseLayerId(key), false, () => undefined)
    }
    for (const name of namesIn(volumePaths.trash(this.#root))) await removeTree(path.join(volumePaths.trash(this.#root), name))
  }
}

/** The kernel keeps a project's limit until it is told otherwise. */
function forgetLimit(dir: string): void {
  for (const name of namesIn(dir)) {
    const data = path.join(dir, name)
    const id = fs.lstatSync(data).isDirectory() ? projectOf(data) : 0
    if (id !== 0) limitProject(data, id, 0)
  }
}

/** Go's time.RFC3339, in the local time zone, as dockerd prints it. */
export function rfc3339(date: Date): string {
  const offset = -date.getTimezoneOffset()
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19)
  if (offset === 0) return `${local}Z`
  const pad = (n: number): string => String(Math.floor(n)).padStart(2, '0')
  return `${local}${offset < 0 ? '-' : '+'}${pad(Math.abs(offset) / 60)}:${pad(Math.abs(offset) % 60)}`
}
