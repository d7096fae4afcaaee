// The records of containers as they lie on disk, remembered while their files are the same: a create looks at every name, a prune at every volume.

import path from 'node:path'
import { StorageError } from '../errors.ts'
import { namesIn } from '../fs/names-in.ts'
import { Remembered } from '../fs/remembered.ts'
import { readContainer } from './config.ts'
import type { ContainerRecord } from './config.ts'
import { readMountPoints } from './mount-points.ts'
import type { MountPointRecord } from './mount-points.ts'

interface Known {
  readonly record: ContainerRecord | undefined
  volumes?: readonly string[]
}

export class ContainerRecords {
  readonly #dir: string
  readonly #remembered = new Remembered<Known>()

  /** `dir` holds a folder for each container, of its id. */
  constructor(dir: string) { this.#dir = dir }

  ids(): string[] {
    return namesIn(this.#dir).filter(name => /^[a-f0-9]{64}$/.test(name))
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
    this.#remembered.forget(this.#file(id))
  }

  #file(id: string): string {
    return path.join(this.#dir, id, 'config.v2.json')
  }

  #look(id: string): Known | undefined {
    return this.#remembered.get(this.#file(id), () => ({ record: readContainer(path.join(this.#dir, id)) }))
  }
}

export function volumesOf(points: Readonly<Record<string, MountPointRecord>>): string[] {
  return Object.values(points).flatMap(({ Type, Name }) => Type === 'volume' && Name !== '' ? [Name] : [])
}
