// Mount points of containers as Docker keeps them: in `config.v2.json` (volumes, binds, tmpfs of --mount) and in `hostconfig.json` (--tmpfs).
// Reads and shapes them; makes nothing.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError, told } from '../errors.ts'
import type { MountPoint, MountSpec } from '../volumes/index.ts'

/** A mount point under its destination in `config.v2.json`. Source: moby volume/mounts.MountPoint. */
export interface MountPointRecord {
  readonly Type: string
  /** The path on the host; for a volume that of its data. */
  readonly Source: string
  readonly Destination: string
  readonly RW: boolean
  /** A volume's name. */
  readonly Name: string
  readonly Driver: string
  /** The mode of `-v`. */
  readonly Relabel?: string
  readonly Propagation?: string
  readonly Spec: MountSpec
  /** A missing source of the bind is an error; else it is made. */
  readonly SkipMountpointCreation: boolean
}

export interface ContainerMounts {
  /** By destination. */
  readonly points: Readonly<Record<string, MountPointRecord>>
  /** Destinations and options of --tmpfs. */
  readonly tmpfs: Readonly<Record<string, string>>
}

/** What of `hostconfig.json` says how the mounts were asked for. */
export interface MountHostConfig {
  readonly Binds: readonly string[] | null
  readonly VolumesFrom: readonly string[] | null
  readonly VolumeDriver: string
  readonly Tmpfs?: Readonly<Record<string, string>>
  readonly Mounts?: readonly MountSpec[]
}

export function recordOf(point: MountPoint, skipCreation: boolean): MountPointRecord {
  const { Type, Source, Destination, RW, Name, Driver, Mode, Propagation, Spec } = point
  return {
    Source, Destination, RW, Name, Driver, Type, ...(Mode === '' ? {} : { Relabel: Mode }), ...(Propagation === '' ? {} : { Propagation }), Spec,
    SkipMountpointCreation: skipCreation,
  }
}

function readJson(file: string): Record<string, unknown> {
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return {}
    throw told(error, `reading ${file}`)
  }
  try {
    const json = JSON.parse(text) as unknown
    return isObject(json) ? json : {}
  } catch (error) {
    throw new StorageError('CORRUPT', `container ${path.basename(path.dirname(file))}: ${path.basename(file)} is not JSON (${(error as Error).message})`,
      { path: file })
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const text = (value: unknown): string => typeof value === 'string' ? value : ''

/** The mount points of the container whose files are in `dir`; none where there is none. @throws CORRUPT */
export function readMountPoints(dir: string): Record<string, MountPointRecord> {
  const points = readJson(path.join(dir, 'config.v2.json'))['MountPoints']
  if (!isObject(points)) return {}
  return Object.fromEntries(Object.entries(points).flatMap(([destination, point]): [string, MountPointRecord][] => {
    if (!isObject(point)) return []
    const name = text(point['Name']), relabel = text(point['Relabel']), propagation = text(point['Propagation'])
    return [[destination, {
      // Records of before Docker 1.13 have no type.
      Type: text(point['Type']) || (name === '' ? 'bind' : 'volume'),
      Source: text(point['Source']), Destination: text(point['Destination']) || destination, RW: point['RW'] === true, Name: name, Driver: text(point['Driver']),
      ...(relabel === '' ? {} : { Relabel: relabel }), ...(propagation === '' ? {} : { Propagation: propagation }),
      Spec: isObject(point['Spec']) ? point['Spec'] as MountSpec : {}, SkipMountpointCreation: point['SkipMountpointCreation'] === true,
    }]]
  }))
}

/** @throws CORRUPT */
export function readContainerMounts(dir: string): ContainerMounts {
  const tmpfs = readJson(path.join(dir, 'hostconfig.json'))['Tmpfs']
  return { points: readMountPoints(dir), tmpfs: isObject(tmpfs) ? Object.fromEntries(Object.entries(tmpfs).map(([key, value]) => [key, text(value)])) : {} }
}
