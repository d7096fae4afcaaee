// A tree as text, line by line, so that two trees can be compared and the difference read: everything a layer must keep, xattrs and hard
// links included (which containerd's comparison leaves out).

import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { effectiveStat, overrideStatName } from '../fs/override-stat.ts'
import { walk } from '../fs/walk.ts'
import { dataRanges, S_IFMT } from '../sys/files.ts'
import { privileges } from '../sys/privileges.ts'
import { getXattr, listXattrs, xattrAvailable } from '../sys/xattr.ts'

/** Times are compared when they lie before 2020: a test set them. The others are the moment of the test. */
const testTimes = BigInt(Date.UTC(2020, 0)) * 1_000_000n
const future = BigInt(Date.UTC(2035, 0)) * 1_000_000n

export interface DumpOptions {
  /** Without native calls times are kept to the microsecond only. */
  readonly timesUnitNs?: bigint
}

/** One line per file, sorted by path: type and mode, owner, size and digest or target or device, first name of a hard link, xattrs, set times. */
export function dump(root: string, options: DumpOptions = {}): string[] {
  const lines: string[] = []
  const firstNames = new Map<bigint, string>()
  walk(root, {
    enter({ path, relative, stat }) {
      const name = relative.length === 0 ? '/' : `/${relative.toString('latin1')}`
      const what = effectiveStat(path, stat)
      // Without the right to chown, what is ours and has no note is root's (lib/fs/override-stat.ts).
      const owner = rootless !== undefined && what.uid === rootless ? '0:0' : `${what.uid}:${what.gid}`
      const line = [name, `0${what.mode.toString(8)}`, owner]
      const type = what.mode & S_IFMT
      if (type === 0o100000) line.push(`${stat.size}`, digest(path, stat))
      else if (type === 0o120000) line.push(`-> ${fs.readlinkSync(path, { encoding: 'buffer' }).toString('latin1')}`)
      else if (type === 0o020000 || type === 0o060000) line.push(`${what.major},${what.minor}`)
      if (stat.nlink > 1n && !stat.isDirectory()) {
        const first = firstNames.get(stat.ino)
        if (first === undefined) firstNames.set(stat.ino, name)
        else line.push(`=${first}`)
      }
      line.push(...xattrsOf(path))
      if (stat.mtimeNs < testTimes || stat.mtimeNs > future) line.push(`mtime ${floored(stat.mtimeNs, options.timesUnitNs ?? 1n)}`)
      lines.push(line.join(' '))
    },
  })
  return lines.sort()
}

const rootless = privileges().chown ? undefined : process.geteuid?.()

function floored(ns: bigint, unit: bigint): bigint {
  return (ns - (ns % unit + unit) % unit) / unit
}

function digest(path: Buffer, stat: fs.BigIntStats): string {
  const hash = createHash('sha256')
  const fd = fs.openSync(path, 'r')
  try {
    // Data only: a sparse file of 8 GiB is as quick as what it holds. Runs of zeros are holes here, written out or not.
    const chunk = Buffer.alloc(65536)
    const zeros = Buffer.alloc(chunk.length)
    for (const { offset, length } of dataRanges(fd, Number(stat.size))) {
      for (let at = offset - offset % chunk.length; at < offset + length; at += chunk.length) {
        const n = fs.readSync(fd, chunk, 0, chunk.length, at)
        if (n > 0 && chunk.compare(zeros, 0, n, 0, n) !== 0) hash.update(`${at}:`).update(chunk.subarray(0, n))
      }
    }
  } finally {
    fs.closeSync(fd)
  }
  return hash.digest('hex').slice(0, 16)
}

function xattrsOf(path: Buffer): string[] {
  if (!xattrAvailable) return []
  // Overlay's own marks are how a driver writes, not what it keeps; the label of a security module is the machine's.
  const own = (name: string): boolean => name === overrideStatName || name.includes('.overlay.') || name === 'security.selinux'
  return listXattrs(path).filter(name => !own(name)).sort().map(name => `${name}=${(getXattr(path, name) ?? Buffer.alloc(0)).toString('hex')}`)
}

/** Fail with the lines that differ. */
export function assertSame(actual: readonly string[], expected: readonly string[], what: string): void {
  const a = new Set(actual), b = new Set(expected)
  const extra = actual.filter(line => !b.has(line)).map(line => `  has      ${line}`)
  const absent = expected.filter(line => !a.has(line)).map(line => `  expected ${line}`)
  const shown = [...extra, ...absent].slice(0, 40)
  assert.ok(shown.length === 0, `${what}:\n${shown.join('\n')}`)
}
