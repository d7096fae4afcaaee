// The driver's side: what its home says of itself, and layers in it that no catalogue names.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { driverLayersInUse } from '../layers/in-use.ts'
import { listSetAside } from './set-aside.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Mended, MendTools, Problem } from './types.ts'
import { namesIn } from './view.ts'
import type { View } from './view.ts'

export function* driverProblems(parts: CheckParts, view: View): Generator<Problem> {
  const { driver } = parts
  for (const { mend, repair, ...problem } of driver.inspect?.({ parents: view.parents, busy: id => view.busyLayer(id) || view.resting.has(id) }) ?? []) {
    const leftover = problem.kind === 'half-made' || problem.kind === 'half-removed'
    yield {
      ...problem, phase: leftover ? 'settle' : 'structure', ...imagesOf(view, problem.subject),
      ...(leftover ? { gains: true, measure: () => sizeOf(problem.path) } : {}),
      ...(repair === undefined || mend === undefined ? {} : { repair, mend: async () => { await mend() } }),
    }
  }
  const [doubt] = view.doubtsOfDriverLayers
  for (const id of view.driverLayers) {
    if (view.parents.has(id) || view.resting.has(id) || view.busyLayer(id)) continue
    const problem = { kind: 'driver-orphan', subject: id, path: placeOf(parts, id), measure: async () => await usageOf(parts, id) || await sizeOf(placeOf(parts, id)) } as const
    if (doubt !== undefined) yield { ...problem, doubtful: true, reason: `no image, container or snapshot has this layer, but it is left alone: ${doubt}` }
    else yield { ...problem, reason: 'no image, container, snapshot or build has this layer', repair: 'remove it', gains: true, mend: tools => removeOrphan(tools, id) }
  }
}

/** The images that have the driver layer. */
function imagesOf(view: View, subject: string): { readonly images?: readonly string[] } {
  const chains = new Set<ChainId>()
  for (const { chainId, cacheId } of view.layers.values()) if (cacheId === subject) chains.add(chainId)
  const images = chains.size === 0 ? [] : view.imagesOn(chains)
  return images.length === 0 ? {} : { images }
}

/** Where a layer lies in the driver's home, for people: the home's own folder of that name, or one in one of its folders. */
function placeOf({ root }: CheckParts, id: LayerId): string {
  const home = path.join(root.path, root.driverName), direct = path.join(home, id)
  if (fs.existsSync(direct)) return direct
  return namesIn(home).map(folder => path.join(home, folder, id)).find(place => fs.existsSync(place)) ?? direct
}

/** Allocated bytes of a layer; 0 where it is gone, or cannot be read. */
export async function usageOf({ driver }: Pick<CheckParts, 'driver'>, id: LayerId): Promise<number> {
  try {
    return (await driver.usage(id)).sizeBytes
  } catch (error) {
    if (StorageError.is(error) || isErrno(error, 'ENOENT', 'ENOTDIR')) return 0
    throw error
  }
}

/** Ids are drawn at random and never used again, so what was nobody's stays so; looked at once more all the same. */
async function removeOrphan(tools: MendTools, id: LayerId): Promise<Mended> {
  const { root, layers, snapshots, driver } = tools
  const named = await layers.locked(async () => driverLayersInUse(root).has(id) || snapshots.driverIds().includes(id) || listSetAside(root).some(item => item.driverLayers.includes(id)))
  if (named) return { left: 'somebody has come to use it' }
  await driver.remove(id)
}
