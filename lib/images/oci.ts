// OCI image layouts, read: index.json, nested indexes, manifests (OCI's and Docker's schema 2), the choice of a platform. Every document is
// verified by digest and size before it is believed. Makes nothing.

import { StorageError } from '../errors.ts'
import { isDigest } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { blobPath, readBlob } from './archive.ts'
import type { Archive } from './archive.ts'
import { decodeConfig, imageIdOf } from './config.ts'
import { Fields, parseJson } from './json.ts'
import { annotatedReference, checkOs, noPlatform } from './plan.ts'
import type { PlannedImage, PlanOptions } from './plan.ts'
import { hostPlatform, platformFit } from './platform.ts'
import type { Platform } from './platform.ts'
import type { Reference } from './reference.ts'
import { familiarString } from './reference.ts'

export const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
} as const

const indexTypes = new Set<string>([mediaTypes.index, 'application/vnd.docker.distribution.manifest.list.v2+json'])
const manifestTypes = new Set<string>([mediaTypes.manifest, 'application/vnd.docker.distribution.manifest.v2+json'])
const configTypes = new Set<string>([mediaTypes.config, 'application/vnd.docker.container.image.v1+json', 'application/octet-stream'])
/** What is compressed how is told by the first bytes, as Docker does; `+encrypted` and unknown kinds are no tars. */
const layerTypes = [
  /^application\/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?$/,
  /^application\/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?$/,
]
const deepest = 4
const mostDescriptors = 10_000

interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly sizeBytes: number
  readonly annotations: Readonly<Record<string, string>>
  readonly platform?: Platform
  /** A statement about another image (buildkit's provenance), not an image. */
  readonly attestation: boolean
}

function descriptorOf(fields: Fields): Descriptor {
  const digest = fields.mustString('digest')
  if (!isDigest(digest)) throw new StorageError('INVALID_ARCHIVE', `invalid index: unsupported digest ${JSON.stringify(digest)}`)
  const platform = fields.object('platform')
  const variant = platform?.string('variant'), os = platform?.string('os') ?? '', architecture = platform?.string('architecture') ?? ''
  const annotations = fields.map('annotations')
  return {
    digest, sizeBytes: fields.mustSize('size'), mediaType: fields.string('mediaType') ?? '', annotations,
    ...(platform === undefined || os === '' ? {} : { platform: { os, architecture, ...(variant ? { variant } : {}) } }),
    attestation: os === 'unknown' || annotations['vnd.docker.reference.type'] === 'attestation-manifest',
  }
}

/** A manifest or an index, told by what it has: mediaType may be missing, but may not lie, and nothing may be both (CVE-2021-41190). */
function documentOf(bytes: Buffer, what: string, mediaType: string): { kind: 'index' | 'manifest'; fields: Fields } {
  const fields = new Fields(parseJson(bytes, what), what)
  const isIndex = fields.has('manifests'), isManifest = fields.has('config') || fields.has('layers')
  if (isIndex === isManifest) throw new StorageError('INVALID_ARCHIVE', `${what}: it is ${isIndex ? 'both' : 'neither'} an index and a manifest`)
  const kind = isIndex ? 'index' : 'manifest'
  for (const type of [mediaType, fields.string('mediaType') ?? '']) {
    if ((isIndex ? manifestTypes : indexTypes).has(type)) {
      throw new StorageError('INVALID_ARCHIVE', `${what}: it is ${isIndex ? 'an index' : 'a manifest'}, and its media type is ${type}`)
    }
  }
  return { kind, fields }
}

/** A descriptor whose document has been read. */
interface Found extends Descriptor {
  readonly manifest: Fields
  readonly what: string
}

class OciReader {
  readonly #archive: Archive
  readonly #options: PlanOptions
  #budget = mostDescriptors

  constructor(archive: Archive, options: PlanOptions) {
    this.#archive = archive
    this.#options = options
  }

  descriptors(index: Fields): Descriptor[] {
    const items = index.each('manifests')
    this.#budget -= items.length
    if (this.#budget < 0) throw new StorageError('LIMIT_EXCEEDED', `the index of ${this.#archive.name} names more than ${mostDescriptors} images`)
    return items.map(descriptorOf).filter(item => !item.attestation)
  }

  /** The manifest behind a descriptor; of an index, the one for the wanted platform. Undefined for what is no image. */
  resolve(descriptor: Descriptor, depth = 0): Found | undefined {
    const { digest, sizeBytes } = descriptor
    const what = `invalid manifest ${digest}`
    const { kind, fields } = documentOf(readBlob(this.#archive, digest, sizeBytes, this.#options.limits), what, descriptor.mediaType)
    if (kind === 'manifest') {
      const isImage = configTypes.has(fields.object('config')?.string('mediaType') ?? mediaTypes.config)
      return isImage ? { ...descriptor, manifest: fields, what } : undefined
    }
    if (depth >= deepest) throw new StorageError('LIMIT_EXCEEDED', `the indexes in ${this.#archive.name} are nested more than ${deepest} deep`)
    const chosen = this.choose(this.descriptors(fields))
    return chosen === undefined ? undefined : this.resolve(chosen, depth + 1)
  }

  /** Of several descriptors that stand for one image, the one for the wanted platform. Undefined when there are none. */
  choose(items: readonly Descriptor[]): Descriptor | undefined {
    const explicit = this.#options.platform
    if (items.length === 0) return undefined
    const [only] = items
    if (items.length === 1 && explicit === undefined) return only
    const wanted = explicit ?? hostPlatform()
    const fit = (item: Descriptor): number => item.platform === undefined ? (items.length === 1 ? 1 : 0) : platformFit(wanted, item.platform)
    const best = items.reduce((a, b) => fit(b) > fit(a) ? b : a)
    if (fit(best) === 0) throw noPlatform(this.#archive.name, wanted, items.flatMap(item => item.platform ?? []))
    return best
  }

  plan(found: Found, references: readonly Reference[]): PlannedImage {
    const { limits, platform } = this.#options
    const descriptor = descriptorOf(found.manifest.mustObject('config'))
    const configBytes = readBlob(this.#archive, descriptor.digest, descriptor.sizeBytes, limits)
    const config = decodeConfig(configBytes)
    checkOs(config)
    if (platform !== undefined && platformFit(platform, config) === 0) throw noPlatform(this.#archive.name, platform, [config])
    const layers = found.manifest.each('layers').map(descriptorOf)
    if (layers.length !== config.diffIds.length) {
      throw new StorageError('INVALID_ARCHIVE', `invalid manifest, layers length mismatch: expected ${layers.length}, got ${config.diffIds.length}`)
    }
    return {
      imageId: imageIdOf(configBytes), configBytes, config, references,
      layers: layers.map(({ digest, sizeBytes, mediaType }, i) => {
        if (mediaType !== '' && !layerTypes.some(type => type.test(mediaType))) {
          throw new StorageError('INVALID_ARCHIVE', `${found.what}: layer ${i} has the media type ${mediaType}, which is not a tar`)
        }
        return { path: blobPath(digest), diffId: config.diffIds[i] as Digest, blob: { digest, sizeBytes } }
      }),
    }
  }
}

/**
 * The images of an OCI layout. Descriptors of one name, or without names but for different platforms, are one image of which the fitting
 * platform is taken; the same image under several names is one with several references.
 */
export function planOci(archive: Archive, bytes: Buffer, options: PlanOptions): PlannedImage[] {
  const reader = new OciReader(archive, options)
  const { kind, fields } = documentOf(bytes, 'invalid index.json', '')
  if (kind !== 'index') throw new StorageError('INVALID_ARCHIVE', 'invalid index.json: it is a manifest')
  const groups = new Map<string, { reference: Reference | undefined; items: Descriptor[] }>()
  for (const [i, item] of reader.descriptors(fields).entries()) {
    const reference = annotatedReference(item.annotations, options.name)
    // Without a name, only what differs in platform alone can be taken for one image.
    const tag = item.annotations['org.opencontainers.image.ref.name']
    const key = reference !== undefined ? `name ${familiarString(reference)}` : tag !== undefined ? `tag ${tag}` : item.platform === undefined ? `#${i}` : ''
    const group = groups.get(key) ?? { reference, items: [] }
    group.items.push(item)
    groups.set(key, group)
  }
  const images = new Map<Digest, PlannedImage>()
  for (const { reference, items } of groups.values()) {
    const platforms = new Set(items.map(item => JSON.stringify(item.platform)))
    const candidates = platforms.size === items.length ? [reader.choose(items)] : items
    for (const candidate of candidates) {
      const found = candidate === undefined ? undefined : reader.resolve(candidate)
      if (found === undefined) continue
      const image = reader.plan(found, reference === undefined ? [] : [reference])
      const known = images.get(image.imageId)
      images.set(image.imageId, known === undefined ? image : { ...known, references: [...known.references, ...image.references] })
    }
  }
  return [...images.values()]
}
