// Records that are replaced whole or not at all, remembered for as long as their file, or their folder, is the same one: a look at it, 3 µs, instead of
// reading its four files, 25 µs. Another process may remove a record, and make another of its name: then the inode, or its time of change, is another.

import fs from 'node:fs'

const maxRecords = 16_384

export class Remembered<T> {
  readonly #known = new Map<string, { readonly version: string; readonly record: T }>()

  /** Undefined when there is no such file or folder. `read` is asked when it is new to us; undefined, and what it throws, is not remembered. */
  get(place: string, read: () => T | undefined): T | undefined {
    const version = versionOf(place)
    if (version === undefined) {
      this.#known.delete(place)
      return undefined
    }
    const known = this.#known.get(place)
    if (known?.version === version) return known.record
    this.#known.delete(place)
    const record = read()
    if (record !== undefined) this.#keep(place, version, record)
    return record
  }

  forget(place: string): void {
    this.#known.delete(place)
  }

  /** What was just written there. */
  set(place: string, record: T): void {
    const version = versionOf(place)
    if (version !== undefined) this.#keep(place, version, record)
  }

  #keep(place: string, version: string, record: T): void {
    // What others remove is never asked for again.
    if (this.#known.size >= maxRecords) this.#known.clear()
    this.#known.set(place, { version, record })
  }
}

function versionOf(place: string): string | undefined {
  const stat = fs.statSync(place, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? undefined : `${stat.ino} ${stat.ctimeNs} ${stat.size}`
}
