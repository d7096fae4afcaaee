// btrfs's daemon options, in Docker's words.

import { parseSize, splitPair } from '../../lib/driver-options.ts'
import { StorageError } from '../../lib/errors.ts'

export interface BtrfsOptions {
  /** `btrfs.min_space`: the smallest limit that a layer may have, in bytes. */
  readonly minSpaceBytes?: number
}

/** @throws INVALID_ARGUMENT */
export function parseOptions(pairs: readonly string[]): BtrfsOptions {
  let options: BtrfsOptions = {}
  for (const pair of pairs) {
    const [key, value] = splitPair(pair)
    if (key.toLowerCase() !== 'btrfs.min_space') {
      throw new StorageError('INVALID_ARGUMENT', `btrfs: unknown option ${key}`, { driver: 'btrfs', hint: 'known: btrfs.min_space' })
    }
    options = { minSpaceBytes: parseSize(value) }
  }
  return options
}
