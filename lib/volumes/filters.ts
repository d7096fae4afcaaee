// The filters of `docker volume ls` and `docker volume prune`. Source: moby volume/service (filtersToBy, withPrune), api/types/filters. Pure.

import { StorageError } from '../errors.ts'
import { boundedTest } from '../sys/bounded-regexp.ts'
import type { Volume } from './volume.ts'

/** Filter → values; values of one filter are alternatives, but all labels must match. */
export type VolumeFilters = Readonly<Record<string, readonly string[]>>

const listFilters = ['dangling', 'name', 'driver', 'label']
const pruneFilters = ['label', 'label!', 'all']

function mustBeKnown(filters: VolumeFilters, known: readonly string[]): void {
  for (const key of Object.keys(filters)) if (!known.includes(key)) throw new StorageError('INVALID_ARGUMENT', `invalid filter '${key}'`,
    { key, hint: `known are ${known.join(', ')}` })
}

/** A boolean as filters take it: true, 1; false, 0. */
function truth(filters: VolumeFilters, key: string): boolean | undefined {
  const values = filters[key]
  if (values === undefined || values.length === 0) return undefined
  const isTrue = values.some(value => value === 'true' || value === '1'), isFalse = values.some(value => value === 'false' || value === '0')
  if (isTrue === isFalse) throw new StorageError('INVALID_ARGUMENT', `invalid filter '${key}=[${values.join(' ')}]'`, { key })
  return isTrue
}

function hasLabel(volume: Volume, label: string): boolean {
  const at = label.indexOf('=')
  const name = at < 0 ? label : label.slice(0, at)
  // `constructor` is no label of every volume.
  const value = Object.hasOwn(volume.labels, name) ? volume.labels[name] : undefined
  return value !== undefined && (at < 0 || value === label.slice(at + 1))
}

/** moby's Args.Match: a regular expression, or else a part of the name. */
function nameMatches(name: string, pattern: string): boolean {
  if (name.includes(pattern)) return true
  try {
    return boundedTest(new RegExp(pattern), name)
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

/** @throws INVALID_ARGUMENT for a filter that is not of `docker volume ls` */
export function listMatcher(filters: VolumeFilters, isReferenced: (name: string) => boolean): (volume: Volume) => boolean {
  mustBeKnown(filters, listFilters)
  const dangling = truth(filters, 'dangling')
  return volume => (dangling === undefined || isReferenced(volume.name) !== dangling)
    && (filters['name'] === undefined || filters['name'].some(pattern => nameMatches(volume.name, pattern)))
    && (filters['driver'] === undefined || filters['driver'].includes(volume.driver))
    && (filters['label'] ?? []).every(label => hasLabel(volume, label))
}

/** @throws INVALID_ARGUMENT for a filter that is not of `docker volume prune` */
export function pruneMatcher(filters: VolumeFilters): (volume: Volume) => boolean {
  mustBeKnown(filters, pruneFilters)
  const all = truth(filters, 'all') === true
  return volume => (all || volume.anonymous)
    && (filters['label'] ?? []).every(label => hasLabel(volume, label))
    && (filters['label!'] ?? []).every(label => !hasLabel(volume, label))
}
