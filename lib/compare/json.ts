// Comparisons and entries as values that JSON can hold: names that are not UTF-8 also in base64, times as decimal texts of nanoseconds. Pure.

import type { Difference, ImageComparison, TreeDifference } from './compare.ts'
import type { LayerEntry } from './types.ts'

/** `path`, and `pathBase64` for bytes that are not UTF-8. */
export function pathJson(path: Buffer, key = 'path'): Record<string, string> {
  const text = path.toString()
  return { [key]: text, ...(Buffer.from(text).equals(path) ? {} : { [`${key}Base64`]: path.toString('base64') }) }
}

/** An entry without its path. */
export function entryJson(entry: LayerEntry): Record<string, unknown> {
  const { type, mark, mode, uid, gid, uname, gname, sizeBytes, mtimeNs, linkname, devMajor, devMinor, xattrs, digest } = entry
  return {
    ...(mark === undefined ? { type } : { mark }), mode: mode.toString(8).padStart(4, '0'), uid, gid, ...(uname === '' ? {} : { uname }), ...(gname === '' ? {} : { gname }),
    ...(type === 'file' && mark === undefined ? { sizeBytes } : {}), mtimeNs: `${mtimeNs}`, ...(linkname.length === 0 ? {} : pathJson(linkname, 'linkname')),
    ...(type === 'char' || type === 'block' ? { devMajor, devMinor } : {}), ...(digest === undefined ? {} : { digest }),
    ...(xattrs === undefined ? {} : { xattrs: Object.fromEntries([...xattrs].map(([name, value]) => [name, value.toString('base64')])) }),
  }
}

export function differenceJson({ path, change, aspects, before, after }: Difference): Record<string, unknown> {
  return {
    ...pathJson(path), change, ...(change === 'changed' ? { aspects } : {}), ...(before === undefined ? {} : { before: entryJson(before) }),
    ...(after === undefined ? {} : { after: entryJson(after) }),
  }
}

function treeJson<T extends TreeDifference>(tree: T): Omit<T, 'differences'> & { differences: object[] } {
  return { ...tree, differences: tree.differences.map(differenceJson) }
}

/** A whole comparison; modes are octal texts, xattrs base64, paths without a leading slash. */
export function comparisonJson(comparison: ImageComparison): Record<string, unknown> {
  const { layers, flat, ...rest } = comparison
  return { ...rest, ...(layers === undefined ? {} : { layers: layers.map(treeJson) }), ...(flat === undefined ? {} : { flat: treeJson(flat) }) }
}
