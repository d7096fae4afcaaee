// Names of volumes. Source: moby volume/local/local.go (validateName), daemon/names. Pure.

import { randomBytes } from 'node:crypto'
import { StorageError } from '../errors.ts'
import { goQuote } from './go-text.ts'

/** The mark of a volume that was made without a name. */
export const anonymousLabel = 'com.docker.volume.anonymous'

/** @throws INVALID_ARGUMENT in the words of Docker's local driver */
export function checkVolumeName(name: string): void {
  if (name.length === 1) throw new StorageError('INVALID_ARGUMENT', 'volume name is too short, names should be at least two alphanumeric characters',
    { key: name })
  // A name is a directory (NAME_MAX).
  if (name.length > 255) throw new StorageError('INVALID_ARGUMENT', 'volume name is too long, names should be at most 255 characters', { key: name.slice(0, 255) })
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name)) {
    throw new StorageError('INVALID_ARGUMENT', `${goQuote(name)} includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
      { key: name })
  }
}

/** What an anonymous volume is called: 64 hex digits. */
export function randomVolumeName(): string {
  return randomBytes(32).toString('hex')
}
