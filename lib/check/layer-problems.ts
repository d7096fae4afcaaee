// The layer database against itself and against the driver: records, parents, driver layers that are not there, layers that nobody needs, and what
// interrupted work left in its folders.

import fs from 'node:fs'
import path from 'node:path'
import type { ChainId } from '../ids.ts'
import { layerDb } from '../layers/index.ts'
import { tarSplitName } from '../layers/layer-files.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { usageOf } from './driver-problems.ts'
import { healOrTakeOut } from './layer-mends.ts'
import { restoreRecord } from './layer-records.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Mended, MendTools, Problem } from './types.ts'
import { namesIn } from './view.ts'
import type { LayerEntry, View } from './view.ts'

export function* layerProblems(parts: CheckParts, view: View): Generator<Problem> {
  const { root } = parts
  yield* folderProblems(parts, view)
  const [doubt] = view.doubtsOfLayers
  for (const entry of childrenFirst(view)) {
    const { chainId, dir, layer, cacheId } = entry
    if (view.busyChain(chainId) && layer === undefined) continue
    yield* entryProblems(view, entry)
    if (layer !== undefined && cacheId !== undefined && !view.driverLayers.has(cacheId) && !view.busyLayer(cacheId)) {
      yield damaged(view, entry, 'content-missing', path.join(root.path, root.driverName), `the driver has no layer ${cacheId}, which held its content`)
    }
    if (view.referred.has(chainId) || view.busyChain(chainId) || layer === undefined) continue
    const problem = { kind: 'layer-unused', subject: chainId, path: dir, measure: async () => await sizeOf(dir) + await usageOf(parts, layer.cacheId) } as const
    if (doubt !== undefined) yield { ...problem, doubtful: true, reason: `no image, container or snapshot needs this layer, but it is left alone: ${doubt}` }
    else yield { ...problem, reason: 'no image, container, snapshot or build needs this layer', repair: 'remove it', gains: true, phase: 'remove', mend: tools => release(tools, chainId) }
  }
}

/** A layer before its parent: that is the order in which they can be removed. */
function childrenFirst(view: View): LayerEntry[] {
  const depths = new Map<ChainId, number>()
  const depth = (id: ChainId, guard = 0): number => {
    const known = depths.get(id)
    if (known !== undefined) return known
    const parent = view.layers.get(id)?.parent
    const own = parent === undefined || guard > 1000 ? 0 : depth(parent, guard + 1) + 1
    depths.set(id, own)
    return own
  }
  return [...view.layers.values()].sort((a, b) => depth(b.chainId) - depth(a.chainId) || (a.chainId < b.chainId ? -1 : 1))
}

async function release({ layers }: MendTools, chainId: ChainId): Promise<Mended> {
  if (await layers.find(chainId) === undefined) return
  const removed = await layers.release(chainId)
  if (removed.every(layer => layer.chainId !== chainId)) return { left: 'something has come to need it' }
}

/** A damaged layer, whose cure is a good copy from an archive, or to be taken out of use with all that stands on it. */
export function damaged(view: View, entry: LayerEntry, kind: 'content-missing' | 'content-damaged' | 'tar-split-damaged' | 'layer-record-damaged' | 'layer-parent-missing', where: string, reason: string): Problem {
  const images = view.imagesOn(new Set([entry.chainId]))
  const others = images.length === 0 ? '' : `; ${images.length === 1 ? 'this image needs' : 'these images need'} loading again: ${images.join(', ')}`
  return {
    kind, subject: entry.chainId, path: where, reason, ...(images.length === 0 ? {} : { images }), phase: 'content',
    repair: `take its content from an archive given with --from; without one, set it aside with what stands on it${others}`,
    mend: tools => healOrTakeOut(tools, entry.chainId, `${kind}: ${reason}`),
  }
}

function* entryProblems(view: View, entry: LayerEntry): Generator<Problem> {
  const { chainId, dir, layer, damage } = entry
  if (layer === undefined) {
    if (!fs.existsSync(dir)) return
    const problem = damaged(view, entry, 'layer-record-damaged', dir, `the layer's record is damaged: ${damage ?? 'it cannot be read'}`)
    yield {
      ...problem, repair: `restore the record from what is left, if the digests prove it right; else ${problem.repair}`,
      mend: async tools => await restoreRecord(tools, chainId) ? undefined : await healOrTakeOut(tools, chainId, problem.reason),
    }
    return
  }
  if (layer.parent !== undefined && !view.layers.has(layer.parent)) yield damaged(view, entry, 'layer-parent-missing', dir, `the layer below it, ${layer.parent}, is not in the database`)
  const twin = layer.cacheId === undefined ? undefined : [...view.layers.values()].find(other => other.chainId < chainId && other.cacheId === layer.cacheId)
  if (twin !== undefined) yield { kind: 'layer-record-damaged', subject: chainId, path: dir, reason: `it has the same driver layer as ${twin.chainId}, and one of them must be wrong; left alone, as nothing tells which` }
  const file = path.join(dir, tarSplitName)
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size
  if (size === undefined || size === 0) yield damaged(view, entry, 'tar-split-damaged', file, `${tarSplitName} is ${size === undefined ? 'missing' : 'empty'}, so its tar cannot be rebuilt`)
}

function* folderProblems({ root }: CheckParts, view: View): Generator<Problem> {
  for (const name of namesIn(layerDb.layers(root))) {
    if (/^[a-f0-9]{64}$/.test(name)) continue
    const dir = path.join(layerDb.layers(root), name)
    if (view.busyPath(dir)) continue
    if (/^[a-f0-9]{64}-[a-f0-9]+-removing$/.test(name)) {
      yield {
        kind: 'removal-unfinished', subject: name.slice(0, 64), path: dir, reason: 'a layer whose removal was interrupted', repair: 'finish the removal', phase: 'settle', gains: true,
        measure: () => sizeOf(dir), mend: async ({ layers }) => { await layers.recover() },
      }
    } else yield { kind: 'stray', subject: name, path: dir, reason: 'no layer\'s record can have this name' }
  }
  for (const name of namesIn(layerDb.tmp(root))) {
    const dir = path.join(layerDb.tmp(root), name)
    if (view.busyPath(dir)) continue
    yield {
      kind: 'write-set', subject: name, path: dir, reason: 'the record of a layer that never came to be, or that was removed', repair: 'remove it', phase: 'settle', gains: true,
      measure: () => sizeOf(dir), mend: () => removeTree(dir),
    }
  }
}
