// Where volumes lie in a data root: Docker's own `volumes/`, and what layerstack keeps beside it, below `layerstack/volumes/`.

import path from 'node:path'
import { sha256, hexOf } from '../ids.ts'
import { ownState } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'

const own = (root: DataRoot, name: string): string => path.join(ownState.dir(root), 'volumes', name)

export const volumePaths = {
  dir: (root: DataRoot): string => path.join(root.path, 'volumes'),
  metadata: (root: DataRoot): string => path.join(root.path, 'volumes', 'metadata.db'),
  own: (root: DataRoot): string => path.join(ownState.dir(root), 'volumes'),
  /** One lock a volume, by the hash of its name. */
  locks: (root: DataRoot): string => own(root, 'locks'),
  /** Who has a volume mounted (MountCounts). */
  mounts: (root: DataRoot): string => own(root, 'mounts'),
  /** Who refers to a volume, beside the containers' records. */
  references: (root: DataRoot): string => own(root, 'references'),
  /** Volumes that are being removed; whatever lies here goes. */
  trash: (root: DataRoot): string => own(root, 'trash'),
  /** Mount points of pinned subpaths. */
  subpaths: (root: DataRoot): string => own(root, 'subpaths'),
}

/** A file name for a volume: volumes may be called `x.lock`, too. */
export function fileKey(name: string): string {
  return hexOf(sha256(name))
}
