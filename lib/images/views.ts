// Images as Docker's API shows them: list, inspect, history. Reads only.

import type { ChainId, Digest } from '../ids.ts'
import type { Layer } from '../layers/types.ts'
import { StorageError } from '../errors.ts'
import type { ImageContext } from './context.ts'
import { familiarMatch, familiarString } from './reference.ts'
import type { Reference } from './reference.ts'
import type { HistoryItem, ImageInspect, ImageRecord, ImageSummary, ListFilter, ListOptions } from './types.ts'

/** Go's zero time, which Docker shows where there is none. */
const zeroTime = '0001-01-01T00:00:00Z'

function seconds(time: string | undefined): number {
  const ms = time === undefined ? Number.NaN : Date.parse(time)
  return Number.isNaN(ms) ? 0 : Math.floor(ms / 1000)
}

function labelsOf(config: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> | null {
  const labels = config['Labels']
  return typeof labels === 'object' && labels !== null ? labels as Record<string, string> : null
}

function split(refs: readonly Reference[]): { tags: string[]; digests: string[] } {
  return {
    tags: refs.filter(ref => ref.digest === undefined).map(familiarString),
    digests: refs.filter(ref => ref.digest !== undefined).map(familiarString),
  }
}

export async function listImages(context: ImageContext, options: ListOptions): Promise<ImageSummary[]> {
  const { all = false, filter = {}, onDamaged } = options
  const names = context.repositories.read()
  const known = new Map<ChainId, Layer>()
  const times = {
    before: filter.before === undefined ? undefined : seconds((await context.record(context.resolve(filter.before, names), names, known)).created),
    since: filter.since === undefined ? undefined : seconds((await context.record(context.resolve(filter.since, names), names, known)).created),
  }
  const ids = context.db.list()
  const parents = new Map(ids.map(id => [id, context.db.parent(id)]))
  const withChildren = new Set(parents.values())
  const found: ImageSummary[] = []
  for (const id of ids) {
    const own = names.of(id)
    const refs = filter.reference === undefined ? own : own.filter(ref => filter.reference?.some(pattern => familiarMatch(pattern, ref)))
    const { tags, digests } = split(refs)
    if (refs.length === 0) {
      const shows = filter.reference === undefined && own.length === 0 && (all || !withChildren.has(id)) && filter.dangling !== false
      if (!shows || (filter.dangling === true && withChildren.has(id))) continue
    } else if (filter.dangling === true && tags.length > 0) continue
    let record: ImageRecord
    try {
      record = await context.record(id, names, known)
    } catch (error) {
      if (onDamaged === undefined || !StorageError.is(error, 'CORRUPT')) throw error
      onDamaged(error)
      continue
    }
    if (!passes(record, filter, times)) continue
    found.push({
      Id: id, ParentId: parents.get(id) ?? '', RepoTags: tags, RepoDigests: digests, Created: seconds(record.created),
      Size: record.sizeBytes, SharedSize: -1, Labels: labelsOf(record.config.config), Containers: -1,
    })
  }
  return found.sort((a, b) => b.Created - a.Created)
}

function passes(record: ImageRecord, filter: ListFilter, times: { readonly before: number | undefined; readonly since: number | undefined }): boolean {
  const created = seconds(record.created)
  if (times.before !== undefined && created >= times.before) return false
  if (times.since !== undefined && created <= times.since) return false
  if (filter.until !== undefined && created * 1000 >= filter.until.getTime()) return false
  const labels = labelsOf(record.config.config) ?? {}
  return (filter.label ?? []).every(label => {
    const equals = label.indexOf('=')
    return equals < 0 ? Object.hasOwn(labels, label) : labels[label.slice(0, equals)] === label.slice(equals + 1)
  })
}

export async function inspectImage(context: ImageContext, id: Digest): Promise<ImageInspect> {
  const names = context.repositories.read()
  const { config, sizeBytes, parent, layers } = await context.record(id, names)
  const { tags, digests } = split(names.of(id))
  const top = layers.at(-1)
  const cacheId = top === undefined ? undefined : (await context.layers.get(top)).cacheId
  const data = cacheId === undefined || context.layerMetadata === undefined ? null : await context.layerMetadata(cacheId)
  return {
    Id: id, RepoTags: tags, RepoDigests: digests, Parent: parent ?? '',
    // A commit's message stands in its step of the history alone (moby daemon/images/image_inspect.go).
    Comment: config.comment || (config.history.at(-1)?.comment ?? ''), Created: config.created ?? zeroTime,
    DockerVersion: config.dockerVersion, Author: config.author, Config: config.config, Architecture: config.architecture,
    ...(config.variant === undefined ? {} : { Variant: config.variant }), Os: config.os, Size: sizeBytes,
    GraphDriver: { Data: data, Name: context.root.driverName },
    RootFS: { Type: 'layers', Layers: config.diffIds },
    Metadata: { LastTagTime: context.db.metadata(id, 'lastUpdated') ?? zeroTime },
  }
}

export async function historyOf(context: ImageContext, id: Digest): Promise<HistoryItem[]> {
  const names = context.repositories.read()
  const { config, layers } = await context.record(id, names)
  const items: HistoryItem[] = []
  let next = 0
  for (const { created, createdBy = '', comment = '', emptyLayer } of config.history) {
    const chainId = emptyLayer ? undefined : layers[next++]
    const sizeBytes = chainId === undefined ? 0 : (await context.layers.get(chainId)).sizeBytes
    items.unshift({ Id: '<missing>', Created: seconds(created), CreatedBy: createdBy, Tags: null, Size: sizeBytes, Comment: comment })
  }
  // Only steps that are images here, reached through parents, have an id.
  let at: Digest | undefined = id
  for (let i = 0; i < items.length && at !== undefined && context.db.has(at); i++) {
    const { tags } = split(names.of(at))
    items[i] = { ...items[i] as HistoryItem, Id: at, Tags: tags.length === 0 ? null : tags }
    at = context.db.parent(at)
  }
  return items
}
