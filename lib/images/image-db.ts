// Docker's imagedb: configs by digest, and small metadata files beside them. Owns the layout, the check on every read and the order of deletion;
// knows nothing of names and layers. Whoever changes it holds the store's lock.

import fs from 'node:fs'
import path from 'node:path'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { atomicWrite, syncDirectory } from '../fs/atomic.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { hexOf, isDigest, sha256 } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { ensureDir, imageDir } from '../layers/data-root.ts'
import type { Remembered } from '../fs/remembered.ts'
import type { DataRoot } from '../layers/types.ts'

export type MetadataKey = 'parent' | 'lastUpdated' | 'builtLocally'

export class ImageDb {
  readonly #content: string
  readonly #metadata: string
  readonly #write: { readonly mode: number; readonly sync: boolean; readonly temporaryDir: string }
  readonly #sync: boolean

  constructor(root: DataRoot) {
    this.#content = path.join(imageDir(root), 'imagedb', 'content', 'sha256')
    this.#metadata = path.join(imageDir(root), 'imagedb', 'metadata', 'sha256')
    this.#sync = root.durability !== 'none'
    // Whoever opens the root after a kill sweeps there, with the lock held.
    this.#write = { mode: 0o600, sync: this.#sync, temporaryDir: imageDir(root) }
  }

  /** Make the folders (0700, as dockerd does). */
  layOut(): void {
    for (const dir of [this.#content, this.#metadata]) {
      ensureDir(path.dirname(path.dirname(dir)), 0o700)
      ensureDir(path.dirname(dir), 0o700)
      ensureDir(dir, 0o700)
    }
  }

  #file(id: Digest): string {
    return `${this.#content}/${hexOf(id)}`
  }

  /** What `read` made of the image's config, remembered in `known` for as long as the file is the same. @throws what `read` throws; NOT_FOUND */
  remembered<T>(known: Remembered<T>, id: Digest, read: (bytes: Buffer) => T): T {
    return known.get(this.#file(id), () => read(this.read(id))) ?? read(this.read(id))
  }

  has(id: Digest): boolean {
    return fs.existsSync(this.#file(id))
  }

  /** Ids of all images, sorted. What is no digest (temporary files) is passed over. */
  list(): Digest[] {
    return listed(this.#content).map(name => `sha256:${name}`).filter(isDigest).sort()
  }

  /** The config's bytes, checked against the id. @throws NOT_FOUND, CORRUPT `failed to verify: <digest>` */
  read(id: Digest): Buffer {
    let bytes: Buffer
    try {
      bytes = fs.readFileSync(this.#file(id))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) throw new StorageError('NOT_FOUND', `No such image: ${id}`, { key: id }, { cause: error })
      throw asStorageError(error, `reading image ${id}`)
    }
    if (sha256(bytes) !== id) {
      throw new StorageError('CORRUPT', `failed to verify: ${id}`,
        { key: id, path: this.#file(id), hint: 'the image\'s config was changed on disk; remove the file and load the image again' })
    }
    return bytes
  }

  /** The bytes as they are, even when they are not what the id says; undefined when there are none. */
  readUnchecked(id: Digest): Buffer | undefined {
    try {
      return fs.readFileSync(this.#file(id))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined
      throw asStorageError(error, `reading image ${id}`)
    }
  }

  /** Returns whether it is new. A damaged file is replaced. */
  async write(id: Digest, bytes: Uint8Array): Promise<boolean> {
    const before = this.readUnchecked(id)
    if (before !== undefined && sha256(before) === id) return false
    await atomicWrite(this.#file(id), bytes, this.#write)
    return before === undefined
  }

  metadata(id: Digest, key: MetadataKey): string | undefined {
    try {
      return fs.readFileSync(path.join(this.#metadata, hexOf(id), key), 'utf8').trim()
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
      throw asStorageError(error, `reading ${key} of image ${id}`)
    }
  }

  /** @throws NOT_FOUND when there is no such image */
  async setMetadata(id: Digest, key: MetadataKey, value: string): Promise<void> {
    if (!this.has(id)) throw new StorageError('NOT_FOUND', `No such image: ${id}`, { key: id })
    const dir = path.join(this.#metadata, hexOf(id))
    ensureDir(dir, 0o700)
    await atomicWrite(path.join(dir, key), value, this.#write)
  }

  deleteMetadata(id: Digest, key: MetadataKey): void {
    fs.rmSync(path.join(this.#metadata, hexOf(id), key), { force: true })
  }

  parent(id: Digest): Digest | undefined {
    const text = this.metadata(id, 'parent')
    return isDigest(text) ? text : undefined
  }

  /** Images whose parent is `id`. */
  children(id: Digest): Digest[] {
    return listed(this.#metadata).map(name => `sha256:${name}`).filter(isDigest).filter(child => this.parent(child) === id && this.has(child)).sort()
  }

  /** The metadata first, then the config: a crash between them leaves an image, not an orphan. */
  async delete(id: Digest): Promise<void> {
    for (const child of this.children(id)) this.deleteMetadata(child, 'parent')
    const metadata = path.join(this.#metadata, hexOf(id))
    if (fs.existsSync(metadata)) {
      await removeTree(metadata)
      // btrfs keeps no order between two folders: a power cut could leave metadata of no image.
      if (this.#sync) await syncDirectory(this.#metadata)
    }
    fs.rmSync(this.#file(id), { force: true })
    if (this.#sync) await syncDirectory(this.#content)
  }

  /**
   * The images whose id begins with these hex digits (`sha256:` before them is taken off).
   */
  search(prefix: string): Digest[] {
    const hex = prefix.startsWith('sha256:') ? prefix.slice('sha256:'.length) : prefix
    return /^[a-f0-9]{1,64}$/.test(hex) ? this.list().filter(id => hexOf(id).startsWith(hex)) : []
  }
}

function listed(dir: string): string[] {
  try {
    return fs.readdirSync(dir)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw asStorageError(error, `listing ${dir}`)
  }
}
