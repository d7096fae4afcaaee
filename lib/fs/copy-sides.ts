// How the names inside a tree that is copied become paths for the kernel: joined to the root, or resolved inside it by openat2(2) where
// somebody may change the tree meanwhile. Knows nothing of what is done with the paths.

import fs from 'node:fs'
import { openat2Place } from './openat2-place.ts'
import { joinPath } from './walk.ts'

/** How the names of a tree, none being its root, become paths. */
export interface Side {
  /** Of an entry; the last component is not followed by calls that do not follow links. */
  path(name: Buffer): Buffer
  /** Of a directory itself, for calls that would follow a link in its place. */
  directory(name: Buffer): Buffer
  /** chmod(2) follows links; of an entry. */
  chmod(name: string | Buffer, mode: number): void
  close(): void
}

export function plainSide(root: Buffer): Side {
  const path = (name: Buffer): Buffer => name.length === 0 ? root : joinPath(root, name)
  return { path, directory: path, chmod: (at, mode) => fs.chmodSync(at, mode), close: () => undefined }
}

const O_PATH = 0o10000000
const dot = Buffer.from('.')

export function guardedSide(root: Buffer): Side {
  const place = openat2Place(root)
  const whole = Buffer.from(place.root)
  return {
    path: name => name.length === 0 ? whole : Buffer.from(place.path(name)),
    directory: name => name.length === 0 ? whole : Buffer.from(place.path(joinPath(name, dot))),
    chmod(at, mode) {
      // There is no lchmod(2); a descriptor of a link itself refuses (ELOOP or EOPNOTSUPP).
      const fd = fs.openSync(at, O_PATH | fs.constants.O_NOFOLLOW)
      try { fs.chmodSync(`/proc/self/fd/${fd}`, mode) } finally { fs.closeSync(fd) }
    },
    close: () => place.close(),
  }
}
