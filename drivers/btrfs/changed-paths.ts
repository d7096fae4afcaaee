// What may differ between a snapshot and the subvolume that it was taken of, asked of the file system's trees: only metadata written since
// the snapshot is read, so the work grows with what changed and not with what exists. Names candidates; lib/diff compares them.
//
// Every inode item holds the transaction that touched it last, and whatever changes a file (bytes, owner, mode, xattrs, links, its name)
// touches its inode. Names that came or went are found by comparing the entries of directories that were touched.

import fs from 'node:fs'
import {
  DIR_INDEX, findSubvolume, INODE_EXTREF, INODE_ITEM, INODE_REF, LAST_INODE, nestedSubvolumes, ROOT_DIRECTORY, searchTree, subvolumeInfo,
} from '../../lib/sys/btrfs.ts'
import { syncFileSystem } from '../../lib/sys/files.ts'
import type { Usage } from '../../lib/driver.ts'

/** The address of this module for runJob. */
export const changedPathsModule = import.meta.url

const S_IFDIR = 0o040000, S_IFMT = 0o170000

interface Inode {
  /** The transaction that made it. */
  readonly born: bigint
  readonly touched: bigint
  readonly allocatedBytes: number
  readonly links: number
  readonly isDirectory: boolean
  /** Size, owner, mode, times and the like as bytes: all but the transaction and the time of the last read. */
  readonly state: Buffer
  readonly readTime: Buffer
}

interface Name { readonly parent: bigint; readonly name: Buffer }

/** One subvolume's file tree, read item by item. */
class FileTree {
  readonly #fd: number
  readonly #id: number
  readonly #paths = new Map<bigint, Buffer | undefined>([[BigInt(ROOT_DIRECTORY), Buffer.alloc(0)]])

  constructor(fd: number, id: number) {
    this.#fd = fd
    this.#id = id
  }

  /** Inodes touched in `since` or later. */
  * touched(since: bigint): Generator<readonly [ino: bigint, inode: Inode]> {
    for (const item of searchTree(this.#fd, { tree: this.#id, objectids: [BigInt(ROOT_DIRECTORY), LAST_INODE], minTransid: since })) {
      if (item.type !== INODE_ITEM) continue
      const inode = parseInode(item.data)
      if (inode.touched >= since) yield [item.objectid, inode]
    }
  }

  inode(ino: bigint): Inode | undefined {
    for (const { data } of this.#items(ino, INODE_ITEM, INODE_ITEM)) return parseInode(data)
    return undefined
  }

  /** The inode's directory entries; none when it was unlinked and is still open. */
  names(ino: bigint): Name[] {
    const names: Name[] = []
    for (const { type, offset, data } of this.#items(ino, INODE_REF, INODE_EXTREF)) {
      for (let at = 0; at < data.length;) {
        const extended = type === INODE_EXTREF
        const head = extended ? 18 : 10 // struct btrfs_inode_extref has the parent too, which is else the key's offset
        const length = data.readUInt16LE(at + head - 2)
        names.push({ parent: extended ? data.readBigUInt64LE(at) : offset, name: Buffer.from(data.subarray(at + head, at + head + length)) })
        at += head + length
      }
    }
    return names
  }

  /** Name (latin1) → what it leads to. */
  entries(directory: bigint): Map<string, { readonly name: Buffer; readonly target: string; readonly ino: bigint }> {
    const entries = new Map<string, { name: Buffer; target: string; ino: bigint }>()
    for (const { data } of this.#items(directory, DIR_INDEX, DIR_INDEX)) {
      // struct btrfs_dir_item: the key of what it names (objectid, type, offset), transid, data length, name length, type.
      const name = Buffer.from(data.subarray(30, 30 + data.readUInt16LE(27)))
      const ino = data.readBigUInt64LE(0)
      entries.set(name.toString('latin1'), { name, ino, target: `${ino}:${data[8]}` })
    }
    return entries
  }

  /** Every name of the inode from the root, or none while one of its directories has gone. */
  paths(ino: bigint): Buffer[] {
    if (ino === BigInt(ROOT_DIRECTORY)) return [Buffer.alloc(0)]
    return this.names(ino).flatMap(({ parent, name }) => {
      const above = this.directoryPath(parent)
      return above === undefined ? [] : [join(above, name)]
    })
  }

  directoryPath(ino: bigint): Buffer | undefined {
    if (this.#paths.has(ino)) return this.#paths.get(ino)
    const [name] = this.names(ino)
    const above = name === undefined ? undefined : this.directoryPath(name.parent)
    const found = name === undefined || above === undefined ? undefined : join(above, name.name)
    this.#paths.set(ino, found)
    return found
  }

  #items(ino: bigint, first: number, last: number): ReturnType<typeof searchTree> {
    return searchTree(this.#fd, { tree: this.#id, objectids: [ino, ino], types: [first, last] })
  }
}

/** struct btrfs_inode_item: generation, transid, size, nbytes, block group, nlink, uid, gid, mode, …, atime at 112, ctime, mtime, otime. */
function parseInode(data: Buffer): Inode {
  return {
    state: Buffer.concat([data.subarray(16, 112), data.subarray(124, 160)]), readTime: Buffer.from(data.subarray(112, 124)),
    born: data.readBigUInt64LE(0), touched: data.readBigUInt64LE(8), allocatedBytes: Number(data.readBigUInt64LE(24)), links: data.readUInt32LE(40),
    isDirectory: (data.readUInt32LE(52) & S_IFMT) === S_IFDIR,
  }
}

function join(above: Buffer, name: Buffer): Buffer {
  return above.length === 0 ? name : Buffer.concat([above, Buffer.from('/'), name])
}

export interface ChangedPathsArguments {
  readonly path: string
  readonly parentPath: string
}

/** Names, each with a NUL behind it; undefined where the trees cannot tell. */
export function changedPathsJob({ path, parentPath }: ChangedPathsArguments): Uint8Array | undefined {
  // What lies in the page cache has touched no tree yet. 0.3 ms when there is nothing to write.
  syncFileSystem(path)
  const upper = subvolumeInfo(path), lower = subvolumeInfo(parentPath)
  if (upper === undefined || lower === undefined || upper.parentUuid !== lower.uuid) return undefined
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    // Changes inside a nested subvolume are in a tree of their own, and a snapshot shows an empty directory in its place.
    if (nestedSubvolumes(fd, upper.id).length > 0 || nestedSubvolumes(fd, lower.id).length > 0) return undefined
    return findChanged(new FileTree(fd, upper.id), new FileTree(fd, lower.id), upper.originTransid + 1n)
  } finally {
    fs.closeSync(fd)
  }
}

function findChanged(upper: FileTree, lower: FileTree, since: bigint): Uint8Array | undefined {
  const found = new Map<string, Buffer>()
  const add = (paths: readonly Buffer[]): void => { for (const path of paths) found.set(path.toString('latin1'), path) }
  const touched = new Map(upper.touched(since))
  const below = new Map(lower.touched(since))
  // The parent should rest, but for access times. New files in it may have got the numbers of new files here, and nothing can be told apart.
  for (const inode of below.values()) if (inode.born >= since) return undefined
  const directories = new Set<bigint>()
  for (const [tree, inodes] of [[upper, touched], [lower, below]] as const) {
    for (const [ino, inode] of inodes) {
      if (inode.born < since && wasOnlyRead(inode, (tree === upper ? lower : upper).inode(ino), since)) continue
      add(tree.paths(ino))
      if (inode.isDirectory) directories.add(ino)
    }
  }
  const moved: bigint[] = []
  for (const ino of directories) {
    const path = upper.directoryPath(ino)
    // Of a directory made since, everything is new; of one that was removed as well as its content, its own name tells.
    if (path === undefined || (touched.get(ino)?.born ?? 0n) >= since) continue
    const now = upper.entries(ino), before = lower.entries(ino)
    for (const [key, { name, target }] of now) if (before.get(key)?.target !== target) add([join(path, name)])
    for (const [key, { name }] of before) if (!now.has(key)) add([join(path, name)])
    if (!lower.directoryPath(ino)?.equals(path)) moved.push(ino)
  }
  addLinksInside(upper, moved, add)
  return Buffer.concat([...found.values()].flatMap(path => [path, nul]))
}
const nul = Buffer.alloc(1)

/**
 * Touched, but for a time of reading, in this subvolume or in both: the time of the last change, which cannot be set back, is the same. Nothing different at
 * all, and the other one not touched, is a write within one tick of the clock.
 */
function wasOnlyRead(inode: Inode, other: Inode | undefined, since: bigint): boolean {
  return other !== undefined && other.state.equals(inode.state) && (other.touched >= since || !other.readTime.equals(inode.readTime))
}

/** A directory that was moved is new by its name with all that is in it: other names of files inside, elsewhere and untouched, become links to it. */
function addLinksInside(tree: FileTree, moved: readonly bigint[], add: (paths: readonly Buffer[]) => void): void {
  const seen = new Set<bigint>()
  const todo = [...moved]
  for (let directory = todo.pop(); directory !== undefined; directory = todo.pop()) {
    if (seen.has(directory)) continue
    seen.add(directory)
    for (const { ino } of tree.entries(directory).values()) {
      const inode = tree.inode(ino)
      if (inode?.isDirectory === true) todo.push(ino)
      else if (inode !== undefined && inode.links > 1) add(tree.paths(ino))
    }
  }
}

/** Inodes changed since the snapshot was taken, all of them for a subvolume that is none, and the bytes allocated to them. */
export function subvolumeUsageJob(path: string): Usage {
  syncFileSystem(path)
  const info = subvolumeInfo(path)
  if (info === undefined) return { sizeBytes: 0, inodes: 0 }
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    const parent = info.parentUuid === undefined ? undefined : findSubvolume(fd, info.parentUuid)
    const before = parent === undefined ? undefined : new FileTree(fd, parent.id)
    const since = info.parentUuid === undefined ? 0n : info.originTransid + 1n
    let sizeBytes = 0, inodes = 0
    for (const [ino, inode] of new FileTree(fd, info.id).touched(since)) {
      if (inode.links === 0 || inode.born < since && wasOnlyRead(inode, before?.inode(ino), since)) continue
      sizeBytes += inode.allocatedBytes
      inodes++
    }
    return { sizeBytes, inodes }
  } finally {
    fs.closeSync(fd)
  }
}

export interface SubvolumePlace { readonly path: string; readonly subvolumes: string }

/** The name below `subvolumes` of the subvolume that `path` is a snapshot of, or undefined: it is none, or that is gone. */
export function parentName({ path, subvolumes }: SubvolumePlace): string | undefined {
  const info = subvolumeInfo(path)
  if (info?.parentUuid === undefined) return undefined
  const fd = fs.openSync(subvolumes, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    return findSubvolume(fd, info.parentUuid)?.name
  } finally {
    fs.closeSync(fd)
  }
}
