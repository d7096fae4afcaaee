// Deleting what no snapshot refers to: the layers of removed snapshots, image layers that lost their last one, and what processes that are gone
// left half made or mounted. Decides nothing: the catalogue has noted it in the transaction that removed it.

import type { Driver } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { syncDirectory } from '../fs/atomic.ts'
import { nearestExisting } from '../fs/make-directories.ts'
import type { ChainId, LayerId } from '../ids.ts'
import type { DiskLayerStore } from '../layers/index.ts'
import type { Catalogue } from './catalogue.ts'
import { clearMounts } from './mounted.ts'
import { deadSessions } from './session.ts'

/** How long removed snapshots lie before they are deleted, unless somebody asks for it: out of the way of a collector that removes one after the other. */
const delayMs = 1000

export interface SweeperParts {
  readonly catalogue: Catalogue
  readonly driver: Driver
  readonly layers: DiskLayerStore
  readonly isImageLayer: (key: string) => boolean
  readonly dirs: { readonly sessions: string; readonly mounts: string }
  /** The driver's. */
  readonly home: string
  /** Deletions are on the device before they are forgotten. */
  readonly sync: boolean
}

export class Sweeper {
  readonly #parts: SweeperParts
  #running: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(parts: SweeperParts) {
    this.#parts = parts
    // What the last process did not come to.
    const { layers, images } = parts.catalogue.trash()
    if (layers.length + images.length > 0) this.soon()
  }

  /** Delete in the background; a failure is `now`'s to report. */
  soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      if (!this.#closed) this.#emptyTrash().catch(() => undefined)
    }, delayMs).unref()
  }

  /** Delete everything, also what crashes left. @throws what the driver says about a layer that cannot be deleted, after all others */
  async now(): Promise<void> {
    await this.#recoverSessions()
    await this.#emptyTrash()
  }

  /** What runs stops after the layer that it is at. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }

  /** One run at a time; each sees what was removed before its turn. */
  #emptyTrash(): Promise<void> {
    const { catalogue, driver, layers, isImageLayer } = this.#parts
    const work = this.#running.then(async () => {
      const trash = catalogue.trash()
      const failures: unknown[] = []
      const gone: LayerId[] = [], folders = new Set<string>()
      for (const id of trash.layers) {
        if (this.#closed) break
        try {
          const folder = await this.#folderOf(id)
          await driver.remove(id)
          gone.push(id)
          folders.add(nearestExisting(folder))
        } catch (error) {
          failures.push(error)
        }
      }
      // A power cut must not bring back a layer that the catalogue, which syncs itself, has forgotten (found with dm-log-writes).
      if (this.#parts.sync) for (const folder of folders) await syncDirectory(folder)
      catalogue.forgetTrash(gone)
      if (this.#closed) return
      for (const chainId of trash.images) {
        if (this.#closed) return
        if (!catalogue.hasChildren(chainId) && isImageLayer(chainId)) await layers.release(chainId satisfies ChainId)
        catalogue.forgetTrash([chainId])
      }
      if (failures.length > 0) throw failures[0]
    })
    this.#running = work.catch(() => undefined)
    return work
  }

  async #folderOf(id: LayerId): Promise<string> {
    try {
      return (await this.#parts.driver.content(id, true)).path
    } catch (error) {
      // Half removed already.
      if (StorageError.is(error)) return this.#parts.home
      throw error
    }
  }

  /** Undo what processes that are gone left half made, and their mounts. */
  async #recoverSessions(): Promise<void> {
    const { catalogue, driver, dirs } = this.#parts
    for (const session of deadSessions(dirs.sessions)) {
      try {
        clearMounts(dirs.mounts, session.name)
        if (session.ids.length > 0) {
          const known = new Set(catalogue.ids())
          for (const id of session.ids) if (!known.has(id)) await driver.remove(id)
        }
        session.done()
      } catch (error) {
        session.leave()
        throw error
      }
    }
  }
}
