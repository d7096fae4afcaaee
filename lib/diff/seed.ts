// A few empty entries that are put into a layer: an init layer's mount points. What is to be made depends on the layers below alone, so it is worked
// out once for all containers of an image; making it is then forty calls. On the main thread: the names are the caller's, and nobody else knows the
// layer yet (0.2 ms, where handing it to a thread costs as much again).

import { asStorageError } from '../errors.ts'
import { resolvingPlace } from '../fs/rooted.ts'
import type { TarHeader } from '../tar/types.ts'
import { LayerApplier } from './apply.ts'
import type { ApplyFormat } from './apply.ts'
import { statOf, xattrsOf } from './compare.ts'
import { TreeView } from './tree-view.ts'
import type { TreeNode, TreeSpec } from './tree-view.ts'

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

/** Carry out a plan in a layer's directory. */
export function seedLayer(dir: string, format: ApplyFormat, xattrPrefix: string | undefined, plan: SeedPlan): void {
  try {
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
