// Saving images: as one tar that is streamed, or as files in a directory. Holds the layers while it runs; puts nothing on disk but, when layers
// are to be compressed, one at a time, because a tar header and a blob's name need its size and digest first.

import fs from 'node:fs'
import path from 'node:path'
import { createHash } from 'node:crypto'
import { jobsModule } from '../diff/jobs.ts'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { syncDirectory } from '../fs/atomic.ts'
import { removeTree } from '../fs/remove-tree.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { Operation } from '../layers/types.ts'
import { warmThread } from '../sys/threads.ts'
import { compress } from '../tar/compression.ts'
import type { TarHeader } from '../tar/types.ts'
import { TarWriter } from '../tar/writer.ts'
import { blobPath, temporaryFile, writeAll } from './archive.ts'
import type { ImageContext } from './context.ts'
import { mediaTypes } from './oci.ts'
import { documentsOf, imagesToSave } from './save-plan.ts'
import type { ImageToSave, LayerBlob } from './save-plan.ts'
import { layerTarLength } from './tar-length.ts'
import type { SaveOptions } from './types.ts'

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

/** The entry of a file or folder (`…/`) of an archive that we write. */
export function headerOf(name: string, sizeBytes: number, mtimeSeconds: number): TarHeader {
  const isDirectory = name.endsWith('/')
  return {
    name: Buffer.from(name), type: isDirectory ? 'directory' : 'file', mode: isDirectory ? 0o755 : 0o644, uid: 0, gid: 0, sizeBytes,
    mtimeNs: BigInt(mtimeSeconds) * 1_000_000_000n, linkname: Buffer.alloc(0), uname: '', gname: '', devMajor: 0, devMinor: 0,
  }
}

export async function saveToDirectory(context: ImageContext, references: readonly string[], dir: string, options: SaveOptions): Promise<void> {
  const made = makeEmpty(dir)
  try {
    fs.mkdirSync(path.join(dir, 'blobs', 'sha256'), { recursive: true, mode: 0o755 })
    for await (const file of heldFiles(context, references, options)) await writeFile(path.join(dir, file.path), file)
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

async function writeFile(target: string, { content }: SavedFile): Promise<void> {
  const fd = fs.openSync(target, 'wx', 0o644)
  try {
    for await (const chunk of ahead(content, chunksAhead)) await writeAll(fd, chunk)
    await new Promise<void>((resolve, reject) => { fs.fdatasync(fd, error => error ? reject(error) : resolve()) })
  } finally {
    fs.closeSync(fd)
  }
}

/** The files, while an operation keeps the layers from being removed. A read-only root has nobody who could remove them. */
async function* heldFiles(context: ImageContext, references: readonly string[], options: SaveOptions): AsyncGenerator<SavedFile, void, undefined> {
  const images = imagesToSave(context, references)
  // The thread starts while the first layer is measured.
  warmThread(jobsModule)
  if (context.root.readOnly) {
    yield* filesOf(context, images, options, undefined)
    return
  }
  // An operation is a callback and a generator is not: the callback waits until the generator has come to its end, whichever it is.
  let start = (_: Operation): void => {}, finish = (): void => {}
  const started = new Promise<Operation>(resolve => { start = resolve })
  const finished = new Promise<void>(resolve => { finish = resolve })
  const operation = context.layers.operation('image save', async operation => {
    for (const { layers } of images) {
      const top = layers.at(-1)
      if (top !== undefined) await operation.hold(top.chainId)
    }
    start(operation)
    await finished
  }, options.signal)
  try {
    yield* filesOf(context, images, options, await Promise.race([started, operation.then(() => started)]))
  } finally {
    finish()
    await operation
    // Whoever removed one of the images meanwhile could not remove its layers.
    for (const { imageId, layers } of images) {
      const top = layers.at(-1)
      if (top !== undefined && !context.db.has(imageId)) await context.layers.release(top.chainId)
    }
  }
}

async function* filesOf(
  context: ImageContext, images: readonly ImageToSave[], options: SaveOptions, operation: Operation | undefined,
): AsyncGenerator<SavedFile, void, undefined> {
  const { format = 'docker', compression = 'none', signal } = options
  const blobs = new Map<Digest, LayerBlob>()
  // One diffID may be in several chains; its tar is the same.
  const layers = new Map<Digest, LayerToSave>()
  for (const image of images) {
    for (const { chainId, diffId } of image.layers) if (!layers.has(diffId)) layers.set(diffId, { chainId, diffId, createdSeconds: image.createdSeconds })
  }
  if (compression === 'none') {
    // The next layer is measured while this one is saved.
    for await (const { chainId, diffId, createdSeconds, sizeBytes } of ahead(measured(context, layers.values(), signal), 1)) {
      blobs.set(diffId, { mediaType: mediaTypes.layer, digest: diffId, sizeBytes })
      const content = exactly(context.layers.tar(chainId, abortable(signal)), sizeBytes, chainId)
      yield { path: blobPath(diffId), sizeBytes, mtimeSeconds: createdSeconds, content }
    }
  } else {
    if (operation === undefined) {
      throw new StorageError('READ_ONLY', 'cannot save compressed layers from a data root that is open read-only', { hint: 'save them uncompressed' })
    }
    for (const { chainId, diffId, createdSeconds } of layers.values()) {
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

interface LayerToSave {
  readonly chainId: ChainId
  readonly diffId: Digest
  readonly createdSeconds: number
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
