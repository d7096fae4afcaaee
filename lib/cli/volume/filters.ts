// Docker's --filter grammar for volumes. Pure.

import { StorageError } from '../../errors.ts'
import type { VolumeFilters } from '../../index.ts'

/** @throws INVALID_ARGUMENT in Docker's words; which filters there are is the store's word */
export function parseVolumeFilters(filters: readonly string[] | undefined): VolumeFilters {
  const found: Record<string, string[]> = {}
  for (const filter of filters ?? []) {
    const at = filter.indexOf('=')
    if (at < 0) throw new StorageError('INVALID_ARGUMENT', 'invalid argument for --filter: bad format of filter (expected name=value)', { key: filter })
    ;(found[filter.slice(0, at).trim().toLowerCase()] ??= []).push(filter.slice(at + 1).trim())
  }
  return found
}
