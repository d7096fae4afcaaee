// dive's efficiency of an image, figure for figure. Owns its definition, peculiarities included (dive/filetree/efficiency.go, file_tree.go); what an image
// really shows is merge.ts's business.

import type { Efficiency, LayerEntry, WastedPath } from './types.ts'

interface Node {
  children: Map<string, Node> | undefined
  sizeBytes: number
  isDirectory: boolean
}

interface PathFigures {
  count: number
  cumulative: number
  smallest: number
  layers: number[]
}

const whiteout = '.wh.'

/** Layers as dive sees them: trees of names, whiteouts among them. */
function treeOf(entries: readonly LayerEntry[]): Node {
  const root = emptyNode()
  for (const { path, mark, type, sizeBytes } of entries) {
    const parts = path.length === 0 ? [] : path.toString('latin1').split('/')
    if (mark === 'whiteout') parts.push(`${whiteout}${parts.pop() ?? ''}`)
    const node = reach(root, parts)
    // The opaque mark itself is passed over, but its directory has come into being.
    if (mark === 'opaque' || parts.length === 0) continue
    node.sizeBytes = sizeBytes
    node.isDirectory = type === 'directory'
  }
  return root
}

function emptyNode(): Node {
  return { children: undefined, sizeBytes: 0, isDirectory: false }
}

function reach(root: Node, parts: readonly string[]): Node {
  let node = root
  for (const part of parts) {
    const children = node.children ??= new Map()
    let child = children.get(part)
    if (child === undefined) children.set(part, child = emptyNode())
    node = child
  }
  return node
}

/** Each node after what is in it, names in byte order; the root is not visited. */
function* childrenFirst(node: Node, path: readonly string[] = []): Generator<{ readonly node: Node; readonly path: readonly string[] }> {
  for (const name of [...node.children?.keys() ?? []].sort()) {
    const child = node.children?.get(name) as Node
    const at = [...path, name]
    yield* childrenFirst(child, at)
    yield { node: child, path: at }
  }
}

/** dive's Path(): the last component without `.wh.`. */
function subjectOf(path: readonly string[]): string[] {
  const last = path.at(-1) as string
  return last.startsWith(whiteout) ? [...path.slice(0, -1), last.slice(whiteout.length)] : [...path]
}

function find(root: Node, path: readonly string[]): Node | undefined {
  let node: Node | undefined = root
  for (const part of path) node = node?.children?.get(part)
  return node
}

/** Put a layer on the stack: opaque marks hide nothing, and a directory that only its children name forgets that it was one. */
function stack(root: Node, layer: Node): void {
  for (const { node, path } of childrenFirst(layer)) {
    if (path.at(-1)?.startsWith(whiteout)) {
      const subject = subjectOf(path)
      find(root, subject.slice(0, -1))?.children?.delete(subject.at(-1) as string)
    } else {
      const target = reach(root, path)
      target.sizeBytes = node.sizeBytes
      target.isDirectory = node.isDirectory
    }
  }
}

function bytesIn(node: Node): number {
  let sizeBytes = node.sizeBytes
  for (const child of node.children?.values() ?? []) sizeBytes += bytesIn(child)
  return sizeBytes
}

/**
 * The figures of layers, base first. efficiency = Σ over leaf paths of the smallest size seen / Σ of all sizes seen; a whiteout of a directory counts what the
 * directory held, one of a file 0. A path is wasteful when two or more leaves name it; wastedBytes sums all its copies, the last one included.
 * One thing is not dive's: a whiteout of what is not there counts 0 bytes, where dive gives up on the rest of that layer.
 */
export function efficiencyOf(layers: readonly (readonly LayerEntry[])[]): Efficiency {
  const figures = new Map<string, PathFigures>()
  const below = emptyNode()
  for (const [index, entries] of layers.entries()) {
    const tree = treeOf(entries)
    for (const { node, path } of childrenFirst(tree)) {
      if (node.children !== undefined) continue
      const subject = subjectOf(path)
      let sizeBytes = node.sizeBytes
      if (path.at(-1)?.startsWith(whiteout)) {
        const hidden = find(below, subject)
        sizeBytes = hidden?.isDirectory === true ? bytesIn(hidden) : 0
      }
      const key = subject.join('/')
      const known = figures.get(key)
      if (known === undefined) figures.set(key, { count: 1, cumulative: sizeBytes, smallest: sizeBytes, layers: [index] })
      else {
        known.count++
        known.cumulative += sizeBytes
        known.smallest = Math.min(known.smallest, sizeBytes)
        if (known.layers.at(-1) !== index) known.layers.push(index)
      }
    }
    // dive stacks the base on a copy of itself: the same tree.
    if (index < layers.length - 1) stack(below, tree)
  }
  let smallest = 0, cumulative = 0, wastedBytes = 0
  const wasted: WastedPath[] = []
  for (const [key, { count, layers: named, ...path }] of figures) {
    smallest += path.smallest
    cumulative += path.cumulative
    if (count < 2) continue
    wastedBytes += path.cumulative
    wasted.push({ path: Buffer.from(key, 'latin1'), count, sizeBytes: path.cumulative, layers: named })
  }
  const sizes = layers.map(sizeOf)
  const sizeBytes = sum(sizes), userSizeBytes = sum(sizes.slice(1))
  return {
    efficiency: cumulative === 0 ? 1 : smallest / cumulative, sizeBytes, userSizeBytes, wastedBytes, wastedUserPercent: wastedBytes / userSizeBytes,
    wasted: wasted.sort((a, b) => b.sizeBytes - a.sizeBytes || a.path.compare(b.path)),
  }
}

/** A layer's size as dive and Docker count it: the bytes of its files. */
export function sizeOf(entries: readonly LayerEntry[]): number {
  return sum(entries.map(entry => entry.mark === undefined ? entry.sizeBytes : 0))
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0)
}
