// The words of an aufs mount: branches in the options of the first call as far as a page holds them, the rest by remounts that append
// (moby 20.10, daemon/graphdriver/aufs/aufs.go, aufsMount). Pure.

import type { Mount } from '../../lib/driver.ts'

const pageBytes = 4096
/** dockerd's allowance for what follows the branches, `,dio,xino=/dev/shm/aufs.xino` and a spare; its own number. */
const restBytes = 54
const dirpermBytes = ',dirperm1'.length

/**
 * `branches` topmost first. `rw`: the topmost is written to, the others are `ro+wh`: read-only, and their whiteouts count. `dio`: direct I/O; the xino file,
 * which translates inode numbers, lies in memory and is unlinked by aufs as soon as it is open.
 */
export function aufsMounts(branches: readonly string[], access: 'rw' | 'ro', dirperm1: boolean): Mount[] {
  const room = pageBytes - restBytes - (dirperm1 ? dirpermBytes : 0)
  const words = branches.map((dir, i) => `${dir}=${i === 0 && access === 'rw' ? 'rw' : 'ro+wh'}`)
  let first = `br:${words.shift() ?? ''}`
  while (words[0] !== undefined && bytes(first) + bytes(words[0]) + 1 <= room) first += `:${words.shift()}`
  const mounts: Mount[] = [{
    type: 'aufs', source: 'none',
    options: [first, 'dio', 'xino=/dev/shm/aufs.xino', ...(dirperm1 ? ['dirperm1'] : []), ...(access === 'ro' ? ['ro'] : [])],
  }]
  while (words.length > 0) {
    const appended: string[] = []
    for (let used = 0; words[0] !== undefined;) {
      const word = `append:${words[0]}`
      used += bytes(word) + 1
      if (used > room && appended.length > 0) break
      appended.push(word)
      words.shift()
    }
    mounts.push({ type: 'aufs', source: 'none', options: ['remount', ...appended, ...(access === 'ro' ? ['ro'] : [])] })
  }
  return mounts
}

const bytes = (text: string): number => Buffer.byteLength(text)
