// Lexical cleaning of archive names, on bytes. Owns the rule that a name can never lead above the root;
// never looks at a disk, so symbolic links are not its business.

const SLASH = 0x2f
const DOT = 0x2e
const EMPTY = Buffer.alloc(0)

/**
 * The path of an entry below the root, as Go's `path.Clean("/" + name)` without the leading slash: no empty, `.` or `..`
 * components, no slash at either end; `..` at the root stays at the root. The root itself (`''`, `.`, `/`, `a/..`) is an empty buffer.
 * Returns the input itself (or a view of it) where it is already clean.
 */
export function cleanName(name: Buffer): Buffer {
  const trimmed = trimSlashes(name)
  return isClean(trimmed) ? trimmed : joinComponents(trimmed, true)
}

/**
 * Go's `path.Clean`, on bytes: as `cleanName`, but an absolute name stays absolute, a relative one may begin with `..`, and nothing is `.`.
 * Docker's tar-split compares names in this form.
 */
export function pathClean(name: Buffer): Buffer {
  if (name.length > 0 && name[0] === SLASH) return Buffer.concat([Buffer.from('/'), cleanName(name)])
  const trimmed = trimSlashes(name)
  const cleaned = isClean(trimmed) ? trimmed : joinComponents(trimmed, false)
  return cleaned.length === 0 ? Buffer.from('.') : cleaned
}

function trimSlashes(name: Buffer): Buffer {
  let start = 0
  let end = name.length
  while (start < end && name[start] === SLASH) start++
  while (end > start && name[end - 1] === SLASH) end--
  return start === 0 && end === name.length ? name : name.subarray(start, end)
}

/** True when no component is empty, `.` or `..`; one pass and no allocation, as nearly every name in a layer is clean. */
function isClean(name: Buffer): boolean {
  let length = 0
  let dots = 0
  for (let i = 0; i < name.length; i++) {
    const byte = name[i]
    if (byte === SLASH) {
      if (length === 0 || (dots === length && length <= 2)) return false
      length = 0
      dots = 0
    } else {
      length++
      if (byte === DOT) dots++
    }
  }
  return !(length > 0 && dots === length && length <= 2)
}

function joinComponents(name: Buffer, rooted: boolean): Buffer {
  const kept: Buffer[] = []
  let above = 0
  let start = 0
  while (start <= name.length) {
    const slash = name.indexOf(SLASH, start)
    const end = slash < 0 ? name.length : slash
    const length = end - start
    if (length === 2 && name[start] === DOT && name[start + 1] === DOT) {
      if (kept.length > above) kept.pop()
      else if (!rooted) {
        kept.push(name.subarray(start, end))
        above++
      }
    } else if (length > 0 && !(length === 1 && name[start] === DOT)) {
      kept.push(name.subarray(start, end))
    }
    start = end + 1
  }
  if (kept.length === 0) return EMPTY
  let size = kept.length - 1
  for (const part of kept) size += part.length
  const joined = Buffer.allocUnsafe(size)
  let at = 0
  for (const part of kept) {
    if (at > 0) joined[at++] = SLASH
    at += part.copy(joined, at)
  }
  return joined
}
