// What the parts of the image store share: the catalogues, the lock, and reading an image. No policy.

import { StorageError } from '../errors.ts'
import { isDigest } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import { readOnlyError } from '../layers/store-lock.ts'
import type { DataRoot, Layer, LayerStore, Operation } from '../layers/types.ts'
import { chainIdsOf, decodeConfig } from './config.ts'
import { ImageDb } from './image-db.ts'
import { goTime } from './json.ts'
import { familiarString, parseReference, storedForm, tagNameOnly } from './reference.ts'
import type { Reference } from './reference.ts'
import { Repositories } from './repositories.ts'
import type { RepositoryNames } from './repositories.ts'
import type { ImageRecord, ImageStoreOptions, ImageUser, UserSource } from './types.ts'

/** Kinds of notes in intents: an image that is being made or removed, and one that is removed in spite of its containers. */
export const undoImage = 'image', undoForced = 'image-forced'

export class ImageContext {
  readonly root: DataRoot
  readonly layers: LayerStore
  readonly layerMetadata: ImageStoreOptions['layerMetadata']
  readonly db: ImageDb
  readonly repositories: Repositories
  readonly users: UserSource[] = []
  /** Images never change, so neither do their top layers. */
  readonly #tops = new Map<Digest, ChainId | undefined>()

  constructor(options: ImageStoreOptions) {
    this.root = options.root
    this.layers = options.layers
    this.layerMetadata = options.layerMetadata
    this.db = new ImageDb(options.root)
    this.repositories = new Repositories(options.root)
    options.layers.addUndo(undoImage, id => this.undoImage(id, true))
    options.layers.addUndo(undoForced, id => this.undoImage(id, false))
  }

  mustWrite(op: string): void {
    if (this.root.readOnly) throw readOnlyError(this.root, op)
  }

  /**
   * The top layer of every image: what images keep from being removed. An image whose config was damaged counts as long as its layers can be
   * read from it, so that a repair finds them.
   */
  topLayers(): ChainId[] {
    return this.db.list().flatMap(id => {
      if (!this.#tops.has(id)) {
        const bytes = this.db.readUnchecked(id)
        try {
          if (bytes !== undefined) this.#tops.set(id, chainIdsOf(decodeConfig(bytes).diffIds).at(-1))
        } catch (error) {
          if (!StorageError.is(error, 'INVALID_ARCHIVE')) throw error
        }
      }
      return this.#tops.get(id) ?? []
    })
  }

  /** @throws NOT_FOUND, CORRUPT */
  async record(id: Digest, names: RepositoryNames = this.repositories.read(), known = new Map<ChainId, Layer>()): Promise<ImageRecord> {
    const configBytes = this.db.read(id)
    const config = decodeConfig(configBytes, 'CORRUPT')
    const layers = chainIdsOf(config.diffIds)
    let sizeBytes = 0
    for (const chainId of layers) {
      const layer = known.get(chainId) ?? await this.#layer(id, chainId)
      known.set(chainId, layer)
      sizeBytes += layer.sizeBytes
    }
    const parent = this.db.parent(id)
    return {
      id, config, configBytes, layers, sizeBytes, references: names.of(id).map(familiarString),
      ...(parent === undefined ? {} : { parent }), ...(config.created === undefined ? {} : { created: config.created }),
    }
  }

  async #layer(id: Digest, chainId: ChainId): Promise<Layer> {
    const layer = await this.layers.find(chainId)
    if (layer === undefined) {
      // Another process may be removing the image.
      if (!this.db.has(id)) throw noSuchImage(id)
      throw new StorageError('CORRUPT', `image ${id}: failed to get layer ${chainId}: layer does not exist`, { key: id, hint: 'remove the image and load it again' })
    }
    return layer
  }

  /** What a user calls an image → its id. @throws NOT_FOUND, INVALID_ARGUMENT */
  resolve(text: string, names?: RepositoryNames): Digest {
    const whole = /^[a-f0-9]{64}$/.test(text) ? `sha256:${text}` : text
    if (isDigest(whole)) {
      if (this.db.has(whole)) return whole
      throw noSuchImage(text)
    }
    const hex = text.startsWith('sha256:') ? text.slice('sha256:'.length) : text
    const mayBeId = /^[a-f0-9]{1,63}$/.test(hex)
    const ref = parseReference(text)
    const named = (names ?? this.repositories.read()).get(ref)
    if (named !== undefined && this.db.has(named)) return named
    const found = mayBeId ? this.db.search(hex) : []
    if (found.length > 1) {
      throw new StorageError('INVALID_ARGUMENT', `multiple IDs found with provided prefix: ${text}`, { key: text, hint: 'give more digits of the id' })
    }
    if (found[0] === undefined) throw noSuchImage(familiarString(tagNameOnly(ref)))
    return found[0]
  }

  /** Images' users, running ones first. */
  async usersOf(imageId: Digest): Promise<ImageUser[]> {
    const found: ImageUser[] = []
    for (const source of this.users) {
      const users = source()
      if (Symbol.asyncIterator in users) for await (const user of users) found.push(user)
      else found.push(...await users)
    }
    return found.filter(user => user.imageId === imageId).sort((a, b) => Number(b.running) - Number(a.running))
  }

  /** Say that an image is about to be made: a kill before it has its names takes it back. The caller holds the lock. */
  async making(operation: Operation, id: Digest): Promise<void> {
    // One that is there is somebody else's, with names or without.
    if (!this.db.has(id)) await operation.undo(undoImage, id)
  }

  /** Take away an image that an operation left without a name, unless something has come to need it. */
  async undoImage(id: string, spareUsed: boolean): Promise<void> {
    const top = await this.layers.locked(async () => {
      if (!isDigest(id) || !this.db.has(id) || this.repositories.read().of(id).length > 0 || this.db.children(id).length > 0) return undefined
      if (spareUsed && (await this.usersOf(id)).length > 0) return undefined
      const bytes = this.db.readUnchecked(id)
      await this.db.delete(id)
      return bytes === undefined ? undefined : chainIdsOf(decodeConfig(bytes).diffIds).at(-1)
    })
    // It may have kept layers that the operation only found, from whoever removed their own image meanwhile.
    if (top !== undefined) await this.layers.release(top)
  }

  /** Note the moment of the last naming, as dockerd does. The caller holds the lock. */
  async touch(imageId: Digest): Promise<void> {
    await this.db.setMetadata(imageId, 'lastUpdated', goTime(new Date()))
  }
}

export function noSuchImage(text: string): StorageError {
  return new StorageError('NOT_FOUND', `No such image: ${text}`, { key: text })
}

/** A name that is to be given: a tag, never a digest. @throws INVALID_ARGUMENT */
export function parseTarget(text: string): Reference {
  const ref = parseReference(text)
  if (ref.digest !== undefined) throw new StorageError('INVALID_ARGUMENT', 'refusing to create a tag with a digest reference', { key: text })
  if (ref.domain === 'docker.io' && ref.path === 'library/sha256') {
    throw new StorageError('INVALID_ARGUMENT', 'refusing to create an ambiguous tag using digest algorithm as name', { key: text })
  }
  return storedForm(ref)
}
