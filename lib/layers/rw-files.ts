// The files of a container layer in Docker's layer database (`mounts/<container id>/`): mount-id, init-id, parent.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { syncDirectorySync, writeNew } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { isDigest, randomHex } from '../ids.ts'
import { idMapOptions } from '../sys/idmap.ts'
import type { IdMap } from '../sys/idmap.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { layerDb } from './data-root.ts'
import { readText } from './layer-files.ts'
import type { DataRoot } from './types.ts'

export interface RwFiles {
  readonly mountId: LayerId
  /** The layer of mount points between the image and the container; older roots may lack it. */
  readonly initId?: LayerId
  /** The image's top layer; absent for a container without an image. */
  readonly parent?: ChainId
  /** How its owners show where it is mounted; dockerd has no such file, as it maps all containers of a daemon alike. */
  readonly idMap?: IdMap
  /** The owners are so on disk, in the init layer and above, and mounts show them as they are. */
  readonly chowned?: boolean
}

const idMapFile = 'layerstack-idmap.json'

// Docker's rule for both ids (layer/filestore.go).
const idPattern = /^[a-f0-9]{64}(-init)?$/

/** Undefined when there is no such container layer. @throws CORRUPT */
export function readRwFiles(root: DataRoot, name: string): RwFiles | undefined {
  const dir = path.join(layerDb.mounts(root), name)
  const mountId = readText(path.join(dir, 'mount-id'))
  if (mountId === undefined) return undefined
  const initId = readText(path.join(dir, 'init-id'))
  const parent = readText(path.join(dir, 'parent'))
  const corrupt = (what: string): StorageError => new StorageError('CORRUPT', `container layer ${name}: ${what}`, { key: name, path: dir })
  if (!idPattern.test(mountId)) throw corrupt('invalid mount id value')
  if (initId !== undefined && !idPattern.test(initId)) throw corrupt('invalid init id value')
  if (parent !== undefined && !isDigest(parent)) throw corrupt('invalid parent value')
  // Few have one, and to learn that from an exception costs 20 µs.
  const map = fs.existsSync(path.join(dir, idMapFile)) ? readText(path.join(dir, idMapFile)) : undefined
  let idMap: IdMap | undefined, chowned = false
  try {
    if (map !== undefined) {
      const { chowned: onDisk, ...ids } = JSON.parse(map) as IdMap & { readonly chowned?: boolean }
      idMapOptions(ids)
      idMap = ids
      chowned = onDisk === true
    }
  } catch (error) {
    throw corrupt(`${idMapFile}: ${(error as Error).message}`)
  }
  return {
    mountId: mountId as LayerId, ...(idMap === undefined ? {} : { idMap }), ...(chowned ? { chowned } : {}),
    ...(initId === undefined ? {} : { initId: initId as LayerId }), ...(parent === undefined ? {} : { parent: parent as ChainId }),
  }
}

/** The files that an entry has. */
export function rwFileNames(files: RwFiles): string[] {
  return ['mount-id', ...(files.initId === undefined ? [] : ['init-id']), ...(files.parent === undefined ? [] : ['parent']), ...(files.idMap === undefined ? [] : [idMapFile])]
}

/** A new name for the entry in the making; an intent names it first. */
export function newWriteSet(root: DataRoot): string {
  return path.join(layerDb.tmp(root), `write-set-${randomHex(8)}`)
}

/** Make the entry in `writeSet` and show it by one rename. The caller holds the store's lock, and knows the name to be free. */
export function writeRwFiles(root: DataRoot, name: string, files: RwFiles, writeSet: string): void {
  const sync = root.durability !== 'none'
  fs.mkdirSync(writeSet, { mode: 0o755 })
  fs.chmodSync(writeSet, 0o755)
  const entries = [['mount-id', files.mountId], ['init-id', files.initId], ['parent', files.parent], [idMapFile, files.idMap === undefined ? undefined : JSON.stringify({ ...files.idMap, ...(files.chowned === true ? { chowned: true } : {}) })]] as const
  for (const [file, text] of entries) {
    if (text === undefined) continue
    const fd = writeNew(path.join(writeSet, file), text, 0o644)
    try {
      if (sync) fs.fdatasyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  }
  fs.renameSync(writeSet, path.join(layerDb.mounts(root), name))
  if (sync) syncDirectorySync(layerDb.mounts(root))
}

/** Remove the entry; idempotent. */
export function forgetRw(root: DataRoot, name: string): void {
  const dir = path.join(layerDb.mounts(root), name)
  if (!fs.existsSync(dir)) return
  // mount-id last: as long as it is there, the entry is, and its driver layers count as used.
  for (const file of ['parent', 'init-id', 'mount-id']) fs.rmSync(path.join(dir, file), { force: true })
  fs.rmSync(dir, { recursive: true, force: true })
}

/** Names of the container layers there are. */
export function listRwNames(root: DataRoot): string[] {
  return namesIn(layerDb.mounts(root))
}

/** The driver layers that container layers use. An unreadable entry is passed over: nothing is removed on its account but what an intent names. */
export function* rwLayerIds(root: DataRoot): Generator<LayerId> {
  for (const name of listRwNames(root)) {
    const dir = path.join(layerDb.mounts(root), name)
    for (const file of ['mount-id', 'init-id']) {
      const id = readText(path.join(dir, file))
      if (id !== undefined) yield id as LayerId
    }
  }
}
