// Containers that go from one driver to another in the same root, all or none: a container's own file says whose it is, and a crash between two of these files
// must not leave some here and some there.

import fs from 'node:fs'
import path from 'node:path'
import { atomicWrite } from '../fs/atomic.ts'
import { imageDir, layerDb } from '../layers/index.ts'
import type { DataRoot, LayerStore } from '../layers/index.ts'
import { withDriver } from './state.ts'

/** What `addUndo` knows it by. */
export const handedOver = 'handed-over'

/** What an operation notes before the first of the containers is given to another driver. */
export function handOverNote(from: DataRoot, ids: readonly string[]): string {
  return `${from.driverName} ${ids.join(',')}`
}

/** Say whose the container is from now on. With the store locked, in whose folder the draft is swept. */
export async function giveTo(root: DataRoot, id: string, driver: string): Promise<void> {
  const file = path.join(root.path, 'containers', id, 'config.v2.json')
  await atomicWrite(file, withDriver(fs.readFileSync(file, 'utf8'), driver), { mode: 0o600, sync: root.durability !== 'none', temporaryDir: imageDir(root) })
}

/** The containers of a note are their first driver's again: nothing of theirs has been let go, or its catalogue would not have them any more. */
export async function takeBack(root: DataRoot, layers: LayerStore, note: string): Promise<void> {
  const [driver = '', ids = ''] = note.split(' ')
  const catalogue = layerDb.mounts({ ...root, driverName: driver })
  await layers.locked(async () => {
    for (const id of ids.split(',')) {
      if (id === '' || !fs.existsSync(path.join(catalogue, id)) || !fs.existsSync(path.join(root.path, 'containers', id, 'config.v2.json'))) continue
      await giveTo(root, id, driver)
    }
  })
}
