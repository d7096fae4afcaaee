// Can fuse-overlayfs work with its home here? Found out by a real mount in a temporary folder. Leaves nothing behind.

import fs from 'node:fs'
import path from 'node:path'
import type { ProbeResult, Supports } from '../../lib/driver.ts'
import { StorageError } from '../../lib/errors.ts'
import { nearestExisting } from '../../lib/fs/make-directories.ts'
import { clearProbeFolders, inProbeFolder, refuse } from '../../lib/fs/probe-folder.ts'
import { performMount, unmount } from '../../lib/sys/mount.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { mountOptions } from './mount-options.ts'

export function supportsHere(): Supports {
  const { chown, userNamespace } = privileges()
  // The program takes as many as its arguments hold; 500 is what overlay carries, and a layer can be moved there.
  return { nativeMounts: true, independentLayers: true, maxDepth: 499, quota: false, ownership: chown && !userNamespace }
}

const passed = new Set<string>()

/** Never throws: see DriverModule.probe. Starts the program once for each file system. */
export async function probe(home: string): Promise<ProbeResult> {
  if (nativeReason !== undefined) return refuse('PREREQUISITE_MISSING', `fuse-overlayfs needs native calls: ${nativeReason}`, 'install the optional package koffi')
  if (!(process.env['PATH'] ?? '').split(':').some(dir => fs.existsSync(path.join(dir, 'fuse-overlayfs')))) {
    return refuse('PREREQUISITE_MISSING', 'there is no program fuse-overlayfs', 'install the package fuse-overlayfs, or use overlay2')
  }
  if (!privileges().mount) return refuse('PREREQUISITE_MISSING', 'fuse-overlayfs needs CAP_SYS_ADMIN to mount, if only in a user namespace of its own', 'run in a user namespace (unshare -Urm), or use the vfs driver')
  // The program splits lowerdir at every colon.
  if (path.resolve(home).includes(':')) return refuse('INCOMPATIBLE_FILESYSTEM', `fuse-overlayfs cannot use ${home}: the path has a colon`, 'choose another data root')
  const base = nearestExisting(home)
  const key = String(fs.statSync(base, { bigint: true }).dev)
  clearProbeFolders(home, 'fuse-overlayfs', folder => unmount(path.join(folder, 'merged')))
  if (passed.has(key)) return { ok: true, supports: supportsHere() }
  return inProbeFolder(base, 'fuse-overlayfs', dir => {
    const at = (name: string): string => path.join(dir, name)
    try {
      for (const name of ['lower', 'upper', 'work', 'merged']) fs.mkdirSync(at(name))
      fs.writeFileSync(at('lower/f'), 'x')
      performMount({ type: 'fuse3.fuse-overlayfs', source: 'fuse-overlayfs', options: mountOptions([at('lower')], at('upper'), at('work')) }, at('merged'))
      fs.rmSync(at('merged/f'))
      if (!fs.existsSync(at('lower/f'))) throw new StorageError('IO', 'a deletion reached the lower directory')
      passed.add(key)
      return { ok: true, supports: supportsHere() }
    } catch (error) {
      return refuse('NOT_SUPPORTED', `fuse-overlayfs cannot be used in ${base}: ${(error as Error).message}`, fs.existsSync('/dev/fuse') ? 'use overlay2, or vfs without privileges' : 'load the module: modprobe fuse')
    } finally {
      unmount(at('merged'))
    }
  })
}
