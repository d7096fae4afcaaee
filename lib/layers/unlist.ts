// Taking layers out of the catalogue: which of a chain nobody refers to, and the one rename that makes each vanish. The caller holds the store's lock.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { hexOf } from '../ids.ts'
import type { ChainId } from '../ids.ts'
import { layerDb } from './data-root.ts'
import { childCounts, heldLayers, referredLayers } from './in-use.ts'
import type { References } from './in-use.ts'
import { deferRelease } from './intents.ts'
import { readLayer } from './layer-files.ts'
import type { RunningOperation } from './operation.ts'
import type { DataRoot, Layer } from './types.ts'

/** Take the layer and its parents out of the catalogue, as far as nothing refers to them; the operation's end deletes them. Under the lock. */
export async function unlist(root: DataRoot, references: readonly References[], chainId: ChainId, exceptIntent: string | undefined, operation: RunningOperation): Promise<Layer[]> {
  const candidates = withParents(root, chainId)
  if (candidates.length === 0) return []
  const referred = await referredLayers(root, references)
  const children = childCounts(root)
  const unused = (held: ReadonlySet<ChainId>): Layer[] => {
    const out: Layer[] = []
    for (const layer of candidates) {
      if (referred.has(layer.chainId) || held.has(layer.chainId) || (children.get(layer.chainId) ?? 0) > (out.length > 0 ? 1 : 0)) break
      out.push(layer)
    }
    return out
  }
  const free = unused(new Set()).length
  let out: Layer[]
  for (;;) {
    out = unused(heldLayers(root, exceptIntent))
    const blocked = candidates[out.length]
    if (out.length === free || blocked === undefined) break
    // Only an operation keeps it: its end releases it. That end may fall between our look and our note, so look again.
    const takeBack = deferRelease(root, blocked.chainId)
    if (unused(heldLayers(root, exceptIntent)).length === out.length) break
    takeBack()
  }
  if (out.length === 0) return out
  operation.intent.noteAll(out.flatMap(layer => [['layer', layer.cacheId], ['freed', layer.chainId]] as const))
  setAside(root, operation, out.map(layer => layer.chainId))
  for (const layer of out) operation.dropped.set(layer.cacheId, undefined)
  return out
}

/** The layer and its parents, as far as they can be read; topmost first. @throws CORRUPT for the layer itself */
function withParents(root: DataRoot, chainId: ChainId): Layer[] {
  const found: Layer[] = []
  for (let next: ChainId | undefined = chainId; next !== undefined; next = found.at(-1)?.parent) {
    try {
      const layer = readLayer(root, next)
      if (layer === undefined) break
      found.push(layer)
    } catch (error) {
      if (found.length === 0 || !StorageError.is(error, 'CORRUPT')) throw error
      break
    }
  }
  return found
}

/** Give layers' folders the name that dockerd gives a layer under removal, and cleans up itself; the operation's end deletes them. */
export function setAside(root: DataRoot, operation: RunningOperation, chainIds: readonly ChainId[]): void {
  const moves = chainIds.map(id => [layerDb.layer(root, id), `${path.join(layerDb.layers(root), hexOf(id))}-${randomBytes(32).toString('hex')}-removing`] as const)
  operation.intent.note('path', moves.map(([, doomed]) => doomed))
  for (const [dir, doomed] of moves) fs.renameSync(dir, doomed)
}
