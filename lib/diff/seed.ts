// A few empty entries that are put into a layer: an init layer's mount points. What is to be made depends on the layers below alone, so it is worked
// out once for all containers of an image; making it is then forty calls. On the main thread: the names are the caller's, and nobody else knows the
// layer yet (0.2 ms, where handing it to a thread costs as much again).

import fs from 'node:fs'
import { asStorageError } from '../errors.ts'
import { resolvingPlace } from '../fs/rooted.ts'
import { privileges } from '../sys/privileges.ts'
import type { TarHeader } from '../tar/types.ts'
import { LayerApplier } from './apply.ts'
import type { ApplyFormat } from './apply.ts'
import { statOf, xattrsOf } from './compare.ts'
import { EntryMetadata } from './entry-metadata.ts'
import { TreeView } from './tree-view.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants

export interface SeedEntry {
  readonly name: string
  readonly type: 'directory' | 'file' | 'symlink'
  readonly mode: number
  readonly linkname?: string
}

/** What to make, in order. Without a time: now. */
export type SeedPlan = readonly (Omit<TarHeader, 'mtimeNs'> & { readonly mtimeNs?: bigint })[]

/**
 * What it takes to have `entries`, parents first, in a layer through which `tree` shows: a directory that shows is left alone, anything else is replaced,
 * and a directory that gets something new is made as it shows, with its owner, mode, times and xattrs.
 */
export function planSeeds(tree: TreeSpec, entries: readonly SeedEntry[]): SeedPlan {
  const view = new TreeView(tree)
  const root = view.root()
  const showing = new Map<string, TreeNode | undefined>()
  /** As the container would reach it: no component may be a link or a file. */
  const directory = (name: string): TreeNode | undefined => {
    if (showing.has(name)) return showing.get(name)
    const cut = name.lastIndexOf('/')
    const parent = cut < 0 ? root : directory(name.slice(0, cut))
    const node = parent === undefined ? undefined : view.child(parent, Buffer.from(name.slice(cut + 1)))
    const found = node?.st.isDirectory() === true ? node : undefined
    showing.set(name, found)
    return found
  }
  const plan: SeedPlan[number][] = []
  const described = new Set<string>()
  for (const { name, type, mode, linkname = '' } of entries) {
    if (type === 'directory' && directory(name) !== undefined) continue
    for (let cut = name.indexOf('/'); cut > 0; cut = name.indexOf('/', cut + 1)) {
      const above = name.slice(0, cut)
      const node = directory(above)
      if (node === undefined || described.has(above)) continue
      described.add(above)
      const { mode: m, uid, gid } = statOf(node)
      plan.push({ ...plain, name: Buffer.from(above), type: 'directory', mode: m & 0o7777, uid, gid, atimeNs: node.st.atimeNs, mtimeNs: node.st.mtimeNs, xattrs: xattrsOf(node) })
    }
    plan.push({ ...plain, name: Buffer.from(name), type, mode, linkname: Buffer.from(linkname) })
  }
  return plan
}

const plain = { uid: 0, gid: 0, sizeBytes: 0, linkname: Buffer.alloc(0), uname: '', gname: '', devMajor: 0, devMinor: 0 }

/** Carry out a plan in a layer's directory, which is new: a branch's is empty. */
export function seedLayer(dir: string, format: ApplyFormat, xattrPrefix: string | undefined, plan: SeedPlan): void {
  try {
    if (format !== 'remove' && isPlain(plan)) return seedEmpty(dir, plan)
    const applier = new LayerApplier(resolvingPlace(dir), format, xattrPrefix)
    const now = BigInt(Date.now()) * 1_000_000n
    for (const header of plan) {
      applier.entry({ mtimeNs: now, ...header })
      applier.end()
    }
    applier.finish()
  } catch (error) {
    throw asStorageError(error, `seeding ${dir}`)
  }
}

/** Everything is root's, and has its mode from the call that makes it. */
function isPlain(plan: SeedPlan): boolean {
  const takenAway = 0o7000 | process.umask()
  return privileges().chown && plan.every(({ type, uid, gid, mode, xattrs }) => uid === 0 && gid === 0 && (type === 'symlink' || (mode & takenAway) === 0) && (xattrs === undefined || xattrs.size === 0))
}

/** What the applier would do in an empty directory, without its care for what may be there: half the time. */
function seedEmpty(dir: string, plan: SeedPlan): void {
  for (const { name, type, mode, linkname } of plan) {
    const at = `${dir}/${name.toString()}`
    if (type === 'directory') fs.mkdirSync(at, mode)
    else if (type === 'symlink') fs.symlinkSync(linkname, at)
    else fs.closeSync(fs.openSync(at, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode))
  }
  const metadata = new EntryMetadata(false)
  // Now that nothing is made in them any more. What has no time of its own has that of its making.
  for (const { name, mtimeNs, atimeNs } of plan) if (mtimeNs !== undefined) metadata.putTimes(`${dir}/${name.toString()}`, atimeNs ?? mtimeNs, mtimeNs)
}
