// Idmapped mounts: a tree whose owners show shifted, so that a container in a user namespace finds its files to be its own, while on disk they stay as the image has
// them, and what it writes is stored shifted back (mount_setattr(2), MOUNT_ATTR_IDMAP). Owns the options `uidmap=` and `gidmap=`, the user namespace that carries a
// mapping to the kernel, and the mount that a stack's layers are reached through.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { errnoOf, isErrno, StorageError } from '../errors.ts'
import { bind, cPath } from './native.ts'

const c = {
  openTree: bind('int64_t syscall(int64_t number, int64_t dirfd, const char *path, int64_t flags)'),
  mountSetattr: bind('int64_t syscall(int64_t number, int64_t dirfd, const char *path, int64_t flags, void *attr, int64_t size)'),
  moveMount: bind('int64_t syscall(int64_t number, int64_t fromFd, const char *from, int64_t toFd, const char *to, int64_t flags)'),
  umount2: bind('int umount2(const char *target, int flags)'),
}
// Numbers shared by every architecture (asm-generic/unistd.h).
const SYS_open_tree = 428, SYS_move_mount = 429, SYS_mount_setattr = 442
const OPEN_TREE_CLONE = 1, O_CLOEXEC = 0o2000000, AT_EMPTY_PATH = 0x1000, AT_FDCWD = -100, MOVE_MOUNT_F_EMPTY_PATH = 4, MNT_DETACH = 2
const MOUNT_ATTR_RDONLY = 1n, MOUNT_ATTR_IDMAP = 0x100000n

/** `size` ids from `container` on show as those from `host` on. */
export interface IdRange {
  readonly container: number
  readonly host: number
  readonly size: number
}

/** How the owners of a container's files are seen from outside its user namespace. */
export interface IdMap {
  readonly uids: readonly IdRange[]
  readonly gids: readonly IdRange[]
}

/** The mapping as options of a mount, in containerd's words: `uidmap=0:100000:65536`, several ranges joined by `/`. @throws INVALID_ARGUMENT */
export function idMapOptions(map: IdMap): string[] {
  return ([['uidmap', map.uids], ['gidmap', map.gids]] as const).map(([name, ranges]) => {
    if (ranges.length === 0 || ranges.length > 340) throw invalid(`${name} needs 1 to 340 ranges`)
    for (const range of ranges) {
      const ok = [range.container, range.host, range.size].every(n => Number.isInteger(n) && n >= 0 && n < 2 ** 32) && range.size > 0
      if (!ok || range.container + range.size > 2 ** 32 || range.host + range.size > 2 ** 32) throw invalid(`${name}: not a range of ids: ${JSON.stringify(range)}`)
    }
    return `${name}=${ranges.map(({ container, host, size }) => `${container}:${host}:${size}`).join('/')}`
  })
}

/** Linux's id for owners that a mapping has no place for (/proc/sys/kernel/overflowuid). */
const overflowId = 65534

/** How an id of the container's is called on the host, or the other way about; undefined when the mapping has no place for it. */
function mapped(ranges: readonly IdRange[], id: number, to: 'host' | 'container'): number | undefined {
  const from = to === 'host' ? 'container' : 'host'
  const range = ranges.find(one => id >= one[from] && id - one[from] < one.size)
  return range === undefined ? undefined : range[to] + id - range[from]
}

/**
 * The owners of a file that is written for the other side of a mapping. Read back from the host, an owner without a place is the kernel's `nobody`.
 * @throws FAILED_PRECONDITION for an owner that the container cannot have
 */
export function mapOwner(map: IdMap, to: 'host' | 'container', { uid, gid }: { readonly uid: number; readonly gid: number }): { uid: number; gid: number } {
  const there = { uid: mapped(map.uids, uid, to), gid: mapped(map.gids, gid, to) }
  if (to === 'host' && (there.uid === undefined || there.gid === undefined)) {
    throw new StorageError('FAILED_PRECONDITION', `the id mapping has no place for the owner ${uid}:${gid}`, { hint: 'map more ids' })
  }
  return { uid: there.uid ?? overflowId, gid: there.gid ?? overflowId }
}

const invalid = (message: string): StorageError => new StorageError('INVALID_ARGUMENT', `invalid id mapping: ${message}`)

/** The options without the mapping, and the mapping's lines as /proc/PID/uid_map takes them; undefined when there is none. */
export function splitIdMap(options: readonly string[]): { readonly rest: string[]; readonly lines: { readonly uid: string; readonly gid: string } | undefined } {
  const lines = (name: string): string | undefined => options.find(option => option.startsWith(`${name}map=`))?.slice(`${name}map=`.length).split('/').map(range => range.replaceAll(':', ' ')).join('\n')
  const uid = lines('uid'), gid = lines('gid')
  return { rest: options.filter(option => !/^[ug]idmap=/.test(option)), lines: uid === undefined || gid === undefined ? undefined : { uid, gid } }
}

/**
 * The mapping with a place for root of the outside, behind all others. Overlay works in the upper layer as whoever mounted it, and without an id there it falls back to
 * read-only; what it makes so gets its owner before it shows.
 */
function withMounter({ uid, gid }: MapLines): MapLines {
  const extend = (lines: string): string => {
    const ranges = lines.split('\n').map(line => line.split(' ').map(Number) as [inside: number, outside: number, size: number])
    if (ranges.some(([, outside]) => outside === 0)) return lines
    return `${lines}\n${Math.max(...ranges.map(([inside, , size]) => inside + size))} 0 1`
  }
  return { uid: extend(uid), gid: extend(gid) }
}

export type MapLines = NonNullable<ReturnType<typeof splitIdMap>['lines']>

const pause = new Int32Array(new SharedArrayBuffer(4))

/** A descriptor of a user namespace with this mapping. A process must live in one while it is described; a process of several threads cannot make one itself. */
function namespaceOf(lines: MapLines): number {
  const { stdout } = spawnSync('/bin/sh', ['-c', 'unshare -U sleep 60 </dev/null >/dev/null 2>&1 & echo $!'], { encoding: 'utf8' })
  const pid = Number(stdout.trim())
  const own = fs.readlinkSync('/proc/self/ns/user')
  try {
    for (let tries = 0; fs.readlinkSync(`/proc/${pid}/ns/user`) === own; tries++) {
      if (tries > 2000) throw new StorageError('NOT_SUPPORTED', 'no user namespace could be made', { hint: 'they may be switched off: user.max_user_namespaces' })
      Atomics.wait(pause, 0, 0, 1)
    }
    fs.writeFileSync(`/proc/${pid}/uid_map`, lines.uid)
    fs.writeFileSync(`/proc/${pid}/gid_map`, lines.gid)
    return fs.openSync(`/proc/${pid}/ns/user`, 'r')
  } catch (error) {
    if (isErrno(error, 'EINVAL')) throw invalid(`the kernel refuses ${lines.uid} and ${lines.gid}: ranges overlap, or are not ours to map`)
    if (isErrno(error, 'ENOENT')) throw new StorageError('NOT_SUPPORTED', 'no user namespace could be made: unshare(1) is missing or failed', { hint: 'install util-linux; see user.max_user_namespaces' })
    throw error
  } finally {
    if (pid > 0) try { process.kill(pid, 'SIGKILL') } catch { /* it ended by itself */ }
  }
}

/** Mount `source` at `target` with its owners shifted. @throws NOT_SUPPORTED where kernel or file system cannot (Linux 5.12; tmpfs 6.3) */
export function bindIdmapped(source: string, target: string, lines: MapLines, readOnly: boolean): void {
  const ns = namespaceOf(lines)
  let tree = -1
  try {
    tree = c.openTree([SYS_open_tree, AT_FDCWD, cPath(source), OPEN_TREE_CLONE | O_CLOEXEC], source)
    const attributes = Buffer.alloc(32) // struct mount_attr: set, clear, propagation, user namespace
    attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP | (readOnly ? MOUNT_ATTR_RDONLY : 0n), 0)
    attributes.writeBigUInt64LE(BigInt(ns), 24)
    c.mountSetattr([SYS_mount_setattr, tree, '', AT_EMPTY_PATH, attributes, attributes.length], source)
    c.moveMount([SYS_move_mount, tree, '', AT_FDCWD, cPath(target), MOVE_MOUNT_F_EMPTY_PATH], target)
  } catch (error) {
    if (!isErrno(error, 'EINVAL', 'ENOSYS', 'EOPNOTSUPP')) throw error
    throw new StorageError('NOT_SUPPORTED', `idmapped mount of ${source}: the kernel or its file system has none (${errnoOf(error)})`, { op: 'mount', path: source, hint: 'Linux 5.12 or later, on ext4, xfs or btrfs' }, { cause: error })
  } finally {
    for (const fd of [tree, ns]) if (fd >= 0) fs.closeSync(fd)
  }
}

/**
 * Run `work` with the directories reachable under new paths, their owners shifted: one idmapped mount of the folder that holds them all, not one for each. The
 * mount may go as soon as an overlay has been made of what lies in it, which keeps clones of its own.
 */
export function throughIdmapped<T>(dirs: readonly string[], lines: MapLines, work: (moved: readonly string[]) => T): T {
  const real = dirs.map(dir => fs.realpathSync.native(dir))
  const parts = real.map(dir => dir.split('/'))
  let shared = 0
  while (parts.every(part => part[shared] !== undefined && part[shared] === parts[0]?.[shared])) shared++
  const common = parts[0]?.slice(0, shared).join('/') || '/'
  const place = fs.mkdtempSync(path.join(os.tmpdir(), 'layerstack-idmap-'))
  try {
    bindIdmapped(common, place, withMounter(lines), false)
    try {
      return work(real.map(dir => path.join(place, path.relative(common, dir))))
    } finally {
      c.umount2([cPath(place), MNT_DETACH], place)
    }
  } finally {
    fs.rmdirSync(place)
  }
}
