// Docker's archives, read: manifest.json, as `docker save` has written it since 1.10, with an OCI layout beside it since 25. Makes nothing.

import { StorageError } from '../errors.ts'
import { isDigest } from '../ids.ts'
import { readSmall } from './archive.ts'
import type { Archive } from './archive.ts'
import { decodeConfig, imageIdOf } from './config.ts'
import { Fields, parseJson } from './json.ts'
import { planOci } from './oci.ts'
import { checkOs, noPlatform, parseTag } from './plan.ts'
import type { PlannedImage, PlanOptions } from './plan.ts'
import { platformFit } from './platform.ts'

/**
 * Read what the archive holds. A tar with manifest.json is Docker's (so is what Docker 25 and later write, an OCI layout with manifest.json
 * beside it, as dockerd sees it); everything else is an OCI layout. @throws INVALID_ARCHIVE, NOT_FOUND (no such platform), LIMIT_EXCEEDED
 */
export function planLoad(archive: Archive, options: PlanOptions): PlannedImage[] {
  const manifest = archive.isDirectory && archive.find('index.json') !== undefined ? undefined : readSmall(archive, 'manifest.json', options.limits)
  if (manifest !== undefined) return planDocker(archive, manifest, options)
  const index = readSmall(archive, 'index.json', options.limits)
  if (index !== undefined) return planOci(archive, index, options)
  const legacy = archive.find('repositories') !== undefined
  throw new StorageError('INVALID_ARCHIVE', `${archive.name} holds no image: neither manifest.json nor index.json is in it`, {
    hint: legacy ? 'archives of Docker 1.9 and older are not read; load it with an older Docker and save it anew' : 'to make an image of a root file system, import it',
  })
}

function planDocker(archive: Archive, bytes: Buffer, options: PlanOptions): PlannedImage[] {
  const manifest = parseJson(bytes, 'invalid manifest')
  if (manifest === null) throw new StorageError('INVALID_ARCHIVE', 'invalid manifest, manifest cannot be null (but can be [])')
  if (!Array.isArray(manifest)) throw new StorageError('INVALID_ARCHIVE', 'invalid manifest: expected an array')
  const images = manifest.map((item, i) => planDockerImage(archive, new Fields(item, `invalid manifest, image ${i}`), options))
  const wanted = options.platform
  if (wanted === undefined) return images
  const fitting = images.filter(({ config }) => platformFit(wanted, config) > 0)
  if (fitting.length === 0 && images.length > 0) throw noPlatform(archive.name, wanted, images.map(image => image.config))
  return fitting
}

function planDockerImage(archive: Archive, item: Fields, { limits }: PlanOptions): PlannedImage {
  const configPath = item.mustString('Config')
  const configBytes = readSmall(archive, configPath, limits)
  if (configBytes === undefined) throw new StorageError('INVALID_ARCHIVE', `config ${configPath} is missing in ${archive.name}`)
  const config = decodeConfig(configBytes)
  checkOs(config)
  const paths = item.strings('Layers')
  if (paths.length !== config.diffIds.length) {
    throw new StorageError('INVALID_ARCHIVE', `invalid manifest, layers length mismatch: expected ${paths.length}, got ${config.diffIds.length}`)
  }
  const parent = item.string('Parent')
  return {
    imageId: imageIdOf(configBytes), configBytes, config,
    references: item.strings('RepoTags').map(parseTag),
    layers: config.diffIds.map((diffId, i) => ({ diffId, path: paths[i] as string })),
    ...(isDigest(parent) ? { parent } : {}),
  }
}
