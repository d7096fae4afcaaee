// In which ways two entries differ. Owns the words for it; knows no trees.

import type { Aspect, LayerEntry } from './types.ts'

/** All aspects in which the entries differ; a file's content is taken for different where neither size nor digest says that it is the same. */
export function aspectsOf(a: LayerEntry, b: LayerEntry): Aspect[] {
  const aspects: Aspect[] = []
  if (a.type !== b.type) aspects.push('type')
  else if (a.type === 'file') {
    if (a.sizeBytes !== b.sizeBytes) aspects.push('size', 'content')
    // An empty file has one content.
    else if (a.sizeBytes > 0 && (a.digest === undefined || a.digest !== b.digest)) aspects.push('content')
  } else if (!a.linkname.equals(b.linkname)) aspects.push('link')
  else if ((a.type === 'char' || a.type === 'block') && (a.devMajor !== b.devMajor || a.devMinor !== b.devMinor)) aspects.push('device')
  // A symlink's own mode means nothing to Linux.
  if (a.mode !== b.mode && !(a.type === 'symlink' && b.type === 'symlink')) aspects.push('mode')
  if (a.uid !== b.uid || a.gid !== b.gid) aspects.push('owner')
  if (!sameXattrs(a.xattrs, b.xattrs)) aspects.push('xattr')
  if (a.mtimeNs !== b.mtimeNs) aspects.push('time')
  if (a.uname !== b.uname || a.gname !== b.gname) aspects.push('name')
  return aspects
}

function sameXattrs(a: LayerEntry['xattrs'], b: LayerEntry['xattrs']): boolean {
  if ((a?.size ?? 0) !== (b?.size ?? 0)) return false
  for (const [name, value] of a ?? []) if (b?.get(name)?.equals(value) !== true) return false
  return true
}

/** Aspects without those that do not change what a program sees: times, and the names of owners beside their numbers. */
export function semantic(aspects: readonly Aspect[]): Aspect[] {
  return aspects.filter(aspect => aspect !== 'time' && aspect !== 'name')
}
