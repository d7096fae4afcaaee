// What a file has that open(2) has just made in the target: owner and mode are set only where they differ, two calls a file less.
// Learned by looking at the first files, never assumed: a default ACL, or a file system with modes of its own, shows in them.

import fs from 'node:fs'

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants
const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW

/** Owner and permission bits; undefined: not known. */
export interface Has {
  readonly uid: number | undefined
  readonly gid: number | undefined
  readonly mode: number | undefined
}

export interface NewFile { readonly fd: number; readonly has: Has }

const nothing: Has = { uid: undefined, gid: undefined, mode: undefined }

/** A file is made for its owner alone, and nothing about it is known. */
export function openCareful(to: Buffer): NewFile {
  return { fd: fs.openSync(to, flags, 0o600), has: nothing }
}

// All bits: what is missing was masked. None for others: what is there was added (vfat).
const probes = [0o777, 0o600]

/**
 * For a tree whose directories this copy has made, 0700, and finishes when all files are there: then nobody else sees a file before, all directories
 * have one owner and setgid bit, and so have the files (mkdir(2), open(2), mount option grpid). With `noMask` the thread's umask is 0.
 */
export function openKnowing(noMask: boolean): (to: Buffer, mode: number) => NewFile {
  let seen: { readonly uid: number; readonly gid: number } | undefined
  let looked = 0, alike = true, exact = noMask
  return (to, mode) => {
    if (!alike) return openCareful(to)
    if (seen !== undefined && looked === probes.length) {
      // Without our own access a user.* attribute could not be set; setuid and setgid come after the owner.
      const asked = exact && (mode & ~0o777) === 0 && (mode & 0o600) === 0o600 ? mode : 0o600
      return { fd: fs.openSync(to, flags, asked), has: { ...seen, mode: exact ? asked : undefined } }
    }
    const asked = noMask ? probes[looked++] as number : 0o600
    if (!noMask) looked = probes.length
    const fd = fs.openSync(to, flags, asked)
    try {
      const { uid, gid, mode: got } = fs.fstatSync(fd)
      alike = seen === undefined || seen.uid === uid && seen.gid === gid
      exact &&= (got & 0o7777) === asked
      seen = { uid, gid }
      return { fd, has: { uid, gid, mode: got & 0o7777 } }
    } catch (error) {
      fs.closeSync(fd)
      throw error
    }
  }
}
