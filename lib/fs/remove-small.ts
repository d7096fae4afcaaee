// Remove a small tree here and now: a container's own layer is a dozen entries, and a thread costs 0.25 ms a call. What is large, mounted upon, closed
// to us or changing is left to removeTree.

import fs from 'node:fs'
import type { KnownEntry } from '../driver.ts'
import { isErrno } from '../errors.ts'
import { openat2, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { joinPath } from './walk.ts'

const maxEntries = 64
const leftToRemoveTree = ['ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EACCES', 'EPERM', 'EBUSY', 'EXDEV', 'ELOOP', 'ENAMETOOLONG', 'ENOSYS', 'EISDIR']
const { O_DIRECTORY, O_RDONLY, O_CLOEXEC } = { O_CLOEXEC: 0o2000000, ...fs.constants }

/** True when nothing of `root` is left. False, having removed nothing, or only part of it, when removeTree is to do it. */
export function removeSmall(root: Buffer): boolean {
  if (nativeReason !== undefined) return false
  try {
    const stat = fs.lstatSync(root, { throwIfNoEntry: false })
    if (stat === undefined) return true
    if (!stat.isDirectory()) {
      fs.unlinkSync(root)
      return true
    }
    const files: Buffer[] = [], directories: Buffer[] = [root]
    // Nothing is removed before all has been looked at.
    if (!list(root, files, directories)) return false
    for (const file of files) fs.unlinkSync(file)
    for (const directory of directories.reverse()) fs.rmdirSync(directory)
    return true
  } catch (error) {
    if (isErrno(error, ...leftToRemoveTree)) return false
    throw error
  }
}

/**
 * Empty `root` of what is known to lie in it, parents first in `entries`, without a look: of an init layer a third of the time. False when it is not so, or something is
 * mounted there: part of it may have gone, and removeTree is to do the rest. True does not mean that nothing else is in it, which the kernel tells whoever removes `root`.
 */
export function removeKnown(root: string, entries: readonly KnownEntry[]): boolean {
  if (nativeReason !== undefined) return false
  try {
    const holders = new Set<string>()
    for (const { name, isDirectory } of entries) {
      const cut = name.lastIndexOf('/')
      if (!isDirectory && cut > 0) holders.add(name.slice(0, cut))
    }
    if (holders.size > 0) {
      const top = fs.openSync(root, O_RDONLY | O_DIRECTORY)
      try {
        // As in `list`; an empty directory on which something is mounted is EBUSY when its turn comes.
        for (const holder of holders) fs.closeSync(openat2(top, holder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV))
      } finally {
        fs.closeSync(top)
      }
    }
    for (let i = entries.length - 1; i >= 0; i--) {
      const { name, isDirectory } = entries[i] as KnownEntry
      if (isDirectory) fs.rmdirSync(`${root}/${name}`)
      else fs.unlinkSync(`${root}/${name}`)
    }
    return true
  } catch (error) {
    if (isErrno(error, ...leftToRemoveTree)) return false
    throw error
  }
}

/** Remove a folder that holds these files and nothing else. False, having removed part of it, when removeTree is to do it. */
export function removeKnownFolder(root: string, files: readonly string[]): boolean {
  try {
    for (const file of files) fs.unlinkSync(`${root}/${file}`)
    fs.rmdirSync(root)
    return true
  } catch (error) {
    if (isErrno(error, ...leftToRemoveTree)) return false
    throw error
  }
}

function list(root: Buffer, files: Buffer[], directories: Buffer[]): boolean {
  const leaves: Buffer[] = []
  for (let at = 0; at < directories.length; at++) {
    const directory = directories[at] as Buffer
    const before = directories.length
    // The cast: @types/node 20 types the names of a buffer listing as strings.
    for (const entry of fs.readdirSync(directory, { withFileTypes: true, encoding: 'buffer' }) as unknown as { name: Buffer; isDirectory(): boolean }[]) {
      (entry.isDirectory() ? directories : files).push(joinPath(directory, entry.name))
      if (files.length + directories.length > maxEntries) return false
    }
    if (at > 0 && directories.length === before) leaves.push(directory)
  }
  if (leaves.length === 0) return true
  const top = fs.openSync(root, O_RDONLY | O_DIRECTORY)
  try {
    // EXDEV at any mount on the way, also at a bind mount of the same file system, which shows in no device number (openat2(2)).
    for (const leaf of leaves) fs.closeSync(openat2(top, leaf.subarray(root.length + 1), O_RDONLY | O_DIRECTORY | O_CLOEXEC, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV))
    return true
  } finally {
    fs.closeSync(top)
  }
}
