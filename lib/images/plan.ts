// What an archive holds, as docker-archive.ts and oci.ts find it out before anything is written: images, their configs, names, and where each
// layer's blob lies; and the rules that both share. Reads nothing itself.

import { StorageError } from '../errors.ts'
import type { Digest } from '../ids.ts'
import type { ArchiveLimits } from '../tar/types.ts'
import type { ImageConfig } from './config.ts'
import { platformString } from './platform.ts'
import type { Platform } from './platform.ts'
import { parseReference } from './reference.ts'
import type { Reference } from './reference.ts'

export interface PlannedLayer {
  /** Name of the blob in the archive. */
  readonly path: string
  readonly diffId: Digest
  /** What the blob, as it is stored, must be. */
  readonly blob?: { readonly digest: Digest; readonly sizeBytes: number }
}

export interface PlannedImage {
  readonly imageId: Digest
  readonly configBytes: Buffer
  readonly config: ImageConfig
  readonly references: readonly Reference[]
  /** Base first, one for each diffID of the config. */
  readonly layers: readonly PlannedLayer[]
  /** The image that the archive calls its parent; used only when that image is there. */
  readonly parent?: Digest
}

export interface PlanOptions {
  /** Take only this platform. Default: this machine's where there is a choice. */
  readonly platform?: Platform
  /** The repository's name for OCI images whose only name is a tag. Default: such images stay without a name. */
  readonly name?: string
  readonly limits: ArchiveLimits
}

export function noPlatform(name: string, wanted: Platform, offered: readonly Platform[]): StorageError {
  const list = [...new Set(offered.map(platformString))].join(', ')
  return new StorageError('NOT_FOUND', `no image for platform ${platformString(wanted)} in ${name}: it has ${list}`, { hint: 'choose one of these platforms' })
}

export function checkOs(config: ImageConfig): void {
  if (config.os !== 'linux') throw new StorageError('INVALID_ARCHIVE', `cannot load ${config.os} image on linux`)
}

export function parseTag(text: string): Reference {
  const ref = parsed(text)
  if (ref.tag === undefined || ref.digest !== undefined) throw new StorageError('INVALID_ARCHIVE', `invalid tag ${JSON.stringify(text)}`)
  return ref
}

/** The name that the annotations of an OCI descriptor give, if any; `repository` completes one that is a tag alone. @throws INVALID_ARCHIVE */
export function annotatedReference(annotations: Readonly<Record<string, string>>, repository: string | undefined): Reference | undefined {
  const full = annotations['io.containerd.image.name'], name = annotations['org.opencontainers.image.ref.name']
  if (full) return nameOf(full)
  if (!name) return undefined
  // The annotation is a bare tag by convention; some writers put a whole reference there (OCI image spec, annotations.md leaves it open).
  if (name.includes('/') || name.includes(':')) return nameOf(name)
  return repository === undefined ? undefined : parseTag(`${repository}:${name}`)
}

/** A tag, `latest` when there is none; a digest beside it is left out. */
function nameOf(text: string): Reference {
  const { domain, path, tag = 'latest' } = parsed(text)
  return { domain, path, tag }
}

function parsed(text: string): Reference {
  try {
    return parseReference(text)
  } catch (error) {
    throw new StorageError('INVALID_ARCHIVE', `invalid tag ${JSON.stringify(text)}: ${(error as Error).message}`, {}, { cause: error })
  }
}
