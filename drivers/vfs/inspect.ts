// Looks over a vfs home: layers half made or half removed, and our notes of whose parent is whose.

import fs from 'node:fs'
import path from 'node:path'
import type { HomeFacts, HomeProblem } from '../../lib/driver.ts'
import { isErrno } from '../../lib/errors.ts'
import { atomicWriteSync } from '../../lib/fs/atomic.ts'
import { namesIn } from '../../lib/fs/names-in.ts'
import { removeTree } from '../../lib/fs/remove-tree.ts'
import type { LayerId } from '../../lib/ids.ts'

/** The device node is dockerd's, for quota. */
const ownNames = new Set(['dir', 'layerstack', 'backingFsBlockDev'])

export function* inspectHome(home: string, facts: HomeFacts): Generator<HomeProblem> {
  for (const name of namesIn(home)) if (!ownNames.has(name)) yield { kind: 'stray', subject: name, path: path.join(home, name), reason: 'neither dockerd nor layerstack has a place for it' }
  for (const [folder, kind, reason] of [
    ['new', 'half-made', 'a layer that was being made when its process ended'], ['gone', 'half-removed', 'a layer whose removal was interrupted'],
  ] as const) {
    for (const name of namesIn(path.join(home, 'layerstack', folder))) {
      if (facts.busy(name as LayerId)) continue
      const dir = path.join(home, 'layerstack', folder, name)
      yield { kind, subject: name, path: dir, reason, repair: 'remove it', mend: () => removeTree(dir) }
    }
  }
  yield* notes(home, facts)
}

function* notes(home: string, facts: HomeFacts): Generator<HomeProblem> {
  for (const name of namesIn(path.join(home, 'layerstack', 'parents'))) {
    const id = name as LayerId, file = path.join(home, 'layerstack', 'parents', name)
    if (facts.busy(id)) continue
    if (name.startsWith('.tmp-')) {
      yield { kind: 'half-made', subject: name, path: file, reason: 'a note in the making', repair: 'remove it', mend: () => fs.rmSync(file, { force: true }) }
      continue
    }
    if (!fs.existsSync(path.join(home, 'dir', name))) {
      if (facts.parents.has(id)) continue // the layer is missed elsewhere
      yield { kind: 'half-removed', subject: name, path: file, reason: 'a note of the parent of a layer that does not exist', repair: 'remove it', mend: () => fs.rmSync(file, { force: true }) }
      continue
    }
    const parent = facts.parents.get(id)
    const said = read(file)
    if (parent === null || !facts.parents.has(id) || said === undefined || said === (parent ?? '')) continue
    yield {
      kind: 'lower-damaged', subject: name, path: file, reason: 'the note of the layer\'s parent names another layer than the catalogue', repair: 'write it anew',
      mend: () => { if (parent === undefined) fs.rmSync(file, { force: true }); else atomicWriteSync(file, parent, { mode: 0o600 }) },
    }
  }
}

/** Undefined when it has just been removed. */
function read(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
