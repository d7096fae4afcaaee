// The image as the page holds it: columns of numbers, one slot per path (in tree order: a directory, then all below it) and one per version of a path.
// Decodes what encode.ts wrote. Knows neither the page nor its controls.

import { ByteReader } from './bytes.ts'
import { plain } from './text.ts'

/** Raised with every change of the columns below. */
export const FORMAT = 1

/** `PathVersion.change`, by index. */
export const changes = ['added', 'modified', 'removed', 'unmodified'] as const
export const ADDED = 0, MODIFIED = 1, REMOVED = 2, UNMODIFIED = 3
/** `EntryType`, by index; the last is a directory that no entry describes. */
export const types = ['file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo', 'none'] as const
export const FILE = 0, LINK = 1, SYMLINK = 2, CHAR = 3, BLOCK = 4, DIRECTORY = 5, FIFO = 6, NO_ENTRY = 7
/** `Aspect`, by bit. */
export const aspects = ['type', 'content', 'size', 'mode', 'owner', 'xattr', 'time', 'link', 'device', 'name'] as const

export interface LayerMeta {
  /** As `commandText` shows it. */
  readonly command: string
}

export interface PageMeta {
  readonly name: string
  readonly layers: readonly LayerMeta[]
}

export interface WastedRow {
  readonly node: number
  readonly count: number
  readonly sizeBytes: number
  readonly layers: readonly number[]
}

export interface Model {
  readonly meta: PageMeta
  /** Paths, the root (0) included. */
  readonly count: number
  /** Index into `names`. */
  readonly name: Uint32Array
  /** One past the last path below; `node + 1` for a leaf. */
  readonly end: Uint32Array
  /** The root's is 0. */
  readonly parent: Uint32Array
  readonly depth: Uint32Array
  /** The versions of `node` are `firstVersion[node]` to `firstVersion[node + 1] - 1`, base first. */
  readonly firstVersion: Uint32Array
  /** Distinct names, those that need no escaping first. */
  readonly names: readonly string[]
  /** The first of `names` that is not shown as it is. */
  readonly escapedFrom: number
  readonly versions: Versions
  readonly owners: readonly string[]
  readonly ownerNames: readonly string[]
  readonly links: readonly string[]
  readonly xattrs: readonly string[]
  /** Most bytes first. */
  readonly wasted: readonly WastedRow[]
  /** How often `node` is stored, for those that are stored more than once. */
  readonly copies: ReadonlyMap<number, number>
}

export interface Versions {
  readonly layer: Uint16Array
  readonly change: Uint8Array
  readonly type: Uint8Array
  readonly implied: Uint8Array
  readonly aspects: Uint16Array
  readonly mode: Uint16Array
  readonly owner: Uint32Array
  readonly size: Float64Array
  readonly seconds: Float64Array
  readonly nanos: Uint32Array
  /** 0: none, else one more than the index into `links`; for devices `major:minor` stands there. */
  readonly link: Uint32Array
  readonly xattr: Uint32Array
}

export function decodeModel(bytes: Uint8Array): Model {
  const reader = new ByteReader(bytes)
  const format = reader.number()
  if (format !== FORMAT) throw new RangeError(`the data has format ${format}, this page reads ${FORMAT}`)
  const meta = JSON.parse(reader.strings()[0] as string) as PageMeta
  const count = reader.number(), versionCount = reader.number()
  const names = reader.strings(), escapedFrom = reader.number()
  const owners = reader.strings(), ownerNames = reader.strings(), links = reader.strings(), xattrs = reader.strings()
  const name = reader.column(new Uint32Array(count))
  const { end, parent, depth } = placeNodes(reader.column(new Uint32Array(count)))
  const firstVersion = new Uint32Array(count + 1)
  for (let i = 0, at = 0; i < count; i++) firstVersion[i + 1] = at += reader.number()
  const versions = readVersions(reader, versionCount)
  const wasted = Array.from({ length: reader.number() }, (): WastedRow => ({
    node: reader.number(), count: reader.number(), sizeBytes: reader.number(),
    layers: Array.from({ length: reader.number() }, () => reader.number()),
  }))
  return {
    meta, count, name, end, parent, depth, firstVersion, names, escapedFrom, versions, owners, ownerNames, links, xattrs, wasted,
    copies: new Map(wasted.map(row => [row.node, row.count])),
  }
}

/** From the number of paths below each, in tree order: where its subtree ends, its parent, its depth. */
function placeNodes(below: Uint32Array): Pick<Model, 'end' | 'parent' | 'depth'> {
  const end = new Uint32Array(below.length), parent = new Uint32Array(below.length), depth = new Uint32Array(below.length)
  for (let i = 0, above = 0; i < below.length; i++) {
    end[i] = i + 1 + below[i]!
    while (end[above]! <= i) above = parent[above]!
    if (i > 0) {
      parent[i] = above
      depth[i] = depth[above]! + 1
    }
    above = i
  }
  return { end, parent, depth }
}

function readVersions(reader: ByteReader, count: number): Versions {
  const layer = reader.column(new Uint16Array(count))
  const change = new Uint8Array(count), type = new Uint8Array(count), implied = new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    const kind = reader.number()
    change[i] = kind & 3
    type[i] = kind >> 2 & 7
    implied[i] = kind >> 5
  }
  const differing = reader.column(new Uint16Array(count))
  const mode = reader.column(new Uint16Array(count)), owner = reader.column(new Uint32Array(count)), size = reader.column(new Float64Array(count))
  const seconds = new Float64Array(count)
  for (let i = 0, at = 0; i < count; i++) seconds[i] = at += reader.signed()
  const nanos = reader.column(new Uint32Array(count)), link = reader.column(new Uint32Array(count)), xattr = reader.column(new Uint32Array(count))
  return { layer, change, type, implied, aspects: differing, mode, owner, size, seconds, nanos, link, xattr }
}

/** The last component as it is in the archive (see text.ts for what is not UTF-8). */
export function nameOf(model: Model, node: number): string {
  return model.names[model.name[node]!]!
}

/** The whole path with a slash in front, written out where needed. */
export function pathOf(model: Model, node: number): string {
  const parts: string[] = []
  for (let at = node; at > 0; at = model.parent[at]!) parts.push(plain(nameOf(model, at)))
  return `/${parts.reverse().join('/')}`
}

/** The version of `node` that holds after `layer`, or -1. */
export function versionAt(model: Model, node: number, layer: number): number {
  let found = -1
  for (let i = model.firstVersion[node]!; i < model.firstVersion[node + 1]! && model.versions.layer[i]! <= layer; i++) found = i
  return found
}
