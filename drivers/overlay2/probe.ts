// Can overlay2 work with its home here, and how does this kernel's overlay behave? Found out by real mounts in a temporary folder on the
// same file system, never from version numbers. Leaves nothing behind.

import fs from 'node:fs'
import path from 'node:path'
import { errnoOf, isErrno, StorageError } from '../../lib/errors.ts'
import { nearestExisting } from '../../lib/fs/make-directories.ts'
import { clearProbeFolders, inProbeFolder, refuse } from '../../lib/fs/probe-folder.ts'
import type { Refusal } from '../../lib/fs/probe-folder.ts'
import { mknod, S_IFCHR } from '../../lib/sys/files.ts'
import { performMount, unmount } from '../../lib/sys/mount.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { whyNoProjectQuota } from '../../lib/sys/quota.ts'
import { fileSystemName, reportsTypes } from '../../lib/sys/statfs.ts'
import { getXattr, listXattrs, setXattr } from '../../lib/sys/xattr.ts'
import { escapeLower, escapePath } from './layout.ts'

/** ovl_fill_super refuses more than OVL_MAX_STACK (fs/overlayfs/params.h). */
export const kernelMaxLowers = 500

/** What the status lines say and what `mounts()` needs to know. */
export interface Overlay2Facts {
  readonly backingFileSystem: string
  readonly supportsDType: boolean
  /** Marks are kept under user.overlay.*: in a user namespace trusted.* cannot be set (Linux 5.11). */
  readonly userxattr: boolean
  /** The kernel knows `index=`; it is switched off, or a lower that was an upper before is refused with ESTALE (moby PR 34697). */
  readonly indexOff: boolean
  /** Why a layer's size cannot be limited here; absent when it can. */
  readonly whyNoQuota: string | undefined
  /** The kernel's default is metacopy=on: a chmod copies up an inode without its data. */
  readonly metacopy?: boolean
  /** Empty: the upper directory tells all changes. Otherwise why not, in dockerd's words. This and the last are absent when not examined. */
  readonly notNativeReason?: string
}

/** What is known without mounting or writing anything, for a root that is opened read-only. */
export function factsUnexamined(home: string): Overlay2Facts {
  return { backingFileSystem: fileSystemName(home), supportsDType: reportsTypes(home), userxattr: privileges().userNamespace, indexOff: knowsIndex(), whyNoQuota: 'the root is open read-only' }
}

function knowsIndex(): boolean {
  return fs.existsSync('/sys/module/overlay/parameters/index')
}

export type Examined = { readonly ok: true; readonly facts: Overlay2Facts } | Refusal

const known = new Map<string, Examined>()

/**
 * The probe's answer with the facts that `open()` keeps. The six mounts take about 4 ms, and the kernel does not change under a running process: a
 * file system that passed is not asked again.
 */
export function examine(home: string): Examined {
  if (nativeReason !== undefined) return refuse('PREREQUISITE_MISSING', `overlay2 needs native calls: ${nativeReason}`, 'install the optional package koffi')
  if (!privileges().mount) return refuse('PREREQUISITE_MISSING', 'overlay2 needs CAP_SYS_ADMIN to mount', 'run as root, or use the vfs driver')
  const base = nearestExisting(home)
  const key = `${fs.statSync(base, { bigint: true }).dev}`
  clearProbeFolders(home, 'overlay2', folder => unmount(path.join(folder, 'merged')))
  const before = known.get(key)
  if (before !== undefined) return before
  return inProbeFolder(base, 'overlay2', dir => {
    try {
      const examined = examineIn(dir)
      if (examined.ok) known.set(key, examined)
      return examined
    } catch (error) {
      return refuse('NOT_SUPPORTED', `overlay2 cannot be used in ${base}: ${(error as Error).message}`, 'use the vfs driver')
    } finally {
      unmount(path.join(dir, 'merged'))
    }
  })
}

function examineIn(dir: string): Examined {
  const backingFileSystem = fileSystemName(dir)
  // Without types in readdir, overlay shows whiteouts as files (ftype on xfs, filetype on ext4).
  if (!reportsTypes(dir)) {
    const hint = { xfs: 'make the file system anew with mkfs.xfs -n ftype=1', extfs: 'enable it with tune2fs -O filetype' }[backingFileSystem]
    return refuse('INCOMPATIBLE_FILESYSTEM', `overlay2: the backing ${backingFileSystem} filesystem is formatted without d_type support, which leads to incorrect behavior`, hint ?? 'use another file system')
  }
  const userxattr = privileges().userNamespace
  const setup: Setup = { dir, userxattr, indexOff: knowsIndex() }
  try {
    withOverlay(setup, ['l1', 'l2'], () => fs.writeFileSync(path.join(dir, 'merged', 'f'), 'x'))
  } catch (error) {
    return refused(error, backingFileSystem, dir)
  }
  try {
    mknod(path.join(dir, 'upper', 'whiteout'), S_IFCHR | 0o600, 0n)
  } catch (error) {
    if (!isErrno(error, 'EPERM')) throw error
    return refuse('PREREQUISITE_MISSING', 'overlay2 cannot make whiteouts (character devices 0:0)', 'a kernel of version 5.8 or later allows them in a user namespace')
  }
  const prefix = userxattr ? 'user.overlay.' : 'trusted.overlay.'
  try {
    setXattr(path.join(dir, 'upper'), `${prefix}opaque`, 'y')
  } catch (error) {
    if (!isErrno(error, 'EOPNOTSUPP', 'EPERM')) throw error
    return refuse('INCOMPATIBLE_FILESYSTEM', `overlay2: the backing ${backingFileSystem} filesystem keeps no ${prefix}* attributes`, 'use another file system, or the vfs driver')
  }
  return {
    ok: true,
    facts: {
      backingFileSystem, userxattr, supportsDType: true, indexOff: setup.indexOff,
      whyNoQuota: whyNoProjectQuota(dir), metacopy: usesMetacopy(setup), notNativeReason: notNative(setup, prefix),
    },
  }
}

function refused(error: unknown, fileSystem: string, dir: string): Examined {
  const why = (error as Error).message
  if (StorageError.is(error, 'NOT_SUPPORTED')) return refuse('NOT_SUPPORTED', why, 'load the module: modprobe overlay')
  if (fileSystem === 'overlayfs') {
    return refuse('INCOMPATIBLE_FILESYSTEM', `overlay2: ${path.dirname(dir)} lies on an overlay itself, which cannot be an overlay's upper directory: ${why}`,
      'inside a container: put the data root on a volume; otherwise use the vfs driver')
  }
  if (fileSystem === 'nfs') return refuse('INCOMPATIBLE_FILESYSTEM', `overlay2: NFS cannot be an overlay's upper directory: ${why}`, 'put the data root on a local file system')
  return refuse(errnoOf(error) === 'EINVAL' ? 'INCOMPATIBLE_FILESYSTEM' : 'NOT_SUPPORTED', `overlay2: a test mount on ${fileSystem} failed: ${why}`, 'use another file system, or the vfs driver')
}

interface Setup { readonly dir: string; readonly userxattr: boolean; readonly indexOff: boolean }

/** Run `work` on an overlay at dir/merged over `lowers` (nearest first) with a new upper directory. */
function withOverlay(setup: Setup, lowers: readonly string[], work: () => void): void {
  const { dir } = setup
  const at = (name: string): string => path.join(dir, name)
  for (const name of ['upper', 'work', 'merged']) fs.rmSync(at(name), { recursive: true, force: true })
  for (const name of [...lowers, 'upper', 'work', 'merged']) fs.mkdirSync(at(name), { recursive: true })
  const options = [...(setup.indexOff ? ['index=off'] : []), ...(setup.userxattr ? ['userxattr'] : []),
    `lowerdir=${lowers.map(name => escapeLower(at(name))).join(':')}`, `upperdir=${escapePath(at('upper'))}`, `workdir=${escapePath(at('work'))}`]
  performMount({ type: 'overlay', source: 'overlay', options }, at('merged'))
  try { work() } finally { unmount(at('merged')) }
}

/** dockerd's usingMetacopy: chmod through a mount, and look for the mark on the upper file. */
function usesMetacopy(setup: Setup): boolean {
  const lower = path.join(setup.dir, 'mc')
  fs.mkdirSync(lower)
  fs.writeFileSync(path.join(lower, 'f'), 'x', { mode: 0o600 })
  withOverlay(setup, ['mc'], () => fs.chmodSync(path.join(setup.dir, 'merged', 'f'), 0o700))
  return listXattrs(path.join(setup.dir, 'upper', 'f')).some(name => name.endsWith('.overlay.metacopy'))
}

/** dockerd's doesSupportNativeDiff: empty when the upper directory alone tells what changed. */
function notNative(setup: Setup, prefix: string): string {
  const { dir } = setup
  const at = (...names: string[]): string => path.join(dir, ...names)
  for (const name of ['n1/d', 'n1/d1', 'n2/d']) fs.mkdirSync(at(name), { recursive: true })
  fs.writeFileSync(at('n1', 'd', 'f'), 'x')
  fs.mkdirSync(at('n2', 'd', 'sub'))
  setXattr(at('n2', 'd'), `${prefix}opaque`, 'y')
  let renamed = false
  withOverlay(setup, ['n2', 'n1'], () => {
    fs.writeFileSync(at('merged', 'd', 'new'), 'x')
    try {
      fs.renameSync(at('merged', 'd1'), at('merged', 'd2'))
      renamed = true
    } catch (error) {
      // EXDEV: the kernel wants user space to copy the directory, so no redirect can arise.
      if (!isErrno(error, 'EXDEV')) throw error
    }
  })
  if (getXattr(at('upper', 'd'), `${prefix}opaque`) !== undefined) return 'opaque flag erroneously copied up, consider update to kernel 4.8 or later to fix'
  if (renamed && getXattr(at('upper', 'd2'), `${prefix}redirect`) !== undefined) return 'kernel has CONFIG_OVERLAY_FS_REDIRECT_DIR enabled'
  return ''
}
