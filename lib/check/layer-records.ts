// Restores the record of a layer whose files are damaged, from what is left of them; nothing is written that a digest does not prove.

import fs from 'node:fs'
import path from 'node:path'
import { gunzipSync } from 'node:zlib'
import { StorageError } from '../errors.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import { chainIdOf, isDigest, isLayerId } from '../ids.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { layerDb } from '../layers/index.ts'
import { readLayer, readText, tarSplitName } from '../layers/layer-files.ts'
import { parseTarSplit } from '../tar/tar-split.ts'
import type { MendTools } from './types.ts'
import { digestOfLayer } from './verify.ts'
import { look } from './view.ts'

/** True when the record is whole again. */
export async function restoreRecord(tools: MendTools, chainId: ChainId): Promise<boolean> {
  const dir = layerDb.layer(tools.root, chainId)
  const view = await look(tools)
  const said = readText(path.join(dir, 'cache-id'))
  const named = isLayerId(said) && view.driverLayers.has(said) ? [said] : []
  // A lost cache-id: one of those that nobody names, if its content is this layer's.
  const candidates: readonly LayerId[] = named.length > 0 ? named : [...view.driverLayers].filter(id => !view.parents.has(id) && !view.resting.has(id) && !view.busyLayer(id))
  for (const cacheId of candidates) {
    const diffId = await digestOf(tools, dir, cacheId)
    if (diffId === undefined) continue
    const parent = [undefined, ...view.layers.keys()].find(id => chainIdOf(id, diffId) === chainId)
    if (parent === undefined && diffId !== chainId as string) continue
    const sizeBytes = sizeIn(dir)
    await tools.layers.locked(async () => {
      for (const [name, text] of [['diff', diffId], ['cache-id', cacheId], ['size', String(sizeBytes)], ['parent', parent]] as const) {
        const file = path.join(dir, name)
        if (text === undefined) fs.rmSync(file, { force: true })
        else if (readText(file) !== text) atomicWriteSync(file, text, { mode: 0o644, sync: tools.root.durability !== 'none' })
      }
    })
    return isWhole(tools, chainId)
  }
  return false
}

function isWhole({ root }: MendTools, chainId: ChainId): boolean {
  try {
    return readLayer(root, chainId) !== undefined
  } catch (error) {
    if (StorageError.is(error, 'CORRUPT')) return false
    throw error
  }
}

/** The diffID that the driver layer's content gives by this tar-split; undefined when they do not belong together. */
async function digestOf({ driver, signal }: MendTools, dir: string, cacheId: LayerId): Promise<Digest | undefined> {
  try {
    const { path: content } = await driver.content(cacheId)
    const { digest } = await digestOfLayer(dir, content, { signal })
    return isDigest(digest) ? digest : undefined
  } catch (error) {
    if (StorageError.is(error, 'ABORTED')) throw error
    return undefined
  }
}

/** As the driver counted it when it applied the layer: the bytes of its files. */
function sizeIn(dir: string): number {
  let bytes = 0
  for (const entry of parseTarSplit([gunzipSync(fs.readFileSync(path.join(dir, tarSplitName)))])) if (entry.type === 'file') bytes += entry.sizeBytes
  return bytes
}
