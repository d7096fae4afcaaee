// Filling a tree, by one thread or several: each takes a directory, makes it, copies what is in it that is no directory, and leaves its
// directories for whoever is next. Files with several names, and what directories get, come when all that is there.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'
import { attributesOf, copyFile, copyOther, finish, unlessGone } from './copy-entry.ts'
import type { Attributes, Copy } from './copy-entry.ts'
import type { Work } from './copy-work.ts'
import { joinPath, readNames } from './walk.ts'

/** What is left to be done, by names inside the tree as latin1: a Buffer would take all that shares its memory along to another thread. */
export interface Left {
  readonly directories: { readonly name: string; readonly attributes: Attributes }[]
  /** Files that have several names. */
  readonly linked: string[]
}

/** Where a thread pays: below that, the copy is done before another thread has read its modules (40 ms). */
const muchEntries = 500, muchBytes = 16 << 20

/** Take directories as long as there are any. `onMuch` is called once, when it turns out to be a job for several. */
export function fill(copy: Copy, work: Work, onMuch?: () => void): Left {
  const left: Left = { directories: [], linked: [] }
  const { counts } = copy
  let told = onMuch === undefined
  const check = (): void => {
    copy.check()
    if (told || counts.sizeBytes < muchBytes && counts.files + counts.others + counts.directories < muchEntries) return
    told = true
    onMuch?.()
  }
  for (let name = work.take(copy.check); name !== undefined && !work.failed; name = work.take(copy.check)) {
    fillDirectory(name, left, copy, work, check)
    work.done()
  }
  return left
}

function fillDirectory(name: Buffer, left: Left, copy: Copy, work: Work, check: () => void): void {
  const from = copy.from.path(name)
  const isRoot = name.length === 0
  const stat = isRoot ? fs.lstatSync(from, { bigint: true }) : unlessGone(() => fs.lstatSync(from, { bigint: true, throwIfNoEntry: false }))
  if (stat?.isDirectory() !== true) return // gone since it was listed
  if (!isRoot) fs.mkdirSync(copy.to.path(name), 0o700)
  copy.counts.directories++
  left.directories.push({ name: name.toString('latin1'), attributes: attributesOf(stat) })
  for (const entry of isRoot ? list(from) : unlessGone(() => list(from)) ?? []) {
    check()
    if (work.failed) return
    const child = joinPath(name, entry.name)
    if (entry.isDirectory()) work.push(child)
    else if (entry.isFile()) {
      if (copyFile(copy.from.path(child), copy.to.path(child), copy, true) === 'linked') left.linked.push(child.toString('latin1'))
    } else copyUnknown(child, left, copy, work)
  }
}

interface Listed { readonly name: Buffer; isDirectory(): boolean; isFile(): boolean }

/** With types, which save a stat a file. Where the file system tells none, Node asks for each, and fails for one that has gone meanwhile. */
function list(directory: Buffer): Listed[] {
  try {
    // The cast: @types/node has no overload for Dirents of bytes.
    return fs.readdirSync(directory, { withFileTypes: true, encoding: 'buffer' as 'utf8' }) as unknown as Listed[]
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    return readNames(directory).map(name => ({ name, isDirectory: () => false, isFile: () => false }))
  }
}

function copyUnknown(name: Buffer, left: Left, copy: Copy, work: Work): void {
  const from = copy.from.path(name)
  const stat = unlessGone(() => fs.lstatSync(from, { bigint: true, throwIfNoEntry: false }))
  if (stat === undefined) return
  if (stat.isDirectory()) work.push(name)
  else if (stat.nlink > 1n) left.linked.push(name.toString('latin1'))
  else copyOther(name, from, stat, copy)
}

/** The last part, for one thread, with what all have left. */
export function complete(left: Left, copy: Copy): void {
  for (const latin1 of left.linked) {
    copy.check()
    const name = Buffer.from(latin1, 'latin1'), from = copy.from.path(name)
    const stat = unlessGone(() => fs.lstatSync(from, { bigint: true, throwIfNoEntry: false }))
    if (stat !== undefined && !stat.isDirectory()) copyOther(name, from, stat, copy)
  }
  // Deepest first: a directory's mode may keep us from what is in it. A name below another sorts after that one.
  for (const { name: latin1, attributes } of left.directories.sort((a, b) => a.name < b.name ? 1 : -1)) {
    copy.check()
    const name = Buffer.from(latin1, 'latin1')
    finish(copy.from.directory(name), copy.to.directory(name), attributes, copy)
  }
}

/** The whole of a tree that others may change meanwhile, by one thread: each directory is finished before the next, so that no name is used twice. */
export function fillGuarded(name: Buffer, stat: fs.BigIntStats, copy: Copy): void {
  copy.check()
  copy.counts.directories++
  const names = name.length === 0 ? readNames(copy.from.directory(name)) : unlessGone(() => readNames(copy.from.directory(name))) ?? []
  for (const child of names) guardedEntry(joinPath(name, child), copy)
  finish(unlessGone(() => copy.from.directory(name)), copy.to.directory(name), attributesOf(stat), copy)
}

function guardedEntry(name: Buffer, copy: Copy): void {
  const from = unlessGone(() => copy.from.path(name))
  const stat = from === undefined ? undefined : unlessGone(() => fs.lstatSync(from, { bigint: true, throwIfNoEntry: false }))
  if (from === undefined || stat === undefined) return // gone since it was listed
  if (!stat.isDirectory()) { copyOther(name, from, stat, copy); return }
  fs.mkdirSync(copy.to.path(name), 0o700)
  fillGuarded(name, stat, copy)
}
