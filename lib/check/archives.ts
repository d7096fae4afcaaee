// Archives that repair heals from: which layers and images they hold, by diffID and image id, and where their blobs lie. Verifies nothing: whoever reads a blob
// does.

import { openArchive, temporaryFile } from '../images/archive.ts'
import type { Archive, ArchiveSource } from '../images/archive.ts'
import { planLoad } from '../images/docker-archive.ts'
import type { PlannedImage, PlannedLayer } from '../images/plan.ts'
import type { Digest } from '../ids.ts'
import type { DataRoot, LayerToRegister, Operation } from '../layers/types.ts'

export class Archives {
  readonly #open: Archive[] = []
  readonly #layers = new Map<Digest, { readonly archive: Archive; readonly layer: PlannedLayer }>()
  readonly #images = new Map<Digest, PlannedImage>()

  /** Open them for as long as `operation` lasts. @throws what opening an archive throws */
  static async open(root: DataRoot, operation: Operation, sources: readonly ArchiveSource[]): Promise<Archives> {
    const archives = new Archives()
    try {
      for (const source of sources) {
        const archive = await openArchive(source, { spoolTo: () => temporaryFile(root, operation, 'repair'), signal: operation.signal, limits: root.limits ?? {} })
        archives.#open.push(archive)
        for (const image of planLoad(archive, { limits: root.limits ?? {} })) {
          archives.#images.set(image.imageId, image)
          for (const layer of image.layers) if (archive.find(layer.path) !== undefined) archives.#layers.set(layer.diffId, { archive, layer })
        }
        archive.closeFiles()
      }
      return archives
    } catch (error) {
      archives.close()
      throw error
    }
  }

  image(id: Digest): PlannedImage | undefined {
    return this.#images.get(id)
  }

  images(): Iterable<PlannedImage> {
    return this.#images.values()
  }

  hasLayer(diffId: Digest): boolean {
    return this.#layers.has(diffId)
  }

  /** The layer's blob, for the store to read and verify; `closeFiles` when it has. */
  layer(diffId: Digest): LayerToRegister | undefined {
    const found = this.#layers.get(diffId)
    const range = found?.archive.find(found.layer.path)
    if (found === undefined || range === undefined) return undefined
    return { source: { file: range }, diffId, label: `${diffId} of ${found.archive.name}`, ...(found.layer.blob === undefined ? {} : { blobDigest: found.layer.blob.digest }) }
  }

  closeFiles(): void {
    for (const archive of this.#open) archive.closeFiles()
  }

  close(): void {
    for (const archive of this.#open.splice(0)) archive.close()
  }
}
