// A layer's tar, put together again by a thread and verified. The sha256 of the whole tells whether it is the same, so the files' own sums are not made on
// the way; when it is another, they are, in a second reading, to name the file. Holds nothing: the caller keeps the layer from being removed.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import type { AssembleArguments, AssembledTar, DigestArguments } from '../diff/assemble.ts'
import { assembleModule } from '../diff/jobs-module.ts'
import type { Driver } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import { layerDb } from './data-root.ts'
import { tarSplitName } from './layer-files.ts'
import type { DataRoot, Layer, WriteTarOptions } from './types.ts'

/** @throws as LayerStore.tar */
export async function* layerTar(root: DataRoot, driver: Driver, layer: Layer, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer, void, undefined> {
  const source = await partsOf(root, driver, layer)
  try {
    // Hashed here, while the thread reads on: the two halves of the work take about as long.
    const hash = createHash('sha256')
    for await (const chunk of streamJob<AssembleArguments, void>(assembleModule, 'assembleJob', { ...source, sums: false }, options)) {
      hash.update(chunk)
      yield chunk
    }
    if (`sha256:${hash.digest('hex')}` !== layer.diffId) throw await damageOf(layer, source, options.signal)
  } finally {
    fs.closeSync(source.tarSplitFd)
  }
}

/** @throws as LayerStore.writeTar */
export async function writeLayerTar(root: DataRoot, driver: Driver, layer: Layer, to: DigestArguments['to'], options: WriteTarOptions): Promise<number> {
  const source = await partsOf(root, driver, layer)
  try {
    const { digest, sizeBytes } = await runJob<DigestArguments, AssembledTar>(assembleModule, 'digestJob', { ...source, sums: false, to }, options)
    if (digest !== layer.diffId) throw await damageOf(layer, source, options.signal)
    return sizeBytes
  } finally {
    fs.closeSync(source.tarSplitFd)
  }
}

/** The caller closes the descriptor. */
async function partsOf(root: DataRoot, driver: Driver, layer: Layer): Promise<AssembleArguments> {
  const { path: dir } = await driver.content(layer.cacheId)
  const file = path.join(layerDb.layer(root, layer.chainId), tarSplitName)
  try {
    return { dir, tarSplitFd: fs.openSync(file, 'r') }
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    throw new StorageError('CORRUPT', `layer ${layer.chainId}: ${tarSplitName} is missing, so its tar cannot be rebuilt`, { key: layer.chainId, path: file }, { cause: error })
  }
}

/** Why the tar of a layer is not what it was: the file whose sum is another, or, where all are right, what lies between them. */
async function damageOf(layer: Layer, source: AssembleArguments, signal: AbortSignal | undefined): Promise<StorageError> {
  try {
    await runJob<DigestArguments, AssembledTar>(assembleModule, 'digestJob', { ...source, sums: true }, { signal })
  } catch (error) {
    if (StorageError.is(error)) return error
    throw error
  }
  return new StorageError('CORRUPT', `could not verify layer data for: ${layer.diffId}. This may be because internal files in the layer store were modified`,
    { key: layer.chainId, hint: 're-pulling or rebuilding this image may resolve the issue' })
}
