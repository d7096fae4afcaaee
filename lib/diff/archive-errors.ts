// Whose fault a failure is while a layer is applied: the archive's, or the machine's.

import { asStorageError, errnoOf, StorageError } from '../errors.ts'
import type { TarHeader } from '../tar/types.ts'

/** What an archive can be blamed for is INVALID_ARCHIVE; a full disk is not. */
const archiveErrnos = new Set(['ENAMETOOLONG', 'ENOTDIR', 'ELOOP', 'EISDIR', 'ENOENT', 'EINVAL', 'ERR_INVALID_ARG_VALUE'])

/** The error as it is reported for the entry `header`, whose cleaned name is `name`. */
export function explain(error: unknown, header: TarHeader, name: Buffer): StorageError {
  const what = `applying ${header.type} ${JSON.stringify(name.toString())}`
  const errno = errnoOf(error) ?? ((error as { code?: string }).code === 'ERR_INVALID_ARG_VALUE' ? 'ERR_INVALID_ARG_VALUE' : undefined)
  if (StorageError.is(error) && error.code === 'INVALID_ARCHIVE') return error
  if (errno !== undefined && archiveErrnos.has(errno)) {
    return new StorageError('INVALID_ARCHIVE', `${what}: ${(error as Error).message}`, { op: 'apply', path: name.toString(), errno }, { cause: error })
  }
  return asStorageError(error, what, { op: 'apply', path: name.toString() })
}
