// A container as an OCI runtime's bundle: config.json with the defaults that dockerd gives a container that is not privileged. Sources: OCI runtime
// spec 1.0.2, moby oci/defaults.go, oci/caps/defaults.go, daemon/oci_linux.go. Writes nothing and runs nothing.

import fs from 'node:fs'
import type { Mount } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { resolvingPlace } from '../fs/rooted.ts'
import type { ContainerRecord } from './config.ts'

export interface SpecOptions {
  /** Where the root is mounted. */
  readonly root: string
  /** Beside the root, shorter targets first. */
  readonly mounts: readonly Mount[]
  /** The container's network is none: a namespace with nothing but lo. Default true; false: the host's. */
  readonly ownNetwork?: boolean
  readonly terminal?: boolean
  /** The root itself cannot be written to. Default false. */
  readonly readOnlyRoot?: boolean
}

const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'].map(name => `CAP_${name}`)
const ociMount = (destination: string, type: string, source: string, options: readonly string[]): OciMount => ({ destination, type, source, options })
interface OciMount { readonly destination: string; readonly type: string; readonly source: string; readonly options: readonly string[] }

const defaultMounts: readonly OciMount[] = [
  ociMount('/proc', 'proc', 'proc', ['nosuid', 'noexec', 'nodev']),
  ociMount('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
  ociMount('/dev/pts', 'devpts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']),
  ociMount('/sys', 'sysfs', 'sysfs', ['nosuid', 'noexec', 'nodev', 'ro']),
  ociMount('/sys/fs/cgroup', 'cgroup', 'cgroup', ['ro', 'nosuid', 'noexec', 'nodev']),
  ociMount('/dev/mqueue', 'mqueue', 'mqueue', ['nosuid', 'noexec', 'nodev']),
  ociMount('/dev/shm', 'tmpfs', 'shm', ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=67108864']),
]

const device = (allow: boolean, type: string | undefined, major: number | undefined, minor: number | undefined, access: string): object =>
  ({ allow, ...(type === undefined ? {} : { type }), ...(major === undefined ? {} : { major }), ...(minor === undefined ? {} : { minor }), access })
const devices = [
  device(false, undefined, undefined, undefined, 'rwm'), device(true, 'c', undefined, undefined, 'm'), device(true, 'b', undefined, undefined, 'm'),
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2]].map(([major, minor]) => device(true, 'c', major, minor, 'rwm')), device(true, 'c', 136, undefined, 'rwm'),
]

const maskedPaths = ['/proc/asound', '/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/proc/scsi', '/sys/firmware', '/sys/devices/virtual/powercap']
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** The bundle's config.json. @throws INVALID_ARGUMENT `no command specified`, `unable to find user X: no matching entries in passwd file` */
export function ociSpec(container: ContainerRecord, options: SpecOptions): Record<string, unknown> {
  const { config } = container
  const args = [...config.Entrypoint ?? [], ...config.Cmd ?? []]
  if (args.length === 0) throw new StorageError('INVALID_ARGUMENT', 'no command specified',
    { op: 'spec', key: container.id, hint: 'give the container a command when it is created' })
  const hostname = config.Hostname || container.id.slice(0, 12)
  const env = [...config.Env ?? []]
  const has = (name: string): boolean => env.some(text => text.startsWith(`${name}=`))
  if (!has('PATH')) env.unshift('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')
  if (!has('HOSTNAME')) env.push(`HOSTNAME=${hostname}`)
  const taken = new Set(options.mounts.map(mount => mount.target ?? ''))
  const own = options.mounts.map(mount => ociMount(mount.target ?? '', mount.type, mount.source, mount.options))
  const spread = propagationOf(options.mounts)
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: options.terminal === true, user: userOf(config.User ?? '', options.root), args, env, cwd: config.WorkingDir || '/',
      capabilities: Object.fromEntries(['bounding', 'effective', 'permitted'].map(set => [set, capabilities])), oomScoreAdj: 0,
    },
    root: { path: options.root, readonly: options.readOnlyRoot === true },
    hostname,
    mounts: [...defaultMounts.filter(mount => !taken.has(mount.destination)), ...own],
    linux: {
      resources: { devices },
      namespaces: ['mount', 'uts', 'pid', 'ipc', ...options.ownNetwork === false ? [] : ['network']].map(type => ({ type })),
      ...(spread === undefined ? {} : { rootfsPropagation: spread }), maskedPaths, readonlyPaths,
    },
  }
}

/** The root must spread what a mount of it shall spread (withMounts). */
function propagationOf(mounts: readonly Mount[]): string | undefined {
  const has = (name: string): boolean => mounts.some(mount => mount.options.includes(name) || mount.options.includes(`r${name}`))
  return has('shared') ? 'shared' : has('slave') ? 'rslave' : undefined
}

/** `USER[:GROUP]`, by name or number, looked up in the container's own /etc/passwd and /etc/group. */
function userOf(text: string, root: string): { readonly uid: number; readonly gid: number; readonly additionalGids?: readonly number[] } {
  if (text === '') return { uid: 0, gid: 0 }
  const [user = '', group] = text.split(':')
  const passwd = lines(root, 'etc/passwd').map(fields => ({ name: fields[0] ?? '', uid: Number(fields[2]), gid: Number(fields[3]) }))
  const groups = lines(root, 'etc/group').map(fields => ({ name: fields[0] ?? '', gid: Number(fields[2]), members: (fields[3] ?? '').split(',') }))
  const entry = passwd.find(item => item.name === user) ?? passwd.find(item => String(item.uid) === user)
  if (entry === undefined && !/^\d+$/.test(user)) throw notFound('user', user, 'passwd')
  const uid = entry?.uid ?? Number(user)
  if (group === undefined || group === '') {
    const additionalGids = groups.filter(item => entry !== undefined && item.members.includes(entry.name)).map(item => item.gid)
    return { uid, gid: entry?.gid ?? 0, ...(additionalGids.length === 0 ? {} : { additionalGids }) }
  }
  const found = groups.find(item => item.name === group) ?? groups.find(item => String(item.gid) === group)
  if (found === undefined && !/^\d+$/.test(group)) throw notFound('group', group, 'group')
  return { uid, gid: found?.gid ?? Number(group) }
}

function notFound(what: string, name: string, file: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `unable to find ${what} ${name}: no matching entries in ${file} file`, { op: 'spec', key: name })
}

function lines(root: string, name: string): string[][] {
  const inside = resolvingPlace(root).follow(Buffer.from(name))
  try {
    return fs.readFileSync(Buffer.concat([Buffer.from(`${root}/`), inside]), 'utf8').split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => line.split(':'))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return []
    throw error
  }
}
