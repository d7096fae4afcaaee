// Mounting a snapshot for as long as a function runs, in a folder that names the process's session, so that what a kill leaves mounted is
// found and unmounted by the next process.

import fs from 'node:fs'
import path from 'node:path'
import type { Mount } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { performMount, unmount } from '../sys/mount.ts'
import { privileges } from '../sys/privileges.ts'

/** Perform the mounts at `<dir>/<name>`, run `use` with that path, and take everything away again. */
export async function mountAt<T>(mounts: readonly Mount[], dir: string, name: string, use: (dir: string) => T | Promise<T>): Promise<T> {
  const [only] = mounts
  if (!privileges().mount) {
    if (mounts.length === 1 && only !== undefined && only.options.includes('bind')) return await use(only.source)
    throw new StorageError('PERMISSION_DENIED', 'cannot mount the snapshot: this process may not mount', { op: 'mount', hint: 'run as root, or use the vfs driver' })
  }
  const target = path.join(dir, name)
  fs.mkdirSync(target, { mode: 0o700 })
  const done: string[] = []
  try {
    for (const mount of mounts) {
      const at = path.join(target, mount.target ?? '')
      performMount(mount, at)
      done.push(at)
    }
    return await use(target)
  } finally {
    for (const at of done.reverse()) unmount(at)
    fs.rmdirSync(target)
  }
}

/** Unmount and remove what a session that is gone left in `dir`. */
export function clearMounts(dir: string, session: string): void {
  let names: string[]
  try {
    names = fs.readdirSync(dir)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return
    throw error
  }
  for (const name of names.filter(one => one.startsWith(`${session}-`))) {
    const target = path.join(dir, name)
    if (privileges().mount) unmount(target)
    fs.rmdirSync(target)
  }
}
