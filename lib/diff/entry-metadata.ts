// The metadata of what a layer's entry has made: owner and mode, extended attributes, times; and the list of what could not be kept.
// Knows nothing of names and places: it gets the path of what is there. All sync.

import fs from 'node:fs'
import { errnoOf, isErrno } from '../errors.ts'
import { setOwnership, writeOverrideStat } from '../fs/override-stat.ts'
import type { TreePath } from '../fs/rooted.ts'
import { nodeTime, setTimes, setTimesFd } from '../sys/files.ts'
import { privileges } from '../sys/privileges.ts'
import { setXattr, xattrAvailable } from '../sys/xattr.ts'
import type { TarHeader } from '../tar/types.ts'
import { mayApply } from './xattr-policy.ts'

/** Something of an entry that could not be kept, and why. */
export interface Skipped {
  readonly path: string
  readonly what: string
  readonly reason: string
}

const maxSkippedKept = 100
/** Seconds beyond this are cut; no file system stores them, and the kernel cuts to what its own can store. */
const maxSeconds = 1_000_000_000_000n
const second = 1_000_000_000n

export class EntryMetadata {
  /** May owners be set? Else they are noted. */
  readonly isOwner: boolean = privileges().chown
  /** A setgid directory hands its group to new files (inode(7)), so that "root by default" no longer holds. */
  groupsMayInherit: boolean
  /** The first hundred. */
  readonly skipped: Skipped[] = []
  skippedCount = 0
  readonly #native = privileges().native

  constructor(groupsMayInherit: boolean) {
    this.groupsMayInherit = groupsMayInherit
  }

  /** Owner and mode, of anything but a file that is still open. */
  own(path: TreePath, header: TarHeader): void {
    const isSymlink = header.type === 'symlink'
    if (!this.isOwner) {
      if (setOwnership(path, header, isSymlink) === 'lost') this.skip(header, `owner ${header.uid}:${header.gid}`, 'not allowed here, and there is no place to note it')
      // What we own without a note is taken for root's (compare.ts), so our own id in an archive needs one.
      else if (header.uid === process.geteuid?.() && !isSymlink) writeOverrideStat(path, { uid: header.uid, gid: header.gid, mode: header.mode })
      return
    }
    if (isSymlink && header.uid === 0 && header.gid === 0 && !this.groupsMayInherit) return
    fs.lchownSync(path, header.uid, header.gid)
    if (!isSymlink) fs.chmodSync(path, header.mode & 0o7777)
  }

  /** What is refused is skipped and noted. */
  setXattrs(path: TreePath, xattrs: ReadonlyMap<string, Buffer>, header: TarHeader): void {
    for (const [name, value] of xattrs) {
      if (!mayApply(name)) { this.skip(header, `xattr ${name}`, 'reserved for the storage itself'); continue }
      if (!xattrAvailable) { this.skip(header, `xattr ${name}`, 'native calls are absent'); continue }
      try {
        setXattr(path, name, value)
      } catch (error) {
        if (!isErrno(error, 'EOPNOTSUPP', 'ENOTSUP', 'EPERM', 'EACCES')) throw error
        this.skip(header, `xattr ${name}`, errnoOf(error) ?? 'refused')
      }
    }
  }

  setTimes(path: TreePath, header: TarHeader): void {
    this.putTimes(path, header.atimeNs ?? header.mtimeNs, header.mtimeNs)
  }

  putTimes(path: TreePath, atimeNs: bigint, mtimeNs: bigint): void {
    const atime = clampTime(atimeNs), mtime = clampTime(mtimeNs)
    if (this.#native && !(isExact(atime) && isExact(mtime))) setTimes(path, atime, mtime)
    else fs.lutimesSync(path, nodeTime(atime), nodeTime(mtime))
  }

  setTimesFd(fd: number, header: TarHeader): void {
    const mtime = clampTime(header.mtimeNs)
    const atime = header.atimeNs === undefined ? mtime : clampTime(header.atimeNs)
    if (this.#native && !(isExact(atime) && isExact(mtime))) setTimesFd(fd, atime, mtime)
    else fs.futimesSync(fd, nodeTime(atime), nodeTime(mtime))
  }

  skip(header: TarHeader, what: string, reason: string): void {
    this.skippedCount++
    if (this.skipped.length < maxSkippedKept) this.skipped.push({ path: header.name.toString(), what, reason })
  }
}

function clampTime(ns: bigint): bigint {
  const limit = maxSeconds * second
  return ns > limit ? limit : ns < -limit ? -limit : ns
}

/** Node's own call is cheaper than a native one, and exact for whole seconds after 1970 only. */
function isExact(ns: bigint): boolean {
  return ns >= 0n && ns % second === 0n
}
