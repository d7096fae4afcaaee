// Saving images: as one tar, streamed or in a file, or as files in a directory. Holds the layers while it runs; puts nothing on disk but, when layers
// are to be compressed, one at a time, because a tar header and a blob's name need its size and digest first.

import fs from 'node:fs'
import path from 'node:path'
import { createHash } from 'node:crypto'
import { assembleModule } from '../diff/jobs-module.ts'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { fdatasync, syncDirectory } from '../fs/atomic.ts'
import { removeTree } from '../fs/remove-tree.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { Operation } from '../layers/types.ts'
import { warmThread } from '../sys/threads.ts'
import { compress } from '../tar/compression.ts'
import { TarWriter } from '../tar/writer.ts'
import { blobPath, temporaryFile, writeAll } from './archive.ts'
import type { ImageContext } from './context.ts'
import { mediaTypes } from './oci.ts'
import { layersIntoFiles, layersIntoTar } from './save-in-place.ts'
import { documentsOf, headerOf, imagesToSave, layersToSave } from './save-plan.ts'
import type { Document, ImageToSave, LayerBlob, LayerToSave } from './save-plan.ts'
import { layerTarLength } from './tar-length.ts'
import type { SaveOptions, SaveToFileOptions } from './types.ts'

/** A file of the archive, as it comes: its place and size, then its content. */
interface SavedFile {
  readonly path: string
  readonly sizeBytes: number
  readonly mtimeSeconds: number
  readonly content: AsyncGenerator<Buffer, void, undefined>
}

/** Chunks that are made before they are asked for, so that one is hashed while another is written. */
const chunksAhead = 2

export async function* saveAsTar(context: ImageContext, references: readonly string[], options: SaveOptions): AsyncGenerator<Buffer, void, undefined> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort()
  options.signal?.addEventListener('abort', onAbort, { once: true })
  if (options.signal?.aborted) onAbort()
  try {
    yield* ahead(tarOf(context, references, { ...options, signal: stop.signal }), chunksAhead, onAbort)
  } finally {
    options.signal?.removeEventListener('abort', onAbort)
  }
}

/** What `source` yields, with `count` items under way while the consumer works on one. `stop` cuts those short that nobody will take. */
async function* ahead<T>(source: AsyncGenerator<T, void, undefined>, count: number, stop: () => void = () => undefined): AsyncGenerator<T, void, undefined> {
  const pulls: Promise<IteratorResult<T, void>>[] = []
  const pull = (): void => {
    const next = source.next()
    // Whoever awaits it hears of a failure; here only so that one that nobody comes to is not unhandled.
    next.catch(() => undefined)
    pulls.push(next)
  }
  try {
    for (let i = 0; i < count; i++) pull()
    for (;;) {
      const next = await pulls.shift()
      if (next === undefined || next.done === true) return
      pull()
      yield next.value
    }
  } finally {
    stop()
    // Behind the pulls, in order: it returns when all of them have come to their end.
    await source.return(undefined)
  }
}

async function* tarOf(context: ImageContext, references: readonly string[], options: SaveOptions): AsyncGenerator<Buffer, void, undefined> {
  const pending: Buffer[] = []
  // What the writer emits is valid during the call only. Content is ours already, and goes on as it is.
  let content: Buffer | undefined
  const writer = new TarWriter(bytes => pending.push(bytes === content ? bytes : Buffer.from(bytes)))
  const flush = (): Buffer[] => pending.splice(0)
  for (const dir of ['blobs/', 'blobs/sha256/']) {
    writer.entry(headerOf(dir, 0, 0))
    writer.end()
  }
  for await (const file of heldFiles(context, references, options)) {
    writer.entry(headerOf(file.path, file.sizeBytes, file.mtimeSeconds))
    yield* flush()
    for await (const chunk of file.content) {
      content = chunk
      writer.data(chunk)
      yield* flush()
    }
    writer.end()
  }
  writer.finish()
  yield* flush()
}

export async function saveToDirectory(context: ImageContext, references: readonly string[], dir: string, options: SaveOptions): Promise<void> {
  const made = makeEmpty(dir)
  try {
    fs.mkdirSync(path.join(dir, 'blobs', 'sha256'), { recursive: true, mode: 0o755 })
    if ((options.compression ?? 'none') === 'none') await saveInPlace(context, references, dir, options)
    else for await (const file of heldFiles(context, references, options)) await writeFile(path.join(dir, file.path), file)
    for (const part of ['blobs/sha256', 'blobs', '.']) await syncDirectory(path.join(dir, part))
  } catch (error) {
    for (const name of fs.readdirSync(dir)) await removeTree(path.join(dir, name))
    if (made) fs.rmdirSync(dir)
    throw asStorageError(error, `saving to ${dir}`)
  }
}

/** Returns whether the directory was made. @throws ALREADY_EXISTS */
function makeEmpty(dir: string): boolean {
  try {
    fs.mkdirSync(dir)
    return true
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw asStorageError(error, `making ${dir}`, { path: dir })
  }
  let names: string[]
  try {
    names = fs.readdirSync(dir)
  } catch (error) {
    throw asStorageError(error, `saving to ${dir}`, { path: dir })
  }
  if (names.length > 0) throw new StorageError('ALREADY_EXISTS', `cannot save to ${dir}: it is not empty`, { path: dir, hint: 'name a new directory' })
  return false
}

async function writeFile(target: string, { content }: Pick<SavedFile, 'content'>): Promise<void> {
  const fd = fs.openSync(target, 'wx', 0o644)
  try {
    for await (const chunk of ahead(content, chunksAhead)) await writeAll(fd, chunk)
    await fdatasync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/** Do `work` while an operation keeps the layers from being removed. A read-only root has nobody who could remove them. */
async function whileHeld(
  context: ImageContext, images: readonly ImageToSave[], signal: AbortSignal | undefined, work: (operation: Operation | undefined) => Promise<void>,
): Promise<void> {
  if (context.root.readOnly) {
    await work(undefined)
    return
  }
  try {
    await context.layers.operation('image save', async operation => {
      for (const { layers } of images) {
        const top = layers.at(-1)
        if (top !== undefined) await operation.hold(top.chainId)
      }
      await work(operation)
    }, signal)
  } finally {
    // Whoever removed one of the images meanwhile could not remove its layers.
    for (const { imageId, layers } of images) {
      const top = layers.at(-1)
      if (top !== undefined && !context.db.has(imageId)) await context.layers.release(top.chainId)
    }
  }
}

/** The files, while the layers are held. */
async function* heldFiles(context: ImageContext, references: readonly string[], options: SaveOptions): AsyncGenerator<SavedFile, void, undefined> {
  const images = imagesToSave(context, references)
  // The thread starts while the first layer is measured.
  warmThread(assembleModule)
  // An operation is a callback and a generator is not: the callback waits until the generator has come to its end, whichever it is.
  let start = (_: Operation | undefined): void => {}, finish = (): void => {}
  const started = new Promise<Operation | undefined>(resolve => { start = resolve })
  const finished = new Promise<void>(resolve => { finish = resolve })
  const held = whileHeld(context, images, options.signal, async operation => {
    start(operation)
    await finished
  })
  try {
    yield* filesOf(context, images, options, await Promise.race([started, held.then(() => started)]))
  } finally {
    finish()
    await held
  }
}

/**
 * Save to a tar in an empty regular file, from whose descriptor nothing else reads or writes, or as files in a new directory: the layers by threads, then
 * the documents, which need the layers' sizes.
 */
async function saveInPlace(context: ImageContext, references: readonly string[], target: number | string, options: SaveToFileOptions): Promise<void> {
  const { format = 'docker', signal } = options
  const images = imagesToSave(context, references)
  const layers = layersToSave(images)
  warmThread(assembleModule, layers.length)
  await whileHeld(context, images, signal, async () => {
    if (typeof target === 'string') {
      const blobs = await layersIntoFiles(context, layers, target, signal)
      for (const { path: name, bytes } of documentsOf(images, blobs, format)) await writeFile(path.join(target, name), { content: only(bytes) })
      return
    }
    const start = entries(['blobs/', 'blobs/sha256/'].map(name => ({ path: name, bytes: Buffer.alloc(0), mtimeSeconds: 0 })))
    await writeAll(target, start, 0)
    const { blobs, end } = await layersIntoTar(context, layers, target, start.length, options)
    await writeAll(target, entries(documentsOf(images, blobs, format), true), end)
  })
}

/** Save to an empty regular file. @throws as `ImageStore.saveToFile` */
export async function saveToFile(context: ImageContext, references: readonly string[], fd: number, options: SaveToFileOptions): Promise<void> {
  try {
    if ((options.compression ?? 'none') === 'none') {
      await saveInPlace(context, references, fd, options)
      return
    }
    let sizeBytes = 0
    for await (const chunk of saveAsTar(context, references, options)) {
      await writeAll(fd, chunk, sizeBytes)
      options.onProgress?.(sizeBytes += chunk.length)
    }
  } catch (error) {
    throw error instanceof TypeError ? error : asStorageError(error, 'saving to a file')
  }
}

/** Small files as entries of a tar. */
function entries(documents: readonly Document[], isEnd = false): Buffer {
  const parts: Buffer[] = []
  const writer = new TarWriter(bytes => parts.push(Buffer.from(bytes)))
  for (const { path: name, bytes, mtimeSeconds } of documents) {
    writer.entry(headerOf(name, bytes.length, mtimeSeconds))
    writer.data(bytes)
    writer.end()
  }
  if (isEnd) writer.finish()
  return Buffer.concat(parts)
}

async function* filesOf(
  context: ImageContext, images: readonly ImageToSave[], options: SaveOptions, operation: Operation | undefined,
): AsyncGenerator<SavedFile, void, undefined> {
  const { format = 'docker', compression = 'none', signal } = options
  const blobs = new Map<Digest, LayerBlob>()
  const layers = layersToSave(images)
  if (compression === 'none') {
    // The next layer is measured while this one is saved.
    for await (const { chainId, diffId, createdSeconds, sizeBytes } of ahead(measured(context, layers, signal), 1)) {
      blobs.set(diffId, { mediaType: mediaTypes.layer, digest: diffId, sizeBytes })
      const content = exactly(context.layers.tar(chainId, abortable(signal)), sizeBytes, chainId)
      yield { path: blobPath(diffId), sizeBytes, mtimeSeconds: createdSeconds, content }
    }
  } else {
    if (operation === undefined) {
      throw new StorageError('READ_ONLY', 'cannot save compressed layers from a data root that is open read-only', { hint: 'save them uncompressed' })
    }
    for (const { chainId, diffId, createdSeconds } of layers) {
      const { file, digest, sizeBytes } = await spoolCompressed(context, operation, chainId, compression, signal)
      blobs.set(diffId, { mediaType: `${mediaTypes.layer}+${compression}`, digest, sizeBytes })
      try {
        yield { path: blobPath(digest), sizeBytes, mtimeSeconds: createdSeconds, content: fileContent(file) }
      } finally {
        fs.rmSync(file, { force: true })
      }
    }
  }
  for (const { path: name, bytes, mtimeSeconds } of documentsOf(images, blobs, format)) {
    if (signal?.aborted) throw new StorageError('ABORTED', 'saving images: aborted')
    yield { path: name, sizeBytes: bytes.length, mtimeSeconds, content: only(bytes) }
  }
}

async function* measured(
  context: ImageContext, layers: Iterable<LayerToSave>, signal: AbortSignal | undefined,
): AsyncGenerator<LayerToSave & { readonly sizeBytes: number }, void, undefined> {
  for (const layer of layers) {
    const sizeBytes = await layerTarLength(context.root, layer.chainId) ?? await counted(context.layers.tar(layer.chainId, abortable(signal)))
    yield { ...layer, sizeBytes }
  }
}

function abortable(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

/** Opened when it is asked for, so that a consumer who stops before leaves nothing open. */
async function* fileContent(file: string): AsyncGenerator<Buffer, void, undefined> {
  yield* fs.createReadStream(file, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
  yield bytes
}

/** The length of a tar that has no tar-split to tell it. */
async function counted(tar: AsyncIterable<Buffer>): Promise<number> {
  let sizeBytes = 0
  for await (const chunk of tar) sizeBytes += chunk.length
  return sizeBytes
}

/** The header is out already, so a tar of another length would damage everything behind it. */
async function* exactly(tar: AsyncIterable<Buffer>, sizeBytes: number, chainId: ChainId): AsyncGenerator<Buffer, void, undefined> {
  let left = sizeBytes
  for await (const chunk of tar) {
    left -= chunk.length
    if (left < 0) break
    yield chunk
  }
  if (left !== 0) throw new StorageError('CORRUPT', `layer ${chainId}: its tar is not as long as its tar-split says`, { key: chainId })
}

async function spoolCompressed(
  context: ImageContext, operation: Operation, chainId: ChainId, compression: 'gzip' | 'zstd', signal: AbortSignal | undefined,
): Promise<{ file: string; digest: Digest; sizeBytes: number }> {
  const file = await temporaryFile(context.root, operation, 'save')
  const fd = fs.openSync(file, 'wx', 0o600)
  try {
    const hash = createHash('sha256')
    let sizeBytes = 0
    for await (const chunk of compress(context.layers.tar(chainId, abortable(signal)), compression)) {
      hash.update(chunk)
      sizeBytes += chunk.length
      await writeAll(fd, chunk)
    }
    return { file, digest: `sha256:${hash.digest('hex')}` as Digest, sizeBytes }
  } finally {
    fs.closeSync(fd)
  }
}
