// Btrfs by ioctl: subvolumes, snapshots, qgroups, and searches of its trees. Owns the layouts of linux/btrfs.h and btrfs_tree.h (little-endian,
// as on disk and on every processor that koffi knows); decides nothing. All sync; everything here but createSubvolume needs CAP_SYS_ADMIN.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { ioctl } from './files.ts'
import { errno } from './native.ts'

// asm-generic/ioctl.h: direction, size, type, number. Btrfs's type is 0x94.
const request = (direction: 0 | 1 | 2 | 3, number: number, sizeBytes: number): number => direction * 2 ** 30 + sizeBytes * 2 ** 16 + 0x94 * 2 ** 8 + number
const NONE = 0, WRITE = 1, READ = 2, BOTH = 3
const volArgsBytes = 4096
const SUBVOL_CREATE = request(WRITE, 14, volArgsBytes)
const SNAP_DESTROY = request(WRITE, 15, volArgsBytes)
const TREE_SEARCH_V2 = request(BOTH, 17, 112)
const SNAP_CREATE_V2 = request(WRITE, 23, volArgsBytes)
const QUOTA_CTL = request(BOTH, 40, 16)
const QGROUP_CREATE = request(WRITE, 42, 16)
const QGROUP_LIMIT = request(READ, 43, 48)
const QUOTA_RESCAN_WAIT = request(NONE, 46, 0)
const GET_SUBVOL_INFO = request(READ, 60, 504)
const SNAP_DESTROY_V2 = request(WRITE, 63, volArgsBytes)

const SUBVOL_SPEC_BY_ID = 1n << 4n
const QGROUP_LIMIT_MAX_EXCL = 2n

/** Trees by their objectid. */
export const ROOT_TREE = 1, UUID_TREE = 9
const QUOTA_TREE = 8
/** Types of items. */
export const INODE_ITEM = 1, INODE_REF = 12, INODE_EXTREF = 13, DIR_INDEX = 96, ROOT_BACKREF = 144, ROOT_REF = 156, UUID_SUBVOL = 251
/** Inode number of every subvolume's root directory. */
export const ROOT_DIRECTORY = 256

function withDirectory<T>(dir: string, work: (fd: number) => T): T {
  const fd = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try { return work(fd) } finally { fs.closeSync(fd) }
}

/** struct btrfs_ioctl_vol_args and _v2 differ in where the name begins: 8 and 56. */
function volArgs(name: string, at: 8 | 56): Buffer {
  const args = Buffer.alloc(volArgsBytes)
  if (Buffer.byteLength(name) >= volArgsBytes - at) throw new StorageError('INVALID_ARGUMENT', `the name of a subvolume is too long: ${name.slice(0, 40)}…`, { errno: 'ENAMETOOLONG' })
  args.write(name, at)
  return args
}

/** An empty subvolume, 0777 less the umask, owned by the caller. @throws ALREADY_EXISTS */
export function createSubvolume(target: string): void {
  withDirectory(path.dirname(target), fd => ioctl(fd, SUBVOL_CREATE, volArgs(path.basename(target), 8), target))
}

/** A writable snapshot. Commits a transaction, so it is on the device when the call returns. @throws ALREADY_EXISTS */
export function snapshotSubvolume(source: string, target: string): void {
  withDirectory(source, from => withDirectory(path.dirname(target), fd => {
    const args = volArgs(path.basename(target), 56)
    args.writeBigInt64LE(BigInt(from), 0)
    ioctl(fd, SNAP_CREATE_V2, args, target)
  }))
}

/** Remove a subvolume that has none inside. Its blocks are freed later, by the kernel's cleaner. */
export function destroySubvolume(target: string): void {
  withDirectory(path.dirname(target), fd => ioctl(fd, SNAP_DESTROY, volArgs(path.basename(target), 8), target))
}

/** The same by id, wherever it lies on the file system that holds `anywhere` (Linux 5.7). */
export function destroySubvolumeById(anywhere: string, id: number): void {
  withDirectory(anywhere, fd => {
    const args = Buffer.alloc(volArgsBytes)
    args.writeBigUInt64LE(SUBVOL_SPEC_BY_ID, 16)
    args.writeBigUInt64LE(BigInt(id), 56)
    ioctl(fd, SNAP_DESTROY_V2, args, anywhere)
  })
}

export interface SubvolumeInfo {
  readonly id: number
  /** 32 hex digits. */
  readonly uuid: string
  /** The subvolume that this is a snapshot of; undefined for one made empty. */
  readonly parentUuid: string | undefined
  /** The transaction that made it: what a snapshot's inodes say beyond this number happened after it was taken. */
  readonly originTransid: bigint
}

/** Undefined when `dir` is no subvolume's root. */
export function subvolumeInfo(dir: string): SubvolumeInfo | undefined {
  const st = fs.lstatSync(dir, { throwIfNoEntry: false })
  if (st?.isDirectory() !== true || st.ino !== ROOT_DIRECTORY) return undefined
  return withDirectory(dir, fd => {
    const info = Buffer.alloc(504)
    ioctl(fd, GET_SUBVOL_INFO, info, dir)
    const parentUuid = info.toString('hex', 312, 328)
    return {
      id: Number(info.readBigUInt64LE(0)), uuid: info.toString('hex', 296, 312), originTransid: info.readBigUInt64LE(352),
      parentUuid: /^0+$/.test(parentUuid) ? undefined : parentUuid,
    }
  })
}

export interface SearchRange {
  readonly tree: number
  /** First and last objectid. */
  readonly objectids: readonly [bigint, bigint]
  /** First type at the first objectid and last one at the last; types between are not filtered. */
  readonly types?: readonly [number, number]
  readonly offsets?: readonly [bigint, bigint]
  /** Only items in metadata blocks written in this transaction or later: other blocks are not even read. Default 0. */
  readonly minTransid?: bigint
}

export interface TreeItem {
  readonly objectid: bigint
  readonly type: number
  readonly offset: bigint
  /** Valid until the next item is asked for. */
  readonly data: Buffer
}

export const LAST_OFFSET = 0xffff_ffff_ffff_ffffn
// Inode numbers are given out in ascending order from 256; above lie the file system's own objects, counted down from 2^64.
export const LAST_INODE = 0x1f_ffff_ffff_ffffn
const keyBytes = 104, headerBytes = 32

/** The items of a range of keys, in order (BTRFS_IOC_TREE_SEARCH_V2). What was not yet committed to the tree is not seen: sync first. */
export function* searchTree(fd: number, range: SearchRange): Generator<TreeItem> {
  const { types = [0, 255], offsets = [0n, LAST_OFFSET] } = range
  const args = Buffer.alloc(keyBytes + 8 + 65536)
  let [objectid] = range.objectids, type: number = types[0], offset = offsets[0]
  for (;;) {
    const key: readonly bigint[] = [BigInt(range.tree), objectid, range.objectids[1], offset, offsets[1], range.minTransid ?? 0n, LAST_OFFSET]
    for (const [i, value] of key.entries()) args.writeBigUInt64LE(value, i * 8)
    args.writeUInt32LE(type, 56)
    args.writeUInt32LE(types[1], 60)
    args.writeUInt32LE(0xffffffff, 64)
    args.writeBigUInt64LE(65536n, keyBytes)
    ioctl(fd, TREE_SEARCH_V2, args)
    const found = args.readUInt32LE(64)
    if (found === 0) return
    let at = keyBytes + 8
    for (let i = 0; i < found; i++) {
      objectid = args.readBigUInt64LE(at + 8)
      offset = args.readBigUInt64LE(at + 16)
      type = args.readUInt32LE(at + 24)
      const length = args.readUInt32LE(at + 28)
      at += headerBytes
      yield { objectid, type, offset, data: args.subarray(at, at + length) }
      at += length
    }
    // The key after the last one: they count up as one number of 136 bits.
    if (offset < LAST_OFFSET) offset++
    else if (type < 255) { offset = 0n; type++ }
    else { offset = 0n; type = 0; objectid++ }
  }
}

/** The subvolume of this uuid, as id and the name of its entry, or undefined when it is gone. */
export function findSubvolume(fd: number, uuid: string): { readonly id: number; readonly name: string } | undefined {
  const bytes = Buffer.from(uuid, 'hex')
  const [high, low] = [bytes.readBigUInt64LE(0), bytes.readBigUInt64LE(8)]
  for (const item of searchTree(fd, { tree: UUID_TREE, objectids: [high, high], types: [UUID_SUBVOL, UUID_SUBVOL], offsets: [low, low] })) {
    const id = item.data.readBigUInt64LE(0)
    for (const { data } of searchTree(fd, { tree: ROOT_TREE, objectids: [id, id], types: [ROOT_BACKREF, ROOT_BACKREF] })) {
      return { id: Number(id), name: data.toString('utf8', 18, 18 + data.readUInt16LE(16)) } // struct btrfs_root_ref
    }
  }
  return undefined
}

/** Ids of the subvolumes whose entries lie in this one. */
export function nestedSubvolumes(fd: number, id: number): number[] {
  return [...searchTree(fd, { tree: ROOT_TREE, objectids: [BigInt(id), BigInt(id)], types: [ROOT_REF, ROOT_REF] })].map(({ offset }) => Number(offset))
}

// ---- qgroups -----------------------------------------------------------------------------------------------------------------

/** Switch qgroups on for the whole file system and wait until what lies there has been counted. On already is fine. */
export function enableQuota(dir: string): void {
  withDirectory(dir, fd => {
    const args = Buffer.alloc(16)
    args.writeBigUInt64LE(1n, 0) // BTRFS_QUOTA_CTL_ENABLE
    ioctl(fd, QUOTA_CTL, args, dir, [errno.EEXIST])
    ioctl(fd, QUOTA_RESCAN_WAIT, Buffer.alloc(8), dir)
  })
}

/** Bytes that the subvolume alone refers to may be at most so many; writers get EDQUOT. Needs qgroups on. */
export function limitExclusive(subvolume: string, sizeBytes: bigint): void {
  withDirectory(subvolume, fd => {
    const args = Buffer.alloc(48) // qgroupid 0: the subvolume's own
    args.writeBigUInt64LE(QGROUP_LIMIT_MAX_EXCL, 8)
    args.writeBigUInt64LE(sizeBytes, 24)
    ioctl(fd, QGROUP_LIMIT, args, subvolume)
  })
}

/** Whether qgroups are on. */
export function hasQuota(dir: string): boolean {
  return withDirectory(dir, fd => {
    try {
      searchTree(fd, { tree: QUOTA_TREE, objectids: [0n, LAST_OFFSET] }).next()
      return true
    } catch (error) {
      if (StorageError.is(error, 'NOT_FOUND')) return false // there is no quota tree
      throw error
    }
  })
}

/** Forget the qgroup of a subvolume that was removed. Recent kernels do that themselves, and refuse while blocks are still being freed. */
export function destroyQgroup(dir: string, id: number): void {
  withDirectory(dir, fd => {
    const args = Buffer.alloc(16)
    args.writeBigUInt64LE(BigInt(id), 8)
    ioctl(fd, QGROUP_CREATE, args, dir, [errno.ENOTCONN, errno.ENOENT, errno.EBUSY, errno.EINVAL])
  })
}
