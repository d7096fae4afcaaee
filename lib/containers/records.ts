// The records of containers as they lie on disk, remembered while their files are the same: a create looks at every name, a prune at every volume.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { readContainer } from './config.ts'
import type { ContainerRecord } from './config.ts'
import { readMountPoints } from './mount-points.ts'
import type { MountPointRecord } from './mount-points.ts'

interface Known {
  readonly version: string
  readonly record: ContainerRecord | undefined
  volumes?: readonly string[]
}

export class ContainerRecords {
  readonly #dir: string
  readonly #known = new Map<string, Known>()

  /** `dir` holds a folder for each container, of its id. */
  constructor(dir: string) { this.#dir = dir }

  ids(): string[] {
    try {
      return fs.readdirSync(this.#dir).filter(name => /^[a-f0-9]{64}$/.test(name))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return []
      throw error
    }
  }

  /** The record as it is now, read again when its file is another. @throws CORRUPT */
  get(id: string): ContainerRecord | undefined {
    return this.#look(id)?.record
  }

  /** Undefined also for one that is damaged: `get` says how, and nobody else is stopped by it. */
  readable(id: string): ContainerRecord | undefined {
    try {
      return this.get(id)
    } catch (error) {
      if (StorageError.is(error, 'CORRUPT')) return undefined
      throw error
    }
  }

  /** The volumes that the record names. @throws CORRUPT */
  volumes(id: string): readonly string[] {
    const known = this.#look(id)
    return known === undefined ? [] : known.volumes ??= volumesOf(readMountPoints(path.join(this.#dir, id)))
  }

  forget(id: string): void {
    this.#known.delete(id)
  }

  #look(id: string): Known | undefined {
    const dir = path.join(this.#dir, id)
    const stat = fs.statSync(path.join(dir, 'config.v2.json'), { bigint: true, throwIfNoEntry: false })
    const version = stat === undefined ? undefined : `${stat.ino} ${stat.ctimeNs} ${stat.size}`
    const known = this.#known.get(id)
    if (version !== undefined && known?.version === version) return known
    this.#known.delete(id)
    if (version === undefined) return undefined
    const fresh: Known = { version, record: readContainer(dir) }
    this.#known.set(id, fresh)
    return fresh
  }
}

export function volumesOf(points: Readonly<Record<string, MountPointRecord>>): string[] {
  return Object.values(points).flatMap(({ Type, Name }) => Type === 'volume' && Name !== '' ? [Name] : [])
}
