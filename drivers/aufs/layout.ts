// Where things lie in aufs's home, as dockerd 20.10 had it, and what is ours beside it.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../../lib/errors.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'

export interface Layout {
  readonly home: string
  /** The layer's branch. */
  diff(id: LayerId): string
  /** A text file: the ancestors' ids, one a line, nearest first; empty for a base. The layer exists when it does, as dockerd sees it too. */
  layers(id: LayerId): string
  mnt(id: LayerId): string
  /** Exists once the layer has had a child: it is mounted read-only from then on. dockerd has no such mark. */
  committed(id: LayerId): string
}

export const folders: readonly (readonly [string, number])[] = [
  ['.', 0o710], ['diff', 0o710], ['layers', 0o710], ['mnt', 0o710], ['layerstack', 0o700], ['layerstack/committed', 0o700],
]

export function layoutOf(home: string): Layout {
  return {
    home,
    diff: id => path.join(home, 'diff', id),
    layers: id => path.join(home, 'layers', id),
    mnt: id => path.join(home, 'mnt', id),
    committed: id => path.join(home, 'layerstack', 'committed', id),
  }
}

/** Folders under removal are called so by dockerd, which deletes them when it starts; ids of ours never end so. */
export const removingSuffix = '-removing'

/** A file of ancestors before it has its name. */
export const draftSuffix = '.new'

/** The ancestors, nearest first. @throws NOT_FOUND, CORRUPT */
export function readAncestors(layout: Layout, id: LayerId): LayerId[] {
  let text: string
  try {
    text = fs.readFileSync(layout.layers(id), 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) throw new StorageError('NOT_FOUND', `aufs: no such layer: ${id}`, { driver: 'aufs', key: id })
    throw error
  }
  return text.split('\n').map(line => line.trim()).filter(line => line !== '').map(line => {
    if (isLayerId(line)) return line
    throw new StorageError('CORRUPT', `aufs: layer ${id}: ${layout.layers(id)}: not a layer id: ${JSON.stringify(line.slice(0, 40))}`, { driver: 'aufs', key: id, path: layout.layers(id) })
  })
}
