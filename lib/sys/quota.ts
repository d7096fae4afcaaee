// Project quota of ext4 and xfs: a directory and what is made in it carry a project id, and the kernel counts and limits what a project holds. Owns the
// ioctl and quotactl_fd(2) (Linux 5.14); decides no sizes. All sync, as root of the initial user namespace.

import { randomInt } from 'node:crypto'
import fs from 'node:fs'
import { StorageError } from '../errors.ts'
import { ioctl } from './files.ts'
import { bind, errno, nativeReason } from './native.ts'
import { privileges } from './privileges.ts'
import { fileSystemName } from './statfs.ts'

const quotactlFd = bind('int64_t syscall(int64_t number, int64_t fd, int64_t command, int64_t id, void *addr)')
const SYS_quotactl_fd = 443 // the same number on every architecture
const PRJQUOTA = 2
const command = (subcommand: number): number => subcommand * 256 + PRJQUOTA // QCMD of linux/quota.h
const Q_GETQUOTA = command(0x800007), Q_SETQUOTA = command(0x800008), Q_XGETQSTAT = command(0x5805)
const QIF_BLIMITS = 1
/** FS_QUOTA_PDQ_ACCT and FS_QUOTA_PDQ_ENFD: projects are counted, and held to their limits (linux/dqblk_xfs.h). */
const COUNTED_AND_LIMITED = 0x10 | 0x20

// struct fsxattr: flags, extent size, extents, project id, CoW extent size, padding (linux/fs.h).
const FS_IOC_FSGETXATTR = 0x801c581f, FS_IOC_FSSETXATTR = 0x401c5820
const FS_XFLAG_PROJINHERIT = 0x200

function onDirectory<T>(dir: string, work: (fd: number) => T): T {
  const fd = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try { return work(fd) } finally { fs.closeSync(fd) }
}

function quotactl(fd: number, what: number, id: number, argument: Buffer, dir: string, allow?: readonly number[]): number {
  return quotactlFd([SYS_quotactl_fd, fd, what, id, argument], dir, allow)
}

/** Why the file system that holds `dir` keeps no project to a limit, or undefined when it does. Writes nothing. */
export function whyNoProjectQuota(dir: string): string | undefined {
  if (nativeReason !== undefined) return nativeReason
  if (!privileges().mount || privileges().userNamespace) return 'project ids can be given by root of the initial user namespace only'
  const fileSystem = fileSystemName(dir)
  if (fileSystem !== 'xfs' && fileSystem !== 'extfs') return `${fileSystem} has no project quota`
  return onDirectory(dir, fd => {
    const state = Buffer.alloc(128)
    const result = quotactl(fd, Q_XGETQSTAT, 0, state, dir, [errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP])
    if (result === -errno.ENOSYS) return 'the kernel has no quotactl_fd(2) (Linux 5.14), or no quota'
    if (result < 0 || (state.readUInt16LE(2) & COUNTED_AND_LIMITED) !== COUNTED_AND_LIMITED) return `${fileSystem} is not mounted with ${fileSystem === 'xfs' ? 'pquota' : 'prjquota'}`
    return undefined
  })
}

/** The directory's project id; 0 for none. */
export function projectOf(dir: string): number {
  return onDirectory(dir, fd => {
    const attributes = Buffer.alloc(28)
    return ioctl(fd, FS_IOC_FSGETXATTR, attributes, dir, [errno.ENOTTY, errno.EOPNOTSUPP]) < 0 ? 0 : attributes.readUInt32LE(12)
  })
}

/** Give an empty directory a project of its own, which everything made in it inherits. Returns the id. */
export function assignProject(dir: string): number {
  return onDirectory(dir, fd => {
    // Drawn, so that processes need not agree; and looked at, as dockerd and others count theirs up from small numbers.
    let id = randomInt(2 ** 24, 2 ** 31)
    while (usageOf(fd, id, dir) > 0) id = randomInt(2 ** 24, 2 ** 31)
    const attributes = Buffer.alloc(28)
    ioctl(fd, FS_IOC_FSGETXATTR, attributes, dir)
    attributes.writeUInt32LE((attributes.readUInt32LE(0) | FS_XFLAG_PROJINHERIT) >>> 0, 0)
    attributes.writeUInt32LE(id, 12)
    ioctl(fd, FS_IOC_FSSETXATTR, attributes, dir)
    return id
  })
}

// struct if_dqblk: hard and soft limit of blocks (1 KiB), bytes now, the same of inodes, two times, and which of them are valid.
function usageOf(fd: number, id: number, dir: string): number {
  const quota = Buffer.alloc(72)
  // xfs: nothing was ever counted under this id.
  if (quotactl(fd, Q_GETQUOTA, id, quota, dir, [errno.ENOENT, errno.ESRCH]) < 0) return 0
  return Number(quota.readBigUInt64LE(16))
}

/** Allocated bytes that the project holds, those still to be written out included. */
export function projectUsage(dir: string, id: number): number {
  return onDirectory(dir, fd => usageOf(fd, id, dir))
}

/** Most bytes that the project may hold, in steps of 1 KiB; 0 for no limit. Beyond, writers get EDQUOT (ext4) or ENOSPC (xfs); ext4 lets one with CAP_SYS_RESOURCE go on. */
export function limitProject(dir: string, id: number, sizeBytes: number): void {
  if (id === 0) throw new StorageError('INVALID_ARGUMENT', `${dir} has no project of its own`, { path: dir })
  onDirectory(dir, fd => {
    const quota = Buffer.alloc(72)
    const blocks = BigInt(Math.ceil(sizeBytes / 1024))
    quota.writeBigUInt64LE(blocks, 0)
    quota.writeBigUInt64LE(blocks, 8)
    quota.writeUInt32LE(QIF_BLIMITS, 64)
    quotactl(fd, Q_SETQUOTA, id, quota, dir)
  })
}
