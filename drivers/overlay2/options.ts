// overlay2's daemon options (`--storage-opt overlay2.…`) and its options per layer, in Docker's words.

import { StorageError } from '../../lib/errors.ts'
import type { CreateOptions } from '../../lib/driver.ts'
import { layerSize, parseSize, splitPair } from '../../lib/driver-options.ts'

export interface Overlay2Options {
  /** Default size limit of each writable layer, as given (`10G`). Needs project quota, on xfs or ext4. */
  readonly size?: string
}

/** @throws INVALID_ARGUMENT */
export function parseOptions(pairs: readonly string[]): Overlay2Options {
  let options: Overlay2Options = {}
  for (const pair of pairs) {
    const [key, value] = splitPair(pair)
    switch (key.toLowerCase()) {
      case 'overlay2.override_kernel_check':
        // dockerd 20.10's; every kernel that Node 20 runs on is new enough, so there is nothing to override. A wrong value is still wrong.
        if (!/^(1|0|t|f|true|false)$/i.test(value)) throw new StorageError('INVALID_ARGUMENT', `overlay2.override_kernel_check: invalid boolean ${JSON.stringify(value)}`, { driver: 'overlay2' })
        break
      case 'overlay2.size':
        parseSize(value)
        options = { ...options, size: value }
        break
      default:
        throw new StorageError('INVALID_ARGUMENT', `overlay2: unknown option ${key}`, { driver: 'overlay2', hint: 'known: overlay2.size, overlay2.override_kernel_check' })
    }
  }
  return options
}

/** The texts of moby's overlay2 for limits that the file system below cannot keep; `why` is this machine's reason. */
export function quotaUnsupported(fileSystem: string, why: string): StorageError {
  const hint = `${why}: put the data root on xfs mounted with pquota, or on ext4 with prjquota`
  return fileSystem === 'xfs' || fileSystem === 'extfs'
    ? new StorageError('NOT_SUPPORTED', 'Storage option overlay2.size not supported. Filesystem does not support Project Quota: Filesystem does not support, or has not enabled quotas', { driver: 'overlay2', hint })
    : new StorageError('NOT_SUPPORTED', `Storage Option overlay2.size only supported for backingFS XFS. Found ${fileSystem}`, { driver: 'overlay2', hint })
}

/** The limit of a new layer in bytes, or undefined. @throws INVALID_ARGUMENT, NOT_SUPPORTED when `whyNot` says why there are none here */
export function sizeOfLayer(options: CreateOptions, daemon: Overlay2Options, whyNot: string | undefined): number | undefined {
  const size = layerSize('overlay2', options.storageOptions, options.writable === true, daemon.size === undefined ? undefined : parseSize(daemon.size))
  if (size !== undefined && whyNot !== undefined) {
    throw new StorageError('NOT_SUPPORTED', '--storage-opt is supported only for overlay over xfs with \'pquota\' mount option', { driver: 'overlay2', op: 'create', hint: `${whyNot}: ext4 with prjquota will do, too` })
  }
  return size
}
