// Work of a thread's job in one directory: jailed into it where the process may, resolved name by name elsewhere.

import fs from 'node:fs'
import { asStorageError, StorageError } from '../errors.ts'
import { openat2Place, openat2Works } from '../fs/openat2-place.ts'
import type { ClosablePlace } from '../fs/openat2-place.ts'
import { jailedPlace, resolvingPlace } from '../fs/rooted.ts'
import type { Place } from '../fs/rooted.ts'
import { canJail, canStandAlone, inJail, withOwnUmask } from '../sys/jail.ts'

/** What the kernel refuses becomes a StorageError with its code; mistakes of the caller stay TypeErrors. */
export async function reporting<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw error instanceof TypeError ? error : asStorageError(error, what)
  }
}

/** Run `work` with names resolving inside `dir`. */
export function inPlace<T>(dir: string, work: (place: Place) => T | Promise<T>): Promise<T> {
  return reporting(`working in ${dir}`, () => {
    if (!fs.statSync(dir).isDirectory()) throw new StorageError('INVALID_ARGUMENT', `${dir} is not a directory`, { path: dir, errno: 'ENOTDIR' })
    if (canJail()) return inJail(dir, () => work(jailedPlace()))
    const unjailed = (): T | Promise<T> => openat2Works() ? closing(openat2Place(dir, { follow: true }), work) : work(resolvingPlace(dir))
    return canStandAlone() ? withOwnUmask(unjailed) : unjailed()
  })
}

async function closing<T>(place: ClosablePlace, work: (place: Place) => T | Promise<T>): Promise<T> {
  try {
    return await work(place)
  } finally {
    place.close()
  }
}
