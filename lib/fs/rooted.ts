// Turns the names of a layer into paths that stay inside one root. In a jailed thread the kernel sees to that and the name is the path;
// elsewhere symlinks of parent directories are followed here, inside the root, never outside. The last component is never followed.
// The tree must not be changed by others meanwhile; who reads a tree that a container changes uses the jail.

import fs from 'node:fs'
import { isUtf8 } from 'node:buffer'
import { isErrno, StorageError } from '../errors.ts'

/** A path for Node's fs: a string where the bytes are UTF-8 (twice as fast as bytes), else the bytes. */
export type TreePath = string | Buffer

export function toTreePath(bytes: Buffer): TreePath {
  return isUtf8(bytes) ? bytes.toString('utf8') : bytes
}

/** Where names of a layer live. Names are cleaned: no leading slash, no `.` or `..`, not empty. */
export interface Place {
  /** The path of `name`, its parents resolved. @throws NOT_FOUND, ENOTDIR, ELOOP as Node or StorageError with that errno */
  path(name: Buffer): TreePath
  /** The path of the root itself. */
  readonly root: TreePath
  /** Something was removed or replaced: forget what was resolved. */
  forget(): void
  /** The in-root name that `name` leads to, its last component followed as well, whether or not it exists. */
  follow(name: Buffer): Buffer
}

const slash = 0x2f
const maxLinks = 40 // the kernel's limit (MAXSYMLINKS), so that a layer fares the same jailed and not; containerd's RootPath has 255.

function join(parent: Buffer, name: Buffer): Buffer {
  return parent.length === 0 ? name : childPath(parent, name)
}

/** `directory` + '/' + `name`, as bytes. */
export function childPath(directory: TreePath, name: Buffer): Buffer {
  return Buffer.concat([typeof directory === 'string' ? Buffer.from(directory) : directory, slashBytes, name])
}
const slashBytes = Buffer.from('/')

export function parentOf(name: Buffer): Buffer {
  const at = name.lastIndexOf(slash)
  return at < 0 ? empty : name.subarray(0, at)
}
export function baseOf(name: Buffer): Buffer {
  return name.subarray(name.lastIndexOf(slash) + 1)
}
const empty = Buffer.alloc(0)

/** Names of a thread whose root is the tree (sys/jail.ts). */
export function jailedPlace(): Place {
  const followers = resolvingPlace('/')
  return {
    root: '/',
    path: name => toTreePath(Buffer.concat([slashBytes, name])),
    forget: () => followers.forget(),
    follow: name => followers.follow(name),
  }
}

/** Names below `root`, resolved here component by component. */
export function resolvingPlace(root: string): Place {
  const base = root === '/' ? '' : root
  const real = (name: Buffer): TreePath => name.length === 0 ? root : toTreePath(Buffer.concat([Buffer.from(`${base}/`), name]))
  // Names (latin1 of the bytes) that exist, what they lead to, and by how many links. A name that is missing is not kept: it may be made a
  // link later (by link(2), too), and the kernel would then follow it out of the root.
  let known = new Map<string, Resolved>()

  /** Follow all of `name`'s components but those after `upTo`; missing components are taken literally. */
  const resolve = (name: Buffer): Buffer => {
    if (name.length === 0) return empty
    const key = name.toString('latin1')
    const hit = known.get(key)
    if (hit !== undefined) return hit.to
    const parent = known.get(parentOf(name).toString('latin1'))
    let { to: at, links } = parent ?? { to: empty, links: 0 }
    const todo = parent === undefined ? split(name) : [baseOf(name)]
    let exists = true
    while (todo.length > 0) {
      const part = todo.shift() as Buffer
      if (part.length === 0 || part.equals(dot)) continue
      if (part.equals(dotdot)) { at = parentOf(at); continue }
      const next = join(at, part)
      const path = real(next)
      const st = lstat(path)
      if (st?.isSymbolicLink() !== true) {
        exists = st !== undefined
        at = next
        continue
      }
      if (++links > maxLinks) {
        throw new StorageError('INVALID_ARCHIVE', `resolving ${name.toString()}: too many symbolic links`, { errno: 'ELOOP', path: name.toString() })
      }
      const target = readLink(path)
      // Exchanged since we looked: look again, as often as links may be followed.
      if (target === undefined) { todo.unshift(part); continue }
      if (target[0] === slash) at = empty
      todo.unshift(...split(target))
    }
    if (exists) known.set(key, { to: at, links })
    return at
  }
  return {
    root,
    path: name => real(join(resolve(parentOf(name)), baseOf(name))),
    forget: () => { known = new Map() },
    follow: resolve,
  }
}

interface Resolved { readonly to: Buffer; readonly links: number }

function lstat(path: TreePath): fs.Stats | undefined {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
}

/** Undefined when it is no link any more. */
function readLink(path: TreePath): Buffer | undefined {
  try {
    return fs.readlinkSync(path, { encoding: 'buffer' })
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

const dot = Buffer.from('.'), dotdot = Buffer.from('..')
function split(name: Buffer): Buffer[] {
  const parts: Buffer[] = []
  let from = 0
  for (let at = name.indexOf(slash); at >= 0; at = name.indexOf(slash, from)) {
    parts.push(name.subarray(from, at))
    from = at + 1
  }
  parts.push(name.subarray(from))
  return parts
}
