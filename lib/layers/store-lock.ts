// The lock on one driver's catalogue: first a queue inside the process, then a kernel lock between processes. Held for a look and a rename,
// never for extraction. Not re-entrant; the lock order is written down in lib/storage.ts.

import { StorageError } from '../errors.ts'
import { lock } from '../sys/lock.ts'
import type { DataRoot } from './types.ts'

export class StoreLock {
  readonly #file: string
  #tail: Promise<unknown> = Promise.resolve()

  constructor(file: string) { this.#file = file }

  async run<T>(work: () => Promise<T> | T): Promise<T> {
    const before = this.#tail
    let release: () => void = () => undefined
    this.#tail = new Promise<void>(resolve => { release = resolve })
    await before
    try {
      const held = await lock(this.#file, { permanent: true })
      try {
        return await work()
      } finally {
        held.release()
      }
    } finally {
      release()
    }
  }
}

/** There is no way to write all the same: whoever holds the root would not see what another writes, and would write over it. */
export function readOnlyError({ path, readOnlyReason: reason }: DataRoot, op: string): StorageError {
  const why = reason === undefined ? '' : `, as ${reason}`
  return new StorageError('READ_ONLY', `cannot ${op}: the data root ${path} is open read-only${why}`, { op, path, ...(reason === undefined ? {} : { hint: 'stop dockerd first' }) })
}
