// What the tree shows for a choice of layer, of kinds of change, and of search: which paths, how marked, how large, and in which rows. One pass over
// the columns per choice: 100,000 paths take a few milliseconds.

import { ADDED, DIRECTORY, MODIFIED, NO_ENTRY, REMOVED, UNMODIFIED } from './model.ts'
import type { Model } from './model.ts'

export interface Choice {
  /** Index of the layer. */
  readonly layer: number
  /** `merged`: what a container sees after the layer; `layer`: what the layer itself holds. */
  readonly scope: 'merged' | 'layer'
}

/** No mark: the layer does not touch the path. Others are `ADDED` … `UNMODIFIED`. */
export const UNTOUCHED = 4

export interface View {
  readonly choice: Choice
  readonly shown: Uint8Array
  /** What the layer does to the path: `ADDED` … `UNMODIFIED`, or `UNTOUCHED`. */
  readonly mark: Uint8Array
  /** The version whose metadata is shown (for a removed path the one that went), or -1. */
  readonly version: Int32Array
  readonly directory: Uint8Array
  /** 1 for a directory that shows something in it. */
  readonly filled: Uint8Array
  /** Bytes of the file, or of all files below that are not removed. */
  readonly size: Float64Array
  /** By mark, how many paths below and at the node have it. */
  readonly marks: readonly Uint32Array[]
  /** By mark, in all. */
  readonly totals: readonly number[]
  /** Paths that are there (removed ones are not). */
  readonly present: number
}

export function viewOf(model: Model, choice: Choice): View {
  const { count, end, parent, firstVersion, versions } = model
  const shown = new Uint8Array(count), mark = new Uint8Array(count).fill(UNTOUCHED), directory = new Uint8Array(count)
  const version = new Int32Array(count).fill(-1), size = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    let last = -1, described = -1
    for (let v = firstVersion[i]!; v < firstVersion[i + 1]! && versions.layer[v]! <= choice.layer; v++) {
      last = v
      if (versions.change[v] !== REMOVED) described = v
    }
    const touched = last >= 0 && versions.layer[last] === choice.layer
    if (touched) mark[i] = versions.change[last]!
    version[i] = described
    const type = described < 0 ? NO_ENTRY : versions.type[described]!
    directory[i] = type === DIRECTORY || (type === NO_ENTRY && end[i]! > i + 1) ? 1 : 0
    if (described >= 0 && directory[i] === 0) size[i] = versions.size[described]!
    if (choice.scope === 'merged') shown[i] = touched || (last >= 0 && versions.change[last] !== REMOVED) ? 1 : 0
    // A layer that removes a directory names it alone, not what went with it.
    else shown[i] = touched && !(versions.implied[last] === 1 && mark[parent[i]!] === REMOVED) ? 1 : 0
  }
  return { choice, shown, mark, version, directory, size, ...sums(model, shown, mark, directory, size) }
}

/** Backwards, so that all below a path is known before the path. Adds to `size` and `shown` of directories as it goes. */
function sums(
  model: Model, shown: Uint8Array, mark: Uint8Array, directory: Uint8Array, size: Float64Array,
): Pick<View, 'filled' | 'marks' | 'totals' | 'present'> {
  const marks = [ADDED, MODIFIED, REMOVED].map(() => new Uint32Array(model.count)), totals = [0, 0, 0, 0, 0]
  const filled = new Uint8Array(model.count)
  let present = 0
  for (let i = model.count - 1; i > 0; i--) {
    const above = model.parent[i]!, own = mark[i]!
    const removed = own === REMOVED
    // What was removed counts for the removed directory that it was in, not for one that is still there.
    if (removed ? mark[above] === REMOVED : shown[i] === 1) size[above]! += size[i]!
    if (shown[i] === 0) continue
    totals[own]!++
    if (!removed) present++
    if (isChange(own)) marks[own]![i]!++
    for (const column of marks) column[above]! += column[i]!
    // What the layer holds hangs in directories that it may not name.
    shown[above] = filled[above] = directory[above] = 1
  }
  return { filled, marks, totals, present }
}

export type Sort = 'name' | 'size'

export interface RowOptions {
  /** 1 where the user has opened the directory. */
  readonly open: Uint8Array
  readonly sort: Sort
  /** Paths to show, with those above them; all when absent. */
  readonly wanted?: Uint8Array
  /** 1 where the user has closed a directory that leads to what is wanted. */
  readonly closed?: Uint8Array
}

export interface Rows {
  /** The paths, in the order of their rows. */
  readonly nodes: Uint32Array
  /** 1 where the row's directory is open. */
  readonly opened: Uint8Array
  /** How many of the paths shown are wanted. */
  readonly found: number
}

/** The rows from the root's children down. While something is wanted, directories that lead to it are open unless closed by hand. */
export function rowsOf(model: Model, view: View, options: RowOptions): Rows {
  const { wanted } = options
  const counts = wanted === undefined ? undefined : runningCount(view, wanted)
  const nodes = new Uint32Array(model.count), opened = new Uint8Array(model.count)
  let length = 0
  // Without recursion: an archive may nest deeper than the stack. `all`: what leads to nothing found shows all that it holds.
  const stack = [{ children: childrenOf(model, view, 1, model.end[0]!, options.sort), at: 0, all: counts === undefined }]
  for (let level = stack.at(-1); level !== undefined; level = stack.at(-1)) {
    const node = level.children[level.at++]
    if (node === undefined) {
      stack.pop()
      continue
    }
    const end = model.end[node]!
    const below = counts === undefined || level.all ? 0 : counts[end]! - counts[node + 1]!
    if (counts !== undefined && !level.all && below === 0 && counts[node + 1] === counts[node]) continue
    const row = length++
    nodes[row] = node
    const open = view.filled[node] === 1 && (below > 0 ? options.closed?.[node] !== 1 : options.open[node] === 1)
    if (!open) continue
    opened[row] = 1
    stack.push({ children: childrenOf(model, view, node + 1, end, options.sort), at: 0, all: below === 0 })
  }
  return { nodes: nodes.subarray(0, length), opened: opened.subarray(0, length), found: counts === undefined ? view.present : counts[model.count]! }
}

/** `counts[i]`: how many of the paths before `i` are shown and wanted. */
function runningCount(view: View, wanted: Uint8Array): Uint32Array {
  const counts = new Uint32Array(wanted.length + 1)
  for (let i = 0; i < wanted.length; i++) counts[i + 1] = counts[i]! + (wanted[i] === 1 && view.shown[i] === 1 && i > 0 ? 1 : 0)
  return counts
}

function childrenOf(model: Model, view: View, from: number, until: number, sort: Sort): number[] {
  const children: number[] = []
  for (let i = from; i < until; i = model.end[i]!) if (view.shown[i] === 1) children.push(i)
  // In tree order they are sorted by name already.
  return sort === 'size' ? children.sort((a, b) => view.size[b]! - view.size[a]! || a - b) : children
}

/** Paths whose mark is one of `kinds`. */
export function withMarks(view: View, kinds: readonly number[]): Uint8Array {
  return view.mark.map(mark => kinds.includes(mark) ? 1 : 0)
}

/** Is `mark` a change that a reader looks for? A path that is written again as it was, is not. */
export function isChange(mark: number): boolean {
  return mark < UNMODIFIED
}
