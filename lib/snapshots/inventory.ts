// What of a data root belongs to snapshots, for checks of what is orphaned. Reads the catalogue alone.

import type { ChainId, LayerId } from '../ids.ts'
import type { Catalogue } from './catalogue.ts'

export interface SnapshotInventory {
  /** The driver layers that snapshots have, each with the reference of what it stands on: a driver layer's id, an image layer's chain id, or nothing (''). */
  readonly layers: readonly { readonly id: LayerId; readonly parentRef: string }[]
  /** Those of removed snapshots, which wait for their deletion. */
  readonly removed: readonly LayerId[]
  /** The image layers that snapshots hold. */
  readonly images: readonly ChainId[]
}

/** Nothing where there is no catalogue. */
export function inventoryOf(catalogue: Catalogue | undefined): SnapshotInventory {
  if (catalogue === undefined) return { layers: [], removed: [], images: [] }
  // What waits for deletion before and after: a snapshot that is removed meanwhile is in one of them.
  const before = catalogue.trash().layers
  const layers = [...catalogue.records()].flatMap(({ id, ownLayer, parentRef }) => ownLayer ? [{ id, parentRef }] : [])
  return { layers, removed: [...before, ...catalogue.trash().layers], images: catalogue.heldImages() }
}
