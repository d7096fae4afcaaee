// An image's own layers put on another base. Owns what counts as a conflict between what the image changed and what the base changed, and what config and
// history then say. The layers themselves stay bit for bit.

import { StorageError } from '../errors.ts'
import { encodeConfig, platformString } from '../images/index.ts'
import { entriesOf } from './analyze.ts'
import { configDifferences } from './config-diff.ts'
import type { ConfigDifference } from './config-diff.ts'
import { aspectsOf, semantic } from './differ.ts'
import { mergeRuntime } from './merge-runtime.ts'
import { Merger, walkMerged } from './merge.ts'
import { composedImage, imageConfigOf } from './source.ts'
import type { ImageSource, LayerEntry, MergedNode, PathVersion, SourceLayer } from './types.ts'

/**
 * Why a path may not be what anybody wanted:
 * - `both-changed`: the bases differ here, and the image has its own version, which hides the new base's
 * - `both-added`: the image and the new base each brought it, and not the same
 * - `removed-in-base`: the image changed what the new base does not have any more
 * - `removed-in-image`: the image deletes what the new base changed or added
 * - `type`: the image needs a directory where the new base has something else, or the other way round
 * - `link`: a hard link of the image leads to a file of the base that the new base has not, or otherwise
 */
export type ConflictKind = 'both-changed' | 'both-added' | 'removed-in-base' | 'removed-in-image' | 'type' | 'link'

export interface RebaseConflict {
  /** Bytes, no leading slash. */
  readonly path: Buffer
  readonly kind: ConflictKind
}

export interface RebaseOptions {
  /** The image that `image` was made from. Its layers must be the first of `image`'s. Give this or `baseLayers`. */
  readonly from?: ImageSource
  /** How many of the image's layers are its base; less is known then of the config and history that came from the base. */
  readonly baseLayers?: number
  /** Make the image in spite of conflicts. Default false. */
  readonly allowConflicts?: boolean
  /** Names of the new image. Default: none. */
  readonly references?: readonly string[]
  /** RFC 3339. Default: the image's own date. */
  readonly created?: string
  readonly signal?: AbortSignal
  readonly onProgress?: (bytes: number) => void
}

export interface RebaseResult {
  /** In byte order of their paths. */
  readonly conflicts: readonly RebaseConflict[]
  /** Absent when there are conflicts that were not allowed. Reads from `image` and `onto`, which must stay open. */
  readonly image?: ImageSource
  /** What the config of the new image says otherwise than `image`'s, history and dates aside. */
  readonly config: readonly ConfigDifference[]
}

/**
 * Put the layers that `image` has above its base on `onto`. With `from` the runtime config is merged in three ways: what the image left as its base had it is
 * taken from the new base (each variable and label by itself), what it set stays; without, it is the image's own. History: the new base's, then the image's own steps.
 * Every layer is read, contents too, unless both bases have it.
 * @throws INVALID_ARGUMENT (no images, another platform, `from` is not the base), INVALID_ARCHIVE, CORRUPT, ABORTED
 */
export async function rebaseImage(image: ImageSource, onto: ImageSource, options: RebaseOptions): Promise<RebaseResult> {
  const { config } = imageConfigOf(image, 'rebase')
  const base = imageConfigOf(onto, 'rebase onto').config
  if (platformString(config) !== platformString(base)) {
    throw new StorageError('INVALID_ARGUMENT', `cannot rebase ${image.name}: it is for ${platformString(config)}, and ${onto.name} for ${platformString(base)}`, { key: image.name })
  }
  const count = baseCount(image, options)
  const conflicts = await findConflicts(image, onto, count, options)
  const own = image.layers.slice(count)
  const oldConfig = options.from?.config
  const history = [...historyOf(base.raw), ...ownHistory(historyOf(config.raw), oldConfig === undefined ? undefined : historyOf(oldConfig.raw), count)]
  const raw = {
    ...config.raw, created: options.created ?? config.created ?? base.created ?? '1970-01-01T00:00:00Z',
    config: mergeRuntime(config.config, oldConfig?.config, base.config),
    ...(history.length === 0 ? {} : { history }), rootfs: { type: 'layers', diff_ids: [...base.diffIds, ...config.diffIds.slice(count)] },
  }
  // What described the build on the old base is not true of this image.
  for (const key of ['container', 'container_config', 'docker_version', 'id', 'parent', 'moby.buildkit.buildinfo.v1']) delete (raw as Record<string, unknown>)[key]
  const changes = configDifferences(config.raw, raw, 'semantic')
  if (conflicts.length > 0 && options.allowConflicts !== true) return { conflicts, config: changes }
  const made = composedImage({ name: `${image.name} on ${onto.name}`, configBytes: encodeConfig(raw), layers: [...onto.layers, ...own], references: options.references ?? [] })
  return { conflicts, image: made, config: changes }
}

function baseCount(image: ImageSource, { from, baseLayers }: RebaseOptions): number {
  if ((from === undefined) === (baseLayers === undefined)) throw new TypeError('rebase needs the old base, or how many layers it has')
  if (from === undefined) {
    const count = baseLayers as number
    if (!Number.isInteger(count) || count < 0 || count > image.layers.length) {
      throw new StorageError('INVALID_ARGUMENT', `cannot rebase ${image.name}: it has ${image.layers.length} layers, not ${count} of a base`, { key: image.name })
    }
    return count
  }
  imageConfigOf(from, 'rebase from')
  const differs = from.layers.findIndex((layer, i) => layer.diffId !== image.layers[i]?.diffId)
  if (differs >= 0) {
    throw new StorageError('INVALID_ARGUMENT', `${image.name} is not made from ${from.name}: layer ${differs} is another`, { key: image.name, hint: 'name the image that it was built on, or the number of its layers' })
  }
  return from.layers.length
}

// ---- history -------------------------------------------------------------------------------------------------------------------

function historyOf(raw: Readonly<Record<string, unknown>>): readonly Record<string, unknown>[] {
  return Array.isArray(raw['history']) ? raw['history'] as Record<string, unknown>[] : []
}

/** The steps after the base's: its own history tells how many those are; else all after the last of its layers. */
function ownHistory(history: readonly Record<string, unknown>[], base: readonly Record<string, unknown>[] | undefined, count: number): readonly Record<string, unknown>[] {
  if (base !== undefined && JSON.stringify(history.slice(0, base.length)) === JSON.stringify(base)) return history.slice(base.length)
  let layers = 0
  const after = history.findIndex(step => step['empty_layer'] !== true && layers++ === count)
  return after < 0 ? [] : history.slice(after)
}

// ---- conflicts -----------------------------------------------------------------------------------------------------------------

async function findConflicts(image: ImageSource, onto: ImageSource, count: number, options: RebaseOptions): Promise<RebaseConflict[]> {
  const layers = image.layers.length + onto.layers.length
  const known = new Map<unknown, Promise<LayerEntry[]>>()
  const read = (layer: SourceLayer): Promise<LayerEntry[]> => {
    const key = layer.diffId ?? layer
    const { signal, onProgress } = options
    const reading = known.get(key) ?? entriesOf(layer, layers, { ...(signal === undefined ? {} : { signal }), ...(onProgress === undefined ? {} : { onProgress: ({ bytes }) => onProgress(bytes) }) })
    known.set(key, reading)
    return reading
  }
  const whole = new Merger(), old = new Merger(), renewed = new Merger()
  const own: LayerEntry[] = []
  for (const [i, layer] of image.layers.entries()) {
    const entries = await read(layer)
    whole.add(entries)
    if (i < count) old.add(entries)
    else own.push(...entries)
  }
  for (const layer of onto.layers) renewed.add(await read(layer))
  const found = new Map<string, ConflictKind>()
  const note = (path: Buffer, kind: ConflictKind): void => { if (!found.has(path.toString('latin1'))) found.set(path.toString('latin1'), kind) }
  for (const { path, node } of walkMerged(whole.root, { gone: true })) {
    const version = node.versions.findLast(({ layer }) => layer >= count)
    if (version === undefined || path.length === 0) continue
    const kind = conflictOf(node, version, find(old.root, path), find(renewed.root, path))
    if (kind !== undefined) note(path, kind)
  }
  noteHidden(own, old.root, renewed.root, note)
  noteLinks(own, whole.root, old.root, renewed.root, note)
  return [...found].map(([path, kind]) => ({ path: Buffer.from(path, 'latin1'), kind }))
    .sort((a, b) => a.path.compare(b.path))
}

function conflictOf(node: MergedNode, version: PathVersion, old: MergedNode | undefined, renewed: MergedNode | undefined): ConflictKind | undefined {
  if (!node.present) {
    // A directory that goes is looked into by itself.
    return version.change === 'removed' && renewed !== undefined && !(isDirectory(old) && isDirectory(renewed)) && !same(old, renewed) ? 'removed-in-image' : undefined
  }
  if (renewed !== undefined && isDirectory(node) !== isDirectory(renewed)) return same(old, renewed) ? undefined : 'type'
  if (same(node, renewed) || same(old, renewed)) return undefined
  // What the image has again as its base had it, as the parents of what it changed, it did not mean to change.
  if (isDirectory(node) && isDirectory(renewed) && (node.entry === undefined || same(node, old))) return node.entry === undefined ? undefined : 'both-changed'
  if (renewed === undefined) return old === undefined || isDirectory(node) ? undefined : 'removed-in-base'
  return old === undefined ? 'both-added' : 'both-changed'
}

/** What whiteouts and opaque marks hide of the new base that the old one had not, or had otherwise. */
function noteHidden(own: readonly LayerEntry[], old: MergedNode, renewed: MergedNode, note: (path: Buffer, kind: ConflictKind) => void): void {
  for (const { path, mark } of own) {
    if (mark === undefined) continue
    const top = find(renewed, path)
    if (top === undefined) continue
    for (const { path: below, node } of walkMerged(top)) {
      const at = below.length === 0 ? path : path.length === 0 ? below : Buffer.concat([path, Buffer.from('/'), below])
      if (below.length === 0 && mark === 'opaque') continue
      const before = find(old, at)
      if (!(isDirectory(node) && (before === undefined || isDirectory(before))) && !same(before, node)) note(at, 'removed-in-image')
    }
  }
}

/** Hard links to files that are the base's. */
function noteLinks(own: readonly LayerEntry[], whole: MergedNode, old: MergedNode, renewed: MergedNode, note: (path: Buffer, kind: ConflictKind) => void): void {
  const made = new Set(own.filter(entry => entry.mark === undefined).map(entry => entry.path.toString('latin1')))
  for (const entry of own) {
    if (entry.mark !== undefined || entry.type !== 'link' || made.has(entry.linkname.toString('latin1'))) continue
    if (find(whole, entry.path)?.entry === entry && !same(find(old, entry.linkname), find(renewed, entry.linkname))) note(entry.path, 'link')
  }
}

function find(root: MergedNode, path: Buffer): MergedNode | undefined {
  let node: MergedNode | undefined = root
  if (path.length > 0) for (const part of path.toString('latin1').split('/')) node = node?.children.get(part)
  return node?.present === true ? node : undefined
}

function isDirectory(node: MergedNode | undefined): boolean {
  return node !== undefined && (node.inode === undefined || node.inode.entry.type === 'directory')
}

/** To a program; a directory without an entry is like any other. */
function same(a: MergedNode | undefined, b: MergedNode | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  if (a.inode === undefined || b.inode === undefined) return isDirectory(a) && isDirectory(b)
  return a.inode.entry === b.inode.entry || semantic(aspectsOf(a.inode.entry, b.inode.entry)).length === 0
}
