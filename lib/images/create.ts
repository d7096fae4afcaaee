// Making an image from a config whose layers are there: checks it, writes it, names it, in one step under the lock.

import { StorageError } from '../errors.ts'
import type { Digest } from '../ids.ts'
import { chainIdsOf, decodeConfig, imageIdOf } from './config.ts'
import { noSuchImage, parseTarget } from './context.ts'
import type { ImageContext } from './context.ts'
import type { CreateImageOptions } from './types.ts'

export async function createImage(context: ImageContext, configBytes: Uint8Array, options: CreateImageOptions): Promise<Digest> {
  context.mustWrite('create images')
  const { operation, parent } = options
  const target = options.reference === undefined ? undefined : parseTarget(options.reference)
  const { diffIds } = decodeConfig(configBytes, 'INVALID_ARGUMENT')
  const top = chainIdsOf(diffIds).at(-1)
  // Held until the image itself refers to it.
  if (top !== undefined) await operation.hold(top)
  const id = imageIdOf(configBytes)
  return await context.layers.locked(async () => {
    if (top !== undefined && await context.layers.find(top) === undefined) {
      throw new StorageError('NOT_FOUND', `failed to get layer ${top}: layer does not exist`, { key: top })
    }
    if (parent !== undefined && !context.db.has(parent)) throw noSuchImage(parent)
    await context.making(operation, id)
    const isNew = await context.db.write(id, configBytes)
    try {
      if (parent !== undefined && parent !== id) await context.db.setMetadata(id, 'parent', parent)
      if (target !== undefined) {
        await context.touch(id)
        await context.repositories.change(names => names.set(target, id, { force: true }))
      }
    } catch (error) {
      if (isNew) await context.db.delete(id)
      throw error
    }
    return id
  })
}
