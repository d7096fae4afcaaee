// The one error class of the library, its closed list of codes, and the tables that map errno to a code
// and a code to a gRPC status and an exit status. Owns no wording: the thrower writes the sentence.

/**
 * Everything that can go wrong, by what a caller can do about it. Frozen within a major version; messages are not.
 *
 * - `NOT_FOUND` the named thing is not there; `ALREADY_EXISTS` the name is taken; `IN_USE` something still refers to it
 * - `INVALID_ARGUMENT` the request makes no sense; `FAILED_PRECONDITION` it makes sense, but not in this state
 * - `INVALID_ARCHIVE` an archive, layer or image breaks its format; `LIMIT_EXCEEDED` it breaks a configured limit
 * - `DIGEST_MISMATCH` content is not what its digest says; `CORRUPT` what lies in the data root contradicts itself
 * - `NOT_SUPPORTED`, `PREREQUISITE_MISSING`, `INCOMPATIBLE_FILESYSTEM` why a driver or a function cannot work here
 * - `PERMISSION_DENIED`, `NO_SPACE`, `QUOTA_EXCEEDED`, `READ_ONLY`, `BUSY`, `IO` what the operating system said
 * - `LOCKED` another process holds what is needed; `ABORTED` the caller's signal; `CLOSED` used after close
 */
export type Code =
  | 'NOT_FOUND' | 'ALREADY_EXISTS' | 'IN_USE'
  | 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION'
  | 'INVALID_ARCHIVE' | 'LIMIT_EXCEEDED' | 'DIGEST_MISMATCH' | 'CORRUPT'
  | 'NOT_SUPPORTED' | 'PREREQUISITE_MISSING' | 'INCOMPATIBLE_FILESYSTEM'
  | 'PERMISSION_DENIED' | 'NO_SPACE' | 'QUOTA_EXCEEDED' | 'READ_ONLY' | 'BUSY' | 'IO'
  | 'LOCKED' | 'ABORTED' | 'CLOSED'

/** The circumstances of an error, for programs. `hint` is the remedy, for people. */
export interface ErrorInfo {
  readonly op?: string
  readonly driver?: string
  readonly key?: string
  readonly path?: string
  readonly syscall?: string
  /** The kernel's name for it, e.g. `ENOSPC`. */
  readonly errno?: string
  readonly hint?: string
}

const longestMessage = 4000
const brand = Symbol.for('layerstack.StorageError')

export class StorageError extends Error {
  override readonly name = 'StorageError'
  readonly code: Code
  readonly info: ErrorInfo

  constructor(code: Code, message: string, info: ErrorInfo = {}, options?: ErrorOptions) {
    // Names in archives may have a megabyte.
    super(message.length > longestMessage ? `${message.slice(0, longestMessage)}…` : message, options)
    this.code = code
    this.info = info
    Object.defineProperty(this, brand, { value: true })
  }

  /** True for a StorageError of any installed copy of the library; with `code`, only for that code. */
  static is(error: unknown, code?: Code): error is StorageError {
    return typeof error === 'object' && error !== null && brand in error
      && (code === undefined || (error as unknown as StorageError).code === code)
  }

  toJSON(): ErrorInfo & { code: Code; message: string } {
    return { code: this.code, message: this.message, ...this.info }
  }
}

const codeByErrno: Readonly<Record<string, Code>> = {
  ENOENT: 'NOT_FOUND', ESRCH: 'NOT_FOUND', ENODATA: 'NOT_FOUND',
  EEXIST: 'ALREADY_EXISTS', ENOTEMPTY: 'IN_USE',
  EINVAL: 'INVALID_ARGUMENT', ENAMETOOLONG: 'INVALID_ARGUMENT', ELOOP: 'INVALID_ARGUMENT', ENOTDIR: 'INVALID_ARGUMENT',
  EISDIR: 'INVALID_ARGUMENT', EXDEV: 'INVALID_ARGUMENT', E2BIG: 'LIMIT_EXCEEDED', EFBIG: 'LIMIT_EXCEEDED',
  EMFILE: 'LIMIT_EXCEEDED', ENFILE: 'LIMIT_EXCEEDED', EMLINK: 'LIMIT_EXCEEDED',
  EPERM: 'PERMISSION_DENIED', EACCES: 'PERMISSION_DENIED',
  ENOSPC: 'NO_SPACE', EDQUOT: 'QUOTA_EXCEEDED', EROFS: 'READ_ONLY', EBUSY: 'BUSY', ETXTBSY: 'BUSY',
  EAGAIN: 'LOCKED', EWOULDBLOCK: 'LOCKED',
  ENOSYS: 'NOT_SUPPORTED', EOPNOTSUPP: 'NOT_SUPPORTED', ENOTSUP: 'NOT_SUPPORTED', ENODEV: 'NOT_SUPPORTED',
  EIO: 'IO', ENXIO: 'IO', ESTALE: 'IO', EPIPE: 'IO',
}

/** The code for a kernel error name such as `ENOSPC`; `IO` for one that has no better place. */
export function codeForErrno(errno: string): Code {
  return codeByErrno[errno] ?? 'IO'
}

/** The kernel's name for an error thrown by Node's fs or by this library (`ENOENT`), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (StorageError.is(error)) return error.info.errno
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown }
  // libuv has no name for EDQUOT, the one error of its kind that storage meets; its code is UNKNOWN, or a sentence.
  if (errno === -122 && typeof code === 'string' && /^unknown/i.test(code)) return 'EDQUOT'
  // libuv calls number 95 ENOTSUP, the kernel's manual pages and lib/sys EOPNOTSUPP: one number, one name.
  if (code === 'ENOTSUP') return 'EOPNOTSUPP'
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}

/** True when `error` is the kernel's `errno`, whoever threw it. Catch one errno, never any error. */
export function isErrno(error: unknown, ...errnos: string[]): boolean {
  const name = errnoOf(error)
  return name !== undefined && errnos.includes(name)
}

const unnamed = 'Unknown system error -122: Unknown system error -122'

/**
 * For the outermost function of a store: what the operating system said becomes a StorageError that names what was tried; everything else (a StorageError, a
 * caller's mistake) is returned as it is.
 */
export function told(error: unknown, what: string, info: ErrorInfo = {}): unknown {
  return !StorageError.is(error) && errnoOf(error) !== undefined ? asStorageError(error, what, info) : error
}

/** Turn whatever was thrown into a StorageError; one that is already is returned as it is. */
export function asStorageError(error: unknown, what: string, info: ErrorInfo = {}): StorageError {
  if (StorageError.is(error)) return error
  const errno = errnoOf(error)
  const reason = error instanceof Error ? error.message.replace(unnamed, 'EDQUOT: disk quota exceeded') : String(error)
  if (errno !== undefined) {
    const path = (error as { path?: unknown }).path
    return new StorageError(codeForErrno(errno), `${what}: ${reason}`,
      { errno, ...(typeof path === 'string' ? { path } : {}), ...info }, { cause: error })
  }
  if ((error as Error | null)?.name === 'AbortError') return new StorageError('ABORTED', `${what}: aborted`, info, { cause: error })
  return new StorageError('IO', `${what}: ${reason}`, info, { cause: error })
}

/** gRPC status numbers (google.golang.org/grpc/codes) for each code, as containerd's clients expect them. */
export const grpcStatus: Readonly<Record<Code, number>> = {
  NOT_FOUND: 5, ALREADY_EXISTS: 6, IN_USE: 9, INVALID_ARGUMENT: 3, FAILED_PRECONDITION: 9,
  INVALID_ARCHIVE: 3, LIMIT_EXCEEDED: 8, DIGEST_MISMATCH: 9, CORRUPT: 15,
  NOT_SUPPORTED: 12, PREREQUISITE_MISSING: 9, INCOMPATIBLE_FILESYSTEM: 9,
  PERMISSION_DENIED: 7, NO_SPACE: 8, QUOTA_EXCEEDED: 8, READ_ONLY: 9, BUSY: 14, IO: 13,
  LOCKED: 14, ABORTED: 1, CLOSED: 14,
}

/** Exit status of the command line for a code: 1, but 130 when the user interrupted it. Usage errors exit with 2. */
export function exitStatus(code: Code): number {
  return code === 'ABORTED' ? 130 : 1
}
