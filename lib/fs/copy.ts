// The copy engine: a tree with everything that a layer can hold. Data, holes, hard links, symlinks, devices, fifos, sockets, owners, modes,
// xattrs, and times in nanoseconds, the directories' last. Never follows a link, never overwrites, and a failed copy removes what it made.

import fs from 'node:fs'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { nodeTime, setTimes, setTimesFd, splitDev } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { runJob } from '../sys/threads.ts'
import type { JobContext } from '../sys/threads.ts'
import { copyData } from './copy-data.ts'
import type { CopyMethod } from './copy-data.ts'
import { copyXattrs } from './copy-xattrs.ts'
import { openat2Place, openat2Works } from './openat2-place.ts'
import { makeSpecial, setOwnership } from './override-stat.ts'
import type { Outcome } from './override-stat.ts'
import { removeTreeSync } from './remove-tree.ts'
import { joinPath, readNames } from './walk.ts'

export interface CopyOptions {
  /** `to` is an existing directory that receives the content, and the source's own attributes. Default false: `to` must not exist. */
  readonly into?: boolean
  /**
   * Somebody who is not trusted, such as a container, may change either tree meanwhile: then every name is resolved inside its root by the kernel (openat2-place.ts), and
   * nothing outside is read, made or changed, whatever is swapped for a link when (CVE-2018-15664); what a failed copy has made is left (see removeTree). Default false.
   * Without openat2(2) as if false.
   */
  readonly changing?: boolean
}

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

type Counts = { -readonly [K in keyof CopyReport]: CopyReport[K] } & { methods: Record<CopyMethod, number> }

interface Copy {
  readonly device: bigint
  readonly from: Side
  readonly to: Side
  /** First copy of each inode with several names, by `dev:ino`: its name in the tree. */
  readonly linked: Map<string, Buffer>
  readonly counts: Counts
  readonly check: () => void
}

/** How the names of a tree, none being its root, become paths. */
interface Side {
  /** Of an entry; the last component is not followed by calls that do not follow links. */
  path(name: Buffer): Buffer
  /** Of a directory itself, for calls that would follow a link in its place. */
  directory(name: Buffer): Buffer
  /** chmod(2) follows links; of an entry. */
  chmod(name: string | Buffer, mode: number): void
  close(): void
}

function plainSide(root: Buffer): Side {
  const path = (name: Buffer): Buffer => name.length === 0 ? root : joinPath(root, name)
  return { path, directory: path, chmod: (at, mode) => fs.chmodSync(at, mode), close: () => undefined }
}

const O_PATH = 0o10000000
const dot = Buffer.from('.')

function guardedSide(root: Buffer): Side {
  const place = openat2Place(root)
  const whole = Buffer.from(place.root)
  return {
    path: name => name.length === 0 ? whole : Buffer.from(place.path(name)),
    directory: name => name.length === 0 ? whole : Buffer.from(place.path(joinPath(name, dot))),
    chmod(at, mode) {
      // There is no lchmod(2); a descriptor of a link itself refuses (ELOOP or EOPNOTSUPP).
      const fd = fs.openSync(at, O_PATH | O_NOFOLLOW)
      try { fs.chmodSync(`/proc/self/fd/${fd}`, mode) } finally { fs.closeSync(fd) }
    },
    close: () => place.close(),
  }
}

/**
 * Copy the file or tree `from` to `to`.
 * @throws ALREADY_EXISTS (`to`), NOT_FOUND (`from`), NO_SPACE, PERMISSION_DENIED, …; nothing made is left
 */
export function copyTreeSync(from: string | Buffer, to: string | Buffer, options: CopyOptions = {}, check: () => void = () => undefined): CopyReport {
  const source = Buffer.from(from), target = Buffer.from(to)
  const counts: Counts = {
    files: 0, directories: 0, others: 0, hardLinks: 0, sizeBytes: 0, xattrsMissing: 0, noted: 0, lost: 0,
    methods: { reflink: 0, copy_file_range: 0, 'read/write': 0 },
  }
  let made = false
  try {
    const stat = fs.lstatSync(source, { bigint: true })
    if (options.into === true) {
      if (readNames(target).length > 0) throw new StorageError('FAILED_PRECONDITION', `copying into ${target}: the directory is not empty`, { op: 'copy', path: target.toString() })
    } else {
      if (fs.lstatSync(target, { throwIfNoEntry: false }) !== undefined) throw new StorageError('ALREADY_EXISTS', `copying to ${target}: it exists`, { op: 'copy', path: target.toString(), errno: 'EEXIST' })
      if (stat.isDirectory()) fs.mkdirSync(target, 0o700)
    }
    made = true
    const device = fs.lstatSync(stat.isDirectory() ? target : parentOf(target), { bigint: true }).dev
    const sideOf = options.changing === true && stat.isDirectory() && openat2Works() ? guardedSide : plainSide
    const sides: Side[] = []
    try {
      for (const root of [source, target]) sides.push(sideOf(root))
      const copy: Copy = { device, from: sides[0] as Side, to: sides[1] as Side, linked: new Map(), counts, check }
      if (stat.isDirectory()) fillDirectory(Buffer.alloc(0), stat, copy)
      else copyOther(Buffer.alloc(0), source, stat, copy)
    } finally {
      for (const side of sides) side.close()
    }
    return counts
  } catch (error) {
    const first = asStorageError(error, `copying ${source} to ${target}`, { op: 'copy' })
    // What others write to is removed as carefully as it was made, by whoever called.
    if (made && options.changing !== true) clean(target, options.into === true, first)
    throw first
  }
}

function clean(target: Buffer, keepDirectory: boolean, first: StorageError): void {
  try {
    if (!keepDirectory) removeTreeSync(target)
    else for (const name of readNames(target)) removeTreeSync(joinPath(target, name))
  } catch (error) {
    // The first failure is what the caller must hear; what could not be cleaned is added to it.
    first.message += ` (and removing the partial copy failed: ${(error as Error).message})`
  }
}

function parentOf(path: Buffer): Buffer {
  const at = path.lastIndexOf(0x2f)
  return at < 0 ? Buffer.from('.') : at === 0 ? Buffer.from('/') : path.subarray(0, at)
}

function copyEntry(name: Buffer, copy: Copy): void {
  const from = unlessGone(() => copy.from.path(name))
  const stat = from === undefined ? undefined : unlessGone(() => fs.lstatSync(from, { bigint: true, throwIfNoEntry: false }))
  if (from === undefined || stat === undefined) return // gone since it was listed
  if (!stat.isDirectory()) { copyOther(name, from, stat, copy); return }
  fs.mkdirSync(copy.to.path(name), 0o700)
  fillDirectory(name, stat, copy)
}

/** Undefined for what the source's owner has removed, or swapped for something else, since it was looked at. */
function unlessGone<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EINVAL')) return undefined
    throw error
  }
}

function fillDirectory(name: Buffer, stat: fs.BigIntStats, copy: Copy): void {
  copy.check()
  copy.counts.directories++
  const names = name.length === 0 ? readNames(copy.from.directory(name)) : unlessGone(() => readNames(copy.from.directory(name))) ?? []
  for (const child of names) copyEntry(joinPath(name, child), copy)
  finish(unlessGone(() => copy.from.directory(name)), copy.to.directory(name), stat, copy)
}

function copyOther(name: Buffer, from: Buffer, stat: fs.BigIntStats, copy: Copy): void {
  const { counts, linked } = copy
  const key = stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : undefined
  const first = key === undefined ? undefined : linked.get(key)
  if (first !== undefined && link(copy.to.path(first), copy.to.path(name))) { counts.hardLinks++; return }
  const to = copy.to.path(name)
  if (stat.isFile()) {
    if (!copyFile(from, to, stat, copy)) return
  } else {
    counts.others++
    if (stat.isSymbolicLink()) {
      const target = unlessGone(() => fs.readlinkSync(from, { encoding: 'buffer' }))
      if (target === undefined) return
      fs.symlinkSync(target, to)
      finish(from, to, stat, copy)
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

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = fs.constants

/** False when it is no file any more. */
function copyFile(from: Buffer, to: Buffer, stat: fs.BigIntStats, copy: Copy): boolean {
  // O_NONBLOCK: should a fifo have taken the file's place since lstat, opening it must not hang.
  const fdIn = unlessGone(() => fs.openSync(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
  if (fdIn === undefined) return false
  try {
    // A device that has taken its place may be the host's disk.
    if (!fs.fstatSync(fdIn).isFile()) return false
    copy.counts.files++
    copy.counts.sizeBytes += Number(stat.size)
    const fdOut = fs.openSync(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    try {
      if (stat.size > 0n) copy.counts.methods[copyData(fdIn, fdOut, stat, copy.device)]++
      finish(from, to, stat, copy, fdOut)
    } finally {
      fs.closeSync(fdOut)
    }
    return true
  } finally {
    fs.closeSync(fdIn)
  }
}

/**
 * Owner, xattrs, mode, times, in this order: chown clears setuid and security.capability; a user.* attribute cannot be set on what the
 * mode makes unwritable for us; and each of them changes ctime only, so the times come last.
 */
function finish(from: Buffer | undefined, to: Buffer, stat: fs.BigIntStats, copy: Copy, fd?: number): void {
  const { counts } = copy
  const owner = { uid: Number(stat.uid), gid: Number(stat.gid), mode: Number(stat.mode) & 0o7777 }
  const symlink = stat.isSymbolicLink()
  if (privileged()) {
    if (fd === undefined) fs.lchownSync(to, owner.uid, owner.gid)
    else fs.fchownSync(fd, owner.uid, owner.gid)
    counts.xattrsMissing += xattrs(from, to)
    if (fd !== undefined) fs.fchmodSync(fd, owner.mode)
    else if (!symlink) copy.to.chmod(to, owner.mode)
  } else {
    counts.xattrsMissing += xattrs(from, to)
    // What is ours is as near to the truth as we are allowed, and its note, if it has one, came with the xattrs.
    if (owner.uid !== process.geteuid?.()) count(setOwnership(to, owner, symlink, copy.to.chmod), counts)
    else if (!symlink) copy.to.chmod(to, owner.mode)
  }
  if (fd !== undefined && nativeReason === undefined) setTimesFd(fd, stat.atimeNs, stat.mtimeNs)
  else setTimesOf(to, stat)
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

function setTimesOf(path: Buffer, stat: fs.BigIntStats): void {
  if (nativeReason === undefined) setTimes(path, stat.atimeNs, stat.mtimeNs)
  // Seconds as a double, which Node cuts to microseconds: the best there is without utimensat(2).
  else fs.lutimesSync(path, nodeTime(stat.atimeNs), nodeTime(stat.mtimeNs))
}

/** `copyTreeSync` in a worker thread, so that the event loop goes on. @throws as it, and ABORTED by the signal */
export function copyTree(from: string | Buffer, to: string | Buffer, options: CopyOptions & { readonly signal?: AbortSignal | undefined } = {}): Promise<CopyReport> {
  const { signal, ...rest } = options
  return runJob<CopyJob, CopyReport>(import.meta.url, 'copyTreeJob', { from: Buffer.from(from), to: Buffer.from(to), options: rest }, { signal })
}

interface CopyJob { readonly from: Uint8Array; readonly to: Uint8Array; readonly options: CopyOptions }

/** For threads.ts only. */
export function copyTreeJob({ from, to, options }: CopyJob, context: JobContext): CopyReport {
  return copyTreeSync(Buffer.from(from), Buffer.from(to), options, () => context.checkAborted())
}
