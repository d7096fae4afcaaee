// Volumes: folders against the database of labels, what interrupted work left, and references of the dead. A volume's data is never touched.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { parseLayerId } from '../ids.ts'
import { MountCounts } from '../layers/mount-counts.ts'
import { isAlive } from '../sys/lock.ts'
import { hasUnfinishedFill } from '../volumes/fill.ts'
import { localOptionsOf, parseLocalOptions } from '../volumes/local-options.ts'
import { VolumeDatabase } from '../volumes/metadata.ts'
import type { VolumeMetadata } from '../volumes/metadata.ts'
import { checkVolumeName } from '../volumes/name.ts'
import { fileKey, volumePaths } from '../volumes/paths.ts'
import { VolumeReferences } from '../volumes/references.ts'
import { setAside } from './set-aside.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Problem } from './types.ts'
import { isHeld, namesIn } from './view.ts'

export function* volumeProblems(parts: CheckParts): Generator<Problem> {
  const { root, volumes } = parts
  const base = volumePaths.dir(root)
  const database = new VolumeDatabase(root)
  let entries: ReadonlyMap<string, VolumeMetadata> | undefined
  try {
    entries = database.all()
  } catch (error) {
    if (!StorageError.is(error)) throw error
    yield {
      kind: 'volume-database-damaged', subject: 'metadata.db', path: volumePaths.metadata(root), reason: `no volume's labels can be read: ${error.message}`, phase: 'structure',
      repair: 'set the file aside; the volumes stay, without their labels',
      mend: () => setAside(root, { kind: 'file', subject: 'volumes-metadata.db', reason: error.message, driverLayers: [], layers: [], unsureOf: [], names: [] }, [volumePaths.metadata(root)]),
    }
  }
  const folders = namesIn(base).filter(name => fs.lstatSync(path.join(base, name), { throwIfNoEntry: false })?.isDirectory() === true && isVolumeName(name))
  const known = new Set(folders)
  for (const name of folders) if (!isHeld(path.join(volumePaths.locks(root), fileKey(name)))) yield* folderProblems(parts, database, entries, name)
  for (const [name, entry] of entries ?? []) {
    if (entry.Driver !== 'local' || known.has(name) || isHeld(path.join(volumePaths.locks(root), fileKey(name)))) continue
    yield {
      kind: 'volume-metadata-orphan', subject: name, path: volumePaths.metadata(root), reason: `labels are kept of volume ${name}, which does not exist`, repair: 'forget them',
      mend: () => volumes.withLock(name, async () => { if (volumes.find(name) === undefined) await database.delete(name) }),
    }
  }
  yield* ownProblems(parts, known)
}

function isVolumeName(name: string): boolean {
  try {
    checkVolumeName(name)
    return true
  } catch (error) {
    if (StorageError.is(error, 'INVALID_ARGUMENT')) return false
    throw error
  }
}

function* folderProblems({ root, volumes }: CheckParts, database: VolumeDatabase, entries: ReadonlyMap<string, VolumeMetadata> | undefined, name: string): Generator<Problem> {
  const dir = path.join(volumePaths.dir(root), name), data = path.join(dir, '_data')
  const inside = namesIn(dir)
  if (!fs.existsSync(data)) {
    const ours = inside.every(file => file === 'opts.json' || /^(_new|_old|_fill)-|^\.tmp-/.test(file))
    if (ours) {
      yield {
        kind: 'volume-half-made', subject: name, path: dir, reason: 'the folder of a volume that never came to be, or whose removal was interrupted', repair: 'remove it', gains: true, measure: () => sizeOf(dir),
        mend: () => volumes.withLock(name, async () => { if (!fs.existsSync(data)) await removeTree(dir) }),
      }
    } else yield { kind: 'volume-damaged', subject: name, path: dir, reason: 'the volume has no _data, but other files; left alone, as they may be data' }
    return
  }
  for (const file of inside.filter(one => /^(_new|_old)-|^\.tmp-/.test(one))) {
    const target = path.join(dir, file)
    yield { kind: 'volume-half-made', subject: name, path: target, reason: 'what interrupted work on the volume left', repair: 'remove it', gains: true, measure: () => sizeOf(target), mend: () => volumes.withLock(name, () => removeTree(target)) }
  }
  if (hasUnfinishedFill(data)) {
    yield { kind: 'volume-half-made', subject: name, path: dir, reason: 'the volume was being filled when the process ended', repair: 'finish it, or undo it where it had not come far', phase: 'settle', mend: () => volumes.recover() }
  }
  const options = path.join(dir, 'opts.json')
  try {
    if (fs.existsSync(options)) parseLocalOptions(fs.readFileSync(options, 'utf8'), options)
  } catch (error) {
    if (!StorageError.is(error)) throw error
    yield optionsProblem(root, name, options, error, entries?.get(name))
  }
  if (entries !== undefined && !entries.has(name)) {
    yield {
      kind: 'volume-without-metadata', subject: name, path: dir, reason: 'metadata.db has no entry of the volume: it has no labels, and counts as named', repair: 'make an entry without labels',
      mend: () => volumes.withLock(name, async () => { if (database.get(name) === undefined && volumes.find(name) !== undefined) await database.set({ Name: name, Driver: 'local', Labels: null, Options: null }) }),
    }
  }
}

/** What was asked for stands in metadata.db as well, in the words of the API. */
function optionsProblem(root: CheckParts['root'], name: string, file: string, error: StorageError, entry: VolumeMetadata | undefined): Problem {
  const problem = { kind: 'volume-damaged', subject: name, path: file, phase: 'structure' } as const
  const reason = `the volume's options cannot be read: ${error.message}`
  if (entry === undefined) return { ...problem, reason: `${reason}; left alone, as metadata.db has no entry of the volume: correct or remove the file` }
  const saved = localOptionsOf(entry.Options ?? {})
  return {
    ...problem, reason, repair: saved === undefined ? 'set the file aside: the volume was made without options' : 'write it anew from metadata.db',
    mend: () => {
      if (saved === undefined) setAside(root, { kind: 'file', subject: `${name}-opts.json`, reason: error.message, driverLayers: [], layers: [], unsureOf: [], names: [] }, [file])
      else atomicWriteSync(file, JSON.stringify(saved), { mode: 0o600, sync: root.durability !== 'none' })
    },
  }
}

/** What layerstack keeps beside the volumes. */
function* ownProblems({ root, volumes }: CheckParts, known: ReadonlySet<string>): Generator<Problem> {
  const keys = new Set([...known].map(fileKey))
  for (const name of namesIn(volumePaths.trash(root))) {
    const dir = path.join(volumePaths.trash(root), name)
    if (isHeldBySomebody(root, name.slice(0, 64))) continue
    yield { kind: 'volume-half-made', subject: name, path: dir, reason: 'a volume whose removal was interrupted', repair: 'finish the removal', gains: true, phase: 'settle', measure: () => sizeOf(dir), mend: () => volumes.recover() }
  }
  for (const { volume, reference } of new VolumeReferences(root).dead()) {
    yield { kind: 'volume-reference-stale', subject: volume, path: path.join(volumePaths.references(root), fileKey(volume)), reason: `${reference}, which has ended, still refers to the volume`, repair: 'forget the reference', phase: 'settle', mend: () => volumes.recover() }
  }
  for (const key of namesIn(volumePaths.references(root))) {
    if (keys.has(key) || isHeldBySomebody(root, key)) continue
    const dir = path.join(volumePaths.references(root), key)
    yield { kind: 'volume-reference-stale', subject: key, path: dir, reason: 'a volume that does not exist is referred to', repair: 'forget the references', mend: () => removeTree(dir) }
  }
  for (const name of namesIn(volumePaths.locks(root))) {
    const file = path.join(volumePaths.locks(root), name)
    if (name.includes('.') || isHeld(file)) continue
    yield { kind: 'temporary-file', subject: name, path: file, reason: 'the lock of a process that has ended', repair: 'remove it', phase: 'settle', mend: () => volumes.recover() }
  }
  for (const name of namesIn(volumePaths.subpaths(root))) {
    const [, pid, start] = /^process-(\d+)-(\d+)-/.exec(name) ?? []
    if (pid === undefined || isAlive(`${pid} ${start}`)) continue
    yield { kind: 'stale-mount', subject: name, path: path.join(volumePaths.subpaths(root), name), reason: 'a part of a volume is mounted for a process that has ended', repair: 'unmount it', phase: 'settle', mend: () => volumes.recover() }
  }
  yield* countProblems({ root, volumes }, keys)
}

function isHeldBySomebody(root: CheckParts['root'], key: string): boolean {
  return isHeld(path.join(volumePaths.locks(root), key))
}

/** Counts of the dead, which keep a mount where the volume has a device. */
function* countProblems({ root, volumes }: Pick<CheckParts, 'root' | 'volumes'>, keys: ReadonlySet<string>): Generator<Problem> {
  const dir = volumePaths.mounts(root), counts = new MountCounts(dir)
  for (const key of new Set(namesIn(dir).map(name => name.replace(/\.(lock|new|lock\.owner)$/, '')))) {
    if (!/^[a-f0-9]{64}$/.test(key) || isHeld(path.join(dir, `${key}.lock`)) || counts.count(parseLayerId(key)) > 0) continue
    yield {
      kind: 'mount-count-wrong', subject: key, path: path.join(dir, key), repair: 'end it', phase: 'settle', mend: () => volumes.recover(),
      reason: keys.has(key) ? 'there is a count of mounts of a volume by processes that have ended' : 'there is a count of mounts of a volume that does not exist',
    }
  }
}
