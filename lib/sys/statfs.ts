// The kind of file system that holds a path, by its magic number, in Docker's words.

import fs from 'node:fs'
import { bind } from './native.ts'

// linux/magic.h; the names are those of `docker info` ("Backing Filesystem").
const names: Readonly<Record<number, string>> = {
  0x61756673: 'aufs', 0x9123683e: 'btrfs', 0x28cd3d45: 'cramfs', 0xf15f: 'ecryptfs', 0xef53: 'extfs', 0xf2f52010: 'f2fs',
  0x65735546: 'fuse', 0x47504653: 'gpfs', 0x3153464a: 'jfs', 0x72b6: 'jffs2', 0x6969: 'nfs', 0x794c7630: 'overlayfs', 0x858458f6: 'ramfs',
  0x52654973: 'reiserfs', 0x517b: 'smb', 0xff534d42: 'smb', 0x73717368: 'squashfs', 0x01021994: 'tmpfs', 0xa501fcf5: 'vxfs', 0x58465342: 'xfs', 0x2fc12fc1: 'zfs', 0xe0f5e1e2: 'erofs',
}

/** `extfs`, `xfs`, `tmpfs`, `overlayfs`, …, or `<unknown>`. */
export function fileSystemName(path: string): string {
  return names[fs.statfsSync(path).type >>> 0] ?? '<unknown>'
}

const getdents64 = bind('int64_t getdents64(int fd, void *entries, size_t size)')

/**
 * Does a listing of `dir` tell the types of its entries (d_type)? Asked of the kernel, for Node's readdir hides the answer behind an lstat.
 * Makes and removes nothing: `.` always has an entry.
 */
export function reportsTypes(dir: string): boolean {
  const fd = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    const entries = Buffer.alloc(4096)
    // struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type at 18, name. DT_UNKNOWN is 0.
    return getdents64([fd, entries, entries.length], dir) > 18 && entries[18] !== 0
  } finally {
    fs.closeSync(fd)
  }
}
