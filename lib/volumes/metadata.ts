// Labels and options of volumes where dockerd keeps them: `volumes/metadata.db`, bucket `volumes`, name → JSON. The anonymous mark lives only
// here. Source: moby volume/service/db.go.

import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isErrno, StorageError } from '../errors.ts'
import type { DataRoot } from '../layers/index.ts'
import { isLocked, lock } from '../sys/lock.ts'
import { BoltFile } from '../bbolt/index.ts'
import type { BoltBucket } from '../bbolt/index.ts'
import { volumePaths } from './paths.ts'

const bucketName = 'volumes'

export interface VolumeMetadata {
  readonly Name: string
  readonly Driver: string
  readonly Labels: Readonly<Record<string, string>> | null
  readonly Options: Readonly<Record<string, string>> | null
}

export class VolumeDatabase {
  readonly #root: DataRoot
  readonly #file: BoltFile

  constructor(root: DataRoot) {
    this.#root = root
    this.#file = new BoltFile(volumePaths.metadata(root))
  }

  /** @throws CORRUPT */
  get(name: string): VolumeMetadata | undefined {
    return decode(this.#file.read().bucket(bucketName), name)
  }

  /** Every entry, also of volumes that are gone. */
  all(): Map<string, VolumeMetadata> {
    const bucket = this.#file.read().bucket(bucketName)
    const all = new Map<string, VolumeMetadata>()
    for (const [key] of bucket?.entries() ?? []) {
      const entry = decode(bucket, key.toString())
      if (entry !== undefined) all.set(entry.Name, entry)
    }
    return all
  }

  async set(entry: VolumeMetadata): Promise<void> {
    // Go's encoder sorts the keys of maps.
    const { Name, Driver, Labels, Options } = entry
    const text = JSON.stringify({ Name, Driver, Labels: sorted(Labels), Options: sorted(Options) })
    await this.#update(bucket => bucket.put(Name, text))
  }

  async delete(...names: readonly string[]): Promise<void> {
    if (names.length === 0) return
    await this.#update(bucket => {
      for (const name of names) bucket.delete(name)
    })
  }

  /** Our own lock first, so that who finds bbolt's lock taken while holding ours knows that it is a dockerd's. */
  async #update(change: (bucket: BoltBucket) => void): Promise<void> {
    const own = await lock(ownLock(this.#root.path))
    try {
      await this.#file.update(root => change(root.makeBucket(bucketName)), { sync: this.#root.durability !== 'none', timeoutMs: 1000 })
    } finally {
      own.release()
    }
  }
}

function ownLock(root: string): string {
  return path.join(root, 'layerstack', 'volumes', 'metadata.lock')
}

/** Does a dockerd have the data root in use? It holds bbolt's lock on `volumes/metadata.db` for as long as it runs; layerstack for a moment. */
export async function dockerdHolds(root: string): Promise<boolean> {
  const file = path.join(root, 'volumes', 'metadata.db')
  if (!isLocked(file)) return false
  const own = ownLock(root)
  if (!fs.existsSync(path.dirname(own))) return true
  let held
  try {
    held = await lock(own)
  } catch (error) {
    // A root that we may not write to: a writer of ours would be gone in a moment.
    if (!isErrno(error, 'EACCES', 'EROFS', 'EPERM')) throw error
    await sleep(100)
    return isLocked(file)
  }
  try {
    return isLocked(file)
  } finally {
    held.release()
  }
}

function sorted(map: Readonly<Record<string, string>> | null): Readonly<Record<string, string>> | null {
  return map === null ? null : Object.fromEntries(Object.entries(map).sort(([a], [b]) => a < b ? -1 : 1))
}

function decode(bucket: BoltBucket | undefined, name: string): VolumeMetadata | undefined {
  const value = bucket?.get(name)
  // dockerd passes over empty values as well.
  if (value === undefined || value.length === 0) return undefined
  let json: Partial<VolumeMetadata>
  try {
    json = JSON.parse(value.toString()) as Partial<VolumeMetadata>
  } catch (error) {
    throw new StorageError('CORRUPT', `volumes/metadata.db: the entry of ${JSON.stringify(name)} is not JSON (${(error as Error).message})`, { key: name })
  }
  return { Name: json.Name ?? name, Driver: json.Driver || 'local', Labels: json.Labels ?? null, Options: json.Options ?? null }
}
