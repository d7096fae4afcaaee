// Can aufs work with its home here? By the kernel's list of file systems, and then by a real mount. Leaves nothing behind.

import fs from 'node:fs'
import path from 'node:path'
import type { Supports } from '../../lib/driver.ts'
import { nearestExisting } from '../../lib/fs/make-directories.ts'
import { clearProbeFolders, inProbeFolder, refuse } from '../../lib/fs/probe-folder.ts'
import type { Refusal } from '../../lib/fs/probe-folder.ts'
import { performMounts, unmount } from '../../lib/sys/mount.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { fileSystemName } from '../../lib/sys/statfs.ts'
import { aufsMounts } from './mount-options.ts'

export const supportsHere: Supports = {
  // 127 branches (CONFIG_AUFS_BRANCH_MAX_127, as distributions built it), the writable one among them.
  nativeMounts: true, independentLayers: true, maxDepth: 126, quota: false, ownership: true,
}

export type Examined = { readonly ok: true; readonly dirperm1: boolean } | Refusal

export function examine(home: string): Examined {
  if (nativeReason !== undefined) return refuse('PREREQUISITE_MISSING', `aufs needs native calls: ${nativeReason}`, 'install the optional package koffi')
  if (privileges().userNamespace || !privileges().mount) return refuse('NOT_SUPPORTED', 'aufs cannot be mounted in a user namespace, nor without CAP_SYS_ADMIN', 'use fuse-overlayfs, or overlay2 from Linux 5.11 on')
  if (!/^nodev\taufs$/m.test(fs.readFileSync('/proc/filesystems', 'latin1'))) {
    return refuse('NOT_SUPPORTED', 'this kernel has no aufs', 'use overlay2, which is in the kernel; layerstack system migrate moves images from aufs. Or load the module: modprobe aufs')
  }
  const base = nearestExisting(home)
  const fileSystem = fileSystemName(base)
  if (['aufs', 'btrfs', 'ecryptfs', 'overlayfs'].includes(fileSystem)) return refuse('INCOMPATIBLE_FILESYSTEM', `aufs cannot have its branches on ${fileSystem}, where ${base} lies`, 'put the data root on ext4 or xfs')
  if (/[,:=]/.test(path.resolve(home))) return refuse('INCOMPATIBLE_FILESYSTEM', `aufs cannot use ${home}: its options know no escape for , : and =`, 'choose another data root')
  clearProbeFolders(home, 'aufs', folder => unmount(path.join(folder, 'union')))
  return inProbeFolder(base, 'aufs', dir => {
    for (const name of ['union', 'upper', 'lower']) fs.mkdirSync(path.join(dir, name))
    return tryMounts(dir)
  })
}

function tryMounts(dir: string): Examined {
  const target = path.join(dir, 'union'), branches = [path.join(dir, 'upper'), path.join(dir, 'lower')]
  // dirperm1: the topmost branch's mode of a directory counts, not the strictest of all (moby PR 11799). Older builds do not know it.
  let reason = ''
  for (const dirperm1 of [true, false]) {
    try {
      performMounts(aufsMounts(branches, 'rw', dirperm1), target)
      return { ok: true, dirperm1 }
    } catch (error) {
      reason = (error as Error).message
    } finally {
      unmount(target)
    }
  }
  return refuse('NOT_SUPPORTED', `aufs: a test mount failed: ${reason}`, 'use overlay2')
}
