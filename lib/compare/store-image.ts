// Putting an image source into a store. The store does the work: layers that it has are not even written.

import type { Digest } from '../ids.ts'
import type { LoadedImage } from '../images/types.ts'
import type { Storage } from '../storage.ts'
import { StorageError } from '../errors.ts'
import { writeImageArchive } from './write-archive.ts'
import type { ImageSource } from './types.ts'

/**
 * Load an image that was opened or made here into a store, under its names. All or nothing, as `images.load`.
 * @throws what `images.load` and reading the source throw
 */
export async function storeImage(storage: Pick<Storage, 'images' | 'layers'>, source: ImageSource, options: { readonly signal?: AbortSignal; readonly onProgress?: (bytes: number) => void } = {}): Promise<LoadedImage> {
  const omit = new Set<Digest>()
  for (const { diffId, chainId } of source.layers) {
    if (diffId !== undefined && chainId !== undefined && await storage.layers.find(chainId) !== undefined) omit.add(diffId)
  }
  // The same tar may be there under one chain and be new under another.
  for (const { diffId, chainId } of source.layers) {
    if (diffId !== undefined && omit.has(diffId) && (chainId === undefined || await storage.layers.find(chainId) === undefined)) omit.delete(diffId)
  }
  const { signal } = options
  const [loaded] = await storage.images.load(writeImageArchive(source, { ...options, omit }), signal === undefined ? {} : { signal })
  if (loaded === undefined) throw new StorageError('CORRUPT', `storing ${source.name} gave no image`)
  return loaded
}
