// Where a benchmark works: a folder of its own, the file systems that it makes there, and their end. What a killed run left is cleared away by
// the next one.

import fs from 'node:fs'
import path from 'node:path'
import { asStorageError, StorageError } from '../errors.ts'
import { removeTreeSync } from '../fs/remove-tree.ts'
import { isAlive, processIdentity } from '../sys/lock.ts'
import { mountTable, performMount, unmount } from '../sys/mount.ts'
import { privileges } from '../sys/privileges.ts'
import { fileSystemName } from '../sys/statfs.ts'
import { cannotMakeImage, makerOf, mountLoopImage } from './loop-image.ts'
import type { ImageFileSystem } from './loop-image.ts'
import type { BackingInfo } from './types.ts'

const prefix = 'layerstack-bench-'
const kinds: readonly string[] = ['ext4', 'xfs', 'btrfs']

/** A folder of this process's own below `base`, with what was made in it. */
export class Place {
  readonly dir: string
  readonly #onExit = (): void => this.close()
  #mounted: string[] = []

  /** @throws what the kernel says when `base` cannot be written to */
  constructor(base: string) {
    try {
      clearStale(base)
      this.dir = fs.realpathSync(fs.mkdtempSync(path.join(base, prefix)))
      // By name a later run tells whether we are still there.
      fs.writeFileSync(path.join(this.dir, 'owner'), processIdentity(process.pid) ?? '')
    } catch (error) {
      throw asStorageError(error, `making a folder to measure in below ${base}`, { path: base, hint: 'name another with --dir' })
    }
    process.on('exit', this.#onExit)
  }

  /** A fresh file system of a kind, or a fresh folder on one that is there. @throws what mkfs and mount say */
  make({ name, sizeBytes }: Backing): string {
    const dir = fs.mkdtempSync(path.join(isDirectory(name) ? this.#home(name) : this.dir, 'on-'))
    if (isDirectory(name)) return dir
    this.#mounted.push(dir)
    if (name === 'tmpfs') performMount({ type: 'tmpfs', source: 'tmpfs', options: [`size=${sizeBytes}`, 'mode=755'] }, dir)
    else {
      const file = `${dir}.image`
      // What is deleted inside gives its memory or disk back outside.
      mountLoopImage(name as ImageFileSystem, file, dir, { sizeBytes, mountOptions: ['discard'] })
      // From now on the file lives only as long as the mount does.
      fs.rmSync(file)
    }
    return dir
  }

  #home(name: string): string {
    return path.resolve(name) === path.dirname(this.dir) ? this.dir : this.#beside(path.resolve(name))
  }

  readonly #besides = new Map<string, Place>()
  #beside(base: string): string {
    const place = this.#besides.get(base) ?? new Place(base)
    this.#besides.set(base, place)
    return place.dir
  }

  /** Take one back: whatever is mounted in it, its content, itself. */
  unmake(dir: string): void {
    unmountBelow(dir)
    if (this.#mounted.includes(dir)) {
      unmount(dir)
      this.#mounted = this.#mounted.filter(other => other !== dir)
      fs.rmSync(`${dir}.image`, { force: true })
      fs.rmdirSync(dir)
    } else removeTreeSync(dir)
  }

  /** Idempotent; synchronous, since it is the last thing that a process does. */
  close(): void {
    process.off('exit', this.#onExit)
    for (const place of this.#besides.values()) place.close()
    clearFolder(this.dir)
  }
}

export interface Backing {
  /** `ext4`, `xfs`, `btrfs`, `tmpfs`, or a directory. */
  readonly name: string
  readonly sizeBytes: number
}

export function isDirectory(name: string): boolean {
  return name.includes('/') || name === '.'
}

/** The reason why there can be no such backing here, or false. @throws INVALID_ARGUMENT for a name that is none */
export function backingMissing(name: string): string | false {
  if (isDirectory(name)) return fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() === true ? false : 'there is no such directory'
  if (name === 'tmpfs') return privileges().mount ? false : 'needs root: it has to be mounted'
  if (!kinds.includes(name)) throw new StorageError('INVALID_ARGUMENT', `there is no backing ${JSON.stringify(name)}`, { op: 'bench', hint: 'ext4, xfs, btrfs, tmpfs, or a directory, as /var/lib or ./here' })
  return cannotMakeImage(name as ImageFileSystem)
}

export function describeBacking(name: string, dir: string, base: string): BackingInfo {
  const how = isDirectory(name) ? 'a directory that was there' : name === 'tmpfs' ? 'made for each round'
    : `made for each round with ${makerOf(name as ImageFileSystem).join(' ')}, on a loop device whose file lies on ${fileSystemName(base)}`
  return { name, fileSystem: fileSystemName(dir), how }
}

function unmountBelow(dir: string): void {
  for (const { target } of mountTable().reverse()) if (target.startsWith(`${dir}/`)) unmount(target)
}

function clearFolder(dir: string): void {
  if (privileges().native) unmountBelow(dir)
  // Never through a mount.
  if (fs.existsSync(dir) && !mountTable().some(({ target }) => target.startsWith(`${dir}/`))) removeTreeSync(dir)
}

function clearStale(base: string): void {
  for (const name of fs.readdirSync(base)) {
    if (!name.startsWith(prefix)) continue
    const dir = path.join(base, name)
    try {
      const stat = fs.lstatSync(dir)
      if (!stat.isDirectory() || stat.uid !== process.geteuid?.()) continue
      const owner = fs.readFileSync(path.join(dir, 'owner'), 'utf8')
      if (owner !== '' && !isAlive(owner)) clearFolder(dir)
    } catch { /* another's, or just being made */ }
  }
}
