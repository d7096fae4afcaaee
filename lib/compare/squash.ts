// An image with its upper layers made into one. Owns what its config and history then say; the layer itself is combine.ts's.

import fs from 'node:fs'
import { StorageError } from '../errors.ts'
import { encodeConfig } from '../images/index.ts'
import { combineLayers } from './combine.ts'
import { composedImage, imageConfigOf, layerOf, readRange } from './source.ts'
import { spoolLayer } from './spool.ts'
import type { ImageSource } from './types.ts'

export interface SquashOptions {
  /** Index of the first layer that is put together, 0 being the base. Default 0: all of them. */
  readonly from?: number
  /** RFC 3339. Default: the image's own date, so that the same image gives the same bytes. */
  readonly created?: string
  /** Names of the new image, in familiar form. Default: none. */
  readonly references?: readonly string[]
  /** Where the new layer is kept until `close`. Default: the system's temporary directory. */
  readonly temporaryDir?: string
  readonly signal?: AbortSignal
  /** Bytes of layers read so far. */
  readonly onProgress?: (bytes: number) => void
}

/**
 * Make one layer of the image's layers from `from` up. The tree, and what a container is told, stay as they are. The history keeps its steps, those of the squashed
 * layers marked as empty, and gets one that says what was merged, as `docker build --squash` writes it. The new source has descriptors of its own and uses those of
 * `image`, which must stay open: write it with `writeImageArchive`, load that into a store, or look into it.
 * @throws INVALID_ARGUMENT (no image, no such layer), DIGEST_MISMATCH, INVALID_ARCHIVE, NO_SPACE, ABORTED
 */
export async function squashImage(image: ImageSource, options: SquashOptions = {}): Promise<ImageSource> {
  const { config, imageId } = imageConfigOf(image, 'squash')
  const { from = 0, temporaryDir, signal, onProgress } = options
  if (!Number.isInteger(from) || from < 0 || from >= image.layers.length) {
    throw new StorageError('INVALID_ARGUMENT', `cannot squash ${image.name} from layer ${from}: it has ${image.layers.length}`, { key: image.name })
  }
  const made = await spoolLayer(combineLayers(image.layers, from, { ...(signal === undefined ? {} : { signal }), ...(onProgress === undefined ? {} : { onProgress }) }), temporaryDir)
  try {
    const below = image.layers[from - 1]
    const created = options.created ?? config.created ?? '1970-01-01T00:00:00Z'
    const comment = below === undefined ? `create new from ${imageId}` : `merge ${imageId} to ${below.chainId ?? below.diffId}`
    const configBytes = encodeConfig({
      ...config.raw, created,
      history: [...emptied(config.raw['history'], from), { created, comment }],
      rootfs: { type: 'layers', diff_ids: [...config.diffIds.slice(0, from), made.diffId] },
    })
    const range = { fd: made.fd, offset: 0, length: made.sizeBytes }
    const layer = layerOf({ index: from, diffId: made.diffId, storedBytes: made.sizeBytes, tarBytes: made.sizeBytes, comment, created }, () => readRange(range), { scan: () => readRange(range, true) })
    return composedImage({ name: `${image.name} (squashed)`, configBytes, layers: [...image.layers.slice(0, from), layer], references: options.references ?? [], close: () => fs.closeSync(made.fd) })
  } catch (error) {
    fs.closeSync(made.fd)
    throw error
  }
}

/** The history with the steps of all layers from `from` up marked as those of no layer. */
function emptied(history: unknown, from: number): unknown[] {
  let layer = 0
  return (Array.isArray(history) ? history as Record<string, unknown>[] : []).map(step => {
    if (step['empty_layer'] === true || layer++ < from) return step
    return { ...step, empty_layer: true }
  })
}
