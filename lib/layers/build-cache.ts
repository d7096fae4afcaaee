// What dockerd's BuildKit keeps: it gives ids of its own to driver layers that the layer database does not know, and refers to layers that it does. Both stand in
// `buildkit/snapshots.db` alone (moby builder/builder-next/adapters/snapshot/snapshot.go), so whoever overlooks that file takes build cache for
// orphans. Reads only.

import fs from 'node:fs'
import path from 'node:path'
import { BoltBucket, BoltFile } from '../bbolt/index.ts'
import { StorageError } from '../errors.ts'
import { isDigest, isLayerId } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import type { DataRoot } from './types.ts'

export interface BuildCache {
  /** Driver layers that it knows by id; the size in apparent bytes is there when dockerd has counted it. Some may be layers of the database as well. */
  readonly driverLayers: ReadonlyMap<LayerId, number | undefined>
  /** Layers of the database that its records stand for. */
  readonly layers: ReadonlySet<ChainId>
}

/** The folder, which all storage drivers of a root share. */
export function buildCacheDir(root: DataRoot): string {
  return path.join(root.path, 'buildkit')
}

/** Empty where no BuildKit has ever run. @throws CORRUPT for a damaged file: then nobody knows what is orphaned */
export function readBuildCache(root: DataRoot): BuildCache {
  const driverLayers = new Map<LayerId, number | undefined>()
  const layers = new Set<ChainId>()
  const file = path.join(buildCacheDir(root), 'snapshots.db')
  if (!fs.existsSync(file)) return { driverLayers, layers }
  for (const [key, record] of new BoltFile(file).read().entries()) {
    if (!(record instanceof BoltBucket)) continue
    const id = key.toString('latin1')
    // A bucket that is called by a chain id only marks what was asked for once; the layer is not held by it.
    if (isLayerId(id) && !driverLayers.has(id)) driverLayers.set(id, sizeIn(record))
    const committed = record.get('committed')?.toString('latin1')
    if (isLayerId(committed) && driverLayers.get(committed) === undefined) driverLayers.set(committed, sizeIn(record))
    const chainId = record.get('chainid')?.toString('latin1')
    if (isDigest(chainId)) layers.add(chainId as ChainId)
  }
  return { driverLayers, layers }
}

function sizeIn(record: BoltBucket): number | undefined {
  const text = record.get('size')?.toString('latin1')
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** What it keeps from being removed, as in dockerd: an image's layers that builds may use again stay when the image goes. A damaged file keeps nothing: dockerd cannot read it either. */
export function buildCacheReferences(root: DataRoot): Iterable<ChainId> {
  try {
    return readBuildCache(root).layers
  } catch (error) {
    if (StorageError.is(error, 'CORRUPT')) return []
    throw error
  }
}
