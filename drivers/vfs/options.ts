// vfs's daemon options and its options per layer, in Docker's words.

import { StorageError } from '../../lib/errors.ts'
import type { CreateOptions } from '../../lib/driver.ts'
import { layerSize, parseSize, splitPair } from '../../lib/driver-options.ts'

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
        parseSize(value)
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

export function quotaUnsupported(why: string): StorageError {
  return new StorageError('NOT_SUPPORTED', 'Filesystem does not support, or has not enabled quotas', { driver: 'vfs', hint: `${why}: put the data root on xfs mounted with pquota, or on ext4 with prjquota` })
}

/** The limit of a new layer in bytes, or undefined. @throws INVALID_ARGUMENT, NOT_SUPPORTED when `whyNot` says why there are none here */
export function sizeOfLayer(options: CreateOptions, daemon: VfsOptions, whyNot: string | undefined): number | undefined {
  const keys = Object.keys(options.storageOptions ?? {})
  if (keys.length > 0 && options.writable !== true) throw invalid('--storage-opt is not supported for vfs on read-only layers')
  const unknown = keys.find(key => key.toLowerCase() !== 'size')
  if (unknown !== undefined) throw invalid(`Storage opt ${unknown} not supported`, 'known: size')
  const size = layerSize('vfs', options.storageOptions, options.writable === true, daemon.size === undefined ? undefined : parseSize(daemon.size))
  if (size !== undefined && whyNot !== undefined) throw quotaUnsupported(whyNot)
  return size
}
