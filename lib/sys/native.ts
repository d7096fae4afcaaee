// The only importer of koffi: binds libc functions on first use and turns errno into StorageError.
// Without koffi (it is optional) every binding is absent, `nativeReason` says why, and callers choose another way.
//
// Rules learned by trying: read errno in the statement after a sync call; ioctl, fcntl and syscall are declared with fixed
// arguments (right on Linux x64 and arm64); a Buffer passes for `const char *`, so names need not be UTF-8; blocking calls
// belong in a worker, never on libuv's pool, which fs shares.

import { createRequire } from 'node:module'
import os from 'node:os'
import { codeForErrno, StorageError } from '../errors.ts'
import type { ErrorInfo } from '../errors.ts'

type Foreign = (...args: unknown[]) => unknown

interface Koffi {
  load(path: string | null): { func(definition: string): Foreign }
  errno(): number
}

const require = createRequire(import.meta.url)

interface Loaded {
  readonly koffi: Koffi
  readonly libc: { func(definition: string): Foreign }
}

function load(): Loaded | string {
  if (process.platform !== 'linux') return `the platform is ${process.platform}, not linux`
  if (process.env['LAYERSTACK_NO_NATIVE']) return 'LAYERSTACK_NO_NATIVE is set'
  try {
    const koffi = require('koffi') as Koffi
    return { koffi, libc: koffi.load(null) }
  } catch (error) {
    return `the optional package koffi cannot be loaded: ${(error as Error).message.split('\n')[0]}`
  }
}

const loaded = load()

/** Why native calls are absent, or undefined when they are there. */
export const nativeReason: string | undefined = typeof loaded === 'string' ? loaded : undefined

// Two numbers have two names each on Linux; the kernel's own are EAGAIN and EOPNOTSUPP.
const errnoNames = new Map<number, string>(Object.entries(os.constants.errno)
  .filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'ENOTSUP').map(([name, value]) => [value, name]))

/** The kernel's name of an error number: 2 → `ENOENT`. */
export function errnoName(errno: number): string {
  return errnoNames.get(errno) ?? `errno ${errno}`
}

const texts: Readonly<Record<string, string>> = {
  EPERM: 'operation not permitted', ENOENT: 'no such file or directory', EACCES: 'permission denied', EEXIST: 'file exists',
  EINVAL: 'invalid argument', ENOSPC: 'no space left on device', EBUSY: 'device or resource busy', EOPNOTSUPP: 'operation not supported',
  ENOSYS: 'function not implemented', ENODEV: 'no such device', EROFS: 'read-only file system', EDQUOT: 'disk quota exceeded',
  ELOOP: 'too many symbolic links', EXDEV: 'invalid cross-device link', ENOTDIR: 'not a directory', EAGAIN: 'resource temporarily unavailable',
  ENODATA: 'no data available', ERANGE: 'result too large', ENAMETOOLONG: 'file name too long', EIO: 'input/output error',
}

/** A StorageError for a failed native call, worded like libc's strerror. */
export function sysError(syscall: string, errno: number, path?: string | Buffer, info: ErrorInfo = {}): StorageError {
  const name = errnoName(errno)
  const where = path === undefined ? '' : ` ${typeof path === 'string' ? path : path.toString()}`
  return new StorageError(codeForErrno(name), `${syscall}${where}: ${texts[name] ?? name}`, {
    syscall, errno: name, ...(path === undefined ? {} : { path: path.toString() }), ...info,
  })
}

/** Test hook: throws what the `n`-th native call shall throw. Set by fault-injection tests only. */
export const faults: { before?: (syscall: string) => void } = {}

/**
 * A libc function, bound when first called. It returns the function's value; -1 throws the errno as a StorageError
 * unless `allow` names it, when the negative errno is returned instead.
 */
export function bind(definition: string): (args: readonly unknown[], path?: string | Buffer, allow?: readonly number[]) => number {
  const name = /(\w+)\s*\(/.exec(definition)?.[1] ?? definition
  let fn: Foreign | undefined
  return (args, path, allow) => {
    if (typeof loaded === 'string') {
      throw new StorageError('NOT_SUPPORTED', `${name} is not available: ${loaded}`,
        { syscall: name, hint: 'install the optional package koffi' })
    }
    fn ??= loaded.libc.func(definition)
    faults.before?.(name)
    const result = Number(fn(...args))
    if (result !== -1) return result
    const errno = loaded.koffi.errno()
    if (allow?.includes(errno)) return -errno
    throw sysError(name, errno, path)
  }
}

/** A path as a native function takes it: bytes with the closing NUL. @throws INVALID_ARGUMENT for a NUL inside. */
export function cPath(path: string | Buffer): string | Buffer {
  const bad = typeof path === 'string' ? path.includes('\0') : path.includes(0)
  if (bad) throw new StorageError('INVALID_ARGUMENT', `path contains a NUL byte: ${JSON.stringify(path.toString())}`)
  return typeof path === 'string' ? path : Buffer.concat([path, nul])
}
const nul = Buffer.alloc(1)

export const errno = os.constants.errno
