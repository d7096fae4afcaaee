// An analysed image as the bytes that the page reads: columns in tree order, each distinct name once, deflated. Decoding is in model/model.ts.

import { isUtf8 } from 'node:buffer'
import { deflateRawSync } from 'node:zlib'
import type { ImageAnalysis, LayerEntry, MergedNode, PathVersion } from '../compare/types.ts'
import { ByteWriter } from './model/bytes.ts'
import { aspects, changes, FORMAT, NO_ENTRY, types } from './model/model.ts'
import type { PageMeta } from './model/model.ts'
import { INVALID_BYTE, commandText, needsEscape } from './model/text.ts'

export interface EncodedImage {
  /** Deflated (raw). */
  readonly bytes: Buffer
  /** Paths, the root not counted. */
  readonly paths: number
  /** Of paths that the image shows. */
  readonly files: number
}

/** Strings by number, in the order of their first use. */
class Table {
  readonly #numbers = new Map<string, number>()

  number(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    this.#numbers.set(text, this.#numbers.size)
    return this.#numbers.size - 1
  }

  get strings(): string[] { return [...this.#numbers.keys()] }
}

interface Columns {
  readonly name: number[]
  readonly below: number[]
  readonly versions: number[]
  readonly layer: number[]
  readonly kind: number[]
  readonly aspects: number[]
  readonly mode: number[]
  readonly owner: number[]
  readonly size: number[]
  readonly seconds: number[]
  readonly nanos: number[]
  readonly link: number[]
  readonly xattr: number[]
}

export function encodeImage(analysis: ImageAnalysis): EncodedImage {
  const columns: Columns = {
    name: [], below: [], versions: [], layer: [], kind: [], aspects: [], mode: [], owner: [], size: [], seconds: [], nanos: [], link: [], xattr: [],
  }
  const names = new Table(), owners = new Table(), links = new Table(), xattrs = new Table()
  const numbers = new Map<MergedNode, number>()
  let files = 0

  const addEntry = (entry: LayerEntry | undefined): void => {
    columns.mode.push(entry?.mode ?? 0)
    columns.owner.push(entry === undefined ? 0 : owners.number(`${entry.uid}:${entry.gid}\0${`${entry.uname}:${entry.gname}`.replaceAll('\0', '')}`))
    columns.size.push(entry?.sizeBytes ?? 0)
    const { seconds, nanos } = timeOf(entry?.mtimeNs ?? 0n)
    columns.seconds.push(seconds)
    columns.nanos.push(nanos)
    columns.link.push(entry === undefined ? 0 : linkOf(entry, links))
    columns.xattr.push(entry?.xattrs === undefined || entry.xattrs.size === 0 ? 0 : 1 + xattrs.number(xattrText(entry.xattrs)))
  }
  const addVersion = (version: PathVersion): void => {
    const { entry } = version
    columns.layer.push(version.layer)
    const type = entry === undefined ? NO_ENTRY : types.indexOf(entry.type)
    columns.kind.push(changes.indexOf(version.change) | type << 2 | (version.implied === true ? 1 : 0) << 5)
    columns.aspects.push((version.aspects ?? []).reduce((mask, aspect) => mask | 1 << aspects.indexOf(aspect), 0))
    addEntry(entry)
  }
  const addNode = (node: MergedNode): void => {
    numbers.set(node, columns.name.length)
    columns.name.push(names.number(textOf(node.name)))
    columns.below.push(0)
    columns.versions.push(node.versions.length)
    for (const version of node.versions) addVersion(version)
    if (node.present && node.entry !== undefined && node.entry.type !== 'directory') files++
  }
  // Without recursion: an archive may nest deeper than the stack.
  const rest: (MergedNode | number)[] = [analysis.tree]
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    if (typeof next === 'number') {
      columns.below[next] = columns.name.length - next - 1
      continue
    }
    rest.push(columns.name.length)
    addNode(next)
    for (const [, child] of [...next.children].sort(byName).reverse()) rest.push(child)
  }

  const writer = new ByteWriter()
  writer.number(FORMAT)
  const meta: PageMeta = { name: analysis.name, layers: analysis.layers.map(layer => ({ command: commandText(layer.command) })) }
  writer.strings([JSON.stringify(meta)])
  writer.number(columns.name.length)
  writer.number(columns.layer.length)
  const order = sortNames(names.strings)
  writer.strings(order.strings)
  writer.number(order.escapedFrom)
  const owned = owners.strings.map(owner => owner.split('\0'))
  writer.strings(owned.map(([ids]) => ids as string))
  writer.strings(owned.map(([, text]) => text as string))
  writer.strings(links.strings)
  writer.strings(xattrs.strings)
  writer.column(columns.name.map(name => order.places[name]!))
  const { below, versions, layer, kind, aspects: differing, mode, owner, size } = columns
  for (const column of [below, versions, layer, kind, differing, mode, owner, size]) writer.column(column)
  for (let i = 0; i < columns.seconds.length; i++) writer.signed(columns.seconds[i]! - (columns.seconds[i - 1] ?? 0))
  for (const column of [columns.nanos, columns.link, columns.xattr]) writer.column(column)
  const wasted = analysis.wasted.flatMap(row => {
    const node = numbers.get(nodeAt(analysis.tree, row.path) ?? analysis.tree)
    // dive counts a path that is named through a link under the link's name, which is no path of the tree; and the root, which is no row.
    return node === undefined || node === 0 ? [] : [{ ...row, node }]
  })
  writer.number(wasted.length)
  for (const row of wasted) writer.column([row.node, row.count, row.sizeBytes, row.layers.length, ...row.layers])
  // Level 9 takes four times as long for 1 % less.
  return { bytes: deflateRawSync(writer.bytes, { level: 7 }), paths: columns.name.length - 1, files }
}

function nodeAt(tree: MergedNode, path: Buffer): MergedNode | undefined {
  let node: MergedNode | undefined = tree
  for (const part of path.toString('latin1').split('/')) node = node?.children.get(part)
  return node
}

function byName([a]: [string, MergedNode], [b]: [string, MergedNode]): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Those that need escaping last, so that the page need not look. */
function sortNames(strings: readonly string[]): { strings: string[]; places: Uint32Array; escapedFrom: number } {
  const escaped = new Set(strings.filter(needsEscape))
  const sorted = strings.filter(name => !escaped.has(name)).concat([...escaped])
  const places = new Uint32Array(strings.length), at = new Map(sorted.map((name, i) => [name, i]))
  for (const [i, name] of strings.entries()) places[i] = at.get(name)!
  return { strings: sorted, places, escapedFrom: strings.length - escaped.size }
}

/** Bytes of a name as text from which the page can tell what was not UTF-8 (see model/text.ts). Without NUL: it separates. */
export function textOf(bytes: Buffer): string {
  if (isUtf8(bytes)) {
    const text = bytes.toString()
    if (!/[\0\u{10ff00}-\u{10ffff}]/u.test(text)) return text
  }
  let text = ''
  for (let i = 0; i < bytes.length;) {
    const length = [1, 2, 3, 4].find(n => i + n <= bytes.length && isUtf8(bytes.subarray(i, i + n)))
    const character = length === undefined ? '' : bytes.toString('utf8', i, i + length)
    if (length === undefined || character === '\0' || character.codePointAt(0)! >= INVALID_BYTE) {
      text += String.fromCodePoint(INVALID_BYTE + bytes[i]!)
      i++
    } else {
      text += character
      i += length
    }
  }
  return text
}

/** Whole seconds and what is above them; times that no calendar holds are brought to its ends. */
function timeOf(ns: bigint): { seconds: number; nanos: number } {
  const limit = 8_640_000_000_000n
  let seconds = ns / 1_000_000_000n, nanos = ns % 1_000_000_000n
  if (nanos < 0n) {
    seconds -= 1n
    nanos += 1_000_000_000n
  }
  return { seconds: Number(seconds > limit ? limit : seconds < -limit ? -limit : seconds), nanos: Number(nanos) }
}

function linkOf(entry: LayerEntry, links: Table): number {
  if (entry.type === 'char' || entry.type === 'block') return 1 + links.number(`${entry.devMajor}:${entry.devMinor}`)
  if (entry.type === 'link') return 1 + links.number(`/${textOf(entry.linkname)}`)
  return entry.type === 'symlink' ? 1 + links.number(textOf(entry.linkname)) : 0
}

function xattrText(xattrs: ReadonlyMap<string, Buffer>): string {
  return [...xattrs].map(([name, value]) => `${name.replaceAll('\0', '')} (${value.length} B)`).sort().join(', ')
}
