// overlay2's daemon options (`--storage-opt overlay2.…`) and its options per layer, in Docker's words.

import { StorageError } from '../../lib/errors.ts'
import { splitPair } from '../../lib/driver-options.ts'

export interface Overlay2Options {
  /** Default size limit of each writable layer, as given (`10G`). Needs project quota on xfs. */
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
        options = { ...options, size: value }
        break
      default:
        throw new StorageError('INVALID_ARGUMENT', `overlay2: unknown option ${key}`, { driver: 'overlay2', hint: 'known: overlay2.size, overlay2.override_kernel_check' })
    }
  }
  return options
}

/** The texts of moby's overlay2 for limits that the file system below cannot keep. */
export function quotaUnsupported(fileSystem: string): StorageError {
  return fileSystem === 'xfs'
    ? new StorageError('NOT_SUPPORTED', 'Storage option overlay2.size not supported. Filesystem does not support Project Quota: Filesystem does not support, or has not enabled quotas',
      { driver: 'overlay2', hint: 'mount the data root\'s file system with pquota' })
    : new StorageError('NOT_SUPPORTED', `Storage Option overlay2.size only supported for backingFS XFS. Found ${fileSystem}`,
      { driver: 'overlay2', hint: 'put the data root on xfs mounted with pquota' })
}

/** Check a layer's own options; none can be had here without project quota. @throws INVALID_ARGUMENT, NOT_SUPPORTED */
export function checkLayerOptions(storageOptions: Readonly<Record<string, string>> | undefined, writable: boolean): void {
  for (const key of Object.keys(storageOptions ?? {})) {
    if (key.toLowerCase() !== 'size') throw new StorageError('INVALID_ARGUMENT', `overlay2: unknown option ${key}`, { driver: 'overlay2', op: 'create', hint: 'known: size' })
    if (!writable) throw new StorageError('INVALID_ARGUMENT', '--storage-opt size is only supported for ReadWrite Layers', { driver: 'overlay2', op: 'create' })
    throw new StorageError('NOT_SUPPORTED', '--storage-opt is supported only for overlay over xfs with \'pquota\' mount option', { driver: 'overlay2', op: 'create' })
  }
}
