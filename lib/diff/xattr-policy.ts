// One policy for extended attributes, for applying and for writing layers.
//
// Applied: every attribute a layer carries, except those by which overlayfs and rootless stores steer themselves: an image could
// otherwise hide, redirect or re-own files of the layers below. They are reported as skipped, never dropped in silence. An
// attribute that the file system or the kernel refuses (EOPNOTSUPP, or EPERM without privileges or on a symlink) is reported too.
// Written: user.*, trusted.* and security.capability, and POSIX ACLs, less the same control names; not other security.* labels
// (selinux, ima, apparmor), which describe the host's policy and not the content.

const controls = ['trusted.overlay.', 'user.overlay.', 'user.containers.override_stat', 'user.fuseoverlayfs.', 'user.rootlesscontainers', 'trusted.layerstack.', 'user.layerstack.']

function isControl(name: string): boolean {
  return controls.some(control => name.startsWith(control))
}

/** May an attribute named so in an archive be set on a file? */
export function mayApply(name: string): boolean {
  return !isControl(name) && name.includes('.') && !name.includes('\0')
}

/** Does a layer that is written carry this attribute of a file? */
export function mayWrite(name: string): boolean {
  if (name.startsWith('user.') || name.startsWith('trusted.')) return !isControl(name)
  return name === 'security.capability' || name === 'system.posix_acl_access' || name === 'system.posix_acl_default'
}
