// Records that never change once they show, remembered for as long as their folder is the same one: a look at the folder, 3 µs, instead of
// reading its four files, 25 µs. Another process may remove a record, and make another of its name: then the folder is another.

import fs from 'node:fs'

export class Remembered<T> {
  readonly #known = new Map<string, { readonly version: string; readonly record: T }>()

  /** Undefined when there is no such folder. `read` is asked when it is new to us; undefined, and what it throws, is not remembered. */
  get(dir: string, read: () => T | undefined): T | undefined {
    const version = versionOf(dir)
    if (version === undefined) {
      this.#known.delete(dir)
      return undefined
    }
    const known = this.#known.get(dir)
    if (known?.version === version) return known.record
    const record = read()
    if (record === undefined) this.#known.delete(dir)
    else this.#known.set(dir, { version, record })
    return record
  }

  /** What was just written into the folder. */
  set(dir: string, record: T): void {
    const version = versionOf(dir)
    if (version !== undefined) this.#known.set(dir, { version, record })
  }
}

function versionOf(dir: string): string | undefined {
  const stat = fs.statSync(dir, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? undefined : `${stat.ino} ${stat.ctimeNs}`
}
