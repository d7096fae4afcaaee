// The one policy of extended attributes in a copy: all are copied. Counted rather than fatal are those that this file system or this
// process cannot have; anything else that fails is an error, since losing attributes in silence is moby#35699 and moby#43882.

import { isErrno } from '../errors.ts'
import { getXattr, listXattrs, setXattr, xattrAvailable } from '../sys/xattr.ts'

/**
 * Copy every attribute. Returns how many could not be had.
 *
 * - EOPNOTSUPP: the target file system has no such name space (tmpfs before 6.6 and `user.`, vfat): counted
 * - EPERM, EACCES for `security.` and `trusted.`: the process lacks the capability, as containerd's native driver tolerates: counted
 * - EPERM for `user.` on a symlink or device cannot happen, for the source could not have had it
 * - ENOSPC, ERANGE, E2BIG, and EPERM for `user.` and `system.`: thrown
 */
export function copyXattrs(from: string | Buffer, to: string | Buffer): number {
  if (!xattrAvailable) return 0
  let missing = 0
  for (const name of listXattrs(from)) {
    try {
      const value = getXattr(from, name)
      // Undefined: removed since it was listed.
      if (value !== undefined) setXattr(to, name, value)
    } catch (error) {
      const unsupported = isErrno(error, 'EOPNOTSUPP')
      const forbidden = isErrno(error, 'EPERM', 'EACCES') && (name.startsWith('security.') || name.startsWith('trusted.'))
      if (!unsupported && !forbidden) throw error
      missing++
    }
  }
  return missing
}
