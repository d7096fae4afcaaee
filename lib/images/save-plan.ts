// What goes into a saved archive: which images and names the user means, and the JSON documents that describe them. Deterministic: images by id,
// names sorted. Writes nothing.

import { StorageError } from '../errors.ts'
import { chainIdOf, hexOf, isDigest, sha256 } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { TarHeader } from '../tar/types.ts'
import { blobPath } from './archive.ts'
import { decodeConfig } from './config.ts'
import type { ImageConfig } from './config.ts'
import { noSuchImage } from './context.ts'
import type { ImageContext } from './context.ts'
import { goJson, sortKeys } from './json.ts'
import { mediaTypes } from './oci.ts'
import { familiarName, familiarString, fullString, parseReference } from './reference.ts'
import type { Reference } from './reference.ts'

export interface ImageToSave {
  readonly imageId: Digest
  readonly configBytes: Buffer
  readonly config: ImageConfig
  /** Tags, sorted. */
  readonly tags: readonly Reference[]
  /** Base first. */
  readonly layers: readonly { readonly chainId: ChainId; readonly diffId: Digest }[]
  /** Seconds since 1970: the time of its files in the archive, as Docker 25 and later give them. */
  readonly createdSeconds: number
}

/** @throws NOT_FOUND, INVALID_ARGUMENT, CORRUPT */
export function imagesToSave(context: ImageContext, references: readonly string[]): ImageToSave[] {
  const names = context.repositories.read()
  const chosen = new Map<Digest, Map<string, Reference>>()
  const add = (imageId: Digest, ref?: Reference): void => {
    const tags = chosen.get(imageId) ?? new Map<string, Reference>()
    chosen.set(imageId, tags)
    // A digest is no name that an archive could carry.
    if (ref?.tag !== undefined && ref.digest === undefined) tags.set(familiarString(ref), ref)
  }
  for (const text of references) {
    const whole = /^[a-f0-9]{64}$/.test(text) ? `sha256:${text}` : text
    if (isDigest(whole) || text.startsWith('sha256:')) {
      add(context.resolve(text, names))
      continue
    }
    const ref = parseReference(text)
    if (ref.tag === undefined && ref.digest === undefined) {
      // A name alone stands for all its tags; where there is no such name it may be the beginning of an id.
      const all = names.ofName(ref)
      for (const entry of all) add(entry.imageId, entry.ref)
      if (all.length === 0) add(context.resolve(text, names))
      continue
    }
    const imageId = names.get(ref)
    if (imageId === undefined || !context.db.has(imageId)) throw noSuchImage(familiarString(ref))
    add(imageId, ref)
  }
  return [...chosen].sort(([a], [b]) => a < b ? -1 : 1).map(([imageId, tags]) => imageToSave(context, imageId, [...tags.values()]))
}

function imageToSave(context: ImageContext, imageId: Digest, tags: readonly Reference[]): ImageToSave {
  const configBytes = context.db.read(imageId)
  const config = decodeConfig(configBytes, 'CORRUPT')
  if (config.diffIds.length === 0) throw new StorageError('FAILED_PRECONDITION', `cannot save ${imageId}: it has no layers`, { key: imageId })
  const layers: { chainId: ChainId; diffId: Digest }[] = []
  for (const diffId of config.diffIds) layers.push({ chainId: chainIdOf(layers.at(-1)?.chainId, diffId), diffId })
  const created = Date.parse(config.created ?? '')
  return {
    imageId, configBytes, config, layers, tags: [...tags].sort((a, b) => familiarString(a) < familiarString(b) ? -1 : 1),
    createdSeconds: Number.isNaN(created) || created < 0 ? 0 : Math.floor(created / 1000),
  }
}

/** One of the layers that are in an archive. */
export interface LayerToSave {
  readonly chainId: ChainId
  readonly diffId: Digest
  readonly createdSeconds: number
}

/** The layers of the images, each once: one diffID may be in several chains, and its tar is the same. */
export function layersToSave(images: readonly ImageToSave[]): LayerToSave[] {
  const layers = new Map<Digest, LayerToSave>()
  for (const image of images) {
    for (const { chainId, diffId } of image.layers) if (!layers.has(diffId)) layers.set(diffId, { chainId, diffId, createdSeconds: image.createdSeconds })
  }
  return [...layers.values()]
}

/** A layer as it lies in the archive. */
export interface LayerBlob {
  readonly mediaType: string
  readonly digest: Digest
  readonly sizeBytes: number
}

/** A document with its place in the archive. */
export interface Document {
  readonly path: string
  readonly bytes: Buffer
  readonly mtimeSeconds: number
}

/** The entry of a file or folder (`…/`) of an archive that we write. */
export function headerOf(name: string, sizeBytes: number, mtimeSeconds: number): TarHeader {
  const isDirectory = name.endsWith('/')
  return {
    name: Buffer.from(name), type: isDirectory ? 'directory' : 'file', mode: isDirectory ? 0o755 : 0o644, uid: 0, gid: 0, sizeBytes,
    mtimeNs: BigInt(mtimeSeconds) * 1_000_000_000n, linkname: Buffer.alloc(0), uname: '', gname: '', devMajor: 0, devMinor: 0,
  }
}

/** Configs and manifests of all images, then the files at the archive's top. Blobs of one digest are written once. */
export function documentsOf(images: readonly ImageToSave[], blobs: ReadonlyMap<Digest, LayerBlob>, format: 'docker' | 'oci'): Document[] {
  const documents = new Map<string, Document>()
  const add = (path: string, bytes: Buffer, mtimeSeconds = 0): void => {
    if (!documents.has(path)) documents.set(path, { path, bytes, mtimeSeconds })
  }
  const descriptors: object[] = []
  for (const image of images) {
    const manifest = manifestOf(image, blobs)
    const digest = sha256(manifest)
    add(blobPath(image.imageId), image.configBytes, image.createdSeconds)
    add(blobPath(digest), manifest, image.createdSeconds)
    const { architecture, os, variant } = image.config
    const descriptor = {
      mediaType: mediaTypes.manifest, digest, size: manifest.length,
      ...(architecture === '' ? {} : { platform: { architecture, os, ...(variant === undefined ? {} : { variant }) } }),
    }
    for (const tag of image.tags) {
      const { platform, ...rest } = { platform: undefined, ...descriptor }
      descriptors.push({
        ...rest, annotations: { 'io.containerd.image.name': fullString(tag), 'org.opencontainers.image.ref.name': tag.tag },
        ...(platform === undefined ? {} : { platform }),
      })
    }
    if (image.tags.length === 0) descriptors.push(descriptor)
  }
  add('index.json', json({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: descriptors }))
  if (format === 'docker') add('manifest.json', json(images.map(image => dockerManifest(image, blobs))))
  add('oci-layout', json({ imageLayoutVersion: '1.0.0' }))
  if (format === 'docker') add('repositories', json(legacyRepositories(images)))
  return [...documents.values()]
}

function json(value: unknown): Buffer {
  return Buffer.from(goJson(value))
}

function blobOf(blobs: ReadonlyMap<Digest, LayerBlob>, diffId: Digest): LayerBlob {
  const blob = blobs.get(diffId)
  if (blob === undefined) throw new TypeError(`layer ${diffId} was not written`)
  return blob
}

function manifestOf({ imageId, configBytes, layers }: ImageToSave, blobs: ReadonlyMap<Digest, LayerBlob>): Buffer {
  return json({
    schemaVersion: 2, mediaType: mediaTypes.manifest,
    config: { mediaType: mediaTypes.config, digest: imageId, size: configBytes.length },
    layers: layers.map(({ diffId }) => {
      const { mediaType, digest, sizeBytes } = blobOf(blobs, diffId)
      return { mediaType, digest, size: sizeBytes }
    }),
  })
}

/** LayerSources stays out: dockerd would keep it as the descriptor of a foreign layer. */
function dockerManifest({ imageId, tags, layers }: ImageToSave, blobs: ReadonlyMap<Digest, LayerBlob>): object {
  return {
    Config: blobPath(imageId), RepoTags: tags.length === 0 ? null : tags.map(familiarString),
    Layers: layers.map(({ diffId }) => blobPath(blobOf(blobs, diffId).digest)),
  }
}

/** For readers older than manifest.json: name → tag → top layer. */
function legacyRepositories(images: readonly ImageToSave[]): object {
  const names: Record<string, Record<string, string>> = {}
  for (const { tags, layers } of images) {
    const top = layers.at(-1)
    for (const tag of tags) if (top !== undefined && tag.tag !== undefined) (names[familiarName(tag)] ??= {})[tag.tag] = hexOf(top.diffId)
  }
  return sortKeys(Object.fromEntries(Object.entries(names).map(([name, tags]) => [name, sortKeys(tags)])))
}
