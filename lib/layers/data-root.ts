// Where things lie in a data root. Docker's own paths are as dockerd has them; what is ours alone is below `layerstack/`, a folder that
// dockerd never looks into.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { hexOf, parseDigest } from '../ids.ts'
import type { ChainId } from '../ids.ts'
import type { DataRoot } from './types.ts'

/** `<root>/image/<driver>`. */
export function imageDir(root: DataRoot): string {
  return `${root.path}/image/${root.driverName}`
}

/** Docker's layer database: `sha256/<chain>`, `tmp/`, `mounts/<container>`. */
export const layerDb = {
  dir: (root: DataRoot): string => `${imageDir(root)}/layerdb`,
  layers: (root: DataRoot): string => `${imageDir(root)}/layerdb/sha256`,
  // The type says what it is, but a caller's JavaScript may say `../x`. @throws INVALID_ARGUMENT
  layer: (root: DataRoot, chainId: ChainId): string => `${imageDir(root)}/layerdb/sha256/${hexOf(parseDigest(chainId))}`,
  tmp: (root: DataRoot): string => `${imageDir(root)}/layerdb/tmp`,
  mounts: (root: DataRoot): string => `${imageDir(root)}/layerdb/mounts`,
}

/** What layerstack keeps beside Docker's files. Per driver, since dockerd's own catalogues are. */
export const ownState = {
  dir: (root: DataRoot): string => `${root.path}/layerstack`,
  /** The lock on the catalogue, held for a rename. */
  lock: (root: DataRoot): string => `${root.path}/layerstack/${root.driverName}.lock`,
  intents: (root: DataRoot): string => `${root.path}/layerstack/intents/${root.driverName}`,
  mounts: (root: DataRoot): string => `${root.path}/layerstack/mounts/${root.driverName}`,
  /** Spools and other files that nobody misses. */
  tmp: (root: DataRoot): string => `${root.path}/layerstack/tmp`,
}

/** Make a directory with exactly this mode, whatever the umask; an existing one keeps its own. */
export function ensureDir(dir: string, mode: number): void {
  if (fs.existsSync(dir)) return
  try {
    fs.mkdirSync(dir, 0o700)
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return
    // Node's recursive one says ENOENT for errors that it does not know, EDQUOT among them.
    if (!isErrno(error, 'ENOENT')) throw error
    fs.mkdirSync(dir, { recursive: true, mode: 0o700 })
  }
  fs.chmodSync(dir, mode)
}

/** Make the folders of the layer database and of our own state; modes as dockerd's (reference: moby layer/filestore.go). */
export function layOut(root: DataRoot): void {
  ensureDir(path.join(root.path, 'image'), 0o700)
  ensureDir(imageDir(root), 0o700)
  ensureDir(layerDb.dir(root), 0o700)
  ensureDir(layerDb.layers(root), 0o755)
  ensureDir(layerDb.tmp(root), 0o755)
  ensureDir(layerDb.mounts(root), 0o755)
  for (const dir of [ownState.dir(root), ownState.intents(root), ownState.mounts(root), ownState.tmp(root)]) ensureDir(dir, 0o700)
}
