// The image store: one object over the parts of this folder; those that read and write archives are loaded when they are asked for. Owns no rule of its own.

import { StorageError } from '../errors.ts'
import { heldSource } from '../fs/held-source.ts'
import type { Digest } from '../ids.ts'
import { Remembered } from '../fs/remembered.ts'
import type { ArchiveSource } from './archive.ts'
import { chainIdsOf, decodeConfig } from './config.ts'
import { noSuchImage, parseTarget, ImageContext } from './context.ts'
import { createImage } from './create.ts'
import { familiarString } from './reference.ts'
import { removeImage, untagImage } from './remove.ts'
import type {
  CreateImageOptions, HistoryItem, ImageBasis, ImageInspect, ImageRecord, ImageStore, ImageStoreOptions, ImageSummary, ImportOptions, ListOptions, LoadedImage,
  LoadOptions, RecordsOptions, RemovedItem, RemoveOptions, SaveOptions, SaveToFileOptions, UserSource,
} from './types.ts'
import { historyOf, inspectImage, listImages } from './views.ts'

class DiskImageStore implements ImageStore {
  readonly #context: ImageContext
  /** Reading one, its digest and its checks take 0.1 ms. */
  readonly #bases = new Remembered<ImageBasis>()

  constructor(context: ImageContext) {
    this.#context = context
  }

  async load(source: ArchiveSource, options: LoadOptions = {}): Promise<LoadedImage[]> {
    heldSource(source)
    const { loadArchive } = await import('./load.ts')
    return await loadArchive(this.#context, source, options)
  }

  async import(source: ArchiveSource, options: ImportOptions = {}): Promise<Digest> {
    heldSource(source)
    const { importRootFs } = await import('./import.ts')
    return await importRootFs(this.#context, source, options)
  }

  create(configBytes: Uint8Array, options: CreateImageOptions): Promise<Digest> {
    return createImage(this.#context, configBytes, options)
  }

  save(references: readonly string[], options: SaveOptions = {}): AsyncGenerator<Buffer, void, undefined> {
    return this.#save(someOf(references), options)
  }

  async *#save(references: readonly string[], options: SaveOptions): AsyncGenerator<Buffer, void, undefined> {
    const { saveAsTar } = await import('./save.ts')
    yield* saveAsTar(this.#context, references, options)
  }

  async saveToFile(references: readonly string[], fd: number, options: SaveToFileOptions = {}): Promise<void> {
    const { saveToFile } = await import('./save.ts')
    await saveToFile(this.#context, someOf(references), fd, options)
  }

  async saveToDirectory(references: readonly string[], dir: string, options: SaveOptions = {}): Promise<void> {
    const { saveToDirectory } = await import('./save.ts')
    await saveToDirectory(this.#context, someOf(references), dir, options)
  }

  async get(reference: string): Promise<ImageRecord> {
    const names = this.#context.repositories.read()
    return await this.#context.record(this.#context.resolve(reference, names), names)
  }

  async basis(reference: string): Promise<ImageBasis> {
    const id = this.#context.resolve(reference)
    const basis = this.#context.db.remembered(this.#bases, id, bytes => {
      const config = decodeConfig(bytes, 'CORRUPT')
      return frozen({ id, config, top: chainIdsOf(config.diffIds).at(-1) })
    })
    // The rest is the same for all who ask; this part goes into containers, which are their owners' to change.
    return { ...basis, config: { ...basis.config, config: structuredClone(basis.config.config) } }
  }

  async resolve(reference: string): Promise<Digest> {
    return this.#context.resolve(reference)
  }

  async ids(): Promise<Digest[]> {
    return this.#context.db.list()
  }

  async records({ onDamaged, layers = [] }: RecordsOptions = {}): Promise<ImageRecord[]> {
    const names = this.#context.repositories.read()
    const known = new Map([...layers].map(layer => [layer.chainId, layer]))
    const records: ImageRecord[] = []
    for (const id of this.#context.db.list()) {
      try {
        records.push(await this.#context.record(id, names, known))
      } catch (error) {
        // One that another process removes meanwhile is none any more.
        if (StorageError.is(error, 'NOT_FOUND')) continue
        if (onDamaged === undefined || !StorageError.is(error, 'CORRUPT')) throw error
        onDamaged(error)
      }
    }
    return records
  }

  list(options: ListOptions = {}): Promise<ImageSummary[]> {
    return listImages(this.#context, options)
  }

  async inspect(reference: string): Promise<ImageInspect> {
    return await inspectImage(this.#context, this.#context.resolve(reference))
  }

  async history(reference: string): Promise<HistoryItem[]> {
    return await historyOf(this.#context, this.#context.resolve(reference))
  }

  async tag(source: string, target: string): Promise<string> {
    this.#context.mustWrite('tag images')
    const ref = parseTarget(target)
    return await this.#context.layers.locked(async () => {
      const id = this.#context.resolve(source)
      if (!this.#context.db.has(id)) throw noSuchImage(source)
      await this.#context.repositories.change(names => names.set(ref, id, { force: true }))
      await this.#context.touch(id)
      return familiarString(ref)
    })
  }

  untag(reference: string): Promise<void> {
    return untagImage(this.#context, reference)
  }

  remove(reference: string, options: RemoveOptions = {}): Promise<RemovedItem[]> {
    return removeImage(this.#context, reference, options)
  }

  addUsers(source: UserSource): void {
    this.#context.users.push(source)
  }
}

function someOf(references: readonly string[]): readonly string[] {
  if (references.length === 0) throw new TypeError('name at least one image to save')
  return references
}

/** Open the images of a data root; the folders are made when missing, unless read-only. Their layers are kept from now on. */
export async function openImageStore(options: ImageStoreOptions): Promise<ImageStore> {
  const context = new ImageContext(options)
  if (!options.root.readOnly) context.db.layOut()
  options.layers.addReferences(async () => context.topLayers())
  return new DiskImageStore(context)
}

function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const part of Object.values(value)) frozen(part)
  return Object.freeze(value)
}
