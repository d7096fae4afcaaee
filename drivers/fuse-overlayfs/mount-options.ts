// The options of one fuse-overlayfs mount. libfuse takes a backslash before a comma; the program itself knows no escape for a colon.

/** `lowers` nearest first. Without an upper directory the mount is read-only. */
export function mountOptions(lowers: readonly string[], upper?: string, work?: string): string[] {
  const escape = (dir: string): string => dir.replace(/[\\,]/g, '\\$&')
  return [
    `lowerdir=${lowers.map(escape).join(':')}`,
    ...(upper === undefined || work === undefined ? ['ro'] : [`upperdir=${escape(upper)}`, `workdir=${escape(work)}`]),
  ]
}
