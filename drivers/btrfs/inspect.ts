// Looks over a btrfs home: layers half made or half removed, and limits of layers that are gone.

import fs from 'node:fs'
import path from 'node:path'
import type { HomeFacts, HomeProblem } from '../../lib/driver.ts'
import { namesIn } from '../../lib/fs/names-in.ts'
import type { LayerId } from '../../lib/ids.ts'

const ownNames = new Set(['subvolumes', 'quotas', 'layerstack'])

/** `clear` removes a folder of ours with the subvolume in it. */
export function* inspectHome(home: string, facts: HomeFacts, clear: (folder: string) => Promise<void>): Generator<HomeProblem> {
  for (const name of namesIn(home)) if (!ownNames.has(name)) yield { kind: 'stray', subject: name, path: path.join(home, name), reason: 'neither dockerd nor layerstack has a place for it' }
  for (const [folder, kind, reason] of [
    ['new', 'half-made', 'a layer that was being made when its process ended'], ['gone', 'half-removed', 'a layer whose removal was interrupted'],
  ] as const) {
    for (const name of namesIn(path.join(home, 'layerstack', folder))) {
      // In removal it is called `<16 digits>.<id>`.
      const id = (folder === 'gone' ? name.slice(17) : name) as LayerId
      if (facts.busy(id)) continue
      const dir = path.join(home, 'layerstack', folder, name)
      yield { kind, subject: id, path: dir, reason, repair: 'remove it', mend: () => clear(dir) }
    }
  }
  for (const name of namesIn(path.join(home, 'quotas'))) {
    const file = path.join(home, 'quotas', name)
    if (facts.busy(name as LayerId) || facts.parents.has(name as LayerId) || fs.existsSync(path.join(home, 'subvolumes', name))) continue
    yield { kind: 'half-removed', subject: name, path: file, reason: 'the limit of a layer that does not exist', repair: 'remove it', mend: () => fs.rmSync(file, { force: true }) }
  }
}
