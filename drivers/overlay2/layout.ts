// Where things lie in overlay2's home, to the byte as dockerd writes them, and the rules of names that dockerd does not know. fuse-overlayfs has
// the same layout, but for the mode of `work`.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../../lib/errors.ts'
import { Remembered } from '../../lib/fs/remembered.ts'
import { randomBytesOf } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'

/** Folder of the short links. A layer cannot have this id: dockerd's ids are 64 hex digits, but ours need not be. */
export const linkFolder = 'l'

/**
 * A layer in the making and a layer in removal. dockerd opens layers by id only and never lists the home, so it does not see them; the
 * leading dot cannot start a LayerId.
 */
export const stagingName = (id: LayerId): string => `.new-${id}`
export const goneName = (id: LayerId): string => `.gone-${id}`

/** What the files of a layer say: its own short name, and those of the layers below, nearest first. */
export interface Names { readonly link: string; readonly lowers: readonly string[] }

export interface Layout {
  readonly home: string
  /** The driver's name, for messages. */
  readonly driver: string
  readonly workMode: number
  /** The file system keeps projects to limits, so a layer may have a project of its own. */
  readonly limits: boolean
  /** Most layers below a writable one. */
  readonly maxDepth: number
  /**
   * Names that were read or written, by layer folder. Their files are written before the layer shows, and replaced by a rename alone (a repair): that, and whoever removes
   * the layer and makes another of its id, changes the folder's inode or time of change, which are compared. 3 µs a layer instead of 15.
   */
  readonly names: Remembered<Names>
  dir(id: LayerId): string
  diff(id: LayerId): string
  work(id: LayerId): string
  merged(id: LayerId): string
  link(name: string): string
}

export function layoutOf(home: string, { driver = 'overlay2', workMode = 0o700, limits = false, maxDepth = 499 }: Partial<Pick<Layout, 'driver' | 'workMode' | 'limits' | 'maxDepth'>> = {}): Layout {
  // Put together, not joined: ids and names are clean, and a hundred joins are a twentieth of a container's life.
  const dir = (id: LayerId): string => `${home}/${id}`
  return {
    home, driver, workMode, limits, maxDepth, dir, names: new Remembered(),
    diff: id => `${home}/${id}/diff`,
    work: id => `${home}/${id}/work`,
    merged: id => `${home}/${id}/merged`,
    link: name => `${home}/${linkFolder}/${name}`,
  }
}

const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** 26 letters of RFC 4648 base32: moby's overlayutils.GenerateID(26), so that 128 links fit a page of mount options. */
export function newLinkName(): string {
  let name = ''
  for (const byte of randomBytesOf(26)) name += base32[byte & 31]
  return name
}

export const linkPattern = /^[A-Z2-7]{26}$/

// Read as UTF-8, though all is ASCII: Node reads such a file in one call, 6 µs instead of 12 (v20.20).

/** The layer's short name. @throws NOT_FOUND for an unknown layer, CORRUPT for a file that a power cut left empty (moby#42964) */
export function readLink(layout: Layout, id: LayerId): string {
  const file = path.join(layout.dir(id), 'link')
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    if (!fs.existsSync(layout.dir(id))) throw notFound(layout, id)
    throw corrupt(layout, id, file, 'the file is missing')
  }
  if (!linkPattern.test(text)) throw corrupt(layout, id, file, text === '' ? 'the file is empty' : `not a link name: ${JSON.stringify(text.slice(0, 40))}`)
  return text
}

/** The short names of the layers below, nearest first; none for a base layer. @throws CORRUPT */
export function readLowers(layout: Layout, id: LayerId): string[] {
  const file = path.join(layout.dir(id), 'lower')
  // Base layers have none; to learn that from an exception costs 20 µs.
  if (!fs.existsSync(file)) return []
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
  return text.split(':').map(part => {
    const name = part.slice(linkFolder.length + 1)
    if (!part.startsWith(`${linkFolder}/`) || !linkPattern.test(name)) throw corrupt(layout, id, file, text === '' ? 'the file is empty' : `not a list of links: ${JSON.stringify(part.slice(0, 40))}`)
    return name
  })
}

/** `readLink` and `readLowers`. @throws as they do */
export function readNames(layout: Layout, id: LayerId): Names {
  const read = (): Names => ({ link: readLink(layout, id), lowers: readLowers(layout, id) })
  return layout.names.get(layout.dir(id), read) ?? read()
}

/** `readLowers`, where the layer's own link may be damaged. @throws CORRUPT */
export function lowersOf(layout: Layout, id: LayerId): readonly string[] {
  return layout.names.get(layout.dir(id), () => undefined)?.lowers ?? readLowers(layout, id)
}

/** What a short link leads to: `../<id>/diff`. */
export const targetPattern = /^\.\.\/([^/]+)\/diff$/

/** The layer that a short link names. @throws CORRUPT when the link is missing or points elsewhere */
export function layerOfLink(layout: Layout, name: string, of: LayerId): LayerId {
  let target: string
  try {
    target = fs.readlinkSync(layout.link(name))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL')) throw corrupt(layout, of, layout.link(name), 'the short link of a lower layer is missing')
    throw error
  }
  const m = targetPattern.exec(target)
  if (m?.[1] === undefined) throw corrupt(layout, of, layout.link(name), `the short link points to ${JSON.stringify(target)}`)
  return m[1] as LayerId
}

export function notFound({ driver }: Layout, id: LayerId): StorageError {
  return new StorageError('NOT_FOUND', `${driver}: no such layer: ${id}`, { driver, key: id })
}

export function corrupt({ driver }: Layout, id: LayerId, file: string, why: string): StorageError {
  return new StorageError('CORRUPT', `${driver}: layer ${id}: ${file}: ${why}`,
    { driver, key: id, path: file, hint: 'check the data root; links can be made anew from the layers\' link files' })
}

/** Escape what separates: `,` options from each other, `:` lower directories (Documentation/filesystems/overlayfs.rst). */
export function escapeLower(dir: string): string {
  return dir.replace(/[\\:,]/g, '\\$&')
}
export function escapePath(dir: string): string {
  return dir.replace(/[\\,]/g, '\\$&')
}
