// One entry of a tree that is copied: a file, symlink, device, fifo or socket, and what owner, mode, xattrs and times any entry gets.
// Never follows a link, never overwrites, and decides nothing about which entries are copied when.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { nodeTime, setTimes, setTimesFd, splitDev } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { copyData } from './copy-data.ts'
import type { CopyMethod } from './copy-data.ts'
import type { Has, NewFile } from './copy-new-file.ts'
import type { Side } from './copy-sides.ts'
import { copyXattrs } from './copy-xattrs.ts'
import { makeSpecial, setOwnership } from './override-stat.ts'
import type { Outcome } from './override-stat.ts'

/** What a copy did, and what it could not keep. */
export interface CopyReport {
  readonly files: number
  readonly directories: number
  /** Symlinks, devices, fifos, sockets. */
  readonly others: number
  readonly hardLinks: number
  /** Apparent size of the files, each inode once. */
  readonly sizeBytes: number
  /** Files by the way their data went; empty files in none. */
  readonly methods: Readonly<Record<CopyMethod, number>>
  /** Extended attributes that the target cannot have (copy-xattrs.ts); without native calls none is copied and none is counted. */
  readonly xattrsMissing: number
  /** Owners, modes and devices kept only as a note (override-stat.ts), and those not even noted. */
  readonly noted: number
  readonly lost: number
}

export type Counts = { -readonly [K in keyof CopyReport]: CopyReport[K] } & { methods: Record<CopyMethod, number> }

export function noCounts(): Counts {
  return {
    files: 0, directories: 0, others: 0, hardLinks: 0, sizeBytes: 0, xattrsMissing: 0, noted: 0, lost: 0,
    methods: { reflink: 0, copy_file_range: 0, 'read/write': 0 },
  }
}

/** What several jobs of one copy did together. */
export function addCounts(into: Counts, more: CopyReport): void {
  for (const key of ['files', 'directories', 'others', 'hardLinks', 'sizeBytes', 'xattrsMissing', 'noted', 'lost'] as const) into[key] += more[key]
  for (const method of Object.keys(into.methods) as CopyMethod[]) into.methods[method] += more.methods[method]
}

export interface Copy {
  /** Of the target. */
  readonly device: bigint
  readonly from: Side
  readonly to: Side
  /** Makes a file of the target. */
  readonly open: (to: Buffer, mode: number) => NewFile
  /** First copy of each inode with several names, by `dev:ino`: its name in the tree. */
  readonly linked: Map<string, Buffer>
  readonly counts: Counts
  readonly check: () => void
}

/** Of a source: what its copy gets. */
export interface Attributes {
  readonly uid: number
  readonly gid: number
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
}

export function attributesOf(stat: fs.BigIntStats): Attributes {
  return { uid: Number(stat.uid), gid: Number(stat.gid), mode: Number(stat.mode) & 0o7777, atimeNs: stat.atimeNs, mtimeNs: stat.mtimeNs }
}

/** Undefined for what the source's owner has removed, or swapped for something else, since it was looked at. */
export function unlessGone<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EINVAL')) return undefined
    throw error
  }
}

/** Anything but a directory, `stat` being lstat's answer. A further name of an inode that is there already is linked. */
export function copyOther(name: Buffer, from: Buffer, stat: fs.BigIntStats, copy: Copy): void {
  const { counts, linked } = copy
  const key = stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : undefined
  const first = key === undefined ? undefined : linked.get(key)
  if (first !== undefined && link(copy.to.path(first), copy.to.path(name))) { counts.hardLinks++; return }
  const to = copy.to.path(name)
  if (stat.isFile()) {
    if (copyFile(from, to, copy) === 'gone') return
  } else {
    counts.others++
    if (stat.isSymbolicLink()) {
      const target = unlessGone(() => fs.readlinkSync(from, { encoding: 'buffer' }))
      if (target === undefined) return
      fs.symlinkSync(target, to)
      finish(from, to, attributesOf(stat), copy, { symlink: true })
    } else if (!copySpecial(from, to, stat, copy)) return
  }
  if (key !== undefined && first === undefined) linked.set(key, name)
}

/** False where the file system allows no further link to the inode: then the file is copied once more. */
function link(first: Buffer, to: Buffer): boolean {
  try {
    fs.linkSync(first, to) // link(2): a symlink itself is linked, not what it points to
    return true
  } catch (error) {
    if (isErrno(error, 'EMLINK', 'EPERM', 'EOPNOTSUPP')) return false
    throw error
  }
}

function copySpecial(from: Buffer, to: Buffer, stat: fs.BigIntStats, copy: Copy): boolean {
  // Ours without the right to chown: root's, by the rule of override-stat.ts, so that the copy is a fifo too and not a note.
  const isOwn = !privileges().chown && Number(stat.uid) === process.geteuid?.()
  const owner = isOwn ? { uid: 0, gid: 0 } : { uid: Number(stat.uid), gid: Number(stat.gid) }
  const outcome = makeSpecial(to, { mode: Number(stat.mode), ...owner, ...splitDev(stat.rdev) }, copy.to.chmod)
  count(outcome, copy.counts)
  if (outcome === 'lost' && fs.lstatSync(to, { throwIfNoEntry: false }) === undefined) return false
  if (outcome === 'real') copy.counts.xattrsMissing += xattrs(from, to)
  setTimesOf(to, stat)
  return true
}

function count(outcome: Outcome, counts: Counts): void {
  if (outcome !== 'real') counts[outcome]++
}

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants

/** `gone`: no file any more. With `single` a file with several names is left alone: `linked`. */
export function copyFile(from: Buffer, to: Buffer, copy: Copy, single = false): 'copied' | 'gone' | 'linked' {
  // O_NONBLOCK: should a fifo have taken the file's place since it was listed, opening it must not hang.
  const fdIn = unlessGone(() => fs.openSync(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
  if (fdIn === undefined) return 'gone'
  try {
    const stat = fs.fstatSync(fdIn, { bigint: true })
    // A device that has taken its place may be the host's disk.
    if (!stat.isFile()) return 'gone'
    if (single && stat.nlink > 1n) return 'linked'
    copy.counts.files++
    copy.counts.sizeBytes += Number(stat.size)
    const attributes = attributesOf(stat)
    const { fd, has } = copy.open(to, attributes.mode)
    try {
      if (stat.size > 0n) copy.counts.methods[copyData(fdIn, fd, stat, copy.device)]++
      finish(from, to, attributes, copy, { fd, has })
    } finally {
      fs.closeSync(fd)
    }
    return 'copied'
  } finally {
    fs.closeSync(fdIn)
  }
}

/**
 * Owner, xattrs, mode, times, in this order: chown clears setuid and security.capability; a user.* attribute cannot be set on what the
 * mode makes unwritable for us; and each of them changes ctime only, so the times come last. `made`: an open file and what it has already.
 */
export function finish(from: Buffer | undefined, to: Buffer, wanted: Attributes, copy: Copy, made: { readonly fd?: number; readonly has?: Has; readonly symlink?: boolean } = {}): void {
  const { counts } = copy
  const { fd, has, symlink = false } = made
  if (privileged()) {
    if (fd === undefined) fs.lchownSync(to, wanted.uid, wanted.gid)
    else if (has?.uid !== wanted.uid || has.gid !== wanted.gid) fs.fchownSync(fd, wanted.uid, wanted.gid)
    counts.xattrsMissing += xattrs(from, to)
    if (fd === undefined) { if (!symlink) copy.to.chmod(to, wanted.mode) }
    // Bits that chown may clear were never in `has` (copy-new-file.ts), and an attribute changes the mode only to what the source has: its ACL.
    else if (has?.mode !== wanted.mode) fs.fchmodSync(fd, wanted.mode)
  } else {
    counts.xattrsMissing += xattrs(from, to)
    // What is ours is as near to the truth as we are allowed, and its note, if it has one, came with the xattrs.
    if (wanted.uid !== process.geteuid?.()) count(setOwnership(to, wanted, symlink, copy.to.chmod), counts)
    else if (!symlink && has?.mode !== wanted.mode) copy.to.chmod(to, wanted.mode)
  }
  if (fd !== undefined && nativeReason === undefined) setTimesFd(fd, wanted.atimeNs, wanted.mtimeNs)
  else setTimesOf(to, wanted)
}

/** None where the source has gone since. */
function xattrs(from: Buffer | undefined, to: Buffer): number {
  try {
    return from === undefined ? 0 : copyXattrs(from, to)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 0
    throw error
  }
}

/** Every owner can be set. In a user namespace ids without a place there fail (EINVAL), so that goes the careful way. */
function privileged(): boolean {
  const { chown, userNamespace } = privileges()
  return chown && !userNamespace
}

function setTimesOf(path: Buffer, { atimeNs, mtimeNs }: { readonly atimeNs: bigint; readonly mtimeNs: bigint }): void {
  if (nativeReason === undefined) setTimes(path, atimeNs, mtimeNs)
  // Seconds as a double, which Node cuts to microseconds: the best there is without utimensat(2).
  else fs.lutimesSync(path, nodeTime(atimeNs), nodeTime(mtimeNs))
}
