// What repair does with a damaged layer: exchanges its content for a good copy from an archive, in place, so that all that stands on it stays; or takes it out
// of use together with the layers and images that are nothing without it.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { atomicWriteSync, syncDirectorySync } from '../fs/atomic.ts'
import { chainIdOf, hexOf, isDigest } from '../ids.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { imageDir, layerDb } from '../layers/index.ts'
import { tarSplitName } from '../layers/layer-files.ts'
import { stageLayers } from '../layers/stage.ts'
import { syncModule } from '../layers/sync-job.ts'
import { Repositories } from '../images/repositories.ts'
import { RENAME_EXCHANGE, rename2 } from '../sys/files.ts'
import { mountTable } from '../sys/mount.ts'
import { runJob } from '../sys/threads.ts'
import { setAside } from './set-aside.ts'
import type { Mended, MendTools } from './types.ts'
import { look } from './view.ts'
import type { ImageEntry, LayerEntry, View } from './view.ts'

/** @throws DIGEST_MISMATCH when the archive's blob is not the layer either, NO_SPACE, … */
export async function healOrTakeOut(tools: MendTools, chainId: ChainId, reason: string): Promise<Mended> {
  const view = await look(tools)
  const entry = view.layers.get(chainId)
  if (entry === undefined) return // it went with another
  const diffId = diffIdOf(view, chainId)
  if (diffId !== undefined && tools.archives.hasLayer(diffId)) return await heal(tools, view, entry, diffId)
  if (!view.referred.has(chainId) && entry.layer !== undefined && view.doubtsOfLayers.length === 0) {
    await tools.layers.release(chainId)
    return
  }
  return await takeOut(tools, view, chainId, reason)
}

/** What the layer must be, also where its own record has lost it: images know. */
function diffIdOf(view: View, chainId: ChainId): Digest | undefined {
  const known = view.layers.get(chainId)?.layer?.diffId
  if (known !== undefined) return known
  for (const { chain, diffIds } of view.images.values()) {
    const at = chain?.indexOf(chainId) ?? -1
    if (at >= 0) return diffIds?.[at]
  }
  return undefined
}

// ---- a good copy in its place -----------------------------------------------------------------------------------------------

/**
 * Extract the blob into a new driver layer, which verifies it; then exchange the two contents by one rename. The record's files follow, each by a rename: a kill
 * between them leaves a layer that the next repair finishes. The operation's end removes what was damaged.
 */
async function heal(tools: MendTools, view: View, entry: LayerEntry, diffId: Digest): Promise<Mended> {
  const { layers, driver, root, archives } = tools
  const parent = parentOf(view, entry, diffId)
  if (parent === null) return { left: 'the layer below it is not known' }
  const below = parent === undefined ? undefined : view.layers.get(parent)?.cacheId
  if (parent !== undefined && (below === undefined || !await driver.exists(below))) return { left: 'the layer below it has to be mended first' }
  const users = standingOn(view, entry)
  const mounted = mountTable().find(({ target }) => users.some(id => target.includes(`/${id}/`) || target.endsWith(`/${id}`)))
  if (mounted !== undefined) return { left: `something that stands on it is mounted at ${mounted.target}: unmount it first` }
  const source = archives.layer(diffId)
  if (source === undefined) return { left: 'the archive has changed meanwhile' }
  try {
    await layers.run('repair', async operation => {
      const [staged] = await stageLayers({ root, driver, intent: operation.intent, signal: tools.signal }, [source], below, 0)
      if (staged === undefined) throw new TypeError('one layer is staged for one source')
      const good = (await driver.content(staged.cacheId)).path
      if (root.durability === 'full') await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [root.path, good])
      const cacheId = entry.cacheId ?? staged.cacheId
      await layers.locked(async () => {
        if (entry.cacheId !== undefined) await exchange(tools, entry.cacheId, below, good)
        else operation.kept.add(staged.cacheId)
        record(tools, entry.dir, { diffId, cacheId, sizeBytes: staged.outcome.sizeBytes, parent }, path.join(staged.writeSet, tarSplitName))
      })
    }, tools.signal)
  } finally {
    archives.closeFiles()
  }
}

async function exchange({ driver, root }: MendTools, id: LayerId, below: LayerId | undefined, good: string): Promise<void> {
  if (!await driver.exists(id)) await driver.create(id, below === undefined ? {} : { parent: below })
  const { path: bad } = await driver.content(id)
  if (!fs.existsSync(bad)) fs.mkdirSync(bad, { mode: 0o755 })
  rename2(good, bad, RENAME_EXCHANGE)
  if (root.durability !== 'none') for (const dir of [path.dirname(good), path.dirname(bad)]) syncDirectorySync(dir)
}

interface Record { readonly diffId: Digest; readonly cacheId: LayerId; readonly sizeBytes: number; readonly parent: ChainId | undefined }

function record({ root }: MendTools, dir: string, { diffId, cacheId, sizeBytes, parent }: Record, tarSplit: string): void {
  const sync = root.durability !== 'none'
  fs.renameSync(tarSplit, path.join(dir, tarSplitName))
  for (const [name, text] of [['diff', diffId], ['cache-id', cacheId], ['size', String(sizeBytes)], ['parent', parent]] as const) {
    if (text === undefined) fs.rmSync(path.join(dir, name), { force: true })
    else atomicWriteSync(path.join(dir, name), text, { mode: 0o644, sync })
  }
  if (sync) syncDirectorySync(dir)
}

/** Undefined: it is a base; null: nobody knows. */
function parentOf(view: View, { chainId, layer, parent }: LayerEntry, diffId: Digest): ChainId | undefined | null {
  if (layer !== undefined) return layer.parent
  for (const candidate of [parent, undefined, ...view.layers.keys()]) if (chainIdOf(candidate, diffId) === chainId) return candidate
  return null
}

/** Driver layers above it, its own among them. */
function standingOn(view: View, { cacheId }: LayerEntry): LayerId[] {
  const found = new Set<LayerId>(cacheId === undefined ? [] : [cacheId])
  for (let grown = -1; grown !== found.size;) {
    grown = found.size
    for (const [id, parent] of view.parents) if (parent !== undefined && parent !== null && found.has(parent)) found.add(id)
  }
  return [...found]
}

// ---- out of use -------------------------------------------------------------------------------------------------------------

/** Set the layer aside, and the layers and images that need it. Not while a container or a snapshot stands on it: that one's own changes would be lost to its user. */
export async function takeOut(tools: MendTools, view: View, chainId: ChainId, reason: string): Promise<Mended> {
  const { layers, root } = tools
  const affected = aboveAndSelf(view, chainId)
  const container = [...view.containersLayers.values()].find(({ parent }) => parent !== undefined && affected.has(parent))
  if (container !== undefined) return { left: `container ${container.name} stands on it: give an archive that has the layer with --from, or remove the container` }
  const snapshot = view.snapshotLayers.find(({ parentRef }) => isDigest(parentRef) && affected.has(parentRef as ChainId))
  if (snapshot !== undefined) return { left: `a snapshot (${snapshot.id}) stands on it: give an archive that has the layer with --from, or remove the snapshot` }
  await layers.locked(async () => {
    // Images first: an image without its layers is damage, a layer without its image is not.
    for (const image of view.images.values()) if (image.chain?.some(id => affected.has(id)) === true) await takeImageOut(tools, image, reason)
    for (const entry of [...affected].reverse().flatMap(id => view.layers.get(id) ?? [])) {
      const { cacheId, parent, dir } = entry
      setAside(root, {
        kind: 'layer', subject: entry.chainId, reason, driverLayers: cacheId === undefined ? [] : [cacheId], layers: parent === undefined ? [] : [parent],
        unsureOf: cacheId === undefined ? ['driver layers'] : [], names: [],
      }, [dir])
    }
  })
}

/** Lowest first. */
function aboveAndSelf(view: View, chainId: ChainId): Set<ChainId> {
  const found = new Set([chainId])
  for (let grown = 0; grown !== found.size;) {
    grown = found.size
    for (const { chainId: id, parent } of view.layers.values()) if (parent !== undefined && found.has(parent)) found.add(id)
  }
  return found
}

/** With the lock held: its names go, and stand in the note; its config and metadata are moved. */
export async function takeImageOut({ root }: MendTools, image: ImageEntry, reason: string): Promise<void> {
  const metadata = path.join(imageDir(root), 'imagedb', 'metadata', 'sha256')
  try {
    await new Repositories(root).change(names => { for (const { ref, imageId } of names.all()) if (imageId === image.id) names.delete(ref) })
  } catch (error) {
    // Names that cannot be read are a finding of their own.
    if (!StorageError.is(error, 'CORRUPT')) throw error
  }
  // The children stay; what they are made of stands in their own configs.
  for (const child of fs.existsSync(metadata) ? fs.readdirSync(metadata) : []) {
    const file = path.join(metadata, child, 'parent')
    if (fs.existsSync(file) && fs.readFileSync(file, 'utf8').trim() === image.id) fs.rmSync(file)
  }
  const top = image.chain?.at(-1)
  setAside(root, {
    kind: 'image', subject: image.id, reason, driverLayers: [], layers: top === undefined ? [] : [top], unsureOf: image.chain === undefined ? ['layers'] : [], names: image.references,
  }, [path.join(metadata, hexOf(image.id)), image.file])
}

/** Register the image's layers as far as they are not there, from archives that have them. False when one is not to be had. @throws as `register` */
export async function loadLayers(tools: MendTools, diffIds: readonly Digest[]): Promise<boolean> {
  const { layers, archives } = tools
  const view = await look(tools)
  let below: ChainId | undefined, there = 0
  for (const diffId of diffIds) {
    const chainId = chainIdOf(below, diffId)
    if (view.layers.get(chainId)?.layer === undefined) break
    below = chainId
    there++
  }
  const missing = diffIds.slice(there)
  if (!missing.every(diffId => archives.hasLayer(diffId))) return false
  if (missing.length === 0) return true
  try {
    await layers.operation('repair', async operation => {
      await layers.register(operation, missing.flatMap(diffId => archives.layer(diffId) ?? []), below)
      // What needs them is there already, so the operation's end keeps them.
    }, tools.signal)
  } finally {
    archives.closeFiles()
  }
  return fs.existsSync(layerDb.layer(tools.root, chainOf(diffIds)))
}

function chainOf(diffIds: readonly Digest[]): ChainId {
  let chain: ChainId | undefined
  for (const diffId of diffIds) chain = chainIdOf(chain, diffId)
  return chain as ChainId
}
