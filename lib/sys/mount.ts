// Mounting and unmounting, and the table of what is mounted. The options of a Mount are the words of mount(8); here they become
// flags and data. Overlays go through fsopen/fsconfig, one `lowerdir+` per layer, where the kernel has it: no page limit.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { dirname, join } from 'node:path'
import type { Mount } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { bindIdmapped, splitIdMap, throughIdmapped } from './idmap.ts'
import type { MapLines } from './idmap.ts'
import { bind, cPath, errno, nativeReason } from './native.ts'

const c = {
  mount: bind('int mount(const char *source, const char *target, const char *type, uint64_t flags, const char *data)'),
  umount2: bind('int umount2(const char *target, int flags)'),
  fsopen: bind('int64_t syscall(int64_t number, const char *name, int64_t flags)'),
  fsconfig: bind('int64_t syscall(int64_t number, int64_t fd, int64_t cmd, const char *key, const char *value, int64_t aux)'),
  fsmount: bind('int64_t syscall(int64_t number, int64_t fd, int64_t flags, int64_t attrs)'),
  moveMount: bind('int64_t syscall(int64_t number, int64_t fromFd, const char *from, int64_t toFd, const char *to, int64_t flags)'),
  mountSetattr: bind('int64_t syscall(int64_t number, int64_t fd, const char *path, int64_t flags, void *attr, int64_t size)'),
}

// Numbers shared by every architecture (Linux 5.2, asm-generic/unistd.h).
const SYS_move_mount = 429, SYS_fsopen = 430, SYS_fsconfig = 431, SYS_fsmount = 432, SYS_mount_setattr = 442 // the last since Linux 5.12
const FSCONFIG_SET_FLAG = 0, FSCONFIG_SET_STRING = 1, FSCONFIG_CMD_CREATE = 6
const MOVE_MOUNT_F_EMPTY_PATH = 4
const CLOEXEC = 1
const AT_FDCWD = -100

const MS = { rdonly: 1, nosuid: 2, nodev: 4, noexec: 8, sync: 16, remount: 32, noatime: 1024, nodiratime: 2048, bind: 4096, rec: 16384, private: 1 << 18, slave: 1 << 19, shared: 1 << 20, relatime: 1 << 21 }
const MNT_DETACH = 2
const flagOf: Readonly<Record<string, number>> = {
  ro: MS.rdonly, nosuid: MS.nosuid, nodev: MS.nodev, noexec: MS.noexec, sync: MS.sync, noatime: MS.noatime,
  nodiratime: MS.nodiratime, relatime: MS.relatime, bind: MS.bind, rbind: MS.bind | MS.rec, remount: MS.remount,
}
const propagation: Readonly<Record<string, number>> = {
  private: MS.private, rprivate: MS.private | MS.rec, slave: MS.slave, rslave: MS.slave | MS.rec, shared: MS.shared, rshared: MS.shared | MS.rec,
}
const defaults = new Set(['rw', 'defaults', 'suid', 'dev', 'exec', 'async', 'atime'])

interface ParsedOptions { flags: number; data: string[]; propagation: number[]; recursiveReadOnly: boolean }

function parse(options: readonly string[]): ParsedOptions {
  const parsed: ParsedOptions = { flags: 0, data: [], propagation: [], recursiveReadOnly: false }
  for (const option of options) {
    const spread = propagation[option]
    if (spread !== undefined) parsed.propagation.push(spread)
    else if (option === 'rro') parsed.recursiveReadOnly = true
    else if (!defaults.has(option)) {
      const flag = flagOf[option]
      if (flag !== undefined) parsed.flags |= flag
      else parsed.data.push(option)
    }
  }
  return parsed
}

/** Perform one described mount at `target`, which must exist. A failure leaves nothing mounted. */
export function performMount(mount: Mount, target: string): void {
  const { rest, lines } = splitIdMap(mount.options)
  if (lines !== undefined) { mountIdmapped({ ...mount, options: rest }, lines, target); return }
  const options = parse(mount.options)
  const helper = /^fuse3?\.(.+)$/.exec(mount.type)?.[1]
  if (helper !== undefined) mountByProgram(helper, mount, target)
  else if (mount.type === 'overlay') mountOverlay(mount, options, target)
  else if ((options.flags & MS.bind) !== 0) mountBind(mount, options, target)
  else mountPlain(mount, options, target)
  try {
    for (const spread of options.propagation) c.mount([null, cPath(target), null, spread, null], target)
    if (options.recursiveReadOnly) setReadOnlyRecursive(target)
  } catch (error) {
    unmount(target)
    throw error
  }
}

function mountPlain(mount: Mount, options: ParsedOptions, target: string): void {
  for (let tries = 0; ; tries++) {
    try {
      c.mount([cPath(mount.source), cPath(target), mount.type, options.flags, options.data.join(',')], target)
      return
    } catch (error) {
      // aufs makes its xino file exclusively and unlinks it at once: another process may be between the two.
      if (mount.type !== 'aufs' || tries === 20 || !isErrno(error, 'EEXIST')) throw error
      Atomics.wait(pause, 0, 0, 10)
    }
  }
}
const pause = new Int32Array(new SharedArrayBuffer(4))

/** With `uidmap=` and `gidmap=` among its options: owners show shifted, and are stored as they were. */
function mountIdmapped(mount: Mount, lines: MapLines, target: string): void {
  if (mount.options.includes('bind')) { bindIdmapped(mount.source, target, lines, mount.options.includes('ro')); return }
  if (mount.type !== 'overlay') throw new StorageError('NOT_SUPPORTED', `mounting ${mount.type} at ${target}: it cannot be idmapped`, { op: 'mount', path: target, hint: 'overlay2, btrfs and vfs can' })
  const dirs: string[] = []
  for (const option of mount.options) {
    const [key, value = ''] = keyAndValue(option)
    if (key === 'lowerdir') dirs.push(...splitLowers(value))
    else if (key === 'upperdir' || key === 'workdir') dirs.push(unescapePath(value))
  }
  throughIdmapped(dirs, lines, moved => {
    const next = moved.values()
    const take = (): string => String(next.next().value).replace(/[\\:,]/g, '\\$&')
    performMount({
      ...mount, options: mount.options.map(option => {
        const [key, value = ''] = keyAndValue(option)
        if (key === 'lowerdir') return `lowerdir=${splitLowers(value).map(take).join(':')}`
        return key === 'upperdir' || key === 'workdir' ? `${key}=${take().replaceAll('\\:', ':')}` : option
      }),
    }, target)
  })
}

/**
 * Perform what `Driver.mounts()` describes, in order: each at `target` or at its own place below. An entry with the option `remount` adds to the one before
 * (aufs branches beyond a page of options). A failure leaves nothing mounted. Returns what is to be unmounted, last first.
 */
export function performMounts(mounts: readonly Mount[], target: string): string[] {
  const done: string[] = []
  try {
    for (const mount of mounts) {
      const at = join(target, mount.target ?? '')
      performMount(mount, at)
      if (!mount.options.includes('remount')) done.unshift(at)
    }
    return done
  } catch (error) {
    for (const at of done) unmount(at)
    throw error
  }
}

/** `fuse3.PROGRAM`, as containerd and mount(8) name them: the program mounts, goes into the background and serves until it is unmounted. */
function mountByProgram(program: string, mount: Mount, target: string): void {
  const { status, stderr, error } = spawnSync(program, ['-o', mount.options.join(','), target], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], timeout: 30_000 })
  if (status === 0) return
  if (isErrno(error, 'ENOENT')) throw new StorageError('PREREQUISITE_MISSING', `mounting ${mount.type} at ${target}: there is no program ${program}`, { op: 'mount', path: target, hint: `install the package ${program}` })
  const why = (error?.message ?? stderr).split('\n').filter(line => line !== '' && !line.startsWith('unknown argument ignored')).join('; ')
  throw new StorageError('IO', `mounting ${mount.type} at ${target}: ${why === '' ? `${program} ended with status ${status}` : why}`, { op: 'mount', path: target })
}

const AT_RECURSIVE = 0x8000, MOUNT_ATTR_RDONLY = 1n

/** Make a mount and all below it read-only (mount_setattr(2)): the option `rro` of OCI runtimes. @throws NOT_SUPPORTED before Linux 5.12 */
function setReadOnlyRecursive(target: string): void {
  const attr = Buffer.alloc(32) // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  attr.writeBigUInt64LE(MOUNT_ATTR_RDONLY, 0)
  c.mountSetattr([SYS_mount_setattr, AT_FDCWD, cPath(target), AT_RECURSIVE, attr, attr.length], target)
}

/** Does the kernel know `rro`? Asked with a size of no version of the structure, which only a kernel that knows the call calls invalid. */
export function supportsRecursiveReadOnly(): boolean {
  if (nativeReason !== undefined) return false
  return c.mountSetattr([SYS_mount_setattr, AT_FDCWD, '', 0, null, 0], undefined, [errno.EINVAL, errno.ENOSYS, errno.EPERM]) === -errno.EINVAL
}

function mountBind(mount: Mount, options: ParsedOptions, target: string): void {
  c.mount([cPath(mount.source), cPath(target), 'none', options.flags & (MS.bind | MS.rec), null], target)
  // The first call ignores every flag but MS_REC (mount(2), "Creating a bind mount"): read-only needs the remount.
  const rest = options.flags & ~MS.rec
  if ((rest & ~MS.bind) === 0) return
  try {
    c.mount([null, cPath(target), null, rest | MS.remount, null], target)
  } catch (error) {
    unmount(target)
    throw error
  }
}

/** What was found out about this kernel. Exported for the tests, which must also go the old kernels' way. */
export const overlayKernel: { lowerdirPlus: boolean | undefined } = { lowerdirPlus: undefined }

// strndup_user(value, 256) in fsconfig(2): a longer string is EINVAL.
const fsconfigLimit = 255

function mountOverlay(mount: Mount, options: ParsedOptions, target: string): void {
  if (mountOverlayAtOnce(mount, options, target)) return
  let refused: unknown
  try {
    if (overlayKernel.lowerdirPlus !== false && mountOverlayByFd(mount, options, target)) return
  } catch (error) {
    // Until Linux 6.5 any option is taken, and what overlay makes of it shows at the end: as EINVAL, as much else does.
    if (overlayKernel.lowerdirPlus !== undefined || !isErrno(error, 'EINVAL')) throw error
    refused = error
  }
  try {
    mountOverlayByString(mount, options, target)
  } catch (error) {
    throw refused ?? error
  }
  if (refused !== undefined) overlayKernel.lowerdirPlus = false
}

/**
 * One call where the options fit into it, 88 µs with six lowers, when a call for each takes 130 (Linux 6.18). False: nothing is mounted, and the long way, which
 * also learns what the kernel can do, says why.
 */
function mountOverlayAtOnce(mount: Mount, options: ParsedOptions, target: string): boolean {
  if (overlayKernel.lowerdirPlus !== true) return false
  const plain = options.data.join(',')
  if (plain.includes('\\') || Buffer.byteLength(plain) >= pageBytes) return false
  try {
    c.mount([cPath(mount.source), cPath(target), 'overlay', options.flags, plain], target)
    return true
  } catch (error) {
    if (StorageError.is(error)) return false
    throw error
  }
}

function mountOverlayByString(mount: Mount, options: ParsedOptions, target: string): void {
  const plain = options.data.join(',')
  if (Buffer.byteLength(plain) < pageBytes) {
    c.mount([cPath(mount.source), cPath(target), 'overlay', options.flags, plain], target)
    return
  }
  // Too long for the page that mount(2) copies: each lower by a descriptor instead, 12 bytes each, so that 340 fit whatever the data root's length.
  const fds: number[] = []
  try {
    const data = options.data.map(option => {
      const [key, value] = keyAndValue(option)
      return key === 'lowerdir' && value !== undefined ? `lowerdir=${splitLowers(value).map(lower => byDescriptor(lower, fds)).join(':')}` : option
    }).join(',')
    if (Buffer.byteLength(data) >= pageBytes) {
      throw new StorageError('LIMIT_EXCEEDED', `mounting overlay at ${target}: the options need ${Buffer.byteLength(data)} bytes, and the kernel takes ${pageBytes - 1}`,
        { op: 'mount', path: target, hint: 'a kernel with lowerdir+ (Linux 6.7) has no such limit' })
    }
    c.mount([cPath(mount.source), cPath(target), 'overlay', options.flags, data], target)
  } finally {
    for (const fd of fds) fs.closeSync(fd)
  }
}

const pageBytes = 4096
const O_PATH = 0o10000000
const fdFolder = fs.existsSync('/dev/fd') ? '/dev/fd' : '/proc/self/fd'

/** A short name of a directory, good while its descriptor, which is added to `fds`, is open: a mount resolves its paths once. */
function byDescriptor(dir: string, fds: number[]): string {
  const fd = fs.openSync(dir, O_PATH | fs.constants.O_DIRECTORY)
  fds.push(fd)
  return `${fdFolder}/${fd}`
}

function keyAndValue(option: string): [key: string, value: string | undefined] {
  const eq = option.indexOf('=')
  return eq < 0 ? [option, undefined] : [option.slice(0, eq), option.slice(eq + 1)]
}

/** False when this kernel has no fsopen or no `lowerdir+`, found out on the first overlay. */
function mountOverlayByFd(mount: Mount, options: ParsedOptions, target: string): boolean {
  const fsfd = c.fsopen([SYS_fsopen, 'overlay', CLOEXEC], target, [errno.ENOSYS, errno.ENODEV])
  if (fsfd === -errno.ENODEV) throw new StorageError('NOT_SUPPORTED', 'the kernel has no overlay file system', { op: 'mount', errno: 'ENODEV', hint: 'modprobe overlay' })
  if (fsfd < 0) { overlayKernel.lowerdirPlus = false; return false }
  let mfd = -1
  const fds: number[] = []
  try {
    const set = (key: string, value: string | null, allow?: readonly number[]): number =>
      c.fsconfig([SYS_fsconfig, fsfd, value === null ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, value, 0], target, allow)
    set('source', mount.source)
    for (const option of options.data) {
      const [key, value] = keyAndValue(option)
      if (key !== 'lowerdir') {
        const long = value !== undefined && Buffer.byteLength(value) > fsconfigLimit && (key === 'upperdir' || key === 'workdir')
        set(key, long ? byDescriptor(unescapePath(value), fds) : value ?? null)
        continue
      }
      for (const lower of splitLowers(value ?? '')) {
        const short = Buffer.byteLength(lower) > fsconfigLimit ? byDescriptor(lower, fds) : lower
        if (overlayKernel.lowerdirPlus === true) { set('lowerdir+', short); continue }
        if (set('lowerdir+', short, [errno.EINVAL]) === -errno.EINVAL) {
          overlayKernel.lowerdirPlus = false
          return false
        }
      }
    }
    c.fsconfig([SYS_fsconfig, fsfd, FSCONFIG_CMD_CREATE, null, null, 0], target)
    overlayKernel.lowerdirPlus = true
    mfd = c.fsmount([SYS_fsmount, fsfd, CLOEXEC, mountAttributes(options.flags)], target)
    c.moveMount([SYS_move_mount, mfd, '', AT_FDCWD, cPath(target), MOVE_MOUNT_F_EMPTY_PATH], target)
    return true
  } catch (error) {
    throw explainOverlay(error, fsfd, target)
  } finally {
    // Closed before anybody unmounts: an open fsmount descriptor keeps the mount busy.
    for (const fd of [...fds, mfd, fsfd]) if (fd >= 0) fs.closeSync(fd)
  }
}

/** The kernel writes its reason into the fs context, one line per read: "e overlay: ...". */
function explainOverlay(error: unknown, fsfd: number, target: string): unknown {
  if (!StorageError.is(error)) return error
  let reason = ''
  try {
    const line = Buffer.alloc(1024)
    for (;;) reason += `${line.toString('utf8', 0, fs.readSync(fsfd, line)).replace(/^[ewi] /, '').trim()}; `
  } catch {
    // ENODATA: the log has been read.
  }
  const why = reason === '' ? (error.info.errno ?? error.message) : `${reason.replace(/; $/, '')} (${error.info.errno})`
  return new StorageError(error.code, `mounting overlay at ${target}: ${why}`, { ...error.info, op: 'mount', path: target }, { cause: error })
}

/** `lowerdir` splits at ':' unless it is escaped with a backslash (Documentation/filesystems/overlayfs.rst). */
export function splitLowers(value: string): string[] {
  return (value.match(/(?:\\.|[^:\\])+/g) ?? []).map(unescapePath)
}

function unescapePath(value: string): string {
  return value.replace(/\\(.)/g, '$1')
}

function mountAttributes(flags: number): number {
  const of: readonly (readonly [number, number])[] = [[MS.rdonly, 1], [MS.nosuid, 2], [MS.nodev, 4], [MS.noexec, 8], [MS.noatime, 0x10], [MS.nodiratime, 0x80]]
  return of.reduce((sum, [flag, attribute]) => (flags & flag) !== 0 ? sum | attribute : sum, 0)
}

/** Unmount; lazily by default, as Docker does, so that a file held open elsewhere does not block. Not mounted is fine. */
export function unmount(target: string, options: { readonly lazy?: boolean } = {}): void {
  c.umount2([cPath(target), options.lazy === false ? 0 : MNT_DETACH], target, [errno.EINVAL, errno.ENOENT])
}

export interface MountInfo {
  readonly target: string
  readonly type: string
  readonly source: string
  readonly root: string
  readonly options: string
  readonly superOptions: string
  /** `shared:N`, `master:N`, …: how mounts below it spread (the optional fields). */
  readonly propagation: readonly string[]
}

/** The mounts that this process sees (proc(5), /proc/PID/mountinfo), in mount order. */
export function mountTable(): MountInfo[] {
  const table: MountInfo[] = []
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [front, back] = line.split(' - ')
    if (front === undefined || back === undefined) continue
    const f = front.split(' '), b = back.split(' ')
    table.push({ root: unescape(f[3] ?? ''), target: unescape(f[4] ?? ''), options: f[5] ?? '', type: b[0] ?? '', source: unescape(b[1] ?? ''), superOptions: b.slice(2).join(' '), propagation: f.slice(6).filter(field => field !== '') })
  }
  return table
}

function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
}

/** Is something mounted exactly here? Cheaper than the table: a mount point's device or inode differs from what the parent's entry says. */
export function isMountpoint(path: string): boolean {
  try {
    // Of a layer that is not mounted there is no such folder: to learn that from an exception costs 10 µs.
    const here = fs.lstatSync(path, { throwIfNoEntry: false })
    if (here === undefined) return false
    if (here.dev !== fs.lstatSync(dirname(path)).dev) return true
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false
    throw error
  }
  const real = fs.realpathSync.native(path)
  return mountTable().some(m => m.target === real)
}

export const mountAvailable: boolean = nativeReason === undefined
