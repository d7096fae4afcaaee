// The files of one layer in Docker's layer database: reading and checking them, and writing them into a write-set that becomes the layer by
// one rename. Owns the format; knows no driver.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError, told } from '../errors.ts'
import { writeNew } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { chainIdOf, isDigest, parseLayerId } from '../ids.ts'
import type { ChainId } from '../ids.ts'
import { layerDb } from './data-root.ts'
import type { DataRoot, Layer } from './types.ts'

/** The gzipped tar-split of a layer. */
export const tarSplitName = 'tar-split.json.gz'

/** A small file's text, trimmed; undefined when there is none. */
export function readText(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8').trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw told(error, `reading ${file}`)
  }
}

/** Undefined when there is no such layer. @throws CORRUPT when its files contradict its name, or one is missing */
export function readLayer(root: DataRoot, chainId: ChainId): Layer | undefined {
  for (let tries = 2; ; tries--) {
    try {
      return readLayerOnce(root, chainId)
    } catch (error) {
      // Another process may have removed or replaced the folder between two of the reads: then the next round sees what there is.
      if (tries === 0 || !StorageError.is(error, 'CORRUPT')) throw error
    }
  }
}

function readLayerOnce(root: DataRoot, chainId: ChainId): Layer | undefined {
  const dir = layerDb.layer(root, chainId)
  const diffId = readText(path.join(dir, 'diff'))
  if (diffId === undefined && !fs.existsSync(dir)) return undefined
  const corrupt = (what: string): StorageError => new StorageError('CORRUPT', `layer ${chainId}: ${what}`,
    { key: chainId, path: dir, hint: 'remove the images that use the layer and load them again' })
  const cacheId = readText(path.join(dir, 'cache-id'))
  const size = readText(path.join(dir, 'size'))
  const parent = readText(path.join(dir, 'parent'))
  if (!isDigest(diffId)) throw corrupt('its diff file names no digest')
  if (cacheId === undefined || cacheId === '') throw corrupt('its cache-id file is missing or empty')
  if (size === undefined || !/^\d{1,16}$/.test(size)) throw corrupt('its size file holds no number')
  if (parent !== undefined && !isDigest(parent)) throw corrupt('its parent file names no digest')
  if (chainIdOf(parent as ChainId | undefined, diffId) !== chainId) throw corrupt('its diff and parent do not give its chain id')
  return {
    chainId, diffId, cacheId: parseLayerId(cacheId), sizeBytes: Number(size),
    ...(parent === undefined ? {} : { parent: parent as ChainId }),
  }
}

/** Chain ids in the database, unchecked, sorted. */
export function* listChainIds(root: DataRoot): Generator<ChainId> {
  for (const name of namesIn(layerDb.layers(root))) {
    const id = `sha256:${name}`
    // Entries under deletion are called `<hex>-<hex>-removing`.
    if (isDigest(id)) yield id as ChainId
  }
}

/** Write a layer's files (all but the tar-split, which is there already) into a write-set. 0644, no newline, as dockerd does. */
export function writeLayerFiles(writeSet: string, layer: Layer, sync: boolean): void {
  const files: readonly (readonly [string, string])[] = [
    ['diff', layer.diffId], ['size', String(layer.sizeBytes)], ['cache-id', layer.cacheId],
    ...(layer.parent === undefined ? [] : [['parent', layer.parent] as const]),
  ]
  for (const [name, text] of files) {
    const fd = writeNew(path.join(writeSet, name), text, 0o644)
    try {
      if (sync) fs.fdatasyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  }
}
