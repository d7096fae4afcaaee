// One look at a data root: everything that its catalogues name, read as far as it can be read, so that one damaged record hides no other. Reads only.

import path from 'node:path'
import { readContainer } from '../containers/config.ts'
import type { ContainerRecord } from '../containers/config.ts'
import { isErrno, StorageError } from '../errors.ts'
import { namesIn as namesOrNone } from '../fs/names-in.ts'
import { hexOf, isDigest, isLayerId, sha256 } from '../ids.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { chainIdsOf, decodeConfig } from '../images/config.ts'
import { ImageDb } from '../images/image-db.ts'
import { Repositories } from '../images/repositories.ts'
import { familiarString } from '../images/reference.ts'
import { layerDb, ownState, readBuildCache } from '../layers/index.ts'
import type { DataRoot, Layer } from '../layers/index.ts'
import { readIntent } from '../layers/intents.ts'
import { listChainIds, readLayer, readText } from '../layers/layer-files.ts'
import { listRwNames, readRwFiles } from '../layers/rw-files.ts'
import type { RwFiles } from '../layers/rw-files.ts'
import { isAlive, isLocked } from '../sys/lock.ts'
import { volumePaths } from '../volumes/paths.ts'
import { listSetAside } from './set-aside.ts'
import type { SetAside } from './set-aside.ts'
import type { CheckParts } from './types.ts'

export interface LayerEntry {
  readonly chainId: ChainId
  readonly dir: string
  /** Absent when the record is damaged. */
  readonly layer?: Layer
  /** What is wrong with the record. */
  readonly damage?: string
  /** Of a damaged record, what can still be read. */
  readonly cacheId?: LayerId
  readonly parent?: ChainId
}

export interface RwEntry {
  readonly name: string
  readonly dir: string
  readonly files?: RwFiles
  readonly damage?: string
  readonly ids: readonly LayerId[]
  readonly parent?: ChainId
}

export interface ImageEntry {
  readonly id: Digest
  readonly file: string
  /** Absent when the config cannot be read as one. */
  readonly chain?: readonly ChainId[]
  readonly diffIds?: readonly Digest[]
  readonly damage?: string
  readonly references: readonly string[]
}

export interface ContainerEntry {
  readonly id: string
  readonly dir: string
  readonly record?: ContainerRecord
  readonly damage?: string
}

export interface View {
  readonly driverLayers: ReadonlySet<LayerId>
  readonly layers: ReadonlyMap<ChainId, LayerEntry>
  readonly containersLayers: ReadonlyMap<string, RwEntry>
  readonly images: ReadonlyMap<Digest, ImageEntry>
  /** Undefined: repositories.json cannot be read; `namesDamage` says why. */
  readonly names: ReadonlyMap<string, Digest> | undefined
  readonly namesDamage: string | undefined
  readonly containers: ReadonlyMap<string, ContainerEntry>
  readonly snapshotLayers: readonly { readonly id: LayerId; readonly parentRef: string }[]
  readonly setAside: readonly SetAside[]
  /** Every driver layer that a catalogue names, with the one below (see HomeFacts). */
  readonly parents: ReadonlyMap<LayerId, LayerId | undefined | null>
  /** Driver layers that are known and out of use: of removed snapshots, and set aside. */
  readonly resting: ReadonlySet<LayerId>
  /** Layers of the database that somebody refers to, parents included. */
  readonly referred: ReadonlySet<ChainId>
  /** The same but for images. */
  readonly referredByOthers: ReadonlySet<ChainId>
  /** Why driver layers that nobody names cannot be proved to be nobody's; empty when they can. */
  readonly doubtsOfDriverLayers: readonly string[]
  /** The same for layers of the database. */
  readonly doubtsOfLayers: readonly string[]
  /** Catalogues that cannot be read at all. */
  readonly unreadable: readonly { readonly subject: string; readonly path: string; readonly reason: string }[]
  readonly intents: readonly { readonly file: string; readonly live: boolean; readonly deferred: boolean; readonly damage?: string }[]
  /** Nobody but ourselves was at work while it was taken. */
  readonly quiet: boolean
  busyLayer(id: LayerId): boolean
  busyPath(target: string): boolean
  busyChain(id: ChainId): boolean
  /** The layer's or driver layer's users among images, by name. */
  imagesOn(chainIds: ReadonlySet<ChainId>): readonly string[]
}

/** Is the lock on it held? Nothing is made or written. Without koffi, locks are files beside it that name their owner. */
export function isHeld(file: string): boolean {
  if (isLocked(file)) return true
  const owner = readText(`${file}.owner`)
  return owner !== undefined && isAlive(owner)
}

/**
 * Driver layers first, then what is under way, then the catalogues, and what is under way again: a layer that is made, published or removed meanwhile is in
 * one of them.
 */
export async function look(parts: CheckParts): Promise<View> {
  for (let tries = 20; ; tries--) {
    try {
      return await lookOnce(parts)
    } catch (error) {
      // What is read may be removed between the look at its name and the look into it.
      if (tries === 0 || !isErrno(error, 'ENOENT', 'ENOTDIR')) throw error
    }
  }
}

async function lookOnce(parts: CheckParts): Promise<View> {
  const { root, driver, snapshots } = parts
  const driverLayers = new Set<LayerId>()
  for await (const id of driver.list()) driverLayers.add(id)
  const before = underWay(root)
  const unreadable: { subject: string; path: string; reason: string }[] = []
  const attempt = <T>(subject: string, file: string, work: () => T, otherwise: T): T => {
    try {
      return work()
    } catch (error) {
      if (!StorageError.is(error)) throw error
      unreadable.push({ subject, path: file, reason: error.message })
      return otherwise
    }
  }
  const layers = new Map([...listChainIds(root)].map(chainId => [chainId, layerEntry(root, chainId)]))
  const containersLayers = new Map(listRwNames(root).map(name => [name, rwEntry(root, name)]))
  const names = readNames(root)
  const images = imageEntries(root, names.known ?? new Map<string, Digest>())
  const containers = containerEntries(root)
  const snapshotDir = path.join(ownState.dir(root), 'snapshots', root.driverName)
  const inventory = attempt('snapshots', snapshotDir, () => snapshots.inventory(), { layers: [], removed: [], images: [] })
  const buildFile = path.join(root.path, 'buildkit', 'snapshots.db')
  const build = attempt('build cache', buildFile, () => readBuildCache(root), { driverLayers: new Map<LayerId, undefined>(), layers: new Set<ChainId>() })
  const setAside = listSetAside(root)
  const after = underWay(root)

  const live = [...before, ...after].filter(intent => intent.live)
  const busy = { layers: new Set(live.flatMap(intent => intent.layers)), paths: new Set(live.flatMap(intent => intent.paths)), chains: new Set(live.flatMap(intent => intent.chains)) }
  const sessions = liveSessions(snapshotDir)
  const quiet = live.every(({ file }) => path.basename(file) === parts.ownIntent) && sessions.length === 0 && !isHeld(ownState.lock(root))
    && namesIn(volumePaths.locks(root)).every(name => !isHeld(path.join(volumePaths.locks(root), name)))
  const busyLayer = (id: LayerId): boolean => busy.layers.has(id) || sessions.some(prefix => id.startsWith(prefix))

  const parents = new Map<LayerId, LayerId | undefined | null>()
  const cacheIdOf = (chainId: ChainId | undefined): LayerId | undefined | null => chainId === undefined ? undefined : layers.get(chainId)?.cacheId ?? null
  for (const { chainId, layer, cacheId } of layers.values()) {
    if (cacheId === undefined) continue
    // A chain id has one parent only: images know what a damaged record has lost.
    const at = layer === undefined ? [...images.values()].find(({ chain }) => chain?.includes(chainId) === true)?.chain : undefined
    if (layer !== undefined) parents.set(cacheId, cacheIdOf(layer.parent))
    else parents.set(cacheId, at === undefined ? null : cacheIdOf(at[at.indexOf(chainId) - 1]))
  }
  for (const { files, ids, parent } of containersLayers.values()) {
    if (files === undefined) for (const id of ids) parents.set(id, null)
    else {
      parents.set(files.mountId, files.initId ?? cacheIdOf(parent))
      if (files.initId !== undefined) parents.set(files.initId, cacheIdOf(parent))
    }
  }
  for (const { id, parentRef } of inventory.layers) parents.set(id, parentRef === '' ? undefined : isDigest(parentRef) ? cacheIdOf(parentRef as ChainId) : parentRef as LayerId)
  for (const id of build.driverLayers.keys()) if (!parents.has(id)) parents.set(id, null)
  const resting = new Set([...inventory.removed, ...setAside.flatMap(item => item.driverLayers)])

  const referred = new Set<ChainId>()
  const refer = (chainId: ChainId | undefined): void => {
    for (let next = chainId; next !== undefined && !referred.has(next); next = layers.get(next)?.parent) referred.add(next)
  }
  for (const { parent } of containersLayers.values()) refer(parent)
  for (const id of [...inventory.images, ...build.layers, ...busy.chains, ...setAside.flatMap(item => item.layers)]) refer(id)
  const referredByOthers = new Set(referred)
  // Each by itself: a record that has lost its parent must not cut off what is below.
  for (const { chain } of images.values()) chain?.forEach(refer)
  for (const id of await parts.layers.referred()) refer(id)

  const doubts = doubtsOf({ layers, containersLayers, images, containers, setAside, unreadable, driver: root.driverName })
  return {
    driverLayers, layers, containersLayers, images, names: names.known, namesDamage: names.damage, containers, snapshotLayers: inventory.layers, setAside, parents, referred, referredByOthers,
    ...doubts, unreadable, intents: after, quiet, resting, busyLayer, busyPath: target => busy.paths.has(target), busyChain: id => busy.chains.has(id),
    imagesOn: chainIds => [...images.values()].filter(({ chain }) => chain?.some(id => chainIds.has(id)) === true).map(nameOf),
  }
}

/** What a user calls an image. */
export function nameOf({ id, references }: Pick<ImageEntry, 'id' | 'references'>): string {
  return references[0] ?? id
}

interface UnderWay {
  readonly file: string
  readonly live: boolean
  readonly deferred: boolean
  readonly damage?: string
  readonly layers: readonly LayerId[]
  readonly paths: readonly string[]
  /** Layers of the database that it keeps, or is at work on. */
  readonly chains: readonly ChainId[]
}

function underWay(root: DataRoot): UnderWay[] {
  const dir = ownState.intents(root)
  return namesIn(dir).filter(name => !name.includes('.')).flatMap((name): UnderWay[] => {
    const file = path.join(dir, name)
    const state = { file, live: isHeld(file), deferred: name.startsWith('deferred-') }
    try {
      const { layers, paths, holds, published, freed } = readIntent(root.path, file)
      return [{ ...state, layers, paths, chains: [...holds, ...published, ...freed] }]
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return []
      if (!StorageError.is(error, 'CORRUPT')) throw error
      return [{ ...state, damage: error.message, layers: [], paths: [], chains: [] }]
    }
  })
}

/** What the ids of layers begin with that running processes may be making snapshots of. */
function liveSessions(snapshotDir: string): string[] {
  const dir = path.join(snapshotDir, 'sessions')
  return namesIn(dir).filter(name => /^[a-z2-7]{13}$/.test(name) && isHeld(path.join(dir, name))).map(name => `sn-${name}-`)
}

function layerEntry(root: DataRoot, chainId: ChainId): LayerEntry {
  const dir = layerDb.layer(root, chainId)
  try {
    const layer = readLayer(root, chainId)
    if (layer !== undefined) return { chainId, dir, layer, cacheId: layer.cacheId, ...(layer.parent === undefined ? {} : { parent: layer.parent }) }
    return { chainId, dir }
  } catch (error) {
    if (!StorageError.is(error)) throw error
    const cacheId = readText(path.join(dir, 'cache-id')), parent = readText(path.join(dir, 'parent'))
    return { chainId, dir, damage: error.message.replace(`layer ${chainId}: `, ''), ...(isLayerId(cacheId) ? { cacheId } : {}), ...(isDigest(parent) ? { parent: parent as ChainId } : {}) }
  }
}

function rwEntry(root: DataRoot, name: string): RwEntry {
  const dir = path.join(layerDb.mounts(root), name)
  const [mountId, initId, parent] = ['mount-id', 'init-id', 'parent'].map(file => readText(path.join(dir, file)))
  // The two name each other: `<id>` and `<id>-init`.
  const bases = new Set([mountId, initId].flatMap(id => /^([a-f0-9]{64})(-init)?$/.exec(id ?? '')?.[1] ?? []))
  const rest = { name, dir, ids: [...bases].flatMap(id => [id, `${id}-init`]).filter(isLayerId), ...(isDigest(parent) ? { parent: parent as ChainId } : {}) }
  try {
    const files = readRwFiles(root, name)
    if (files === undefined) return { ...rest, damage: 'its mount-id file is missing' }
    return { ...rest, files, ids: files.initId === undefined ? [files.mountId] : [files.mountId, files.initId] }
  } catch (error) {
    if (!StorageError.is(error)) throw error
    return { ...rest, damage: error.message.replace(`container layer ${name}: `, '') }
  }
}

function readNames(root: DataRoot): { readonly known: Map<string, Digest> | undefined; readonly damage: string | undefined } {
  try {
    return { known: new Map(new Repositories(root).read().all().map(({ ref, imageId }) => [familiarString(ref), imageId])), damage: undefined }
  } catch (error) {
    if (!StorageError.is(error)) throw error
    return { known: undefined, damage: error.message }
  }
}

function imageEntries(root: DataRoot, names: ReadonlyMap<string, Digest>): Map<Digest, ImageEntry> {
  const db = new ImageDb(root)
  const references = new Map<Digest, string[]>()
  for (const [name, id] of names) references.set(id, [...references.get(id) ?? [], name])
  return new Map(db.list().map((id): readonly [Digest, ImageEntry] => {
    const bytes = db.readUnchecked(id) ?? Buffer.alloc(0)
    const rest = { id, file: path.join(root.path, 'image', root.driverName, 'imagedb', 'content', 'sha256', hexOf(id)), references: references.get(id) ?? [] }
    const whole = sha256(bytes) === id
    try {
      const { diffIds } = decodeConfig(bytes)
      return [id, { ...rest, diffIds, chain: chainIdsOf(diffIds), ...(whole ? {} : { damage: 'its config does not have the digest that is its id' }) }]
    } catch (error) {
      if (!StorageError.is(error)) throw error
      return [id, { ...rest, damage: bytes.length === 0 ? 'its config is empty' : whole ? error.message : `its config does not have the digest that is its id, and cannot be read: ${error.message}` }]
    }
  }))
}

function containerEntries(root: DataRoot): Map<string, ContainerEntry> {
  const base = path.join(root.path, 'containers')
  return new Map(namesIn(base).filter(name => /^[a-f0-9]{64}$/.test(name)).map((id): readonly [string, ContainerEntry] => {
    const dir = path.join(base, id)
    try {
      const record = readContainer(dir)
      return [id, record === undefined ? { id, dir, damage: 'its config.v2.json is missing' } : { id, dir, record }]
    } catch (error) {
      if (!StorageError.is(error)) throw error
      return [id, { id, dir, damage: error.message.replace(`container ${id}: `, '') }]
    }
  }))
}

/** Whatever cannot say what it owns or needs makes everything that nobody names possibly its own. */
function doubtsOf(found: Pick<View, 'layers' | 'containersLayers' | 'images' | 'containers' | 'setAside' | 'unreadable'> & { readonly driver: string }): Pick<View, 'doubtsOfDriverLayers' | 'doubtsOfLayers'> {
  const ofDriver: string[] = [], ofLayers: string[] = []
  for (const { subject } of found.unreadable) {
    ofDriver.push(`the catalogue of ${subject} cannot be read`)
    ofLayers.push(`the catalogue of ${subject} cannot be read`)
  }
  for (const { chainId, layer, cacheId } of found.layers.values()) if (layer === undefined && cacheId === undefined) ofDriver.push(`layer ${chainId} does not say which is its own`)
  for (const { name, damage, ids, parent } of found.containersLayers.values()) {
    if (damage === undefined) continue
    if (ids.length === 0) ofDriver.push(`the record of container layer ${name} is damaged`)
    if (parent === undefined) ofLayers.push(`the record of container layer ${name} is damaged`)
  }
  for (const { id, record } of found.containers.values()) {
    if (found.containersLayers.has(id) || record !== undefined && record.driver !== found.driver) continue
    ofDriver.push(`container ${id} has lost the record of its layers`)
  }
  for (const { id, chain } of found.images.values()) if (chain === undefined) ofLayers.push(`the config of image ${id} cannot be read`)
  for (const { subject, unsureOf } of found.setAside) {
    if (unsureOf.includes('driver layers')) ofDriver.push(`${subject}, which was set aside, does not say what is its own`)
    if (unsureOf.includes('layers')) ofLayers.push(`${subject}, which was set aside, does not say what it needs`)
  }
  return { doubtsOfDriverLayers: ofDriver, doubtsOfLayers: ofLayers }
}

/** Sorted; none where there is no folder. In a damaged root a file may have its place. */
export function namesIn(dir: string): string[] {
  return namesOrNone(dir, 'ENOTDIR')
}
