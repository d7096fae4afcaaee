// Layers by what people type: a chain id or a diffID, or the beginning of one.

import { StorageError } from '../../errors.ts'
import type { Layer, Storage } from '../../index.ts'

/** @throws NOT_FOUND, INVALID_ARGUMENT for an ambiguous beginning */
export async function findLayer(storage: Storage, text: string): Promise<Layer> {
  const hex = text.replace(/^sha256:/, '')
  const byChain: Layer[] = [], byDiff: Layer[] = []
  if (/^[a-f0-9]{1,64}$/.test(hex)) {
    for await (const layer of storage.layers.list(() => undefined)) {
      if (layer.chainId.startsWith(`sha256:${hex}`)) byChain.push(layer)
      else if (layer.diffId.startsWith(`sha256:${hex}`)) byDiff.push(layer)
    }
  }
  const found = byChain.length > 0 ? byChain : byDiff
  if (found.length > 1) throw new StorageError('INVALID_ARGUMENT', `multiple IDs found with provided prefix: ${text}`, { key: text, hint: 'give more digits, or a chain id' })
  if (found[0] === undefined) throw new StorageError('NOT_FOUND', `No such layer: ${text}`, { key: text })
  return found[0]
}
