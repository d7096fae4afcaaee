// Making and removing overlay2 layers so that a kill at any point leaves either a whole layer or nothing that shows. Owns the order of steps.

import fs from 'node:fs'
import path from 'node:path'
import type { CreateOptions, KnownEntry } from '../../lib/driver.ts'
import { asStorageError, isErrno, StorageError } from '../../lib/errors.ts'
import { fdatasync, syncDirectory } from '../../lib/fs/atomic.ts'
import { removeKnown } from '../../lib/fs/remove-small.ts'
import { removeTree, removeTreeSync } from '../../lib/fs/remove-tree.ts'
import type { LayerId } from '../../lib/ids.ts'
import { RENAME_NOREPLACE, rename2, unlinkIfThere } from '../../lib/sys/files.ts'
import { isMountpoint } from '../../lib/sys/mount.ts'
import { assignProject, limitProject, projectOf } from '../../lib/sys/quota.ts'
import { goneName, linkFolder, linkPattern, newLinkName, readNames, stagingName } from './layout.ts'
import type { Layout } from './layout.ts'

/**
 * Most layers below a writable one: the kernel takes 500, and a read-only mount of the same layer has its own directory among them.
 * dockerd stops at 128, so a deeper layer cannot be opened there. So do we where a mount's options must fit a page (before Linux 6.7).
 */
export const maxDepth = 499
export const maxDepthOfPage = 128

/**
 * Lay out a layer, limited to `sizeBytes` of its own. Steps: everything in `.new-<id>`, `link` and `lower` synced; the short link, which the staged `link` file already names;
 * `committed` in the parent; one rename to `<id>`. So a layer that shows has its link, and after a kill `remove(id)` finds the link through
 * whichever folder there is. dockerd makes the link early and forgets it when a later step fails.
 */
export async function createLayer(layout: Layout, id: LayerId, options: CreateOptions, durable: boolean, sizeBytes?: number): Promise<void> {
  const { parent } = options
  const lowers = parent === undefined ? [] : lowersOn(layout, id, parent)
  const lower = parent === undefined ? undefined : lowers.map(name => `${linkFolder}/${name}`).join(':')
  if (fs.existsSync(layout.dir(id))) throw alreadyExists(layout, id)
  const staging = `${layout.home}/${stagingName(id)}`
  try {
    fs.mkdirSync(staging, 0o710)
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw asStorageError(error, `${layout.driver}: creating layer ${id}`, { driver: layout.driver, op: 'create', key: id })
    throw new StorageError('ALREADY_EXISTS', `${layout.driver}: layer ${id} is being created, or a crash left it half made`,
      { driver: layout.driver, op: 'create', key: id, path: staging, hint: 'remove the layer to clear what a crash left' })
  }
  const link = newLinkName()
  try {
    fs.chmodSync(staging, 0o710)
    // Before anything is made in it: what is there already would not be counted.
    if (sizeBytes !== undefined) limitProject(staging, assignProject(staging), sizeBytes)
    makeDirectory(`${staging}/diff`, 0o755)
    if (lower !== undefined) makeDirectory(`${staging}/work`, layout.workMode)
    const files: number[] = []
    try {
      write(files, `${staging}/link`, link)
      if (lower !== undefined) write(files, `${staging}/lower`, lower)
      if (durable) await Promise.all(files.map(fd => fdatasync(fd)))
    } finally {
      for (const fd of files) fs.closeSync(fd)
    }
    fs.symlinkSync(`../${id}/diff`, layout.link(link))
    if (parent !== undefined) markCommitted(layout, parent)
    publish(layout, staging, id)
    layout.names.set(layout.dir(id), { link, lowers })
  } catch (error) {
    fs.rmSync(layout.link(link), { force: true })
    removeTreeSync(staging)
    throw asStorageError(error, `${layout.driver}: creating layer ${id}`, { driver: layout.driver, op: 'create', key: id })
  }
  if (durable) await Promise.all([syncDirectory(layout.home), syncDirectory(path.join(layout.home, linkFolder))])
}

function lowersOn(layout: Layout, id: LayerId, parent: LayerId): string[] {
  const names = readNames(layout, parent)
  const lowers = [names.link, ...names.lowers]
  if (lowers.length > layout.maxDepth) {
    throw new StorageError('LIMIT_EXCEEDED', `${layout.driver}: creating layer ${id} on ${parent}: max depth exceeded: ${lowers.length} layers below, ${layout.maxDepth} are possible`,
      { driver: layout.driver, op: 'create', key: id, hint: 'squash some of the layers' })
  }
  return lowers
}

function alreadyExists(layout: Layout, id: LayerId): StorageError {
  return new StorageError('ALREADY_EXISTS', `${layout.driver}: layer ${id} already exists`, { driver: layout.driver, op: 'create', key: id, errno: 'EEXIST' })
}

/** mkdir and chmod, as the umask of the process is not ours to set. */
function makeDirectory(dir: string, mode: number): void {
  fs.mkdirSync(dir, mode)
  fs.chmodSync(dir, mode)
}

/** `open` gets the descriptor, for a sync and to be closed. */
function write(open: number[], file: string, text: string): void {
  const fd = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL, 0o644)
  open.push(fd)
  fs.fchmodSync(fd, 0o644)
  fs.writeFileSync(fd, text)
}

/** From now on the parent is mounted read-only: before its child shows, never after, and not taken back when the child fails. */
function markCommitted(layout: Layout, parent: LayerId): void {
  const mark = `${layout.dir(parent)}/committed`
  // The second child finds it there; an exception for that costs 15 µs.
  if (fs.existsSync(mark)) return
  try {
    fs.closeSync(fs.openSync(mark, 'wx', 0o600))
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
  }
}

function publish(layout: Layout, staging: string, id: LayerId): void {
  try {
    rename2(staging, layout.dir(id), RENAME_NOREPLACE)
  } catch (error) {
    if (isErrno(error, 'EEXIST')) throw alreadyExists(layout, id)
    throw error
  }
}

/**
 * Remove a layer. Steps: one rename to `.gone-<id>`, so that it is whole or not there; its short link; its tree. Each can be taken up again after
 * a kill, by this function or by the next `open`. The link goes second: a link without its layer harms nobody, a layer without its link cannot be mounted.
 */
export async function removeLayer(layout: Layout, id: LayerId, holds?: readonly KnownEntry[]): Promise<void> {
  const gone = `${layout.home}/${goneName(id)}`
  try {
    if (fs.existsSync(layout.dir(id))) {
      // What is mounted would vanish under its users, and on a writable mount the removal would first be written into it.
      if (isMountpoint(layout.merged(id))) {
        throw new StorageError('BUSY', `${layout.driver}: removing layer ${id}: it is mounted at ${layout.merged(id)}`,
          { driver: layout.driver, op: 'remove', key: id, path: layout.merged(id), hint: 'unmount it first' })
      }
      await finishRemoval(layout, gone)
      fs.renameSync(layout.dir(id), gone)
      layout.names.forget(layout.dir(id))
      await finishThere(layout, gone, holds)
    } else await finishRemoval(layout, gone)
    await finishRemoval(layout, `${layout.home}/${stagingName(id)}`)
  } catch (error) {
    // Somebody else removed it first.
    if (isErrno(error, 'ENOENT')) return
    throw asStorageError(error, `${layout.driver}: removing layer ${id}`, { driver: layout.driver, op: 'remove', key: id })
  }
}

export async function finishRemoval(layout: Layout, dir: string, holds?: readonly KnownEntry[]): Promise<void> {
  if (fs.existsSync(dir)) await finishThere(layout, dir, holds)
}

async function finishThere(layout: Layout, dir: string, holds: readonly KnownEntry[] | undefined): Promise<void> {
  let link: string
  try {
    link = fs.readFileSync(`${dir}/link`, 'utf8')
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    link = ''
  }
  // The name comes from a file: nothing but a name of our form may lead to an unlink.
  if (linkPattern.test(link)) unlinkIfThere(layout.link(link))
  const project = layout.limits ? projectOf(dir) : 0
  if (holds !== undefined) removeKnown(`${dir}/diff`, holds)
  if (!removeUnwritten(dir)) await removeTree(dir)
  if (project !== 0) limitProject(layout.home, project, 0)
}

/** Most containers' layers were never written to: then nine calls remove what to look at would take thirty. False when there is more to it. */
function removeUnwritten(dir: string): boolean {
  try {
    fs.rmdirSync(`${dir}/diff`)
    // Made by the kernel with the first mount.
    if (fs.existsSync(`${dir}/work/work`)) fs.rmdirSync(`${dir}/work/work`)
    // `work` and `lower` are made together, and the link's file has just been read.
    const hasLowers = fs.existsSync(`${dir}/lower`)
    if (hasLowers) fs.rmdirSync(`${dir}/work`)
    if (fs.existsSync(`${dir}/merged`)) fs.rmdirSync(`${dir}/merged`)
    if (hasLowers) fs.unlinkSync(`${dir}/lower`)
    if (fs.existsSync(`${dir}/committed`)) fs.unlinkSync(`${dir}/committed`)
    fs.unlinkSync(`${dir}/link`)
    fs.rmdirSync(dir)
    return true
  } catch (error) {
    // Something is in it, or mounted on it; or another process is at it.
    if (isErrno(error, 'ENOTEMPTY', 'EBUSY', 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM')) return false
    throw error
  }
}

/** Take up the removals that a kill interrupted. What still cannot be removed stays hidden, and is reported when its layer is removed again. */
export async function resumeRemovals(layout: Layout): Promise<void> {
  for (const name of fs.readdirSync(layout.home)) {
    if (!name.startsWith('.gone-')) continue
    try {
      await finishRemoval(layout, path.join(layout.home, name))
    } catch (error) {
      if (!isErrno(error, 'EPERM', 'EBUSY', 'ENOTEMPTY', 'EIO', 'EROFS')) throw error
    }
  }
}
