// The differences of two sources: layer by layer, and of what they show in the end. Owns which layers are put beside each other and what counts as a
// difference; holds entries with digests, never contents.

import { createHash } from 'node:crypto'
import { StorageError } from '../errors.ts'
import { entriesOf } from './analyze.ts'
import type { AnalyzeOptions } from './analyze.ts'
import { configDifferences } from './config-diff.ts'
import type { ConfigDifference } from './config-diff.ts'
import { aspectsOf, semantic } from './differ.ts'
import { sizeOf } from './efficiency.ts'
import { Merger, walkMerged } from './merge.ts'
import { layerMismatch } from './source.ts'
import type { Aspect, ImageSource, Inode, LayerEntry, MergedNode, SourceKind, SourceLayer } from './types.ts'

export interface CompareOptions extends Pick<AnalyzeOptions, 'signal' | 'onProgress'> {
  /**
   * `strict` (default): everything that a layer's tar says. `semantic`: without times, names of owners, and of images; without the order of entries, and which
   * name of a hard-linked file has the content; without a config's dates and history.
   */
  readonly mode?: 'strict' | 'semantic'
  /** Which comparisons are made. Default `both`. */
  readonly view?: 'flat' | 'layers' | 'both'
  /**
   * Read every layer and hold it against its diffID first. Default false: layers of one diffID are taken for the same, and an archive that lies about its layers is
   * found out only where they are read for files.
   */
  readonly verify?: boolean
  /** Only paths at or below one of these (bytes, or text without a leading slash). Default: all. */
  readonly paths?: readonly (string | Buffer)[]
}

/** One path that differs. */
export interface Difference {
  /** Bytes, no leading slash; empty for the root. */
  readonly path: Buffer
  /** Of the second against the first. */
  readonly change: 'added' | 'changed' | 'removed'
  /** What differs of a changed path; empty for others. */
  readonly aspects: readonly Aspect[]
  /** As the first has it: of a hard link, what its target is; absent when it has it not, or is a directory without an entry. */
  readonly before?: LayerEntry
  readonly after?: LayerEntry
}

export interface TreeDifference {
  readonly equal: boolean
  /** In byte order of their paths. */
  readonly differences: readonly Difference[]
  readonly added: number
  readonly changed: number
  readonly removed: number
  /** Bytes of files that only the second, or only the first, has; changed files count with both their sizes. */
  readonly addedBytes: number
  readonly removedBytes: number
}

/** Two layers side by side; or one that has no counterpart. */
export interface LayerDifference extends TreeDifference {
  readonly before?: LayerFacts
  readonly after?: LayerFacts
  /** True for layers of one diffID, which are not read. */
  readonly same: boolean
  /** With `strict`: the paths that both have come in another order. */
  readonly reordered: boolean
  /** With `strict`: the diffIDs differ, and no entry does: headers are written in another way, or bytes behind the end. */
  readonly encoding: boolean
}

export interface LayerFacts extends Pick<SourceLayer, 'index' | 'diffId' | 'command'> {
  readonly sizeBytes?: number
}

export interface ComparedSide {
  readonly name: string
  readonly kind: SourceKind
  readonly imageId?: string
  readonly layers: number
}

export interface ImageComparison {
  readonly equal: boolean
  readonly mode: 'strict' | 'semantic'
  readonly before: ComparedSide
  readonly after: ComparedSide
  /** What two images' configs say otherwise; absent where one side has none. The layers' ids are not in it. */
  readonly config?: readonly ConfigDifference[]
  /** Base first. Absent for `view: 'flat'`. */
  readonly layers?: readonly LayerDifference[]
  /** Absent for `view: 'layers'`. */
  readonly flat?: TreeDifference
  /** How many layers both have, by diffID. */
  readonly sharedLayers: number
}

/**
 * Compare two sources of any kind. Layers that both have are read once, images of the same layers not at all.
 * @throws what reading them throws: INVALID_ARCHIVE, CORRUPT, ABORTED, …; DIGEST_MISMATCH with `verify`
 */
export async function compareImages(a: ImageSource, b: ImageSource, options: CompareOptions = {}): Promise<ImageComparison> {
  const { mode = 'strict', view = 'both' } = options
  const wanted = pathFilter(options.paths)
  if (options.verify === true) for (const layer of [...a.layers, ...b.layers]) await verifyLayer(layer, options.signal)
  const pairs = pairLayers(a.layers, b.layers)
  const identical = a.layers.length === b.layers.length && pairs.every(pair => pair.same)
  const read = reader(options, a.layers.length + b.layers.length)
  const layers = view === 'flat' ? undefined : await compareLayers(pairs, mode, read, wanted)
  const flat = view === 'layers' ? undefined : identical ? nothing : await compareFlat(a, b, mode, read, wanted)
  const config = a.config === undefined || b.config === undefined ? undefined : configDifferences(a.config.raw, b.config.raw, mode)
  return {
    mode, before: sideOf(a), after: sideOf(b), ...(config === undefined ? {} : { config }), ...(layers === undefined ? {} : { layers }), ...(flat === undefined ? {} : { flat }),
    sharedLayers: pairs.filter(pair => pair.same).length,
    equal: (config ?? []).length === 0 && (flat?.equal ?? true) && (layers ?? []).every(layer => layer.equal),
  }
}

async function verifyLayer(layer: SourceLayer, signal: AbortSignal | undefined): Promise<void> {
  if (layer.diffId === undefined) return
  const hash = createHash('sha256')
  for await (const chunk of layer.tar(signal === undefined ? {} : { signal })) {
    if (signal?.aborted) throw new StorageError('ABORTED', 'reading a layer: aborted')
    hash.update(chunk)
  }
  const actual = `sha256:${hash.digest('hex')}`
  if (actual !== layer.diffId) throw layerMismatch(layer, actual)
}

type Read = (layer: SourceLayer) => Promise<readonly LayerEntry[]>

/** Entries are kept, by diffID where there is one: both views and both sides ask for them. */
function reader(options: CompareOptions, layers: number): Read {
  const known = new Map<unknown, Promise<readonly LayerEntry[]>>()
  return layer => {
    const key = layer.diffId ?? layer
    const found = known.get(key) ?? entriesOf(layer, layers, options)
    known.set(key, found)
    return found
  }
}

function sideOf({ name, kind, imageId, layers }: ImageSource): ComparedSide {
  return { name, kind, layers: layers.length, ...(imageId === undefined ? {} : { imageId }) }
}

/** The paths that are asked for: those at or below one of `paths`. */
function pathFilter(paths: readonly (string | Buffer)[] | undefined): (path: string) => boolean {
  if (paths === undefined || paths.length === 0) return () => true
  const keys = paths.map(path => Buffer.from(path as string).toString('latin1').replace(/^\/+|\/+$/g, ''))
  return path => keys.some(key => key === '' || path === key || path.startsWith(`${key}/`))
}

// ---- flattened -----------------------------------------------------------------------------------------------------------------

async function compareFlat(a: ImageSource, b: ImageSource, mode: 'strict' | 'semantic', read: Read, wanted: (path: string) => boolean): Promise<TreeDifference> {
  const [x, y] = [await flatten(a.layers, read), await flatten(b.layers, read)]
  const groups = new Groups(x, y)
  const differences: Difference[] = []
  for (const key of union(x, y)) {
    const p = x.get(key), q = y.get(key)
    if (!wanted(key) || isUnknownRoot(key, p, q)) continue
    const path = Buffer.from(key, 'latin1')
    const before = p?.entry === undefined ? {} : { before: p.entry }, after = q?.entry === undefined ? {} : { after: q.entry }
    if (p === undefined) differences.push({ path, change: 'added', aspects: [], ...after })
    else if (q === undefined) differences.push({ path, change: 'removed', aspects: [], ...before })
    else {
      const aspects = differing(p, q, mode, groups)
      if (aspects.length > 0) differences.push({ path, change: 'changed', aspects, ...before, ...after })
    }
  }
  return summary(differences)
}

/** A path as it shows. */
interface Shown {
  readonly entry: LayerEntry | undefined
  readonly inode: Inode | undefined
}

/** Two trees, and which names share an inode: of those that both have, since a name that is missing is a difference by itself. */
class Groups {
  readonly #first = new Map<Inode, string>()
  readonly #second = new Map<Inode, string>()

  constructor(x: ReadonlyMap<string, Shown>, y: ReadonlyMap<string, Shown>) {
    for (const [key, { inode }] of x) {
      const other = y.get(key)?.inode
      if (inode === undefined || other === undefined) continue
      if (!this.#first.has(inode)) this.#first.set(inode, key)
      if (!this.#second.has(other)) this.#second.set(other, key)
    }
  }

  /** Is the path's inode that of the same other name in both? */
  agree(p: Shown, q: Shown): boolean {
    return p.inode === undefined || q.inode === undefined || this.#first.get(p.inode) === this.#second.get(q.inode)
  }
}

async function flatten(layers: readonly SourceLayer[], read: Read): Promise<Map<string, Shown>> {
  const merger = new Merger()
  for (const layer of layers) merger.add(await read(layer))
  return shownOf(merger.root)
}

function shownOf(root: MergedNode): Map<string, Shown> {
  const shown = new Map<string, Shown>()
  for (const { path, node } of walkMerged(root)) shown.set(path.toString('latin1'), { entry: node.inode?.entry, inode: node.inode })
  return shown
}

/** The root is there whether or not a tar has an entry for it: one that only one side describes is no difference. */
function isUnknownRoot(key: string, p: Shown | undefined, q: Shown | undefined): boolean {
  return key === '' && (p?.entry === undefined || q?.entry === undefined)
}

function differing(p: Shown, q: Shown, mode: 'strict' | 'semantic', groups: Groups): Aspect[] {
  if (p.entry === undefined || q.entry === undefined) {
    const isDirectory = (side: Shown): boolean => side.entry === undefined || side.entry.type === 'directory'
    return isDirectory(p) === isDirectory(q) ? [] : ['type']
  }
  // A tree that shows has no owners' names: they are a tar's.
  const found = p.entry === q.entry ? [] : aspectsOf(p.entry, q.entry).filter(aspect => aspect !== 'name')
  const aspects = mode === 'strict' ? found : semantic(found)
  if (!groups.agree(p, q) && !aspects.includes('link')) aspects.push('link')
  return aspects
}

function union(x: ReadonlyMap<string, unknown>, y: ReadonlyMap<string, unknown>): string[] {
  return [...new Set([...x.keys(), ...y.keys()])].sort(byPath)
}

/** Byte order of paths with a directory before what is in it: `a/b` before `a-b`, as trees are walked. */
function byPath(a: string, b: string): number {
  const x = a.replaceAll('/', '\0'), y = b.replaceAll('/', '\0')
  return x < y ? -1 : x > y ? 1 : 0
}

function summary(differences: readonly Difference[]): TreeDifference {
  const count = (change: Difference['change']): number => differences.filter(difference => difference.change === change).length
  const bytes = (side: 'before' | 'after'): number => differences.reduce((sum, difference) => {
    const entry = difference[side], other = side === 'before' ? difference.after : difference.before
    const changed = difference.change !== 'changed' || difference.aspects.includes('content') || entry?.type !== other?.type
    return sum + (changed && entry?.type === 'file' ? entry.sizeBytes : 0)
  }, 0)
  return {
    equal: differences.length === 0, differences, added: count('added'), changed: count('changed'), removed: count('removed'), addedBytes: bytes('after'), removedBytes: bytes('before'),
  }
}
const nothing: TreeDifference = summary([])

// ---- by layer ------------------------------------------------------------------------------------------------------------------

interface Pair {
  readonly a?: SourceLayer
  readonly b?: SourceLayer
  readonly same: boolean
}

/** Layers of one diffID side by side, as many as keep the order (a longest common subsequence); what lies between, in order. */
export function pairLayers(a: readonly SourceLayer[], b: readonly SourceLayer[]): Pair[] {
  const alike = (i: number, j: number): boolean => a[i]?.diffId !== undefined && a[i]?.diffId === b[j]?.diffId
  const best = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0))
  const at = (i: number, j: number): number => best[i]?.[j] ?? 0
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) (best[i] as number[])[j] = alike(i, j) ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  }
  const pairs: Pair[] = []
  const left: SourceLayer[] = [], right: SourceLayer[] = []
  const flush = (): void => {
    for (let n = Math.max(left.length, right.length), k = 0; k < n; k++) {
      const x = left[k], y = right[k]
      pairs.push({ ...(x === undefined ? {} : { a: x }), ...(y === undefined ? {} : { b: y }), same: false })
    }
    left.length = right.length = 0
  }
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (alike(i, j)) {
      flush()
      pairs.push({ a: a[i++] as SourceLayer, b: b[j++] as SourceLayer, same: true })
    } else if (j >= b.length || i < a.length && at(i + 1, j) >= at(i, j + 1)) left.push(a[i++] as SourceLayer)
    else right.push(b[j++] as SourceLayer)
  }
  flush()
  return pairs
}

async function compareLayers(pairs: readonly Pair[], mode: 'strict' | 'semantic', read: Read, wanted: (path: string) => boolean): Promise<LayerDifference[]> {
  const found: LayerDifference[] = []
  for (const { a, b, same } of pairs) {
    if (same && a !== undefined && b !== undefined) {
      found.push({ ...nothing, before: factsOf(a), after: factsOf(b), same, reordered: false, encoding: false })
      continue
    }
    const x = a === undefined ? [] : await read(a), y = b === undefined ? [] : await read(b)
    const sides = { ...(a === undefined ? {} : { before: factsOf(a, x) }), ...(b === undefined ? {} : { after: factsOf(b, y) }) }
    const tree = summary(mode === 'strict' ? strictLayer(x, y, wanted) : semanticLayer(x, y, wanted))
    const reordered = mode === 'strict' && isReordered(x, y)
    const encoding = mode === 'strict' && tree.equal && !reordered && a?.diffId !== undefined && b?.diffId !== undefined
    // A layer without a counterpart is a difference also when it is empty: the two are not built alike.
    const alone = mode === 'strict' && (a === undefined || b === undefined)
    found.push({ ...tree, ...sides, same, reordered, encoding, equal: tree.equal && !reordered && !encoding && !alone })
  }
  return found
}

function factsOf({ index, diffId, command }: SourceLayer, entries?: readonly LayerEntry[]): LayerFacts {
  return { index, command, ...(diffId === undefined ? {} : { diffId }), ...(entries === undefined ? {} : { sizeBytes: sizeOf(entries) }) }
}

/**
 * What a path of a layer is for: the entry itself, its deletion, or hiding what is below it. The last of several counts, as when extracting. Two NULs: so a
 * directory's mark comes before what is in the directory.
 */
function keyed(entries: readonly LayerEntry[]): Map<string, LayerEntry> {
  return new Map(entries.map(entry => [`${entry.path.toString('latin1')}\0\0${entry.mark ?? ''}`, entry]))
}

function pathOf(key: string): string {
  return key.slice(0, key.indexOf('\0'))
}

/** Entry by entry, as the tars have them: a hard link is a link. */
function strictLayer(x: readonly LayerEntry[], y: readonly LayerEntry[], wanted: (path: string) => boolean): Difference[] {
  const a = keyed(x), b = keyed(y)
  const differences: Difference[] = []
  for (const key of union(a, b)) {
    if (!wanted(pathOf(key))) continue
    const before = a.get(key), after = b.get(key)
    const path = (before ?? after as LayerEntry).path
    if (before === undefined || after === undefined) {
      differences.push({ path, change: before === undefined ? 'added' : 'removed', aspects: [], ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) })
      continue
    }
    const aspects = aspectsOf(before, after)
    if (aspects.length > 0) differences.push({ path, change: 'changed', aspects, before, after })
  }
  return differences
}

function isReordered(x: readonly LayerEntry[], y: readonly LayerEntry[]): boolean {
  const a = keyed(x), b = keyed(y)
  const common = [...a.keys()].filter(key => b.has(key)), others = [...b.keys()].filter(key => a.has(key))
  return common.some((key, i) => key !== others[i])
}

/** The layers as trees of their own, hard links followed, and what they delete. An opaque mark and single whiteouts cannot be told apart without the layers below, so both are kept. */
function semanticLayer(x: readonly LayerEntry[], y: readonly LayerEntry[], wanted: (path: string) => boolean): Difference[] {
  const tree = (entries: readonly LayerEntry[]): Map<string, Shown> => {
    const merger = new Merger()
    merger.add(entries)
    return shownOf(merger.root)
  }
  const differences: Difference[] = []
  const a = tree(x), b = tree(y), groups = new Groups(a, b)
  for (const key of union(a, b)) {
    const p = a.get(key), q = b.get(key)
    if (!wanted(key) || isUnknownRoot(key, p, q)) continue
    const before = p?.entry === undefined ? {} : { before: p.entry }, after = q?.entry === undefined ? {} : { after: q.entry }
    const aspects = p === undefined || q === undefined ? [] : differing(p, q, 'semantic', groups)
    const change = p === undefined ? 'added' : q === undefined ? 'removed' : 'changed'
    if (change !== 'changed' || aspects.length > 0) differences.push({ path: Buffer.from(key, 'latin1'), change, aspects, ...before, ...after })
  }
  const marks = (entries: readonly LayerEntry[]): LayerEntry[] => entries.filter(entry => entry.mark !== undefined)
  const p = keyed(marks(x)), q = keyed(marks(y))
  for (const key of union(p, q)) {
    const before = p.get(key), after = q.get(key)
    if (before !== undefined && after !== undefined || !wanted(pathOf(key))) continue
    differences.push({ path: (before ?? after as LayerEntry).path, change: before === undefined ? 'added' : 'removed', aspects: [], ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) })
  }
  return differences.sort((one, other) => byPath(one.path.toString('latin1'), other.path.toString('latin1')))
}
