// What of a data root belongs to snapshots, for checks of what is orphaned. Reads the catalogue alone.

import type { Catalogue } from './catalogue.ts'
import type { SnapshotInventory } from './types.ts'

/** Nothing where there is no catalogue. */
export function inventoryOf(catalogue: Catalogue | undefined): SnapshotInventory {
  if (catalogue === undefined) return { layers: [], removed: [], images: [] }
  // What waits for deletion before and after: a snapshot that is removed meanwhile is in one of them.
  const before = catalogue.trash().layers
  const layers = [...catalogue.records()].flatMap(({ id, ownLayer, parentRef }) => ownLayer ? [{ id, parentRef }] : [])
  return { layers, removed: [...before, ...catalogue.trash().layers], images: catalogue.heldImages() }
}
