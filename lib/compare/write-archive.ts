// An image source as an archive: an OCI layout in a tar, with Docker's manifest.json beside it or without. Deterministic: the same image gives the same
// bytes. Writes no file; layers that a store has may be left out.

import { createHash } from 'node:crypto'
import { StorageError } from '../errors.ts'
import type { ChainId, Digest } from '../ids.ts'
import { blobPath } from '../images/archive.ts'
import { mediaTypes } from '../images/oci.ts'
import { documentsOf, headerOf } from '../images/save-plan.ts'
import type { LayerBlob } from '../images/save-plan.ts'
import { parseReference, tagNameOnly } from '../images/reference.ts'
import { TarWriter } from '../tar/writer.ts'
import { imageConfigOf, layerMismatch } from './source.ts'
import type { ImageSource, SourceLayer } from './types.ts'

export interface WriteArchiveOptions {
  /** `docker`: an OCI layout with Docker's manifest.json and repositories beside it. `oci`: the layout alone. Default `docker`. */
  readonly format?: 'docker' | 'oci'
  /** diffIDs of layers to leave out: whoever loads the archive has them. Default: none. */
  readonly omit?: ReadonlySet<Digest>
  readonly signal?: AbortSignal
  /** Bytes written so far. */
  readonly onProgress?: (bytes: number) => void
}

/**
 * The image as one tar, layers uncompressed and verified. A layer whose length nobody knows (compressed in its archive, or in a store) is read twice.
 * @throws INVALID_ARGUMENT (no image), DIGEST_MISMATCH, INVALID_ARCHIVE, CORRUPT, ABORTED
 */
export async function* writeImageArchive(source: ImageSource, options: WriteArchiveOptions = {}): AsyncGenerator<Buffer, void, undefined> {
  const { format = 'docker', omit = new Set(), signal, onProgress } = options
  const { config, imageId } = imageConfigOf(source, 'write')
  const createdSeconds = Math.max(0, Math.floor((Date.parse(config.created ?? '') || 0) / 1000))
  const pending: Buffer[] = []
  let sizeBytes = 0
  const writer = new TarWriter(bytes => pending.push(Buffer.from(bytes)))
  const flush = function* (): Generator<Buffer> {
    for (const bytes of pending.splice(0)) {
      sizeBytes += bytes.length
      yield bytes
    }
    onProgress?.(sizeBytes)
  }
  for (const dir of ['blobs/', 'blobs/sha256/']) {
    writer.entry(headerOf(dir, 0, 0))
    writer.end()
  }
  const blobs = new Map<Digest, LayerBlob>()
  for (const layer of source.layers) {
    const diffId = layer.diffId as Digest
    if (blobs.has(diffId)) continue
    const length = layer.tarBytes ?? (omit.has(diffId) ? 0 : await lengthOf(layer, signal))
    blobs.set(diffId, { mediaType: mediaTypes.layer, digest: diffId, sizeBytes: length })
    if (omit.has(diffId)) continue
    writer.entry(headerOf(blobPath(diffId), length, createdSeconds))
    for await (const chunk of verified(layer, length, signal)) {
      writer.data(chunk)
      yield* flush()
    }
    writer.end()
  }
  const tags = source.references.map(reference => tagNameOnly(parseReference(reference))).filter(ref => ref.tag !== undefined && ref.digest === undefined)
  const layers = source.layers.map(({ diffId, chainId }) => ({ diffId: diffId as Digest, chainId: chainId as ChainId }))
  const image = { imageId, configBytes: source.configBytes as Buffer, config, tags, layers, createdSeconds }
  for (const { path, bytes, mtimeSeconds } of documentsOf([image], blobs, format)) {
    writer.entry(headerOf(path, bytes.length, mtimeSeconds))
    writer.data(bytes)
    writer.end()
  }
  writer.finish()
  yield* flush()
}

function abortable(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

async function lengthOf(layer: SourceLayer, signal: AbortSignal | undefined): Promise<number> {
  let sizeBytes = 0
  for await (const chunk of layer.tar(abortable(signal))) sizeBytes += chunk.length
  return sizeBytes
}

async function* verified(layer: SourceLayer, sizeBytes: number, signal: AbortSignal | undefined): AsyncGenerator<Buffer, void, undefined> {
  const hash = createHash('sha256')
  let left = sizeBytes
  for await (const chunk of layer.tar(abortable(signal))) {
    if (signal?.aborted) throw new StorageError('ABORTED', 'writing an image: aborted')
    hash.update(chunk)
    left -= chunk.length
    if (left < 0) break
    yield chunk
  }
  const actual = `sha256:${hash.digest('hex')}`
  if (left !== 0 || actual !== layer.diffId) throw layerMismatch(layer, actual)
}
