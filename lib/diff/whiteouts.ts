// How a deletion is written down: in archives and aufs branches as `.wh.` names, in overlay branches as 0:0 character devices and an
// xattr. Owns the names and their parsing; the applier and the walkers do the work.
// Sources: OCI image spec, layer.md § Whiteouts; Linux Documentation/filesystems/overlayfs.rst.

import type fs from 'node:fs'
import { StorageError } from '../errors.ts'
import { baseOf, childPath, parentOf } from '../fs/rooted.ts'
import { getXattr } from '../sys/xattr.ts'

export const whiteoutPrefix = Buffer.from('.wh.')
export const opaqueName = Buffer.from('.wh..wh..opq')
const metaPrefix = Buffer.from('.wh..wh.')
/** aufs keeps the bodies of hard-linked files here; old images link to them. */
export const plinkDirectory = Buffer.from('.wh..wh.plnk')

/** What a base name in an archive says. `meta` is aufs' own bookkeeping and is not part of the tree. */
export type Mark = { readonly kind: 'whiteout'; readonly of: Buffer } | { readonly kind: 'opaque' } | { readonly kind: 'meta' } | undefined

function startsWith(bytes: Buffer, prefix: Buffer): boolean {
  return bytes.length >= prefix.length && bytes.compare(prefix, 0, prefix.length, 0, prefix.length) === 0
}

/**
 * Read a base name. Undefined for an ordinary one.
 * @throws INVALID_ARCHIVE for a whiteout of nothing, of `.` or of `..`: joined to its directory it would delete that, or its parent
 */
export function parseMark(base: Buffer): Mark {
  if (base.length < 4 || base[0] !== 0x2e || base[1] !== 0x77 || !startsWith(base, whiteoutPrefix)) return undefined
  if (base.equals(opaqueName)) return { kind: 'opaque' }
  if (startsWith(base, metaPrefix)) return { kind: 'meta' }
  const of = base.subarray(whiteoutPrefix.length)
  if (of.length === 0 || of.equals(dot) || of.equals(dotdot)) {
    throw new StorageError('INVALID_ARCHIVE', `invalid whiteout name ${JSON.stringify(base.toString())}`,
      { path: base.toString(), hint: 'a whiteout must name an entry of its own directory' })
  }
  return { kind: 'whiteout', of }
}
const dot = Buffer.from('.'), dotdot = Buffer.from('..')

/** The name that marks `name` as deleted: `a/b` → `a/.wh.b`. */
export function markName(name: Buffer): Buffer {
  const parent = parentOf(name)
  const base = Buffer.concat([whiteoutPrefix, baseOf(name)])
  return parent.length === 0 ? base : childPath(parent, base)
}

/** Is the name below aufs' pseudo-link directory at the root of the layer? */
export function inPlinkDirectory(name: Buffer): boolean {
  return startsWith(name, plinkDirectory) && name[plinkDirectory.length] === 0x2f
}

/** An overlay whiteout: a character device 0:0. */
export function isOverlayWhiteout(st: fs.BigIntStats | fs.Stats): boolean {
  return st.isCharacterDevice() && Number(st.rdev) === 0
}

/**
 * Does this directory of an overlay branch hide what is below it? `x` marks a directory that merely may hold xattr whiteouts
 * (Linux 6.7), not an opaque one.
 */
export function isOverlayOpaque(path: string | Buffer, prefix: string): boolean {
  const value = getXattr(path, `${prefix}opaque`)
  return value !== undefined && value[0] === 0x79 // 'y'
}
