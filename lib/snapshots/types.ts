// What the Snapshotter shows of a snapshot. Types only; the model is containerd's (snapshots/snapshotter.go), so that an engine finds its words.

import type { Usage } from '../driver.ts'
import type { ChainId, LayerId } from '../ids.ts'

/** `active`: writable; `view`: read-only; `committed`: immutable, and the only kind that can be a parent. */
export type SnapshotKind = 'active' | 'view' | 'committed'

export interface SnapshotInfo {
  /** The key of an active snapshot or view, the name of a committed one; one space of names for all. Opaque, any characters but NUL. */
  readonly name: string
  readonly kind: SnapshotKind
  /** Absent: made from nothing. */
  readonly parent?: string
  readonly labels: Readonly<Record<string, string>>
  /** Nanoseconds since 1970. Commit begins anew. */
  readonly createdNs: bigint
  /** Nanoseconds since 1970: when it was made, committed or its labels changed. */
  readonly updatedNs: bigint
}

/** A snapshot as the catalogue has it. */
export interface SnapshotRecord extends SnapshotInfo {
  /** Never reused. The driver's id of the layer, where there is one. */
  readonly id: LayerId
  /** False for a view on a parent: it shows the parent's layer and has none of its own. */
  readonly ownLayer: boolean
  /** The parent's `id`, or its chain id when it is an image layer; empty without a parent. */
  readonly parentRef: string
  /** Known once it was counted; only for committed snapshots. */
  readonly usage?: Usage
}

export interface SnapshotOptions {
  /** Key and value of each at most 4,096 bytes together. */
  readonly labels?: Readonly<Record<string, string>>
}

export interface CommitSnapshotOptions extends SnapshotOptions {
  /** A parent for a snapshot that has none ("rebase") is NOT_SUPPORTED; the parent that it has may be repeated. */
  readonly parent?: string
}

export interface WalkOptions {
  /** Also show image layers, as committed snapshots named by chain id. Default true. */
  readonly imageLayers?: boolean
}

/** What of a data root belongs to snapshots. */
export interface SnapshotInventory {
  /** The driver layers that snapshots have, each with the reference of what it stands on: a driver layer's id, an image layer's chain id, or nothing (''). */
  readonly layers: readonly { readonly id: LayerId; readonly parentRef: string }[]
  /** Those of removed snapshots, which wait for their deletion. */
  readonly removed: readonly LayerId[]
  /** The image layers that snapshots hold. */
  readonly images: readonly ChainId[]
}
