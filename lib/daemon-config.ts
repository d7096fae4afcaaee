// What a daemon.json says about storage: storage-driver, storage-opts, data-root. Everything else in it is dockerd's business.

import fs from 'node:fs'
import { asStorageError, StorageError } from './errors.ts'

export interface DaemonConfig {
  readonly root?: string
  readonly driver?: string
  readonly storageOptions?: readonly string[]
}

/** @throws NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not JSON, or a key of the wrong type) */
export function readDaemonConfig(file: string): DaemonConfig {
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    throw asStorageError(error, `reading ${file}`, { op: 'open', path: file })
  }
  const invalid = (why: string): StorageError => new StorageError('INVALID_ARGUMENT', `${file}: ${why}`, { op: 'open', path: file })
  let config: unknown
  try {
    // dockerd takes an empty file, and a byte order mark (moby daemon/config/config.go, getConflictFreeConfiguration).
    config = text.trim() === '' ? {} : JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch (error) {
    throw invalid(`not JSON: ${(error as Error).message}`)
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) throw invalid('not a JSON object')
  const keys = config as Readonly<Record<string, unknown>>
  const string = (key: string): string | undefined => {
    const value = keys[key]
    if (value !== undefined && typeof value !== 'string') throw invalid(`${key} is not a string`)
    return value === '' ? undefined : value
  }
  const options = keys['storage-opts']
  if (options !== undefined && !(Array.isArray(options) && options.every(option => typeof option === 'string'))) throw invalid('storage-opts is not a list of strings')
  const root = string('data-root') ?? string('graph'), driver = string('storage-driver')
  return { ...(root === undefined ? {} : { root }), ...(driver === undefined ? {} : { driver }), ...(options === undefined ? {} : { storageOptions: options as string[] }) }
}
