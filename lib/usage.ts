// Honest disk usage of a storage: what images share is counted once, and what could be reclaimed is the total less the union of the layers
// in use, never a sum over images.

import { StorageError } from './errors.ts'
import type { Digest, ChainId } from './ids.ts'
import type { ImageRecord } from './images/index.ts'
import type { Layer } from './layers/index.ts'
import type { Storage } from './storage.ts'

export interface ImageUsage {
  readonly id: Digest
  readonly references: readonly string[]
  readonly sizeBytes: number
  /** Of that, in layers that other images use as well. */
  readonly sharedBytes: number
  readonly uniqueBytes: number
  readonly containers: number
}

export interface ContainerUsage {
  readonly id: string
  readonly name: string
  readonly imageId?: Digest
  /** Allocated bytes of its own layer. */
  readonly sizeBytes: number
  readonly mounted: boolean
}

export interface UsageRow {
  readonly type: 'Images' | 'Containers' | 'Layers without image'
  readonly total: number
  readonly active: number
  readonly sizeBytes: number
  readonly reclaimableBytes: number
}

export interface DiskUsage {
  readonly rows: readonly UsageRow[]
  readonly images: readonly ImageUsage[]
  readonly containers: readonly ContainerUsage[]
}

/** The images that can be read; what a damaged one holds shows as layers without image. */
async function readable(storage: Storage): Promise<ImageRecord[]> {
  const records: ImageRecord[] = []
  for (const id of await storage.images.ids()) {
    try {
      records.push(await storage.images.get(id))
    } catch (error) {
      if (!StorageError.is(error, 'CORRUPT') && !StorageError.is(error, 'NOT_FOUND')) throw error
    }
  }
  return records
}

export async function diskUsage(storage: Storage): Promise<DiskUsage> {
  const layers = new Map<ChainId, Layer>()
  for await (const layer of storage.layers.list(() => undefined)) layers.set(layer.chainId, layer)
  const sizeOf = (ids: Iterable<ChainId>): number => [...ids].reduce((sum, id) => sum + (layers.get(id)?.sizeBytes ?? 0), 0)

  const records = await readable(storage)
  const users = new Map<ChainId, number>()
  for (const image of records) for (const id of new Set(image.layers)) users.set(id, (users.get(id) ?? 0) + 1)

  const containers: ContainerUsage[] = []
  for (const record of storage.containers.list()) {
    const { sizeBytes } = await storage.containers.usage(record.id)
    containers.push({
      id: record.id, name: record.name, sizeBytes, mounted: storage.containers.mountState(record.id).holders > 0,
      ...(record.imageId === undefined ? {} : { imageId: record.imageId }),
    })
  }
  const inUse = new Set(containers.flatMap(container => container.imageId ?? []))
  const images = records.map((image): ImageUsage => {
    const sizeBytes = sizeOf(image.layers)
    const sharedBytes = sizeOf(image.layers.filter(id => (users.get(id) ?? 0) > 1))
    return {
      id: image.id, references: image.references, sizeBytes, sharedBytes, uniqueBytes: sizeBytes - sharedBytes,
      containers: containers.filter(container => container.imageId === image.id).length,
    }
  })
  const all = new Set(records.flatMap(image => image.layers))
  const kept = new Set(records.filter(image => inUse.has(image.id)).flatMap(image => image.layers))
  const orphans = [...layers.keys()].filter(id => !all.has(id))
  const idle = containers.filter(container => !container.mounted)
  const sum = (list: readonly { readonly sizeBytes: number }[]): number => list.reduce((total, { sizeBytes }) => total + sizeBytes, 0)
  return {
    rows: [
      { type: 'Images', total: images.length, active: images.filter(image => image.containers > 0).length, sizeBytes: sizeOf(all), reclaimableBytes: sizeOf(all) - sizeOf(kept) },
      { type: 'Containers', total: containers.length, active: containers.length - idle.length, sizeBytes: sum(containers), reclaimableBytes: sum(idle) },
      ...(orphans.length === 0 ? [] : [{ type: 'Layers without image' as const, total: orphans.length, active: 0, sizeBytes: sizeOf(orphans), reclaimableBytes: sizeOf(orphans) }]),
    ],
    images, containers,
  }
}
