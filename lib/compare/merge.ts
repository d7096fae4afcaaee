// Layers put on each other as a mounted image shows them, with what each layer said about each path. Owns the rules of merging (OCI image spec, layer.md
// § Applying Changesets; lib/diff/README.md has them as a table); reads entries only, never a file.

import { StorageError } from '../errors.ts'
import { cleanName } from '../tar/names.ts'
import { aspectsOf, semantic } from './differ.ts'
import type { Inode, LayerEntry, MergedNode, PathVersion } from './types.ts'

/** As many as Linux follows in one path. */
const mostLinks = 40

const noChildren: ReadonlyMap<string, Node> = new Map<string, Node>()

class CountedInode implements Inode {
  readonly entry: LayerEntry
  readonly layer: number
  /** Paths that show it. */
  names = 0

  constructor(entry: LayerEntry, layer: number) {
    this.entry = entry
    this.layer = layer
  }
}

class Node implements MergedNode {
  /** The name as latin1: a Buffer for each of 40,000 names would take as much as all else. */
  readonly key: string
  /** Most paths are files: one empty map serves them all. */
  children: ReadonlyMap<string, Node> = noChildren
  readonly versions: PathVersion[] = []
  entry?: LayerEntry
  inode?: CountedInode
  present = false
  /** A directory that shows; without an entry while only its children are named. */
  directory = false

  constructor(key: string) {
    this.key = key
  }

  get name(): Buffer { return Buffer.from(this.key, 'latin1') }
}

/** How a path stood before the layer that is being put on. */
interface Before {
  readonly present: boolean
  readonly directory: boolean
  readonly inode: CountedInode | undefined
  implied: boolean
}

/** What one layer did, counted. */
export interface LayerCounts {
  added: number
  modified: number
  unmodified: number
  removed: number
  /** Bytes of files of lower layers that no name shows any more because of this layer. */
  hidesBytes: number
}

export class Merger {
  readonly #root = new Node('')
  #layer = -1
  #touched = new Map<Node, Before>()
  /** Inodes that lost their last name in this layer; some get another one. */
  #nameless = new Set<CountedInode>()
  /** By layer: bytes of its files that a later layer hid. */
  readonly #hidden: number[] = []

  constructor() {
    this.#root.present = this.#root.directory = true
  }

  get root(): MergedNode { return this.#root }

  /** Bytes of files of this layer that the tree shows no more, each inode once. */
  hiddenBytes(layer: number): number {
    return this.#hidden[layer] ?? 0
  }

  /** Put the next layer on. Its marks hide what lower layers have, wherever they stand among its entries. @throws INVALID_ARCHIVE */
  add(entries: readonly LayerEntry[]): LayerCounts {
    this.#layer++
    this.#touched = new Map()
    this.#nameless = new Set()
    for (const entry of entries) if (entry.mark !== undefined) this.#hide(entry)
    for (const entry of entries) if (entry.mark === undefined) this.#put(entry)
    return this.#note()
  }

  #hide(entry: LayerEntry): void {
    const node = this.#find(entry.path)
    if (node === undefined) return
    if (entry.mark === 'opaque') for (const child of node.children.values()) this.#remove(child, true)
    else if (node !== this.#root) this.#remove(node, false)
  }

  #find(path: Buffer): Node | undefined {
    let node: Node | undefined = this.#root
    for (const part of partsOf(path)) node = node?.children.get(part)
    return node
  }

  #remember(node: Node, implied = false): Before {
    let before = this.#touched.get(node)
    if (before === undefined) this.#touched.set(node, before = { present: node.present, directory: node.directory, inode: node.inode, implied })
    return before
  }

  #remove(node: Node, implied: boolean): void {
    if (node.present) {
      const before = this.#remember(node, implied)
      before.implied &&= implied
      this.#clear(node)
    }
    this.#removeInside(node)
  }

  /** What is gone already has nothing left inside. */
  #removeInside(node: Node): void {
    for (const child of node.children.values()) if (child.present) this.#remove(child, true)
  }

  #clear(node: Node): void {
    node.present = node.directory = false
    delete node.entry
    this.#setInode(node, undefined)
  }

  #setInode(node: Node, inode: CountedInode | undefined): void {
    if (node.inode !== undefined && --node.inode.names === 0) this.#nameless.add(node.inode)
    if (inode === undefined) delete node.inode
    else {
      node.inode = inode
      inode.names++
    }
  }

  #put(entry: LayerEntry): void {
    const parts = partsOf(entry.path)
    if (parts.length === 0) {
      if (entry.type !== 'directory') throw new StorageError('INVALID_ARCHIVE', `a layer's entry for its root is a ${entry.type}`)
      this.#remember(this.#root)
      this.#show(this.#root, entry)
      return
    }
    const parent = this.#directory(parts.slice(0, -1))
    const last = parts.at(-1) as string
    const node = childOf(parent, last)
    this.#remember(node)
    if (entry.type !== 'directory') this.#removeInside(node)
    this.#show(node, entry)
  }

  #show(node: Node, entry: LayerEntry): void {
    const target = entry.type === 'link' ? this.#find(entry.linkname)?.inode : undefined
    node.present = true
    node.directory = entry.type === 'directory'
    node.entry = entry
    this.#setInode(node, target ?? new CountedInode(entry, this.#layer))
  }

  /** The directory of this path; what is missing, or is none, becomes one. Links that this very layer made are followed, inside the root, as extracting it does. */
  #directory(path: readonly string[]): Node {
    let parts = [...path]
    let links = 0
    for (;;) {
      let node = this.#root
      let at = 0
      for (; at < parts.length; at++) {
        const child = childOf(node, parts[at] as string)
        if (child.inode?.entry.type === 'symlink' && child.inode.layer === this.#layer) break
        if (!child.directory) {
          this.#remember(child)
          this.#clear(child)
          child.present = child.directory = true
        }
        node = child
      }
      if (at === parts.length) return node
      if (++links > mostLinks) throw new StorageError('INVALID_ARCHIVE', `too many levels of symbolic links in a layer at ${JSON.stringify(path.join('/'))}`)
      const { linkname } = (childOf(node, parts[at] as string).inode as Inode).entry
      const base = linkname[0] === 0x2f ? [] : parts.slice(0, at)
      parts = partsOf(cleanName(Buffer.from([...base, linkname.toString('latin1'), ...parts.slice(at + 1)].join('/'), 'latin1')))
    }
  }

  #note(): LayerCounts {
    const counts: LayerCounts = { added: 0, modified: 0, unmodified: 0, removed: 0, hidesBytes: 0 }
    for (const [node, before] of this.#touched) {
      const version = this.#version(node, before)
      if (version === undefined) continue
      counts[version.change]++
      node.versions.push(version)
    }
    for (const { layer, entry, names } of this.#nameless) {
      if (names > 0) continue
      if (layer < this.#layer) counts.hidesBytes += entry.sizeBytes
      this.#hidden[layer] = this.hiddenBytes(layer) + entry.sizeBytes
    }
    return counts
  }

  #version(node: Node, before: Before): PathVersion | undefined {
    const layer = this.#layer
    if (!node.present) return before.present ? { layer, change: 'removed', ...(before.implied ? { implied: true } : {}) } : undefined
    const entry = node.entry === undefined ? {} : { entry: node.entry }
    if (!before.present) return { layer, change: 'added', ...entry }
    // A directory without an entry on either side: what it is like is nobody's word.
    if (before.inode === undefined || node.inode === undefined) {
      return before.directory === node.directory ? { layer, change: 'unmodified', aspects: [], ...entry } : { layer, change: 'modified', aspects: ['type'], ...entry }
    }
    const aspects = before.inode === node.inode ? [] : aspectsOf(before.inode.entry, node.inode.entry)
    return { layer, change: semantic(aspects).length > 0 ? 'modified' : 'unmodified', aspects, ...entry }
  }
}

function childOf(parent: Node, key: string): Node {
  const known = parent.children.get(key)
  if (known !== undefined) return known
  const child = new Node(key)
  if (parent.children === noChildren) parent.children = new Map([[key, child]])
  else (parent.children as Map<string, Node>).set(key, child)
  return child
}

function partsOf(path: Buffer): string[] {
  return path.length === 0 ? [] : path.toString('latin1').split('/')
}

/** Walk what is there: each node before what is in it, names in byte order. `path` has no leading slash. Not recursive: trees may be deep. */
export function* walkMerged(root: MergedNode, { gone = false }: { /** Also what the image no longer shows. Default false. */ readonly gone?: boolean } = {}): Generator<{ readonly path: Buffer; readonly node: MergedNode }> {
  const stack: { readonly key: string; readonly node: MergedNode }[] = [{ key: '', node: root }]
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { key, node } = top
    yield { path: Buffer.from(key, 'latin1'), node }
    const names = [...node.children.keys()].sort().reverse()
    for (const name of names) {
      const child = node.children.get(name) as MergedNode
      if (gone || child.present) stack.push({ key: key === '' ? name : `${key}/${name}`, node: child })
    }
  }
}
