// What repair takes out of use, it does not delete: damaged layers, images and records lie below `layerstack/set-aside/<driver>`, each in a folder with a
// note of what it is, which layers of the driver belong to it and what it may need. Only prune removes them.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { atomicWriteSync, syncDirectorySync } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { isDigest, isLayerId } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { ensureDir, ownState } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'

export interface SetAside {
  /** The folder. */
  readonly dir: string
  readonly kind: 'layer' | 'image' | 'container' | 'file'
  readonly subject: string
  readonly reason: string
  /** Driver layers that belong to it. */
  readonly driverLayers: readonly LayerId[]
  /** Layers of the database that it stands on, parents not named. */
  readonly layers: readonly ChainId[]
  /** It may own, or need, more of these than it can say: then none of them can be proved to be nobody's. */
  readonly unsureOf: readonly ('driver layers' | 'layers')[]
  /** Names that led to it. */
  readonly names: readonly string[]
}

export type Note = Omit<SetAside, 'dir'>

const noteName = 'note.json'

function placeOf(root: DataRoot): string {
  return path.join(ownState.dir(root), 'set-aside', root.driverName)
}

/** Move files and folders out of use. The note first: whatever moment a kill chooses, what has moved is known. */
export function setAside(root: DataRoot, note: Note, sources: readonly string[]): void {
  const sync = root.durability !== 'none'
  const place = placeOf(root)
  ensureDir(path.dirname(place), 0o700)
  ensureDir(place, 0o700)
  const dir = path.join(place, `${note.kind}-${note.subject.replaceAll(/[^A-Za-z0-9_.-]/g, '-').slice(-80)}-${randomBytes(4).toString('hex')}`)
  fs.mkdirSync(dir, { mode: 0o700 })
  atomicWriteSync(path.join(dir, noteName), `${JSON.stringify(note, undefined, 2)}\n`, { mode: 0o600, sync })
  if (sync) syncDirectorySync(place)
  for (const source of sources) {
    if (!fs.existsSync(source)) continue
    fs.renameSync(source, path.join(dir, nameFor(dir, path.basename(source))))
    if (sync) syncDirectorySync(path.dirname(source))
  }
  if (sync) syncDirectorySync(dir)
}

function nameFor(dir: string, name: string): string {
  return fs.existsSync(path.join(dir, name)) ? `${name}-${randomBytes(4).toString('hex')}` : name
}

/** What lies there; what has no readable note may be anything. */
export function listSetAside(root: DataRoot): SetAside[] {
  return namesIn(placeOf(root)).map(name => {
    const dir = path.join(placeOf(root), name)
    return { dir, ...readNote(path.join(dir, noteName)) }
  })
}

function readNote(file: string): Note {
  const unknown: Note = { kind: 'file', subject: path.basename(path.dirname(file)), reason: 'its note cannot be read', driverLayers: [], layers: [], unsureOf: ['driver layers', 'layers'], names: [] }
  let note: Partial<Note>
  try {
    note = JSON.parse(fs.readFileSync(file, 'utf8')) as Partial<Note>
  } catch (error) {
    if (error instanceof SyntaxError || isErrno(error, 'ENOENT')) return unknown
    throw error
  }
  return {
    ...unknown, ...note,
    driverLayers: (note.driverLayers ?? []).filter(id => isLayerId(id)), layers: (note.layers ?? []).filter(id => isDigest(id)),
  }
}
