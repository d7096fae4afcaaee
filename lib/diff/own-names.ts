// What a layer itself has put into a tree that also holds the layers below: its whiteouts and opaque marks remove all but that.

import fs from 'node:fs'
import { removeTreeSync } from '../fs/remove-tree.ts'
import { childPath } from '../fs/rooted.ts'
import type { TreePath } from '../fs/rooted.ts'

export class OwnNames {
  /** latin1 of the names, with their ancestors. */
  readonly #names = new Set<string>()
  readonly #onRemoved: () => void

  constructor(onRemoved: () => void) {
    this.#onRemoved = onRemoved
  }

  has(name: Buffer): boolean {
    return this.#names.has(name.toString('latin1'))
  }

  add(name: Buffer): void {
    let key = name.toString('latin1')
    while (!this.#names.has(key)) {
      this.#names.add(key)
      const at = key.lastIndexOf('/')
      if (at < 0) return
      key = key.slice(0, at)
    }
  }

  /** Remove `name`, which is at `path`; where the layer has put something at or below it, only the rest. */
  removeOthers(name: Buffer, path: TreePath): void {
    if (!this.has(name)) {
      removeTreeSync(path)
      this.#onRemoved()
    } else if (fs.lstatSync(path).isDirectory()) this.removeOthersIn(name, path)
  }

  /** Empty the directory `name` of what is not the layer's. */
  removeOthersIn(name: Buffer, path: TreePath): void {
    for (const child of fs.readdirSync(path, { encoding: 'buffer' })) {
      this.removeOthers(name.length === 0 ? child : childPath(name, child), childPath(path, child))
    }
  }
}
