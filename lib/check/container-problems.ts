// Containers: their records, the records of their layers, and who holds their mounts.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { isLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { ownState, RwLayers } from '../layers/index.ts'
import { MountCounts } from '../layers/mount-counts.ts'
import { readRwFiles } from '../layers/rw-files.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import { readMountPoints } from '../containers/mount-points.ts'
import { isMountpoint } from '../sys/mount.ts'
import { usageOf } from './driver-problems.ts'
import { loadLayers } from './layer-mends.ts'
import { setAside } from './set-aside.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Mended, MendTools, Problem } from './types.ts'
import { isHeld, look, namesIn } from './view.ts'
import type { ContainerEntry, RwEntry, View } from './view.ts'

export function* containerProblems(parts: CheckParts, view: View): Generator<Problem> {
  const { root } = parts
  for (const entry of view.containers.values()) yield* recordProblems(parts, view, entry)
  for (const entry of view.containersLayers.values()) if (!entry.ids.some(id => view.busyLayer(id))) yield* layerProblems(parts, view, entry)
  const base = path.join(root.path, 'containers')
  for (const name of namesIn(base)) {
    const dir = path.join(base, name)
    if (!/^\.(new|gone)-/.test(name) || view.busyPath(dir)) continue
    yield {
      kind: 'container-half-made', subject: name, path: dir, reason: `the record of a container that ${name.startsWith('.new-') ? 'never came to be' : 'was removed'}`, phase: 'settle',
      repair: 'remove it', gains: true, measure: () => sizeOf(dir), mend: () => removeTree(dir),
    }
  }
  yield* countProblems(parts, view)
}

function* recordProblems({ root }: CheckParts, view: View, { id, dir, record, damage }: ContainerEntry): Generator<Problem> {
  const layers = view.containersLayers.get(id)
  if (record === undefined) {
    // Another driver's container would have no layers here; what it is nobody can say any more.
    yield {
      kind: 'container-damaged', subject: id, path: dir, reason: `the container cannot be used: ${damage ?? 'its record is damaged'}`, phase: 'catalogue',
      repair: 'set it aside, with all its data', mend: tools => putAway(tools, id, `its record is damaged: ${damage}`),
    }
    return
  }
  if (record.driver !== root.driverName) return
  if (layers === undefined) {
    if (view.intents.some(({ live, damage: broken }) => live && broken !== undefined)) return
    yield {
      kind: 'container-without-layer', subject: id, path: dir, reason: `container ${record.name} cannot be used: the layer database has no record of its layers`, phase: 'catalogue',
      repair: 'set its record aside, and leave alone all layers that may be its own', mend: tools => putAway(tools, id, 'the record of its layers is lost'),
    }
  }
  for (const name of missingVolumes(root.path, dir)) {
    yield { kind: 'container-volume-missing', subject: id, path: path.join(dir, 'config.v2.json'), reason: `container ${record.name} uses volume ${name}, which does not exist; left alone: make the volume, or remove the container` }
  }
}

function missingVolumes(root: string, dir: string): string[] {
  let points
  try {
    points = Object.values(readMountPoints(dir))
  } catch (error) {
    if (StorageError.is(error, 'CORRUPT')) return []
    throw error
  }
  return points.flatMap(({ Type, Driver, Name }) => Type === 'volume' && Driver === 'local' && Name !== '' && !fs.existsSync(path.join(root, 'volumes', Name, '_data')) ? [Name] : [])
}

function* layerProblems(parts: CheckParts, view: View, entry: RwEntry): Generator<Problem> {
  const { name, dir, files, damage } = entry
  const container = view.containers.get(name)
  const what = container?.record === undefined ? `container layer ${name}` : `container ${container.record.name}`
  if (files === undefined) {
    yield {
      kind: 'mount-record-damaged', subject: name, path: dir, reason: `${what} cannot be used: ${damage}`, phase: 'structure',
      repair: 'restore the record from what is left; if that cannot be, set the container aside with all its data', mend: tools => restoreMount(tools, name, damage ?? 'its record is damaged'),
    }
    return
  }
  const lost = entry.ids.filter(id => !view.driverLayers.has(id))
  if (lost.length > 0) {
    yield {
      kind: 'mount-layers-missing', subject: name, path: dir, reason: `${what} cannot be used: the driver has no layer ${lost.join(' and no ')}`, phase: 'catalogue',
      repair: 'set the container aside, with what is left of its data', mend: tools => putAway(tools, name, `the driver lost its layer ${lost.join(', ')}`),
    }
  }
  if (files.parent !== undefined && view.layers.get(files.parent) === undefined) {
    yield {
      kind: 'mount-parent-missing', subject: name, path: dir, reason: `${what} cannot be used: layer ${files.parent}, on which it stands, is not in the database`, phase: 'catalogue',
      repair: 'take the layers from an archive given with --from; without one, set the container aside with all its data', mend: tools => mendParent(tools, name),
    }
  }
  if (view.containers.has(name) || fs.existsSync(path.join(parts.root.path, 'containers', name))) return
  yield {
    kind: 'mount-without-container', subject: name, path: dir, reason: 'there are layers of a container that does not exist', repair: 'remove them', gains: true, phase: 'remove',
    measure: async () => {
      let sum = await sizeOf(dir)
      for (const id of entry.ids) sum += await usageOf(parts, id)
      return sum
    },
    mend: async ({ root, layers }) => {
      if (fs.existsSync(path.join(root.path, 'containers', name))) return { left: 'the container exists' }
      await new RwLayers(layers).remove(name)
    },
  }
}

/** `<id>` and `<id>-init` name each other; the parent is the image's top layer, which the container's record names. */
async function restoreMount(tools: MendTools, name: string, reason: string): Promise<Mended> {
  const { root, layers } = tools
  const view = await look(tools)
  const entry = view.containersLayers.get(name)
  if (entry === undefined || entry.files !== undefined) return
  const pattern = /^([a-f0-9]{64})(-init)?$/
  const [mountId] = entry.ids.flatMap(id => pattern.exec(id)?.[1] ?? [])
  const record = view.containers.get(name)?.record
  const imageChain = record?.imageId === undefined ? undefined : view.images.get(record.imageId)?.chain
  const parent = entry.parent ?? imageChain?.at(-1)
  const known = mountId !== undefined && isLayerId(mountId) && view.driverLayers.has(mountId) && (parent !== undefined || record !== undefined && record.imageId === undefined)
  if (known) {
    const initId = `${mountId}-init` as LayerId
    await layers.locked(async () => {
      for (const [file, text] of [['mount-id', mountId], ['init-id', view.driverLayers.has(initId) ? initId : undefined], ['parent', parent]] as const) {
        const target = path.join(entry.dir, file)
        if (text === undefined) fs.rmSync(target, { force: true })
        else atomicWriteSync(target, text, { mode: 0o644, sync: root.durability !== 'none' })
      }
    })
    try {
      if (readRwFiles(root, name) !== undefined) return
    } catch (error) {
      if (!StorageError.is(error, 'CORRUPT')) throw error
    }
  }
  return await putAway(tools, name, reason)
}

async function mendParent(tools: MendTools, name: string): Promise<Mended> {
  const view = await look(tools)
  const parent = view.containersLayers.get(name)?.files?.parent
  if (parent === undefined || view.layers.has(parent)) return
  for (const { chain, diffIds } of view.images.values()) {
    const at = chain?.indexOf(parent) ?? -1
    if (at >= 0 && diffIds !== undefined && await loadLayers(tools, diffIds.slice(0, at + 1))) return
  }
  return await putAway(tools, name, `layer ${parent}, on which it stands, is lost`)
}

/** Out of use, with its record, the record of its layers, and the layers, which stay where they are. */
async function putAway(tools: MendTools, id: string, reason: string): Promise<Mended> {
  const { root, layers } = tools
  const counts = new MountCounts(ownState.mounts(root))
  return await layers.locked(async () => {
    const view = await look(tools)
    const entry = view.containersLayers.get(id), container = view.containers.get(id)
    for (const layer of entry?.ids ?? []) {
      const at = tools.driver.mountpoint?.(layer)
      if (counts.count(layer) > 0 || at !== undefined && isMountpoint(at)) return { left: 'it is mounted: unmount it first' }
    }
    setAside(root, {
      kind: 'container', subject: id, reason, driverLayers: entry?.ids ?? [], layers: entry?.parent === undefined ? [] : [entry.parent],
      unsureOf: [...(entry === undefined || entry.ids.length === 0 ? ['driver layers' as const] : []), ...(entry?.parent === undefined && entry?.damage !== undefined ? ['layers' as const] : [])],
      names: container?.record === undefined ? [] : [container.record.name],
    }, [...(entry === undefined ? [] : [entry.dir]), ...(container === undefined ? [] : [container.dir])])
  })
}

// ---- who holds mounts -------------------------------------------------------------------------------------------------------

function* countProblems({ root, driver }: CheckParts, view: View): Generator<Problem> {
  const dir = ownState.mounts(root), counts = new MountCounts(dir)
  const owners = new Map([...view.containersLayers.values()].flatMap(({ name, files }) => files === undefined ? [] : [[files.mountId as string, name] as const]))
  const names = new Set(namesIn(dir).map(name => name.replace(/\.(lock|new|mnt|lock\.owner)$/, '')))
  for (const name of names) {
    if (!isLayerId(name) || isHeld(path.join(dir, `${name}.lock`))) continue
    const file = path.join(dir, name), own = path.join(dir, `${name}.mnt`), owner = owners.get(name)
    const target = fs.existsSync(own) ? own : driver.mountpoint?.(name)
    const mounted = target !== undefined && isMountpoint(target)
    const holders = counts.count(name)
    const mend = owner === undefined ? undefined : { repair: mounted ? 'unmount it' : 'set the count right', mend: async ({ layers }: MendTools) => takeDown(layers, counts, name, owner) }
    if (owner === undefined) {
      yield {
        kind: 'mount-count-wrong', subject: name, path: file, reason: 'there is a count of mounts of a layer that does not exist', repair: 'remove it', phase: 'settle',
        mend: async () => { await counts.clear(name, () => { if (fs.existsSync(own) && !isMountpoint(own)) fs.rmdirSync(own) }) },
      }
    } else if (holders === 0 && mounted) {
      yield { kind: 'stale-mount', subject: owner, path: target, reason: 'it is mounted, and whoever mounted it has ended', phase: 'settle', ...mend }
    } else if (holders === 0) {
      yield { kind: 'mount-count-wrong', subject: owner, path: file, reason: 'there is a count of mounts by processes that have ended', phase: 'settle', ...mend }
    } else if (!mounted && target !== undefined && mayMount(driver.supports.nativeMounts, own)) {
      const persistent = persistentAlone(file)
      yield {
        kind: 'mount-count-wrong', subject: owner, path: file, phase: 'settle', reason: `${holders} are counted to have it mounted, and it is not mounted${persistent ? '' : '; left alone, as they still run'}`,
        ...(persistent ? mend : {}),
      }
    }
  }
  for (const [mountId, owner] of owners) {
    const target = driver.mountpoint?.(mountId as LayerId)
    if (driver.keepsMountpoints === true || names.has(mountId) || target === undefined || !fs.existsSync(target) || isMountpoint(target)) continue
    if (view.containers.get(owner)?.record?.running === true) continue
    yield {
      kind: 'stale-mount', subject: owner, path: target, reason: 'there is a mount point, made for a mount that has ended', repair: 'remove the empty folder', phase: 'settle',
      mend: async () => { await counts.clear(mountId as LayerId, holders => { if (holders === 0 && fs.existsSync(target) && !isMountpoint(target)) fs.rmdirSync(target) }) },
    }
  }
}

function mayMount(nativeMounts: boolean, own: string): boolean {
  return nativeMounts || fs.existsSync(own)
}

function persistentAlone(file: string): boolean {
  try {
    const { processes } = JSON.parse(fs.readFileSync(file, 'utf8')) as { processes?: object }
    return Object.keys(processes ?? {}).length === 0
  } catch {
    return false // somebody is at it
  }
}

/** As whoever died would have: take a hold, and give it back as the last one. */
async function takeDown(layers: MendTools['layers'], counts: MountCounts, mountId: LayerId, owner: string): Promise<void> {
  if (counts.count(mountId) > 0) {
    await counts.clear(mountId, () => undefined)
    return
  }
  await counts.hold(mountId, false, () => undefined)
  await new RwLayers(layers).unmount(owner)
}
