// Performs a container's described mounts below its mounted root: finds each target inside the root, whatever links lie there, makes the mount
// points that are missing, and mounts. The root must not be changed by others meanwhile.

import fs from 'node:fs'
import path from 'node:path'
import type { Mount } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { resolvingPlace } from '../fs/rooted.ts'
import { performMount, unmount } from '../sys/mount.ts'

/** Returns where they are mounted, in order; a failure leaves none. */
export function performMounts(root: string, mounts: readonly Mount[]): string[] {
  const done: string[] = []
  try {
    for (const mount of mounts) {
      const target = mountPoint(root, mount)
      performMount({ ...mount, options: mount.options.filter(option => option !== 'rro' || mount.type === 'bind') }, target)
      done.push(target)
    }
    return done
  } catch (error) {
    undoMounts(done)
    throw error
  }
}

/** The last first. */
export function undoMounts(targets: readonly string[]): void {
  for (const target of [...targets].reverse()) unmount(target)
}

function mountPoint(root: string, mount: Mount): string {
  const asked = mount.target ?? ''
  const inside = resolvingPlace(root).follow(Buffer.from(asked.replace(/^\/+/, '')))
  if (inside.length === 0) throw new StorageError('INVALID_ARGUMENT', 'invalid specification: destination can\'t be \'/\'', { op: 'mount', path: asked })
  const target = path.join(root, inside.toString())
  if (fs.existsSync(target)) return target
  const isFile = mount.type === 'bind' && !fs.statSync(mount.source).isDirectory()
  fs.mkdirSync(isFile ? path.dirname(target) : target, { recursive: true, mode: 0o755 })
  if (isFile) fs.writeFileSync(target, '', { flag: 'wx', mode: 0o755 })
  return target
}
