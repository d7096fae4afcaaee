// Opening what is to be looked into: an image, container or layer of a store, an archive, an OCI layout, a tar, a directory. Owns which of them a text
// means and the descriptors that reading takes; writes nothing but a file in the temporary directory, for archives that cannot be read in place.

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { randomBytes } from 'node:crypto'
import { writeLayer } from '../diff/index.ts'
import type { FileRange } from '../diff/index.ts'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { readDescriptor } from '../fs/read-descriptor.ts'
import type { ChainId, Digest } from '../ids.ts'
import { openArchive, readSmall } from '../images/archive.ts'
import type { Archive } from '../images/archive.ts'
import type { ArchiveLimits } from '../tar/types.ts'
import { chainIdsOf, decodeConfig, imageIdOf } from '../images/config.ts'
import { planLoad } from '../images/docker-archive.ts'
import { familiarString, parseReference, parsePlatform } from '../images/index.ts'
import type { HistoryEntry, ImageConfig } from '../images/index.ts'
import type { PlannedImage } from '../images/plan.ts'
import type { Layer } from '../layers/types.ts'
import type { Storage } from '../storage.ts'
import { readFully } from '../images/tar-index.ts'
import { decompress, detectCompression, MAGIC_BYTES } from '../tar/compression.ts'
import { readEntries } from './entries.ts'
import type { ImageSource, SourceKind, SourceLayer } from './types.ts'

export interface OpenSourceOptions {
  /** The store in which names, ids, containers and layers are looked up; a function is called only when one is needed. Default: none, paths only. */
  readonly storage?: Storage | (() => Promise<Storage | undefined>)
  /** Of several images in an archive, the one with this name or id (also `FILE#NAME`). */
  readonly image?: string
  /** `os/architecture[/variant]`; default: this machine's where an OCI index offers several. */
  readonly platform?: string
  /** Where a compressed archive is written out while it is read. Default: the system's temporary directory. */
  readonly temporaryDir?: string
  /** Of an archive; `entries` holds for each layer, too. */
  readonly limits?: ArchiveLimits
  readonly signal?: AbortSignal
}

const prefixes = ['image', 'container', 'layer', 'archive', 'tar', 'dir'] as const
type Prefix = typeof prefixes[number]

/**
 * Open what `text` means. With a prefix there is no doubt: `image:NAME`, `container:NAME`, `layer:ID` (chain id or diffID, or the beginning of one) in the
 * store; `archive:PATH` (docker-archive or OCI layout, a tar, compressed or not, or a directory), `tar:PATH` (one layer's or root file system's tar),
 * `dir:PATH` (a tree of files). Without one: a path that begins with `/`, `./` or `../`, or a file that exists, is taken by what it holds; else the
 * store's image, container or layer of that name; else a directory. `PATH#NAME` chooses an image of an archive. `-` is standard input.
 *
 * Nothing is unpacked and no privilege is needed but to read. An uncompressed archive in a file is read in place; a compressed or streamed one is written
 * out to a nameless temporary file until `close`.
 * @throws NOT_FOUND, INVALID_ARGUMENT (several images and none chosen), INVALID_ARCHIVE, LIMIT_EXCEEDED, …
 */
export async function openImageSource(text: string, options: OpenSourceOptions = {}): Promise<ImageSource> {
  const { prefix, rest } = splitPrefix(text)
  switch (prefix) {
    case 'image': return await storedImage(await storageOf(options, text), rest)
    case 'container': return await storedContainer(await storageOf(options, text), rest)
    case 'layer': return storedLayer(await storageOf(options, text), await findLayer(await storageOf(options, text), rest))
    case 'dir': return directorySource(rest)
    case 'tar': return await archiveSource(rest, options, 'tar')
    case 'archive': return await archiveSource(rest, options, 'archive')
    case undefined:
  }
  if (text === '-') return await archiveSource('/dev/stdin', options)
  if (/^(\/|\.\.?(\/|$))/.test(text)) return await pathSource(text, options)
  const [file] = splitFragment(text)
  const stat = fs.statSync(file, { throwIfNoEntry: false })
  if (stat !== undefined && !stat.isDirectory()) return await pathSource(text, options)
  const found = await inStore(text, options)
  if (found !== undefined) return found
  if (stat !== undefined) return await pathSource(text, options)
  throw new StorageError('NOT_FOUND', `no image, container, layer or path of this name: ${text}`, { key: text, hint: 'image:NAME, container:NAME, layer:ID, archive:PATH, tar:PATH or dir:PATH says which is meant' })
}

function splitPrefix(text: string): { prefix: Prefix | undefined; rest: string } {
  const colon = text.indexOf(':')
  const prefix = prefixes.find(name => name === text.slice(0, colon))
  // `image:1.0` may be a name and a tag: a prefix is followed by what cannot be a tag alone, or wins. Docker's own short names lose to the six words.
  return prefix === undefined ? { prefix, rest: text } : { prefix, rest: text.slice(colon + 1) }
}

/** `PATH#NAME`; a path that exists as it stands is one. */
function splitFragment(text: string): [file: string, image: string | undefined] {
  const hash = text.lastIndexOf('#')
  return hash < 1 || fs.existsSync(text) ? [text, undefined] : [text.slice(0, hash), text.slice(hash + 1)]
}

async function storageOf({ storage }: OpenSourceOptions, text: string): Promise<Storage> {
  const found = typeof storage === 'function' ? await storage() : storage
  if (found === undefined) throw new StorageError('NOT_FOUND', `cannot look up ${text}: there is no store`, { key: text, hint: 'name the data root, or give the path of an archive' })
  return found
}

async function inStore(text: string, options: OpenSourceOptions): Promise<ImageSource | undefined> {
  const storage = typeof options.storage === 'function' ? await options.storage() : options.storage
  if (storage === undefined) return undefined
  for (const find of [() => storedImage(storage, text), () => storedContainer(storage, text), async () => storedLayer(storage, await findLayer(storage, text))]) {
    try {
      return await find()
    } catch (error) {
      // A name that is no image's reference may still be a container's or a path.
      if (!StorageError.is(error, 'NOT_FOUND') && !(StorageError.is(error, 'INVALID_ARGUMENT') && /invalid reference|repository name/.test(error.message))) throw error
    }
  }
  return undefined
}

/** By chain id, or else diffID, or the unique beginning of one. @throws NOT_FOUND, INVALID_ARGUMENT */
export async function findLayer(storage: Pick<Storage, 'layers'>, text: string): Promise<Layer> {
  const hex = text.replace(/^sha256:/, '')
  const byChain: Layer[] = [], byDiff: Layer[] = []
  if (/^[a-f0-9]{1,64}$/.test(hex)) {
    for await (const layer of storage.layers.list(() => undefined)) {
      if (layer.chainId.startsWith(`sha256:${hex}`)) byChain.push(layer)
      else if (layer.diffId.startsWith(`sha256:${hex}`)) byDiff.push(layer)
    }
  }
  const found = byChain.length > 0 ? byChain : byDiff
  if (found.length > 1) throw new StorageError('INVALID_ARGUMENT', `multiple IDs found with provided prefix: ${text}`, { key: text, hint: 'give more digits, or a chain id' })
  if (found[0] === undefined) throw new StorageError('NOT_FOUND', `No such layer: ${text}`, { key: text })
  return found[0]
}

// ---- making sources ------------------------------------------------------------------------------------------------------------

type TarOf = (options: { readonly signal?: AbortSignal }) => AsyncGenerator<Buffer, unknown, undefined>

interface LayerFacts extends Omit<SourceLayer, 'tar' | 'entries' | 'command'> {
  readonly command?: string
}

interface LayerOptions {
  readonly limits?: ArchiveLimits
  /** The tar once more, where nothing of a chunk is kept when the next one is asked for. */
  readonly scan?: TarOf
}

/** A layer from what is known of it and how its tar is read. */
export function layerOf(facts: LayerFacts, open: TarOf, { limits = {}, scan = open }: LayerOptions = {}): SourceLayer {
  async function* tar(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer, void, undefined> {
    yield* open(options)
  }
  return {
    command: '', ...facts, tar,
    entries: (options = {}) => readEntries(scan(options.signal === undefined ? {} : { signal: options.signal }), options, limits.entries === undefined ? {} : { entries: limits.entries }),
  }
}

/** The history's step of each layer; steps without a layer are passed over, and a history that is too short leaves the first layers… without. */
function stepsOf(config: ImageConfig): readonly (HistoryEntry | undefined)[] {
  const steps = config.history.filter(step => !step.emptyLayer)
  return config.diffIds.map((_, i) => steps[i])
}

function factsOf(step: HistoryEntry | undefined): Pick<LayerFacts, 'command' | 'created' | 'comment'> {
  return {
    ...(step?.createdBy === undefined ? {} : { command: step.createdBy }), ...(step?.created === undefined ? {} : { created: step.created }),
    ...(step?.comment === undefined ? {} : { comment: step.comment }),
  }
}

/** A layer's tar is not what its config promises. */
export function layerMismatch({ index, diffId }: Pick<SourceLayer, 'index' | 'diffId'>, actual: string): StorageError {
  return new StorageError('DIGEST_MISMATCH', `invalid diffID for layer ${index}: expected ${JSON.stringify(diffId)}, got ${JSON.stringify(actual)}`, diffId === undefined ? {} : { key: diffId })
}

interface SourceParts extends Pick<ImageSource, 'name' | 'kind' | 'layers'> {
  readonly references?: readonly string[]
  readonly image?: { readonly imageId: Digest; readonly config: ImageConfig; readonly configBytes: Buffer }
  readonly close?: () => void
}

function sourceOf({ name, kind, layers, references = [], image, close }: SourceParts): ImageSource {
  let closed = false
  const end = async (): Promise<void> => {
    if (!closed) close?.()
    closed = true
  }
  return { name, kind, layers, references, ...image, close: end, [Symbol.asyncDispose]: end }
}

// ---- in a store ----------------------------------------------------------------------------------------------------------------

function chainLayers(storage: Storage, chain: readonly ChainId[], config: ImageConfig): SourceLayer[] {
  const steps = stepsOf(config)
  return chain.map((chainId, index) => layerOf({ index, chainId, diffId: config.diffIds[index] as Digest, ...factsOf(steps[index]) },
    options => storage.layers.tar(chainId, options)))
}

async function storedImage(storage: Storage, text: string): Promise<ImageSource> {
  const { id, config, configBytes, references, layers } = await storage.images.get(text)
  return sourceOf({ name: text, kind: 'image', image: { imageId: id, config, configBytes }, references, layers: chainLayers(storage, layers, config) })
}

async function storedContainer(storage: Storage, text: string): Promise<ImageSource> {
  const { id, name, imageId } = storage.containers.get(text)
  const image = imageId === undefined ? undefined : await storage.images.get(imageId)
  const below = image === undefined ? [] : chainLayers(storage, image.layers, image.config)
  const own = layerOf({ index: below.length, command: '', comment: 'the container\'s own layer' }, options => storage.containers.layerTar(id, options))
  return sourceOf({ name: name || text, kind: 'container', layers: [...below, own] })
}

function storedLayer(storage: Storage, layer: Layer): ImageSource {
  const { chainId, diffId } = layer
  return sourceOf({ name: chainId, kind: 'layer', layers: [layerOf({ index: 0, chainId, diffId }, options => storage.layers.tar(chainId, options))] })
}

// ---- on disk -------------------------------------------------------------------------------------------------------------------

async function pathSource(text: string, options: OpenSourceOptions): Promise<ImageSource> {
  const [file] = splitFragment(text)
  const stat = fs.statSync(file, { throwIfNoEntry: false })
  if (stat?.isDirectory() !== true) return await archiveSource(text, options)
  const has = (name: string): boolean => fs.lstatSync(path.join(file, name), { throwIfNoEntry: false })?.isFile() === true
  const isLayout = has('oci-layout') && has('index.json') || has('manifest.json') && fs.existsSync(path.join(file, 'blobs'))
  return isLayout ? await archiveSource(text, options, 'archive') : directorySource(file)
}

function directorySource(dir: string): ImageSource {
  const stat = fs.statSync(dir, { throwIfNoEntry: false })
  if (stat?.isDirectory() !== true) throw new StorageError(stat === undefined ? 'NOT_FOUND' : 'INVALID_ARGUMENT', `${dir} is ${stat === undefined ? 'not there' : 'not a directory'}`, { path: dir })
  const root = path.resolve(dir)
  return sourceOf({ name: dir, kind: 'directory', layers: [layerOf({ index: 0 }, options => writeLayer(root, undefined, { whiteouts: 'none', ...options }))] })
}

async function archiveSource(text: string, options: OpenSourceOptions, as?: 'archive' | 'tar'): Promise<ImageSource> {
  const [file, fragment] = splitFragment(text)
  const { limits = {}, signal } = options
  const made: string[] = []
  let archive: Archive
  try {
    archive = await openArchive(file, {
      limits, signal, spoolTo: async () => {
        const temporary = path.join(options.temporaryDir ?? os.tmpdir(), `layerstack-${randomBytes(8).toString('hex')}`)
        made.push(temporary)
        return temporary
      },
    })
  } finally {
    // Its descriptor is what is read: without a name nothing is left behind, however this process ends.
    for (const temporary of made) fs.rmSync(temporary, { force: true })
  }
  try {
    const kind = as === 'tar' ? 'tar' : kindOf(archive, limits)
    if (kind === 'tar' && as === 'archive') planLoad(archive, { limits }) // tells what is missing
    if (kind === 'tar') return tarSource(file, archive)
    const platform = options.platform === undefined ? {} : { platform: parsePlatform(options.platform) }
    const image = choose(planLoad(archive, { limits, ...platform }), options.image ?? fragment, file)
    return imageOfArchive(file, kind, archive, image, limits)
  } catch (error) {
    archive.close()
    throw error
  }
}

/** A root file system may hold files of these names too: only what reads as a manifest makes an archive of images. */
function kindOf(archive: Archive, limits: ArchiveLimits): SourceKind {
  const parsed = (name: string): unknown => {
    try {
      const bytes = readSmall(archive, name, limits)
      return bytes === undefined ? undefined : JSON.parse(bytes.toString())
    } catch {
      return undefined
    }
  }
  const manifest = parsed('manifest.json')
  if (Array.isArray(manifest) && manifest.every(item => typeof item === 'object' && item !== null && 'Config' in item && 'Layers' in item)) {
    return archive.isDirectory && archive.find('index.json') !== undefined ? 'oci' : 'docker-archive'
  }
  const index = parsed('index.json')
  return archive.isDirectory || typeof index === 'object' && index !== null && 'manifests' in index ? 'oci' : 'tar'
}

function choose(images: readonly PlannedImage[], wanted: string | undefined, file: string): PlannedImage {
  const names = (image: PlannedImage): string[] => image.references.map(familiarString)
  const [first] = images
  if (first === undefined) throw new StorageError('NOT_FOUND', `${file} holds no image`, { path: file })
  if (wanted === undefined) {
    if (images.length === 1) return first
    throw new StorageError('INVALID_ARGUMENT', `${file} holds ${images.length} images`,
      { path: file, hint: `choose one with ${file}#NAME: ${images.map(image => names(image)[0] ?? image.imageId.slice(0, 19)).join(', ')}` })
  }
  const full = /^[a-f0-9]{4,64}$/.test(wanted.replace(/^sha256:/, '')) ? `sha256:${wanted.replace(/^sha256:/, '')}` : undefined
  const named = images.filter(image => names(image).includes(withTag(wanted)))
  const found = named.length > 0 ? named : images.filter(image => full !== undefined && image.imageId.startsWith(full))
  if (found.length !== 1) throw new StorageError(found.length === 0 ? 'NOT_FOUND' : 'INVALID_ARGUMENT', `${file} holds ${found.length === 0 ? 'no image' : 'several images'} ${wanted}`, { path: file, key: wanted })
  return found[0] as PlannedImage
}

function withTag(text: string): string {
  try {
    const ref = parseReference(text)
    return familiarString(ref.tag === undefined && ref.digest === undefined ? { ...ref, tag: 'latest' } : ref)
  } catch {
    return text
  }
}

function imageOfArchive(name: string, kind: SourceKind, archive: Archive, image: PlannedImage, limits: ArchiveLimits): ImageSource {
  const { imageId, config, configBytes, references } = image
  const steps = stepsOf(config), chain = chainIdsOf(config.diffIds)
  const layers = image.layers.map((layer, index) => {
    const range = (): FileRange => {
      const found = archive.find(layer.path)
      if (found === undefined) throw new StorageError('INVALID_ARCHIVE', `layer ${index} (${layer.diffId}) is missing in ${name}: there is no ${layer.path}`, { key: layer.diffId })
      return found
    }
    const { fd, offset, length } = range()
    const isPlain = detectCompression(head(fd, offset, length)) === 'none'
    return layerOf({ index, diffId: layer.diffId, chainId: chain[index] as ChainId, storedBytes: length, ...(isPlain ? { tarBytes: length } : {}), ...factsOf(steps[index]) },
      () => decompress(readRange(range())), { limits, ...(isPlain ? { scan: () => readRange(range(), true) } : {}) })
  })
  return sourceOf({ name, kind, layers, references: references.map(familiarString), image: { imageId, config, configBytes }, close: () => archive.close() })
}

function head(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(Math.min(MAGIC_BYTES, length))
  readFully(fd, bytes, offset)
  return bytes
}

/** The whole file, whatever it is, as one layer. */
function tarSource(file: string, archive: Archive): ImageSource {
  const whole = archive.whole?.()
  if (whole === undefined) throw new StorageError('INVALID_ARGUMENT', `${file} is a directory`, { path: file, hint: 'dir:PATH reads a directory as a tree of files' })
  return sourceOf({ name: file, kind: 'tar', layers: [layerOf({ index: 0, storedBytes: whole.length, tarBytes: whole.length }, () => readRange(whole), { scan: () => readRange(whole, true) })], close: () => archive.close() })
}

/** A part of an open file, by position: the descriptor's own position is not touched, so several readers may share it. With `reuse` a chunk is valid until the next. */
export async function* readRange({ fd, offset, length }: FileRange, reuse = false): AsyncGenerator<Buffer, void, undefined> {
  let left = length
  try {
    for await (const chunk of readDescriptor(fd, { offset, length }, reuse ? Buffer.allocUnsafeSlow(scanBytes) : undefined)) {
      left -= chunk.length
      yield chunk
    }
  } catch (error) {
    if (isErrno(error, 'EBADF')) throw new StorageError('CLOSED', 'reading a layer: the source is closed', {}, { cause: error })
    throw asStorageError(error, 'reading a layer')
  }
  if (left > 0) throw new StorageError('INVALID_ARCHIVE', `unexpected end of archive: ${left} bytes of a layer are missing`)
}

const scanBytes = 512 * 1024

/** What squashing and the like need of a source. @throws INVALID_ARGUMENT when it is no image */
export function imageConfigOf({ name, config, imageId, layers }: ImageSource, what: string): { readonly config: ImageConfig; readonly imageId: Digest } {
  if (config === undefined || imageId === undefined || layers.length === 0) {
    throw new StorageError('INVALID_ARGUMENT', `cannot ${what} ${name}: it is not an image with layers`, { key: name })
  }
  return { config, imageId }
}

/** An image made here: a config, and layers that may be other sources'. */
export function composedImage(parts: Pick<ImageSource, 'name' | 'layers' | 'references'> & { readonly configBytes: Buffer; readonly close?: () => void }): ImageSource {
  const { name, layers, references, configBytes, close } = parts
  const config = decodeConfig(configBytes)
  const steps = stepsOf(config), chain = chainIdsOf(config.diffIds)
  return sourceOf({
    name, kind: 'image', references, image: { imageId: imageIdOf(configBytes), config, configBytes },
    layers: layers.map((layer, index) => ({ ...layer, index, chainId: chain[index] as ChainId, ...factsOf(steps[index]) })), ...(close === undefined ? {} : { close }),
  })
}
