// Loading archives: find out what is in one, register its layers, then publish images and names in one step under the lock. Owns the order of these,
// so that a failure leaves nothing; reading formats and extracting are others'.

import { StorageError } from '../errors.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { LayerToRegister, Operation, RegisteredLayer } from '../layers/types.ts'
import type { ArchiveLimits, TarLimits } from '../tar/types.ts'
import { checkBlobSize, openArchive, temporaryFile } from './archive.ts'
import type { Archive, ArchiveSource } from './archive.ts'
import { chainIdsOf, decodeConfig } from './config.ts'
import type { ImageContext } from './context.ts'
import { noteBlob } from './distribution.ts'
import { planLoad } from './docker-archive.ts'
import type { PlannedImage, PlannedLayer } from './plan.ts'
import { parsePlatform } from './platform.ts'
import { familiarString, parseReference } from './reference.ts'
import type { Reference } from './reference.ts'
import type { LoadedImage, LoadOptions, LoadProgress, RenamedImage } from './types.ts'

export async function loadArchive(context: ImageContext, source: ArchiveSource, options: LoadOptions): Promise<LoadedImage[]> {
  context.mustWrite('load images')
  const { platform, name } = options
  const limits: ArchiveLimits = { ...context.root.limits, ...options.limits }
  if (name !== undefined) parseReference(name)
  const planOptions = { limits, ...(platform === undefined ? {} : { platform: parsePlatform(platform) }), ...(name === undefined ? {} : { name }) }
  const report = options.quiet === true ? undefined : options.onProgress
  return await context.layers.operation('image load', async operation => {
    const archive = await openArchive(source, {
      spoolTo: () => temporaryFile(context.root, operation, 'load'), signal: operation.signal, limits, ...(report === undefined ? {} : { onSpool: (bytes: number) => report({ phase: 'spool', bytes }) }),
    })
    try {
      const images = planLoad(archive, planOptions)
      archive.closeFiles()
      const loaded: { image: PlannedImage; layers: RegisteredLayer[] }[] = []
      for (const image of images) {
        const layers = await registerImage(context, operation, archive, image, limits.layer, report)
        report?.({ phase: 'image', imageId: image.imageId, references: image.references.map(familiarString) })
        loaded.push({ image, layers })
      }
      const renamed = await publish(context, operation, images)
      await noteBlobs(context, loaded.flatMap(({ layers }) => layers))
      return loaded.map(({ image, layers }) => ({
        imageId: image.imageId, references: image.references.map(familiarString), renamed: renamed.get(image) ?? [], layers,
        skippedCount: layers.reduce((n, layer) => n + layer.skippedCount, 0),
      }))
    } finally {
      archive.close()
    }
  }, options.signal)
}

async function registerImage(
  context: ImageContext, operation: Operation, archive: Archive, image: PlannedImage, limits: TarLimits | undefined, report: ((progress: LoadProgress) => void) | undefined,
): Promise<RegisteredLayer[]> {
  const chain = chainIdsOf(image.config.diffIds)
  const layers: LayerToRegister[] = []
  for (const [i, layer] of image.layers.entries()) layers.push(await layerToRegister(context, archive, layer, i, chain[i] as ChainId, report))
  try {
    return await context.layers.register(operation, limits === undefined ? layers : layers.map(layer => ({ ...layer, limits })))
  } finally {
    archive.closeFiles()
  }
}

async function layerToRegister(
  context: ImageContext, archive: Archive, layer: PlannedLayer, i: number, chainId: ChainId, report: ((progress: LoadProgress) => void) | undefined,
): Promise<LayerToRegister> {
  const { path, diffId, blob } = layer
  const missing = (): StorageError =>
    new StorageError('INVALID_ARCHIVE', `layer ${i} (${diffId}) is missing in ${archive.name}: there is no ${path}`, { key: diffId })
  const range = archive.find(path)
  const label = `layer ${i} (${path})`
  if (range === undefined) {
    // An archive may leave out what the store has, as dockerd allows; should the layer go meanwhile, reading it fails.
    if (await context.layers.find(chainId) === undefined) throw missing()
    return { source: { stream: failing(missing) }, diffId, label }
  }
  if (blob !== undefined) checkBlobSize(blob.digest, range.length, blob.sizeBytes)
  // All that will be read is told before any of it is, so that whoever shows progress knows the whole.
  if (report !== undefined && await context.layers.find(chainId) === undefined) report({ phase: 'layer', diffId, bytes: 0, totalBytes: range.length })
  return {
    source: { file: range }, diffId, label, ...(blob === undefined ? {} : { blobDigest: blob.digest }),
    ...(report === undefined ? {} : { onProgress: (bytes: number) => report({ phase: 'layer', diffId, bytes, totalBytes: range.length }) }),
  }
}

async function* failing(error: () => Error): AsyncGenerator<Uint8Array> {
  throw error()
}

/** Make images and names visible. A failure takes back what this call has made. */
async function publish(context: ImageContext, operation: Operation, images: readonly PlannedImage[]): Promise<Map<PlannedImage, RenamedImage[]>> {
  return await context.layers.locked(async () => {
    const made: Digest[] = []
    try {
      for (const { imageId, configBytes } of images) {
        await context.making(operation, imageId)
        if (await context.db.write(imageId, configBytes)) made.push(imageId)
      }
      for (const { imageId, references, parent } of images) {
        if (references.length > 0) await context.touch(imageId)
        if (parent !== undefined && context.db.has(parent)) await linkParent(context, imageId, parent)
      }
      return await context.repositories.change(names => {
        const renamed = new Map<PlannedImage, RenamedImage[]>()
        for (const image of images) {
          const moved: RenamedImage[] = []
          for (const ref of image.references) {
            const before = names.get(ref)
            names.set(ref, image.imageId, { force: true })
            if (before !== undefined && before !== image.imageId) moved.push(renaming(ref, before))
          }
          renamed.set(image, moved)
        }
        return renamed
      })
    } catch (error) {
      for (const imageId of made) await context.db.delete(imageId)
      throw error
    }
  })
}

/**
 * Note the parent that the archive names, if it can be one: the image is the parent and one step more, as dockerd demands. Since every link
 * makes the history longer, there are no circles.
 */
async function linkParent(context: ImageContext, imageId: Digest, parent: Digest): Promise<void> {
  const child = decodeConfig(context.db.read(imageId)), below = decodeConfig(context.db.read(parent), 'CORRUPT')
  const steps = child.history.length - below.history.length
  const longer = child.history.length === 0 ? child.diffIds.length > below.diffIds.length : steps === 1
  if (!longer || !isPrefix(below.diffIds, child.diffIds) || !isPrefix(below.history, child.history)) {
    throw new StorageError('INVALID_ARCHIVE', `image ${parent} is not a valid parent for ${imageId}`, { key: imageId })
  }
  await context.db.setMetadata(imageId, 'parent', parent)
}

function isPrefix(short: readonly unknown[], long: readonly unknown[]): boolean {
  return JSON.stringify(short) === JSON.stringify(long.slice(0, short.length))
}

/** Docker's sentence when a tag moves. */
export function renaming(ref: Reference, imageId: Digest): RenamedImage {
  const reference = familiarString(ref)
  return { reference, imageId, message: `The image ${reference} already exists, renaming the old one with ID ${imageId} to empty string` }
}

async function noteBlobs(context: ImageContext, layers: readonly RegisteredLayer[]): Promise<void> {
  const blobs = layers.flatMap(({ fresh, blobDigest, diffId }) => fresh && blobDigest !== undefined && blobDigest !== diffId ? [{ blobDigest, diffId }] : [])
  if (blobs.length === 0) return
  await context.layers.locked(async () => {
    for (const blob of blobs) await noteBlob(context.root, blob)
  })
}
