// Uncompressed layers put by threads straight to where they belong, in a tar or in files of their own, as many at once as there are threads: no byte of
// them passes the main thread. Knows neither the documents nor who holds the layers.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { fdatasync } from '../fs/atomic.ts'
import type { Digest } from '../ids.ts'
import { TarWriter } from '../tar/writer.ts'
import { blobPath, writeAll } from './archive.ts'
import type { ImageContext } from './context.ts'
import { mediaTypes } from './oci.ts'
import { headerOf } from './save-plan.ts'
import type { LayerBlob, LayerToSave } from './save-plan.ts'
import { layerTarLength } from './tar-length.ts'
import type { SaveToFileOptions } from './types.ts'

const blockBytes = 512

export interface PlacedLayers {
  readonly blobs: ReadonlyMap<Digest, LayerBlob>
  /** Behind the last one. */
  readonly end: number
}

/** Write the layers as entries of a tar, the first at `start` of the file, each where it will lie when those before it are complete. @throws as LayerStore.writeTar */
export async function layersIntoTar(
  context: ImageContext, layers: readonly LayerToSave[], fd: number, start: number, { signal, onProgress }: SaveToFileOptions,
): Promise<PlacedLayers> {
  const blobs = new Map<Digest, LayerBlob>()
  let at = start
  await together(signal, async ({ add, write }) => {
    for (const [i, layer] of layers.entries()) {
      const { chainId, diffId, createdSeconds } = layer
      const header = (sizeBytes: number): Buffer => encoded(headerOf(blobPath(diffId), sizeBytes, createdSeconds))
      // Begun before its length is known: the header has one block whatever the length, but for a layer of 8 GiB, whose files tell that it is one.
      let content = at + header((await context.layers.get(chainId)).sizeBytes).length
      let written = write(layer, content)
      // What lies behind the last one can wait for its end; for the others the tar-split is read, once more, meanwhile.
      const sizeBytes = (i < layers.length - 1 ? await layerTarLength(context.root, chainId) : undefined) ?? await written
      const before = header(sizeBytes)
      if (at + before.length !== content) {
        await written
        content = at + before.length
        written = write(layer, content)
      }
      add(written.then(actual => {
        if (actual !== sizeBytes) throw new StorageError('CORRUPT', `layer ${chainId}: its tar is not as long as its tar-split says`, { key: chainId })
      }))
      await writeAll(fd, before, at)
      const end = content + sizeBytes
      at = Math.ceil(end / blockBytes) * blockBytes
      await writeAll(fd, Buffer.alloc(at - end), end)
      blobs.set(diffId, { mediaType: mediaTypes.layer, digest: diffId, sizeBytes })
    }
  }, (layer, offset, stop, told) => context.layers.writeTar(layer.chainId, { fd, offset }, { signal: stop, onProgress: told }), onProgress)
  return { blobs, end: at }
}

/** Write the layers as blobs of the layout in `dir`, synced. @throws as LayerStore.writeTar */
export async function layersIntoFiles(context: ImageContext, layers: readonly LayerToSave[], dir: string, signal: AbortSignal | undefined): Promise<ReadonlyMap<Digest, LayerBlob>> {
  const blobs = new Map<Digest, LayerBlob>()
  await together(signal, async ({ add, write }) => {
    for (const layer of layers) {
      add(write(layer, 0).then(sizeBytes => { blobs.set(layer.diffId, { mediaType: mediaTypes.layer, digest: layer.diffId, sizeBytes }) }))
    }
  }, async (layer, offset, stop) => {
    const fd = fs.openSync(path.join(dir, blobPath(layer.diffId)), 'wx', 0o644)
    try {
      const sizeBytes = await context.layers.writeTar(layer.chainId, { fd, offset }, { signal: stop })
      await fdatasync(fd)
      return sizeBytes
    } finally {
      fs.closeSync(fd)
    }
  })
  return blobs
}

interface Group {
  /** Wait for it at the end. */
  add(work: Promise<unknown>): void
  write(layer: LayerToSave, offset: number): Promise<number>
}

/**
 * Run `plan` and all that it begins. The first failure stops the rest and is thrown when nothing is under way any more: only then may a descriptor be
 * closed that threads write to.
 */
async function together(
  signal: AbortSignal | undefined, plan: (group: Group) => Promise<void>,
  begin: (layer: LayerToSave, offset: number, stop: AbortSignal, told: (bytes: number) => void) => Promise<number>, onProgress?: (bytes: number) => void,
): Promise<void> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort()
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted === true) onAbort()
  const running: Promise<unknown>[] = []
  const failures: unknown[] = []
  let total = 0
  const add = (work: Promise<unknown>): void => {
    running.push(work.catch((error: unknown) => {
      failures.push(error)
      stop.abort()
    }))
  }
  const write = (layer: LayerToSave, offset: number): Promise<number> => {
    let told = 0
    const tell = (bytes: number): void => { onProgress?.(total += bytes - told); told = bytes }
    const written = begin(layer, offset, stop.signal, tell).then(sizeBytes => { tell(sizeBytes); return sizeBytes })
    add(written)
    return written
  }
  add(plan({ add, write }))
  // What is under way may begin more.
  for (let next = running.shift(); next !== undefined; next = running.shift()) await next
  signal?.removeEventListener('abort', onAbort)
  if (failures.length > 0) throw failures[0]
}

/** A header alone; its content is written by somebody else. */
function encoded(header: Parameters<TarWriter['entry']>[0]): Buffer {
  const parts: Buffer[] = []
  new TarWriter(bytes => parts.push(Buffer.from(bytes))).entry(header)
  return Buffer.concat(parts)
}
