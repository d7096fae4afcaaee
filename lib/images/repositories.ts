// Docker's repositories.json: which names point to which image. Read anew each time, since other processes write it too; written whole, under the
// store's lock, which the caller holds. A file that cannot be understood is never overwritten.

import fs from 'node:fs'
import path from 'node:path'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { atomicWrite } from '../fs/atomic.ts'
import { isDigest } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { imageDir } from '../layers/data-root.ts'
import type { DataRoot } from '../layers/types.ts'
import { Fields, goJson, parseJson, sortKeys } from './json.ts'
import { familiarName, familiarString, parseReference, storedForm } from './reference.ts'
import type { Reference } from './reference.ts'

/** One line of the file. */
export interface NamedImage {
  readonly ref: Reference
  readonly imageId: Digest
}

interface SortedNames {
  readonly all: readonly NamedImage[]
  readonly of: ReadonlyMap<Digest, readonly Reference[]>
}

/** The names at one moment. Changes to it are kept only by `Repositories.change`. */
export class RepositoryNames {
  readonly #byName: Map<string, Map<string, Digest>>
  #changed = false
  /** Sorted once for many questions: a list of 1,000 images asks 1,000 times. */
  #sorted: SortedNames | undefined

  constructor(byName: Map<string, Map<string, Digest>>) {
    this.#byName = byName
  }

  get changed(): boolean { return this.#changed }

  get(ref: Reference): Digest | undefined {
    const stored = storedForm(ref)
    return this.#byName.get(familiarName(stored))?.get(familiarString(stored))
  }

  /** All names, sorted by their familiar form. */
  all(): readonly NamedImage[] {
    return this.#view().all
  }

  /** The references of one image, sorted. */
  of(imageId: Digest): readonly Reference[] {
    return this.#view().of.get(imageId) ?? []
  }

  #view(): SortedNames {
    if (this.#sorted !== undefined) return this.#sorted
    const texts = [...this.#byName.values()].flatMap(refs => [...refs]).sort(([a], [b]) => compare(a, b))
    const all = texts.map(([text, imageId]) => ({ ref: parseReference(text), imageId }))
    const byImage = new Map<Digest, Reference[]>()
    for (const { ref, imageId } of all) {
      const refs = byImage.get(imageId)
      if (refs === undefined) byImage.set(imageId, [ref])
      else refs.push(ref)
    }
    return this.#sorted = { all, of: byImage }
  }

  /** The references of one repository, sorted. */
  ofName(ref: Reference): NamedImage[] {
    return this.all().filter(entry => entry.ref.domain === ref.domain && entry.ref.path === ref.path)
  }

  /**
   * Point a name to an image. Tags are moved only with `force`, digests never.
   * @throws INVALID_ARGUMENT for the name `sha256`, ALREADY_EXISTS
   */
  set(ref: Reference, imageId: Digest, options: { readonly force: boolean }): void {
    const stored = storedForm(ref)
    const name = familiarName(stored), text = familiarString(stored)
    if (name === 'sha256') throw new StorageError('INVALID_ARGUMENT', 'refusing to create an ambiguous tag using digest algorithm as name', { key: text })
    const refs = this.#byName.get(name) ?? new Map<string, Digest>()
    const before = refs.get(text)
    if (before === imageId) return
    if (before !== undefined && stored.digest !== undefined) throw new StorageError('ALREADY_EXISTS', `cannot overwrite digest ${stored.digest}`, { key: text })
    if (before !== undefined && !options.force) {
      throw new StorageError('ALREADY_EXISTS',
        `conflict: Tag ${text} is already set to image ${before}, if you want to replace it, please use the force option`, { key: text })
    }
    refs.set(text, imageId)
    this.#byName.set(name, refs)
    this.#touch()
  }

  /** False when there was no such name. */
  delete(ref: Reference): boolean {
    const stored = storedForm(ref)
    const name = familiarName(stored)
    const refs = this.#byName.get(name)
    if (refs === undefined || !refs.delete(familiarString(stored))) return false
    if (refs.size === 0) this.#byName.delete(name)
    this.#touch()
    return true
  }

  #touch(): void {
    this.#changed = true
    this.#sorted = undefined
  }

  toJSON(): object {
    return sortKeys(Object.fromEntries([...this.#byName].map(([name, refs]) => [name, sortKeys(Object.fromEntries(refs))])))
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export class Repositories {
  readonly #file: string
  readonly #sync: boolean

  constructor(root: DataRoot) {
    this.#file = path.join(imageDir(root), 'repositories.json')
    this.#sync = root.durability !== 'none'
  }

  /** @throws CORRUPT */
  read(): RepositoryNames {
    return this.#decode(this.#load())
  }

  /** Run `work` on the names as they are now, and write them if it changed any. The caller holds the store's lock. */
  async change<T>(work: (names: RepositoryNames) => T): Promise<T> {
    const file = this.#load()
    const names = this.#decode(file)
    const result = work(names)
    // Fields that a later Docker may have put beside `Repositories` stay.
    if (names.changed) await atomicWrite(this.#file, goJson({ ...file, Repositories: names.toJSON() }), { mode: 0o600, sync: this.#sync })
    return result
  }

  #corrupt(what: string, cause?: unknown): StorageError {
    return new StorageError('CORRUPT', `cannot read ${this.#file}: ${what}`,
      { path: this.#file, hint: 'repair the file, or move it away: images then stay, without their names' }, { cause })
  }

  #load(): Record<string, unknown> {
    let text: string
    try {
      text = fs.readFileSync(this.#file, 'utf8')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return {}
      throw asStorageError(error, `reading ${this.#file}`)
    }
    try {
      const value = parseJson(text, 'repositories.json', 'CORRUPT')
      new Fields(value, 'repositories.json', 'CORRUPT')
      return value as Record<string, unknown>
    } catch (error) {
      throw this.#corrupt((error as Error).message, error)
    }
  }

  #decode(file: Record<string, unknown>): RepositoryNames {
    try {
      const byName = new Map<string, Map<string, Digest>>()
      const names = new Fields(file, 'repositories.json', 'CORRUPT').object('Repositories')
      for (const name of names?.keys() ?? []) {
        const refs = new Map<string, Digest>()
        for (const [text, imageId] of Object.entries(names?.map(name) ?? {})) {
          if (!isDigest(imageId)) throw new StorageError('CORRUPT', `${text} points to ${JSON.stringify(imageId)}, which is no image id`)
          parseReference(text)
          refs.set(text, imageId)
        }
        byName.set(name, refs)
      }
      return new RepositoryNames(byName)
    } catch (error) {
      throw this.#corrupt((error as Error).message, error)
    }
  }
}
