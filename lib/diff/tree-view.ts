// A directory tree as a container sees it, read without mounting: one complete tree, or a stack of overlay or aufs branches merged here
// by the kernel's rules (whiteouts, opaque and redirected directories, metacopy files). Reads only, sync.
//
// The topmost layer may belong to a running container that swaps directories for symlinks while it is read (CVE-2018-15664): its
// directories are held open, and everything in them is reached through /proc/self/fd, so no path is resolved twice.

import fs from 'node:fs'
import type { WhiteoutFormat } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { childPath } from '../fs/rooted.ts'
import type { TreePath } from '../fs/rooted.ts'
import { getXattr, listXattrs } from '../sys/xattr.ts'
import { isOverlayOpaque, isOverlayWhiteout, opaqueName, parseMark, whiteoutPrefix } from './whiteouts.ts'

export interface TreeSpec {
  /** Directories, topmost first; with `none` exactly one. */
  readonly layers: readonly string[]
  readonly whiteouts: WhiteoutFormat | 'none'
  /** Where overlay keeps its marks. Default `trusted.overlay.`. */
  readonly xattrPrefix?: string
}

/** A directory of one layer that contributes to a merged directory. */
interface Source {
  readonly layer: number
  readonly path: TreePath
}

export interface TreeNode {
  /** Bytes below the root, no leading slash; empty for the root. */
  readonly name: Buffer
  readonly st: fs.BigIntStats
  /** The object that shows: metadata and xattrs are read here. */
  readonly path: TreePath
  /** The layer it shows from, 0 being the topmost. */
  readonly layer: number
  /** For a directory: what contributes to it, topmost first. */
  readonly sources: readonly Source[]
  /**
   * For a file: where its bytes lie; differs from `path` for a metacopy. Below the topmost layer it is looked for when it is asked for, as few comparisons
   * come to it. @throws CORRUPT when a metacopy's data is not there
   */
  readonly dataPath: TreePath
  /** The names of its xattrs, where they have been read. */
  readonly attributes?: readonly string[] | undefined
}

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants

export class TreeView {
  readonly spec: TreeSpec
  readonly #prefix: string
  /** Deletions may be 0:0 devices; they may be `.wh.` names. */
  readonly #devices: boolean
  readonly #marks: boolean

  constructor(spec: TreeSpec) {
    if (spec.layers.length === 0 || spec.whiteouts === 'none' && spec.layers.length !== 1) {
      throw new TypeError(`a tree of format ${spec.whiteouts} cannot have ${spec.layers.length} layers`)
    }
    this.spec = spec
    this.#prefix = spec.xattrPrefix ?? 'trusted.overlay.'
    this.#devices = spec.whiteouts === 'overlay' || spec.whiteouts === 'fuse-overlayfs'
    this.#marks = spec.whiteouts === 'aufs' || spec.whiteouts === 'fuse-overlayfs'
  }

  /** @throws NOT_FOUND when a layer is missing */
  root(): TreeNode {
    const sources: Source[] = []
    for (const [layer, path] of this.spec.layers.entries()) {
      if (!fs.statSync(path).isDirectory()) throw new StorageError('INVALID_ARGUMENT', `${path} is not a directory`, { path })
      sources.push({ layer, path })
      if (this.#isOpaque(path, this.#devices ? listXattrs(path) : undefined)) break
    }
    const top = this.spec.layers[0] as string
    const st = fs.statSync(top, { bigint: true })
    return { name: empty, st, path: top, layer: 0, sources, dataPath: top }
  }

  /**
   * Hold the directory's topmost source open, so that its entries are reached by descriptor, until `close`. Layers below the topmost
   * are immutable, so their paths are used as they are. @throws ELOOP or ENOTDIR when it is no directory any more
   */
  hold(directory: TreeNode): { readonly node: TreeNode; close(): void } {
    const first = directory.sources[0]
    if (first === undefined || first.layer !== 0) return { node: directory, close: () => undefined }
    const fd = fs.openSync(first.path, O_RDONLY | O_DIRECTORY | (directory.name.length === 0 ? 0 : O_NOFOLLOW))
    const sources = [{ layer: 0, path: `/proc/self/fd/${fd}` }, ...directory.sources.slice(1)]
    return { node: { ...directory, sources }, close: () => fs.closeSync(fd) }
  }

  /** Names in the directory, sorted by byte. With `ownOnly`, what its topmost source says something about, deletions included. */
  names(directory: TreeNode, ownOnly = false): Buffer[] {
    const seen = new Map<string, Buffer>()
    for (const source of ownOnly ? directory.sources.slice(0, 1) : directory.sources) {
      for (const entry of fs.readdirSync(source.path, { encoding: 'buffer' })) {
        const name = this.#marks ? subject(entry) : entry
        if (name !== undefined) seen.set(name.toString('latin1'), name)
      }
    }
    return [...seen.values()].sort(Buffer.compare)
  }

  /** The entry as the container sees it, or undefined: absent or deleted. */
  child(directory: TreeNode, name: Buffer): TreeNode | undefined {
    const full = directory.name.length === 0 ? name : childPath(directory.name, name)
    if (this.#marks && isMarkName(name)) return undefined
    let top: Pick<TreeNode, 'st' | 'path' | 'layer' | 'attributes'> | undefined
    const sources: Source[] = []
    // What is still to be looked at, nearest first, until a redirect leads elsewhere.
    let rest = directory.sources
    let key = name
    for (let source = rest[0]; source !== undefined; source = rest[0]) {
      rest = rest.slice(1)
      const path = childPath(source.path, key)
      const st = lstat(path)
      if (st !== undefined) {
        if (this.#devices && isOverlayWhiteout(st)) break
        if (!st.isDirectory()) {
          // A file below ends the merging of a directory.
          if (top === undefined) return this.#file(full, st, path, source.layer, rest, key)
          break
        }
        // Most have no mark, and one look says so for all.
        const attributes = this.#devices ? listXattrs(path) : undefined
        top ??= { st, path, layer: source.layer, attributes }
        sources.push({ layer: source.layer, path })
        if (this.#isOpaque(path, attributes)) break
        if (attributes?.includes(`${this.#prefix}redirect`)) ({ key, rest } = this.#redirected(path, source.layer, key, rest))
      }
      if (this.#marks && key.length <= longestMarked && lstat(childPath(source.path, markOf(key))) !== undefined) break
    }
    return top === undefined ? undefined : { ...top, name: full, sources, dataPath: top.path }
  }

  #file(name: Buffer, st: fs.BigIntStats, path: TreePath, layer: number, rest: readonly Source[], key: Buffer): TreeNode {
    let found: TreePath | undefined
    const find = (): TreePath => this.#dataPath(name, st, path, layer, rest, key)
    // Whoever writes it will want them as well.
    const attributes = layer === 0 && this.spec.whiteouts === 'overlay' && st.isFile() ? listXattrs(path) : undefined
    if (attributes?.includes(`${this.#prefix}metacopy`) === false) found = path
    else if (layer === 0) found = find()
    return { name, st, path, layer, sources: [], attributes, get dataPath() { return found ??= find() } }
  }

  /** Where the bytes of the file lie that a layer has at `path`; `rest` lies below it, where it may be called `key`. */
  #dataPath(name: Buffer, st: fs.BigIntStats, path: TreePath, layer: number, rest: readonly Source[], key: Buffer): TreePath {
    if (!this.#isMetacopy(path, st)) return path
    let below = this.#redirected(path, layer, key, rest)
    for (let source = below.rest[0]; source !== undefined; source = below.rest[0]) {
      const at = childPath(source.path, below.key), stBelow = lstat(at)
      below = { key: below.key, rest: below.rest.slice(1) }
      if (stBelow === undefined) continue
      // Neither a deletion nor a directory lets what is below them through.
      if (isOverlayWhiteout(stBelow) || stBelow.isDirectory()) break
      if (!this.#isMetacopy(at, stBelow)) return at
      below = this.#redirected(at, source.layer, below.key, below.rest)
    }
    throw new StorageError('CORRUPT', `${name.toString()}: its data is missing from the layers below (metacopy)`, { path: name.toString() })
  }

  /** What comes below the object at `path`, and its name there, once its redirect is followed. */
  #redirected(path: TreePath, layer: number, key: Buffer, rest: readonly Source[]): { readonly key: Buffer; readonly rest: readonly Source[] } {
    const redirect = this.spec.whiteouts === 'overlay' ? getXattr(path, `${this.#prefix}redirect`) : undefined
    if (redirect === undefined) return { key, rest }
    return { key: redirect.subarray(redirect.lastIndexOf(slash) + 1), rest: redirect[0] === slash ? this.#absolute(redirect, layer) : rest }
  }

  /** The sources of the parent of an absolute redirect, in the layers below `above` (overlayfs.rst § redirect_dir). */
  #absolute(redirect: Buffer, above: number): readonly Source[] {
    const parts = redirect.toString('latin1').split('/').filter(part => part !== '' && part !== '.' && part !== '..').slice(0, -1)
    const sources = this.spec.layers.map((path, layer) => ({ layer, path })).slice(above + 1)
    let node: TreeNode | undefined = { ...this.root(), sources }
    for (const part of parts) {
      node = this.child(node, Buffer.from(part, 'latin1'))
      if (node === undefined) return []
    }
    return node.sources
  }

  #isOpaque(path: TreePath, attributes: readonly string[] | undefined): boolean {
    if ((this.#marks ? fusePrefixes : [this.#prefix]).some(prefix => attributes?.includes(`${prefix}opaque`) === true && isOverlayOpaque(path, prefix))) return true
    return this.#marks && lstat(childPath(path, opaqueName)) !== undefined
  }

  /** A file of which a layer holds only the metadata, its data being in a layer below (overlayfs.rst § metacopy). */
  #isMetacopy(path: TreePath, st: fs.BigIntStats): boolean {
    return this.spec.whiteouts === 'overlay' && st.isFile() && getXattr(path, `${this.#prefix}metacopy`) !== undefined
  }
}

/** fuse-overlayfs marks a directory opaque under the first name space that it may write to, and reads all. */
const fusePrefixes = ['trusted.overlay.', 'user.overlay.', 'user.fuseoverlayfs.']
/** A name has at most 255 bytes (NAME_MAX); what is longer than this has no mark of its own. */
const longestMarked = 255 - whiteoutPrefix.length
const empty = Buffer.alloc(0)
const slash = 0x2f

function lstat(path: TreePath): fs.BigIntStats | undefined {
  try {
    return fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
}

function markOf(name: Buffer): Buffer {
  return Buffer.concat([whiteoutPrefix, name])
}

function isMarkName(name: Buffer): boolean {
  return name.length > 4 && name.toString('latin1', 0, 4) === '.wh.'
}

/** The name that an entry of an aufs branch speaks of; undefined for aufs' own bookkeeping. */
function subject(entry: Buffer): Buffer | undefined {
  if (!isMarkName(entry)) return entry
  const mark = parseMark(entry)
  return mark?.kind === 'whiteout' ? mark.of : undefined
}
