// Holds that could not be given back, for want of descriptors, say: they would keep their volumes as long as this process lives, so they are owed, and
// given back with the next change of the volume.

import { StorageError } from '../errors.ts'
import type { VolumeDriver } from './driver.ts'

export class OwedHolds {
  /** By volume, once for each hold. */
  readonly #owed: string[] = []

  /** Unmount once; on failure it is owed. @throws what the driver throws */
  async giveBack(name: string, driver: VolumeDriver): Promise<void> {
    try {
      await driver.unmount(name)
    } catch (error) {
      this.#owed.push(name)
      throw error
    }
  }

  /** Give back all that is owed of the volume. @throws what the driver throws; the rest stays owed */
  async payBack(name: string, driver: VolumeDriver | undefined): Promise<void> {
    for (let at = this.#owed.indexOf(name); at >= 0; at = this.#owed.indexOf(name)) {
      try {
        await driver?.unmount(name)
      } catch (error) {
        // It had been given back, and only the file of the count could not be written.
        if (!StorageError.is(error, 'FAILED_PRECONDITION')) throw error
      }
      this.#owed.splice(at, 1)
    }
  }
}
