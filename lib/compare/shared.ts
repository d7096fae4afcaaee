// Which layers several images share, and what they could. Reads each layer once.

import type { Digest } from '../ids.ts'
import { sizeOf } from './efficiency.ts'
import { entriesOf } from './analyze.ts'
import { Merger } from './merge.ts'
import type { ImageSource, LayerEntry } from './types.ts'

/** A layer as several images have it. */
export interface SharedLayer {
  readonly diffId: Digest
  readonly command: string
  /** Bytes of its files. */
  readonly sizeBytes: number
  /** Names of the sources that have it. */
  readonly images: readonly string[]
  /** How often a store keeps it: a store keeps one for each chain of parents. */
  readonly copies: number
  /** Bytes saved because images share it: (images − copies) · size. */
  readonly savedBytes: number
  /** Bytes that would be saved if it lay on the same parents everywhere: (copies − 1) · size. */
  readonly reorderSavesBytes: number
  /** True when it may lie elsewhere, as it changes and removes nothing of what is below it in any of the images. */
  readonly movable: boolean
}

interface Seen {
  readonly command: string
  readonly images: string[]
  readonly chains: Set<string>
  sizeBytes: number
  movable: boolean
}

/**
 * The layers that more than one of the images has, by diffID, most bytes first. Sources without diffIDs (directories, containers' own layers) share nothing.
 * @throws what reading them throws
 */
export async function sharedLayers(sources: readonly ImageSource[], options: { readonly signal?: AbortSignal } = {}): Promise<SharedLayer[]> {
  const users = new Map<Digest, Set<ImageSource>>()
  for (const source of sources) for (const { diffId } of source.layers) if (diffId !== undefined) users.set(diffId, (users.get(diffId) ?? new Set()).add(source))
  const seen = new Map<Digest, Seen>()
  const known = new Map<Digest, Promise<LayerEntry[]>>()
  for (const source of sources) {
    const last = source.layers.findLastIndex(({ diffId }) => diffId !== undefined && (users.get(diffId)?.size ?? 0) > 1)
    const merger = new Merger()
    for (const layer of source.layers.slice(0, last + 1)) {
      const { diffId, chainId, command } = layer
      const reading = (diffId === undefined ? undefined : known.get(diffId)) ?? entriesOf(layer, source.layers.length, { ...options, digests: false })
      if (diffId !== undefined) known.set(diffId, reading)
      const entries = await reading
      const { modified, removed } = merger.add(entries)
      if (diffId === undefined || (users.get(diffId)?.size ?? 0) < 2) continue
      const row = seen.get(diffId) ?? { command, images: [], chains: new Set(), sizeBytes: sizeOf(entries), movable: true }
      if (!row.images.includes(source.name)) row.images.push(source.name)
      row.chains.add(chainId ?? diffId)
      row.movable &&= modified === 0 && removed === 0
      seen.set(diffId, row)
    }
  }
  return [...seen].map(([diffId, { chains, ...row }]) => ({
    diffId, ...row, copies: chains.size, savedBytes: Math.max(0, row.images.length - chains.size) * row.sizeBytes, reorderSavesBytes: (chains.size - 1) * row.sizeBytes,
  })).sort((a, b) => b.sizeBytes - a.sizeBytes || (a.diffId < b.diffId ? -1 : 1))
}
