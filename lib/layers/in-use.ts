// Who needs what in the layer database: read from the catalogue's files each time, as other processes change them. Decides nothing.

import fs from 'node:fs'
import path from 'node:path'
import { isDigest } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { layerDb } from './data-root.ts'
import { allIntents } from './intents.ts'
import { listChainIds, readText } from './layer-files.ts'
import { rwLayerIds } from './rw-files.ts'
import type { DataRoot } from './types.ts'

/** Names layers that something refers to. */
export type References = () => AsyncIterable<ChainId> | Promise<Iterable<ChainId>>

/** Only this one file: what is needed must be found also where another file of the layer is damaged. */
function parentOf(root: DataRoot, chainId: ChainId): ChainId | undefined {
  const text = readText(path.join(layerDb.layer(root, chainId), 'parent'))
  return isDigest(text) ? text as ChainId : undefined
}

function addWithParents(root: DataRoot, needed: Set<ChainId>, chainId: ChainId): void {
  for (let next: ChainId | undefined = chainId; next !== undefined && !needed.has(next); next = parentOf(root, next)) needed.add(next)
}

/** Layers that images, containers and whoever else refer to, parents included. */
export async function referredLayers(root: DataRoot, references: readonly References[]): Promise<Set<ChainId>> {
  const needed = new Set<ChainId>()
  for (const source of references) {
    const ids = source()
    if (Symbol.asyncIterator in ids) for await (const id of ids) addWithParents(root, needed, id)
    else for (const id of await ids) addWithParents(root, needed, id)
  }
  return needed
}

/** Layers that operations under way, in any process, keep from being removed, parents included. */
export function heldLayers(root: DataRoot, exceptIntent: string | undefined): Set<ChainId> {
  const held = new Set<ChainId>()
  for (const intent of allIntents(root)) {
    if (intent.name === exceptIntent) continue
    for (const id of [...intent.holds, ...intent.published]) addWithParents(root, held, id)
  }
  return held
}

/** How many layers of the catalogue lie directly on each. */
export function childCounts(root: DataRoot): Map<ChainId, number> {
  const counts = new Map<ChainId, number>()
  for (const chainId of listChainIds(root)) {
    const parent = parentOf(root, chainId)
    if (parent !== undefined) counts.set(parent, (counts.get(parent) ?? 0) + 1)
  }
  return counts
}

/** Driver layers that have a place in the catalogue. */
export function driverLayersInUse(root: DataRoot): Set<LayerId> {
  const used = new Set<LayerId>(rwLayerIds(root))
  for (const chainId of listChainIds(root)) {
    const id = cacheIdIn(layerDb.layer(root, chainId))
    if (id !== undefined) used.add(id)
  }
  return used
}

/** The driver layer that a layer's folder names, unchecked. */
export function cacheIdIn(dir: string): LayerId | undefined {
  return readText(path.join(dir, 'cache-id')) as LayerId | undefined
}

/** Folders of layers under removal, `<hex>-<hex>-removing`, which dockerd leaves behind when it is killed, that no operation is at work on. */
export function* abandonedRemovals(root: DataRoot): Generator<string> {
  const names = fs.readdirSync(layerDb.layers(root)).filter(name => /^[a-f0-9]{64}-[a-f0-9]+-removing$/.test(name))
  if (names.length === 0) return
  // Read after the names: an intent names the folder before it gets that name, and ends when it is gone.
  const busy = new Set([...allIntents(root)].flatMap(intent => intent.paths))
  for (const name of names) {
    const dir = path.join(layerDb.layers(root), name)
    if (!busy.has(dir) && fs.existsSync(dir)) yield dir
  }
}
