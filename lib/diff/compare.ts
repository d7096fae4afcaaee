// The changes that lead from one tree to another, found by walking both views in step. Where the upper view is a stack on the lower
// one, only what its topmost branch mentions is looked at; everything else is the same by construction.
//
// A change is what the writer of a layer must record: mode, owner, device number, xattrs that layers carry, link text, and for files size
// and mtime to the nanosecond. A directory's size and mtime are no change (moby's rule). Content is compared only where something says that
// a file of the same size and time was written to: a branch's own copy, a snapshot's changed paths. Two complete trees would have to be read whole.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { effectiveStat, readOverrideStat } from '../fs/override-stat.ts'
import type { EffectiveStat } from '../fs/override-stat.ts'
import { nativeReason } from '../sys/native.ts'
import { splitDev } from '../sys/files.ts'
import { privileges } from '../sys/privileges.ts'
import { childPath } from '../fs/rooted.ts'
import { getXattr, listXattrs, xattrAvailable } from '../sys/xattr.ts'
import { TreeView } from './tree-view.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'
import { mayWrite } from './xattr-policy.ts'

export type TreeChange =
  | { readonly kind: 'A' | 'C'; readonly node: TreeNode }
  | { readonly kind: 'D'; readonly name: Buffer }

export interface CompareOptions {
  /**
   * Also report unchanged files that share an inode with another name, so that a writer can keep hard links together, with those
   * of the directories above that have not been reported.
   */
  readonly onUnchangedLink?: (node: TreeNode, parents: readonly TreeNode[]) => void
  /** Look at what the topmost branch says nothing about, too: for the names there of files that are new under another one (`linkedElsewhere`). */
  readonly everywhere?: boolean
  /** Called for each directory that is looked into and each 256 KiB that are compared; what it throws ends the walk. */
  readonly onStep?: () => void
  /**
   * For two complete trees, one a snapshot of the other: the names (a NUL behind each) outside which nothing differs, so that nothing else is looked
   * at. Inside a directory that is not its counterpart by inode number (made anew, or moved there), everything is.
   */
  readonly only?: Uint8Array | undefined
}

/** A directory's part of the names that are to be looked at. */
interface Scope {
  readonly name: Buffer
  readonly inside: Map<string, Scope>
}

function scopeOf(names: Uint8Array): Scope {
  const root: Scope = { name: Buffer.alloc(0), inside: new Map() }
  const bytes = Buffer.from(names.buffer, names.byteOffset, names.length)
  for (let from = 0, end = bytes.indexOf(0); end >= 0; from = end + 1, end = bytes.indexOf(0, from)) {
    let at = root
    for (let start = from; start < end;) {
      const slash = bytes.indexOf(0x2f, start)
      const stop = slash < 0 || slash > end ? end : slash
      const name = bytes.subarray(start, stop), key = name.toString('latin1')
      let next = at.inside.get(key)
      if (next === undefined) at.inside.set(key, next = { name, inside: new Map() })
      at = next
      start = stop + 1
    }
  }
  return root
}

/**
 * Changes from `lower` to `upper`, each directory before its entries, names in byte order. A directory that holds changes is itself
 * reported as C, before them, unless it is the root. Nodes are valid until the next step.
 */
export function* compareTrees(upper: TreeSpec, lower: TreeSpec | undefined, options: CompareOptions = {}): Generator<TreeChange> {
  const up = new TreeView(upper)
  const down = lower === undefined ? undefined : new TreeView(lower)
  const stacked = lower !== undefined && upper.whiteouts !== 'none'
  const everywhere = options.everywhere === true
  const top = up.root()
  const bottom = down?.root()
  if (bottom !== undefined && !sameMetadata(top, bottom)) yield { kind: 'C', node: top }
  // Directories that were entered and not yet reported: reported before the first change inside.
  const pending: TreeNode[] = []
  function* flush(): Generator<TreeChange> {
    for (const node of pending.splice(0)) yield { kind: 'C', node }
  }

  function* walk(u: TreeNode, l: TreeNode | undefined, wanted: Scope | undefined): Generator<TreeChange> {
    options.onStep?.()
    const held = ifThere(() => up.hold(u))
    if (held === undefined) return
    try {
      const ownOnly = stacked && !everywhere && l !== undefined && u.layer === 0 && sameBelow(u, l)
      const scope = l?.st.ino === u.st.ino ? wanted : undefined
      const names = scope === undefined ? namesOf(held.node, l, ownOnly) : [...scope.inside.values()].map(inner => inner.name).sort(Buffer.compare)
      for (const name of names) {
        const a = ifThere(() => up.child(held.node, name))
        const b = l === undefined ? undefined : down?.child(l, name)
        if (a === undefined) {
          if (b !== undefined) { yield* flush(); yield { kind: 'D', name: b.name } }
          continue
        }
        // A layer cannot hold sockets (OCI image spec, layer.md § File Types); what one has replaced is gone all the same.
        if (a.st.isSocket()) {
          if (b !== undefined && !b.st.isSocket()) { yield* flush(); yield { kind: 'D', name: b.name } }
          continue
        }
        const isDirectory = a.st.isDirectory()
        if (b !== undefined && isSame(a, b)) {
          if (everywhere && !isDirectory && a.st.nlink > 1n) options.onUnchangedLink?.(a, pending)
          continue
        }
        if (b === undefined || b.st.isSocket()) {
          yield* flush()
          yield { kind: 'A', node: a }
        } else if (isDirectory !== b.st.isDirectory() || ifThere(() => sameMetadata(a, b) && (!stacked && scope === undefined || sameContent(a, b, options.onStep))) !== true) {
          yield* flush()
          yield { kind: 'C', node: a }
        } else if (isDirectory) {
          pending.push(a)
        } else if (a.st.nlink > 1n) options.onUnchangedLink?.(a, pending)
        if (!isDirectory) continue
        yield* walk(a, b?.st.isDirectory() === true ? b : undefined, scope?.inside.get(name.toString('latin1')))
        // Nothing inside changed: the directory was pushed last and is still there.
        if (pending.at(-1) === a) pending.pop()
      }
    } finally {
      held.close()
    }
  }

  function namesOf(u: TreeNode, l: TreeNode | undefined, ownOnly: boolean): Buffer[] {
    const own = ifThere(() => up.names(u, ownOnly)) ?? []
    if (ownOnly || l === undefined || down === undefined) return own
    const all = new Map(own.map(name => [name.toString('latin1'), name]))
    for (const name of down.names(l)) all.set(name.toString('latin1'), name)
    return [...all.values()].sort(Buffer.compare)
  }

  /** The very same object shows in both: nothing in or below it can differ. */
  function isSame(a: TreeNode, b: TreeNode): boolean {
    if (a.st.ino !== b.st.ino || a.st.dev !== b.st.dev) return false
    return !a.st.isDirectory() || !stacked || !everywhere && a.layer > 0 && sameBelow(a, b)
  }

  yield* walk(top, bottom, options.only === undefined || stacked ? undefined : scopeOf(options.only))
}

/**
 * A file that shows from a lower branch and has changed can only be in a directory that was moved (a redirect). Where it has further names, some may
 * lie where nothing changed, and nothing but a walk through everything finds them.
 */
export function linkedElsewhere(change: TreeChange): boolean {
  return change.kind !== 'D' && change.node.layer > 0 && change.node.st.nlink > 1n && !change.node.st.isDirectory()
}

/**
 * What is read, or undefined when it vanished or changed its kind since it was listed: the tree may belong to a running container.
 * Whoever opens it for good meets that again and reports it.
 */
function ifThere<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (!vanished(error)) throw error
    return undefined
  }
}

/** ENXIO: a fifo, opened for writing only. EINVAL: readlink(2) of what is no link any more. */
export function vanished(error: unknown): boolean {
  return isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EINVAL')
}

/** Do two directories merge the same directories, the topmost layer's own aside? Then only that one can make a difference. */
function sameBelow(a: TreeNode, b: TreeNode): boolean {
  const below = a.layer === 0 ? a.sources.slice(1) : a.sources
  return below.length === b.sources.length && below.every((source, i) => Buffer.from(source.path).equals(Buffer.from(b.sources[i]?.path ?? '')))
}

function sameMetadata(a: TreeNode, b: TreeNode): boolean {
  const x = statOf(a), y = statOf(b)
  if (x.mode !== y.mode || x.uid !== y.uid || x.gid !== y.gid || x.major !== y.major || x.minor !== y.minor) return false
  if (a.st.isSymbolicLink()) return fs.readlinkSync(a.path, { encoding: 'buffer' }).equals(fs.readlinkSync(b.path, { encoding: 'buffer' })) && sameTime(a, b)
  if (!a.st.isDirectory() && (a.st.size !== b.st.size || !sameTime(a, b))) return false
  return sameXattrs(a, b)
}

/** Without native calls a copy has its times to the microsecond at best (lutimes), and a double's rounding may cost one more. */
function sameTime(a: TreeNode, b: TreeNode): boolean {
  const ns = a.st.mtimeNs - b.st.mtimeNs
  return ns === 0n || nativeReason !== undefined && ns > -2000n && ns < 2000n
}

/**
 * What the node is. In an unprivileged store the notes of owners and modes count, and what we own without a note was made by a
 * container whose root we are, so it is root's (umoci's rule for rootless trees). A privileged store writes no notes: there any user of a container
 * could note that his file is root's and setuid, and a commit would make it so.
 */
export function statOf(node: TreeNode): EffectiveStat {
  const { st } = node
  if (rootlessUid === undefined) return { mode: Number(st.mode), uid: Number(st.uid), gid: Number(st.gid), ...(st.rdev === 0n ? noDevice : splitDev(st.rdev)) }
  const stat = effectiveStat(node.path, st)
  if (stat.uid !== rootlessUid || Number(st.uid) !== rootlessUid) return stat
  return (st.isFile() || st.isDirectory()) && readOverrideStat(node.path) !== undefined ? stat : { ...stat, uid: 0, gid: 0 }
}
const noDevice = { major: 0, minor: 0 }
const rootlessUid = privileges().chown ? undefined : process.geteuid?.()

function sameXattrs(a: TreeNode, b: TreeNode): boolean {
  const x = xattrsOf(a), y = xattrsOf(b)
  if (x.size !== y.size) return false
  for (const [name, value] of x) if (y.get(name)?.equals(value) !== true) return false
  return true
}

/** The attributes that a layer carries, in name order. */
export function xattrsOf(node: TreeNode): Map<string, Buffer> {
  const found = new Map<string, Buffer>()
  if (!xattrAvailable) return found
  for (const name of (node.attributes ?? listXattrs(node.path)).filter(mayWrite).sort()) {
    const value = getXattr(node.path, name)
    if (value !== undefined) found.set(name, value)
  }
  return found
}

/**
 * Same size and time: a branch's own copy is read and compared, so that a rewrite with a restored time is seen; so is a file that shows
 * in the place of another one since its directory was moved there.
 */
function sameContent(a: TreeNode, b: TreeNode, onStep: (() => void) | undefined): boolean {
  if (!a.st.isFile() || a.st.size === 0n || Buffer.from(a.dataPath).equals(Buffer.from(b.dataPath))) return true
  return filesEqual(a.dataPath, b.dataPath, Number(a.st.size), onStep)
}

function filesEqual(a: string | Buffer, b: string | Buffer, sizeBytes: number, onStep: (() => void) | undefined): boolean {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants
  const x = fs.openSync(a, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const y = fs.openSync(b, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    try {
      const p = Buffer.allocUnsafe(262_144), q = Buffer.allocUnsafe(262_144)
      for (let at = 0; at < sizeBytes;) {
        const n = fs.readSync(x, p, 0, p.length, at), m = fs.readSync(y, q, 0, q.length, at)
        if (n !== m || p.compare(q, 0, n, 0, n) !== 0) return false
        if (n === 0) return true
        at += n
        onStep?.()
      }
      return true
    } finally {
      fs.closeSync(y)
    }
  } finally {
    fs.closeSync(x)
  }
}

/** The path as lists of changes print it. */
export function printedPath(name: Buffer): Buffer {
  return name.length === 0 ? Buffer.from('/') : childPath(Buffer.alloc(0), name)
}
