// The length of a layer's tar before it is put together: a tar header must say it first. Summed from the tar-split, which names every byte of the
// archive; the layer's files are not touched.

import fs from 'node:fs'
import path from 'node:path'
import { createGunzip } from 'node:zlib'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import type { ChainId } from '../ids.ts'
import { layerDb } from '../layers/data-root.ts'
import type { DataRoot } from '../layers/types.ts'
import { parseTarSplit, TarSplitReader } from '../tar/tar-split.ts'

/** Bytes of the tar that these tar-split lines (already decompressed) describe. @throws CORRUPT */
export function tarLength(chunks: Iterable<Buffer>): number {
  let sizeBytes = 0
  for (const entry of parseTarSplit(chunks)) sizeBytes += entry.sizeBytes
  return sizeBytes
}

/** Bytes of a layer's tar. Undefined when the layer has no tar-split. @throws CORRUPT */
export async function layerTarLength(root: DataRoot, chainId: ChainId): Promise<number | undefined> {
  const file = path.join(layerDb.layer(root, chainId), 'tar-split.json.gz')
  const reader = new TarSplitReader({ measuring: true })
  let sizeBytes = 0
  const add = (entries: ReturnType<TarSplitReader['push']>): void => {
    for (const entry of entries) sizeBytes += entry.sizeBytes
  }
  const source = fs.createReadStream(file, { highWaterMark: 256 * 1024 })
  const lines = createGunzip({ chunkSize: 256 * 1024 })
  source.on('error', error => lines.destroy(error))
  try {
    for await (const chunk of source.pipe(lines) as AsyncIterable<Buffer>) add(reader.push(chunk))
    add(reader.finish())
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    if (StorageError.is(error)) throw error
    if ((error as { code?: unknown }).code?.toString().startsWith('Z_') === true) {
      throw new StorageError('CORRUPT', `layer ${chainId}: ${file} is damaged: ${(error as Error).message}`,
        { key: chainId, path: file, hint: 'remove the images that use the layer and load them again' }, { cause: error })
    }
    throw asStorageError(error, `reading ${file}`)
  } finally {
    source.destroy()
  }
  return sizeBytes
}
