// A volume as users see it: its shapes, and how it is made of what its driver and the database know. Pure.

import { StorageError } from '../errors.ts'
import type { DriverVolume, VolumeDriver } from './driver.ts'
import type { VolumeFilters } from './filters.ts'
import type { VolumeMetadata } from './metadata.ts'
import { anonymousLabel } from './name.ts'

export interface Volume {
  readonly name: string
  readonly driver: string
  readonly scope: 'local' | 'global'
  /** Where its data lies once it is mounted. */
  readonly mountpoint: string
  /** RFC 3339, to the second. */
  readonly createdAt?: string
  readonly labels: Readonly<Record<string, string>>
  readonly options: Readonly<Record<string, string>>
  /** Made without a name. */
  readonly anonymous: boolean
  readonly status?: Readonly<Record<string, unknown>>
}

/** A volume as `docker volume inspect` prints it. */
export interface VolumeInspect {
  readonly CreatedAt?: string
  readonly Driver: string
  readonly Labels: Readonly<Record<string, string>> | null
  readonly Mountpoint: string
  readonly Name: string
  readonly Options: Readonly<Record<string, string>> | null
  readonly Scope: string
  readonly Status?: Readonly<Record<string, unknown>>
}

export interface CreateVolumeOptions {
  /** Default `local`. */
  readonly driver?: string
  readonly options?: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
  /** Refer to it from the beginning, as `use` does. */
  readonly reference?: string
}

export interface PruneVolumesOptions {
  /** Named volumes as well. Default false. */
  readonly all?: boolean
  /** `label`, `label!`, `all`. */
  readonly filters?: VolumeFilters
  readonly signal?: AbortSignal
}

export interface RestoreVolumeOptions extends Pick<CreateVolumeOptions, 'driver' | 'options' | 'labels'> {
  readonly signal?: AbortSignal
  /** Bytes of the source taken so far. */
  readonly onProgress?: (bytes: number) => void
}

/** A mounted volume; disposing gives the hold back. */
export interface MountedVolume extends AsyncDisposable {
  readonly path: string
  unmount(): Promise<void>
}

/** Who refers to volumes, beside what `use` wrote down. */
export type ReferenceSource = () => Iterable<{ readonly volume: string; readonly reference: string }>

export function nullIfEmpty(map: Readonly<Record<string, string>> | undefined): Readonly<Record<string, string>> | null {
  return map === undefined || Object.keys(map).length === 0 ? null : map
}

export function volumeOf(driver: VolumeDriver, volume: DriverVolume, metadata: VolumeMetadata | undefined): Volume {
  const known = metadata?.Driver === driver.name ? metadata : undefined
  const labels = known?.Labels ?? {}
  return {
    name: volume.name, driver: driver.name, scope: driver.scope, mountpoint: volume.mountpoint, labels, options: known?.Options ?? volume.options,
    anonymous: labels[anonymousLabel] !== undefined,
    ...(volume.createdAt === undefined ? {} : { createdAt: volume.createdAt }), ...(volume.status === undefined ? {} : { status: volume.status }),
  }
}

/** @throws ALREADY_EXISTS when the volume there is differs from what was asked for */
export function mustAgree(existing: Volume, asked: CreateVolumeOptions): void {
  const refuse = (what: string): StorageError => new StorageError('ALREADY_EXISTS', `create ${existing.name}: ${what}`,
    { op: 'create', key: existing.name, hint: 'ask for what it has, or remove it first' })
  if (asked.driver !== undefined && asked.driver !== existing.driver) throw refuse(`driver '${existing.driver}' already has volume '${existing.name}': volume name must be unique`)
  for (const key of ['options', 'labels'] as const) {
    const wanted = asked[key]
    if (wanted === undefined || Object.keys(wanted).length === 0 || same(wanted, existing[key])) continue
    throw refuse(`the volume exists with other ${key}: it has ${JSON.stringify(existing[key])}, asked for was ${JSON.stringify(wanted)}`)
  }
}

function same(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every(key => a[key] === b[key])
}

/** In the words of Docker's API. */
export function inspectOf(volume: Volume): VolumeInspect {
  const { createdAt, driver, labels, mountpoint, name, options, scope, status } = volume
  return {
    ...(createdAt === undefined ? {} : { CreatedAt: createdAt }), Driver: driver, Labels: nullIfEmpty(labels), Mountpoint: mountpoint, Name: name,
    Options: nullIfEmpty(options), Scope: scope, ...(status === undefined ? {} : { Status: status }),
  }
}
