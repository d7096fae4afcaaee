// vfs's daemon options and its options per layer, in Docker's words.

import { StorageError } from '../../lib/errors.ts'
import { splitPair } from '../../lib/driver-options.ts'

export interface VfsOptions {
  /** Default size limit of each writable layer, as given. Needs project quota. */
  readonly size?: string
  /** `vfs.xattrs=i_want_broken_containers`: attributes that the file system cannot hold are left out rather than fatal. Default false. */
  readonly bestEffortXattrs?: boolean
}

/** @throws INVALID_ARGUMENT */
export function parseOptions(pairs: readonly string[]): VfsOptions {
  let options: VfsOptions = {}
  for (const pair of pairs) {
    const [key, value] = splitPair(pair)
    switch (key.toLowerCase()) {
      case 'size':
      case 'vfs.size':
        options = { ...options, size: value }
        break
      case 'vfs.xattrs':
        if (value !== 'i_want_broken_containers') throw invalid('do not set the vfs.xattrs option unless you are willing to accept the consequences')
        options = { ...options, bestEffortXattrs: true }
        break
      default:
        throw invalid(`unknown option ${key} for vfs`, 'known: size, vfs.xattrs')
    }
  }
  return options
}

function invalid(message: string, hint?: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', message, { driver: 'vfs', ...(hint === undefined ? {} : { hint }) })
}

export function quotaUnsupported(): StorageError {
  return new StorageError('NOT_SUPPORTED', 'Filesystem does not support, or has not enabled quotas', { driver: 'vfs' })
}

/** Check a layer's own options. @throws INVALID_ARGUMENT, NOT_SUPPORTED */
export function checkLayerOptions(storageOptions: Readonly<Record<string, string>> | undefined, writable: boolean): void {
  const keys = Object.keys(storageOptions ?? {})
  if (keys.length > 0 && !writable) throw invalid('--storage-opt is not supported for vfs on read-only layers')
  for (const key of keys) {
    if (key.toLowerCase() !== 'size') throw invalid(`Storage opt ${key} not supported`, 'known: size')
    throw quotaUnsupported()
  }
}
