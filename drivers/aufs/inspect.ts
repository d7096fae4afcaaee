// Looks over an aufs home: files of ancestors, mount points, and what kills leave. Needs no aufs in the kernel.

import fs from 'node:fs'
import path from 'node:path'
import type { HomeFacts, HomeProblem } from '../../lib/driver.ts'
import { atomicWriteSync } from '../../lib/fs/atomic.ts'
import { namesIn } from '../../lib/fs/names-in.ts'
import { removeTree } from '../../lib/fs/remove-tree.ts'
import type { LayerId } from '../../lib/ids.ts'
import { draftSuffix, removingSuffix } from './layout.ts'
import type { Layout } from './layout.ts'

const ownNames = new Set(['diff', 'layers', 'mnt', 'layerstack'])

export function* inspectHome(layout: Layout, facts: HomeFacts): Generator<HomeProblem> {
  for (const name of namesIn(layout.home)) if (!ownNames.has(name)) yield { kind: 'stray', subject: name, path: path.join(layout.home, name), reason: 'neither dockerd nor layerstack has a place for it' }
  for (const [id, parent] of facts.parents) if (!facts.busy(id)) yield* layer(layout, facts, id, parent)
  for (const folder of ['diff', 'mnt', 'layers', 'layerstack/committed'] as const) {
    for (const name of namesIn(path.join(layout.home, folder))) {
      const id = name.replace(new RegExp(`(${removingSuffix}|\\${draftSuffix})$`), '') as LayerId
      const target = path.join(layout.home, folder, name)
      const isWhole = id === name && (facts.parents.has(id) || fs.existsSync(layout.layers(id)))
      if (facts.busy(id) || isWhole) continue
      yield {
        kind: name.endsWith(removingSuffix) ? 'half-removed' : 'half-made', subject: id, path: target,
        reason: name.endsWith(removingSuffix) ? 'a layer whose removal was interrupted' : 'part of a layer that does not exist: its making or its removal was interrupted',
        repair: 'remove it', mend: () => removeTree(target),
      }
    }
  }
}

function* layer(layout: Layout, facts: HomeFacts, id: LayerId, parent: LayerId | undefined | null): Generator<HomeProblem> {
  const hasDiff = fs.existsSync(layout.diff(id)), file = layout.layers(id), hasFile = fs.existsSync(file)
  if (!hasDiff && !hasFile) return // the layer is missed elsewhere
  if (!hasDiff) yield { kind: 'content-missing', subject: id, path: layout.diff(id), reason: 'the layer has no branch, which held its content' }
  if (!fs.existsSync(layout.mnt(id))) {
    yield {
      kind: 'layer-incomplete', subject: id, path: layout.mnt(id), reason: 'the layer\'s mount point is missing', repair: 'make it',
      mend: () => { fs.mkdirSync(layout.mnt(id), { recursive: true, mode: 0o755 }); fs.chmodSync(layout.mnt(id), 0o755) },
    }
  }
  const wanted = ancestors(facts, parent)
  if (wanted === undefined) return
  const text = wanted.map(ancestor => `${ancestor}\n`).join('')
  if (hasFile && fs.readFileSync(file, 'utf8') === text) return
  yield {
    kind: 'lower-damaged', subject: id, path: file, repair: 'write it anew from the layer\'s parents', mend: () => atomicWriteSync(file, text, { mode: 0o644 }),
    reason: `the file of the layer's ancestors ${hasFile ? 'does not name the layers that the catalogue has below it' : 'is missing, so that the layer does not exist to dockerd'}`,
  }
}

function ancestors(facts: HomeFacts, parent: LayerId | undefined | null): LayerId[] | undefined {
  const found: LayerId[] = []
  for (let next = parent; next !== undefined; next = facts.parents.get(next)) {
    if (next === null || !facts.parents.has(next) || found.length > 1000) return undefined
    found.push(next)
  }
  return found
}
