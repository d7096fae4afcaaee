// The end of a migration: what the old driver held is deleted. Its catalogue has gone by one rename, to `layerstack/dropped-DRIVER`, so that nothing names its
// layers any more; while that folder lies there, whoever opens the root goes on with the deletion where a killed process stopped.

import fs from 'node:fs'
import path from 'node:path'
import { driverModule } from '../driver.ts'
import type { Driver, DriverModule, DriverSource } from '../driver.ts'
import { StorageError } from '../errors.ts'
import { namesIn } from '../fs/names-in.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { ownState } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'
import { tryLock } from '../sys/lock.ts'
import type { Lock } from '../sys/lock.ts'

const prefix = 'dropped-'

/** Where a driver's catalogue lies while its layers are deleted. */
export function droppedPath(root: DataRoot): string {
  return path.join(ownState.dir(root), `${prefix}${root.driverName}`)
}

/** Held from before the rename until all is deleted. */
export function lockDrop(dropped: string): Lock | undefined {
  return tryLock(`${dropped}.lock`)
}

/**
 * Layers that nothing names any more, and all else that was the driver's; the folder last, since it says that there is something to do. Without a driver that can
 * remove here (the first overlay's never does) they are files like others.
 */
export async function dropLayers(root: DataRoot, driver: Driver | undefined): Promise<void> {
  if (driver !== undefined) for await (const id of driver.list()) await driver.remove(id)
  for (const dir of [path.join(root.path, root.driverName), ownState.mounts(root), ownState.intents(root), droppedPath(root)]) await removeTree(dir)
}

/** Go on with what a killed migration was deleting. What cannot be deleted now is left to the next who opens. */
export async function finishDrops(rootPath: string, drivers: readonly (DriverModule | DriverSource)[]): Promise<void> {
  const own = path.join(rootPath, 'layerstack')
  for (const name of namesIn(own, 'EACCES')) {
    if (!name.startsWith(prefix) || name.endsWith('.lock')) continue
    const driverName = name.slice(prefix.length)
    const source = drivers.find(one => one.name === driverName)
    // A catalogue of that driver that came after: then the layers are its.
    if (source === undefined || fs.existsSync(path.join(rootPath, 'image', driverName))) continue
    const held = lockDrop(path.join(own, name))
    if (held === undefined) continue
    try {
      const module = await driverModule(source)
      const driver = await module.open({ home: path.join(rootPath, driverName), options: module.parseOptions([]), durable: false }).catch((error: unknown) => {
        if (StorageError.is(error, 'NOT_SUPPORTED')) return undefined
        throw error
      })
      try {
        await dropLayers({ path: rootPath, driverName, readOnly: false, durability: 'none' }, driver)
      } finally {
        await driver?.close()
      }
    } catch (error) {
      if (!StorageError.is(error)) throw error
    } finally {
      held.releaseAndUnlink()
    }
  }
}
