// A container's mount points as described mounts, in the options of OCI runtimes. Source: moby daemon/oci_linux.go (withMounts),
// daemon/volumes_unix.go (setupMounts). Pure but for the kernel's word on recursive read-only.

import type { Mount } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { supportsRecursiveReadOnly } from '../sys/mount.ts'
import { mergeTmpfsOptions, tmpfsData } from '../volumes/tmpfs-options.ts'
import type { ContainerMounts, MountPointRecord } from './mount-points.ts'

// With DefaultPropagationMode, as withMounts has it.
const tmpfsDefaults = ['noexec', 'nosuid', 'nodev', 'rprivate']

/** Path components of a target, by which Docker orders mounts: `/a` before `/a/b`. */
function depth(target: string): number {
  return target.split('/').filter(part => part !== '').length
}

/**
 * All mounts beside the root, shorter targets first. `sourceOf` gives a volume's or a bind's path.
 * @throws NOT_SUPPORTED when recursive read-only is demanded and the kernel has none, INVALID_ARGUMENT
 */
export function describeMounts(mounts: ContainerMounts, sourceOf: (point: MountPointRecord) => string = point => point.Source): Mount[] {
  const described = Object.values(mounts.points).map(point => point.Type === 'tmpfs' ? describeTmpfs(point.Destination, tmpfsData(point.Spec.TmpfsOptions, !point.RW)) : describeBind(point, sourceOf(point)))
  for (const [target, data] of Object.entries(mounts.tmpfs)) described.push(describeTmpfs(target, data))
  return described.sort((a, b) => depth(a.target ?? '') - depth(b.target ?? '') || ((a.target ?? '') < (b.target ?? '') ? -1 : 1))
}

function describeTmpfs(target: string, data: string): Mount {
  return { type: 'tmpfs', source: 'tmpfs', target, options: mergeTmpfsOptions(data, tmpfsDefaults) }
}

function describeBind(point: MountPointRecord, source: string): Mount {
  const { NonRecursive: flat, ReadOnlyNonRecursive: flatReadOnly, ReadOnlyForceRecursive: force } = point.Spec.BindOptions ?? {}
  const options = [flat === true ? 'bind' : 'rbind']
  if (!point.RW) {
    if (flatReadOnly === true && force === true) throw new StorageError('INVALID_ARGUMENT', 'mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive',
      { op: 'mount', path: point.Destination })
    const recursive = flatReadOnly !== true && supportsRecursiveReadOnly()
    if (force === true && !recursive) throw new StorageError('NOT_SUPPORTED', `${point.Destination} cannot be mounted recursively read-only: the kernel has no mount_setattr`,
      { op: 'mount', path: point.Destination, hint: 'it needs Linux 5.12' })
    options.push(recursive ? 'rro' : 'ro')
  }
  if (point.Propagation !== undefined) options.push(point.Propagation)
  return { type: 'bind', source, target: point.Destination, options }
}

/** What was asked for and is not done here, in a sentence each. */
export function notDone(mounts: ContainerMounts): string[] {
  return Object.values(mounts.points).flatMap(({ Relabel: mode = '', Destination: destination }) => {
    const label = mode.split(',').find(word => word === 'z' || word === 'Z')
    return label === undefined ? [] : [`${destination}: relabelling (${label}) was not done, since labels of SELinux are the engine's business here`]
  })
}
