// Walk a tree depth first, siblings in byte order, names as bytes, links never followed. Synchronous: for worker threads.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'

/** One file of a walked tree. */
export interface Entry {
  /** Where it lies. */
  readonly path: Buffer
  /** The path inside the tree: empty for the root, otherwise without a leading slash. */
  readonly relative: Buffer
  readonly stat: fs.BigIntStats
}

export interface Visitor {
  /** Called before a directory's children. Return false to leave the children out; `leave` is then not called for it. */
  enter(entry: Entry): boolean | void
  /** Called after a directory's children. */
  leave?(entry: Entry): void
}

export interface WalkOptions {
  /** Do not enter directories of other file systems (mount points); they are still visited. Default false. */
  readonly sameFileSystem?: boolean
}

const slash = Buffer.from('/')

/** `dir` + `/` + `name`; an empty `dir` gives `name` (paths inside a tree). */
export function joinPath(dir: Buffer, name: Buffer): Buffer {
  return dir.length === 0 ? name : Buffer.concat([dir, slash, name])
}

/** The names in a directory, byte-sorted. */
export function readNames(dir: string | Buffer): Buffer[] {
  // The cast: @types/node types the buffer listing as Buffer<ArrayBuffer>[] only for its newest overload.
  return (fs.readdirSync(dir, { encoding: 'buffer' }) as Buffer[]).sort(Buffer.compare)
}

/**
 * Visit `root` and everything below it. The order is that of a sorted listing of each directory, parents first; it is not the order of
 * the sorted full paths (`a/b` comes before `a-b` here). Files that vanish while the walk runs are left out, except the root.
 */
export function walk(root: string | Buffer, visitor: Visitor, options: WalkOptions = {}): void {
  const path = typeof root === 'string' ? Buffer.from(root) : root
  const stat = fs.lstatSync(path, { bigint: true })
  const device = options.sameFileSystem === true ? stat.dev : undefined
  visit({ path, relative: Buffer.alloc(0), stat }, visitor, device)
}

function visit(entry: Entry, visitor: Visitor, device: bigint | undefined): void {
  const inside = visitor.enter(entry)
  if (!entry.stat.isDirectory() || inside === false) return
  if (device === undefined || entry.stat.dev === device) {
    let names: Buffer[]
    try {
      names = readNames(entry.path)
    } catch (error) {
      if (entry.relative.length === 0 || !isErrno(error, 'ENOENT')) throw error
      names = []
    }
    for (const name of names) {
      const path = joinPath(entry.path, name)
      const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })
      if (stat !== undefined) visit({ path, relative: joinPath(entry.relative, name), stat }, visitor, device)
    }
  }
  visitor.leave?.(entry)
}
