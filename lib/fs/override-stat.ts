// Owners, modes and devices that an unprivileged process cannot make, noted in the xattr that containers/storage and fuse-overlayfs use:
// `user.containers.override_stat` = "uid:gid:mode[:type]". Owns that format and the policy of what is made in place of the real thing.
// Symlinks cannot carry user.* attributes (xattr(7)), so a symlink's foreign owner is lost, as it is there.
//
// An archive may carry the attribute itself. Whoever sets xattrs from an archive skips this name, or a layer could lie about its owners.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { mknod, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, makedev, splitDev } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { getXattr, setXattr } from '../sys/xattr.ts'

export const overrideStatName = 'user.containers.override_stat'

export type OverrideType = 'file' | 'dir' | 'symlink' | 'pipe' | 'socket' | 'block' | 'char'

/** What the file would be, had we been allowed to make it so. */
export interface OverrideStat {
  readonly uid: number
  readonly gid: number
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  readonly mode: number
  /** Absent: the type is that of the file itself. */
  readonly type?: OverrideType
  /** Only with `block` and `char`. */
  readonly major?: number
  readonly minor?: number
}

/** `{ uid: 0, gid: 42, mode: 0o640 }` → `0:42:0640`; devices end with `:char-1-3`. Source: containers/storage, idtools.Stat. */
export function encodeOverrideStat(stat: OverrideStat): string {
  const base = `${stat.uid}:${stat.gid}:0${(stat.mode & 0o7777).toString(8)}`
  if (stat.type === undefined) return base
  const isDevice = stat.type === 'block' || stat.type === 'char'
  return isDevice ? `${base}:${stat.type}-${stat.major ?? 0}-${stat.minor ?? 0}` : `${base}:${stat.type}`
}

const pattern = /^(\d{1,10}):(\d{1,10}):([0-7]{1,6})(?::(?:(file|dir|symlink|pipe|socket)|(block|char)-(\d{1,10})-(\d{1,10})))?$/

/** Undefined for what is not in the format: such a note is ignored, since anybody who can write the file can write the attribute. */
export function decodeOverrideStat(value: Buffer | string): OverrideStat | undefined {
  const m = pattern.exec(typeof value === 'string' ? value : value.toString('latin1'))
  if (m === null) return undefined
  const stat = { uid: Number(m[1]), gid: Number(m[2]), mode: parseInt(m[3] ?? '0', 8) & 0o7777 }
  const limit = 0xffffffff
  if (stat.uid > limit || stat.gid > limit) return undefined
  if (m[4] !== undefined) return { ...stat, type: m[4] as OverrideType }
  if (m[5] === undefined) return stat
  const major = Number(m[6]), minor = Number(m[7])
  return major > limit || minor > limit ? undefined : { ...stat, type: m[5] as OverrideType, major, minor }
}

/** The note of a file or directory, or undefined. Symlinks and a machine without native calls have none. */
export function readOverrideStat(path: string | Buffer): OverrideStat | undefined {
  if (nativeReason !== undefined) return undefined
  const value = getXattr(path, overrideStatName)
  return value === undefined ? undefined : decodeOverrideStat(value)
}

/**
 * Write the note. False where it cannot be kept: no native calls, a file system without user.* attributes, or a file that may not carry
 * them (symlinks, devices, fifos, sockets: EPERM).
 */
export function writeOverrideStat(path: string | Buffer, stat: OverrideStat): boolean {
  if (nativeReason !== undefined) return false
  try {
    setXattr(path, overrideStatName, encodeOverrideStat(stat))
    return true
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP', 'EPERM', 'EACCES')) return false
    throw error
  }
}

/** What a file is, the note taken into account. */
export interface EffectiveStat {
  /** Type bits (S_IFMT) and permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** 0 unless a device. */
  readonly major: number
  readonly minor: number
}

const typeBits: Readonly<Record<OverrideType, number>> = {
  file: S_IFREG, dir: 0o040000, symlink: 0o120000, pipe: S_IFIFO, socket: S_IFSOCK, block: S_IFBLK, char: S_IFCHR,
}

/** lstat's answer with the file's note applied. Only regular files and directories are asked, since no other can have one. */
export function effectiveStat(path: string | Buffer, st: fs.BigIntStats): EffectiveStat {
  const rdev = splitDev(st.rdev)
  const plain = { mode: Number(st.mode), uid: Number(st.uid), gid: Number(st.gid), ...rdev }
  if (!st.isFile() && !st.isDirectory()) return plain
  const note = readOverrideStat(path)
  if (note === undefined) return plain
  const own = plain.mode & S_IFMT
  // A directory stays one whatever the note claims, and nothing else becomes one.
  const wanted = note.type === undefined || st.isDirectory() || note.type === 'dir' ? own : typeBits[note.type]
  return { mode: wanted | note.mode, uid: note.uid, gid: note.gid, major: note.major ?? 0, minor: note.minor ?? 0 }
}

/** `real`: made as asked. `noted`: made as near as allowed, the truth in the xattr. `lost`: could not even be noted. */
export type Outcome = 'real' | 'noted' | 'lost'

/** chmod(2) follows links: where others write to the tree, another one is given that does not. */
export type Chmod = (path: string | Buffer, mode: number) => void

/**
 * Set owner and mode of what was just made at `path` (links not followed): chown first, since chown clears setuid (chown(2)).
 *
 * Without the right to chown the truth is noted, and the real mode keeps our own access (0600, directories 0700), or we could not read the layer
 * back, and drops a file's setuid and setgid, which would act for the wrong user. Our own files are noted as well: what is ours and has no note
 * was made by a container, and counts as root's (umoci's rule, lib/diff). By that rule 0:0 needs no note where none can be kept.
 */
export function setOwnership(path: string | Buffer, stat: { readonly uid: number; readonly gid: number; readonly mode: number }, isSymlink = false, chmod: Chmod = fs.chmodSync): Outcome {
  const mode = stat.mode & 0o7777
  if (privileges().chown && chowned(path, stat)) {
    if (!isSymlink) chmod(path, mode)
    return 'real'
  }
  const isRoots = stat.uid === 0 && stat.gid === 0
  if (isSymlink) return isRoots ? 'real' : 'lost'
  return note(path, { uid: stat.uid, gid: stat.gid, mode }, isRoots, chmod)
}

function chowned(path: string | Buffer, stat: { readonly uid: number; readonly gid: number }): boolean {
  try {
    fs.lchownSync(path, stat.uid, stat.gid)
    return true
  } catch (error) {
    // In a user namespace: EINVAL for an id that has no place there.
    if (!isErrno(error, 'EPERM', 'EINVAL')) throw error
    return false
  }
}

function note(path: string | Buffer, stat: OverrideStat, isRoots: boolean, chmod: Chmod): Outcome {
  const st = fs.lstatSync(path)
  const isDirectory = st.isDirectory()
  const real = isDirectory ? stat.mode | 0o700 : stat.mode & 0o1777 | 0o600
  chmod(path, real)
  if ((st.isFile() || isDirectory) && writeOverrideStat(path, stat)) return 'noted'
  return isRoots && real === stat.mode ? 'real' : 'lost'
}

export interface SpecialFile {
  /** S_IFCHR, S_IFBLK, S_IFIFO or S_IFSOCK, with permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly major: number
  readonly minor: number
}

const typeNames: Readonly<Record<number, OverrideType>> = { [S_IFCHR]: 'char', [S_IFBLK]: 'block', [S_IFIFO]: 'pipe', [S_IFSOCK]: 'socket' }

/**
 * Make a device, fifo or socket with its owner and mode. Where that is not allowed (mknod(2) EPERM; a foreign owner of a fifo, which
 * could not carry a note), an empty regular file with the note stands in its place. 'lost' without native calls: nothing was made.
 * @throws ALREADY_EXISTS and the other errors of mknod(2)
 */
export function makeSpecial(path: string | Buffer, file: SpecialFile, chmod: Chmod = fs.chmodSync): Outcome {
  const type = file.mode & S_IFMT
  const name = typeNames[type]
  if (name === undefined) throw new TypeError(`not a special file's mode: 0${file.mode.toString(8)}`)
  if (nativeReason !== undefined) return 'lost'
  const isDevice = type === S_IFCHR || type === S_IFBLK
  try {
    mknod(path, type | 0o600, isDevice ? makedev(file.major, file.minor) : 0n)
    if (setOwnership(path, { ...file, mode: file.mode & 0o7777 }, false, chmod) === 'real') return 'real'
    fs.unlinkSync(path)
  } catch (error) {
    if (!isErrno(error, 'EPERM')) throw error
  }
  mknod(path, S_IFREG | 0o600)
  const stat: OverrideStat = {
    uid: file.uid, gid: file.gid, mode: file.mode & 0o7777, type: name, ...(isDevice ? { major: file.major, minor: file.minor } : {}),
  }
  return note(path, stat, false, chmod)
}
