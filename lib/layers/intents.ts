// Intents: before an operation makes something that could be left behind, it says so in a small file that it holds locked. Whoever finds
// one whose lock is free rolls back what it names. No scan of the store is needed to know what a crash left.
//
// A file is a list of lines, appended and synced before the deed: `layer ID`, `path PATH` (below the data root, which may be moved or copied),
// `hold CHAINID`, `published CHAINID`, `freed CHAINID`, `container NAME PATH`, `undo KIND VALUE`. A last line without its newline was never acted upon.
//
// A file called `deferred-…` belongs to nobody: a layer that lost its last user while an operation held it. The holder's end releases it.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { atomicWriteSync, syncDirectorySync } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { isDigest, isLayerId, randomHex } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { tryLock } from '../sys/lock.ts'
import type { Lock } from '../sys/lock.ts'
import { ownState } from './data-root.ts'
import type { DataRoot } from './types.ts'

/** What an intent names, as far as it got. */
export interface IntentRecord {
  readonly name: string
  /** Driver layers made, or about to be, or about to be removed: without a place in the catalogue they go. */
  readonly layers: readonly LayerId[]
  /** Temporary paths inside the data root. */
  readonly paths: readonly string[]
  readonly holds: readonly ChainId[]
  /** Layers made visible: kept while the operation runs, and released at its end if nobody refers to them. */
  readonly published: readonly ChainId[]
  /** Layers that lose a user: released at the end if nobody refers to them. */
  readonly freed: readonly ChainId[]
  /** Container layers, each with the path of the record that keeps it: without the record they go. */
  readonly containers: readonly { readonly name: string; readonly record: string }[]
  /** What stores above made or began to remove, in their own words (`addUndo`). */
  readonly undo: readonly { readonly kind: string; readonly value: string }[]
}

const deferredPrefix = 'deferred-'

export class Intent {
  readonly #root: string
  readonly #file: string
  readonly #lock: Lock
  readonly #fd: number
  readonly #sync: boolean
  readonly #noted: (readonly [kind: NoteKind, value: string])[] = []
  #holds = false

  constructor(root: string, file: string, lock: Lock, fd: number, sync: boolean) {
    this.#root = root
    this.#file = file
    this.#lock = lock
    this.#fd = fd
    this.#sync = sync
  }

  /** Begin. Nothing is written down until something is named. */
  static begin(root: DataRoot, name: string): Intent {
    const dir = ownState.intents(root)
    for (;;) {
      const file = path.join(dir, `${name.replaceAll(/[^a-z0-9-]/g, '-')}-${randomHex(8)}`)
      const lock = tryLock(file)
      // A process that opens the store may have found the new file before it was locked, and taken it for an abandoned one.
      if (lock === undefined) continue
      try {
        const fd = lock.fd ?? fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_APPEND)
        return new Intent(root.path, file, lock, fd, root.durability !== 'none')
      } catch (error) {
        // Without a descriptor left, say: nothing was named yet.
        lock.releaseAndUnlink()
        throw error
      }
    }
  }

  /** It keeps layers from being removed, so that its end may be what their removal waits for. */
  get holds(): boolean { return this.#holds }

  note(kind: NoteKind, values: readonly string[]): void {
    this.noteAll(values.map(value => [kind, value]))
  }

  /** Several at once, for one write and one sync. A container's value is its name, a space, and the path of its record. */
  noteAll(notes: readonly (readonly [kind: NoteKind, value: string])[]): void {
    if (notes.length === 0) return
    this.#holds ||= notes.some(([kind]) => kind === 'hold' || kind === 'published')
    const text = notes.map(([kind, value]) => {
      if (kind === 'path') return `path ${this.#relative(value)}\n`
      if (kind !== 'container') return `${kind} ${value}\n`
      const [name, record] = cut(value)
      return `container ${name} ${this.#relative(record)}\n`
    }).join('')
    fs.writeSync(this.#fd, text)
    if (this.#sync) {
      fs.fdatasyncSync(this.#fd)
      // The name, too, before the first deed. In this order: what brings a new file to the device brings its name with it on most file systems, and there is nothing left to wait for.
      if (this.#noted.length === 0) syncDirectorySync(path.dirname(this.#file))
    }
    this.#noted.push(...notes)
  }

  #relative(target: string): string {
    // Most are put together from the root: 3 µs less than resolving both.
    const relative = target.startsWith(`${this.#root}/`) ? target.slice(this.#root.length + 1) : path.relative(this.#root, target)
    if (!isBelow(relative)) throw new TypeError(`an operation can only name paths below the data root ${this.#root}, not ${target}`)
    return relative
  }

  /** What it says so far. */
  record(): IntentRecord {
    const collected = new Collected()
    for (const [kind, value] of this.#noted) collected.add(kind, value)
    return collected.record(path.basename(this.#file))
  }

  /** Leave it to the next process that opens the store. */
  leave(): void {
    this.#close()
    this.#lock.release()
  }

  /** The operation is over, nothing is left to undo. */
  end(): void {
    this.#close()
    this.#lock.releaseAndUnlink()
  }

  #close(): void {
    if (this.#lock.fd === undefined) fs.closeSync(this.#fd)
  }
}

type NoteKind = 'layer' | 'path' | 'hold' | 'published' | 'freed' | 'container' | 'undo'

function isBelow(relative: string): boolean {
  return relative !== '' && !relative.startsWith('/') && !relative.includes('\n') && !relative.split('/').includes('..')
}

/** @throws CORRUPT, ENOENT */
export function readIntent(root: string, file: string): IntentRecord {
  return decode(root, file, fs.readFileSync(file, 'utf8'))
}

function decode(root: string, file: string, text: string): IntentRecord {
  const collected = new Collected()
  for (const line of text.split('\n').slice(0, -1)) {
    const [kind, value] = cut(line)
    const [name, rest] = cut(value)
    if (kind === 'layer' && isLayerId(value)) collected.add(kind, value)
    else if (kind === 'path' && isBelow(value)) collected.add(kind, path.join(root, value))
    else if ((kind === 'hold' || kind === 'published' || kind === 'freed') && isDigest(value)) collected.add(kind, value)
    else if (kind === 'undo' && /^[a-z-]+$/.test(name) && rest !== '') collected.add(kind, value)
    else if (kind === 'container' && isLayerId(name) && isBelow(rest)) collected.add(kind, `${name} ${path.join(root, rest)}`)
    else throw new StorageError('CORRUPT', `intent ${file} has a line that nobody writes: ${JSON.stringify(line)}`, { path: file, hint: 'look at what it names, then remove the file' })
  }
  return collected.record(path.basename(file))
}

/** Notes, sorted by kind. Values are as `noteAll` takes them. */
class Collected {
  readonly #of: Record<NoteKind, string[]> = { layer: [], path: [], hold: [], published: [], freed: [], container: [], undo: [] }

  add(kind: NoteKind, value: string): void { this.#of[kind].push(value) }

  record(name: string): IntentRecord {
    const { layer, path, hold, published, freed, container, undo } = this.#of
    return {
      name, layers: layer as LayerId[], paths: path, holds: hold as ChainId[], published: published as ChainId[], freed: freed as ChainId[],
      containers: container.map(cut).map(([name, record]) => ({ name, record })), undo: undo.map(cut).map(([kind, value]) => ({ kind, value })),
    }
  }
}

function cut(text: string): [before: string, after: string] {
  const at = text.indexOf(' ')
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

function intentFiles(root: DataRoot): string[] {
  const dir = ownState.intents(root)
  // Beside them, without native calls, lie the locks' own files.
  return namesIn(dir).filter(name => !name.includes('.')).map(name => path.join(dir, name))
}

function isDeferred(file: string): boolean {
  return path.basename(file).startsWith(deferredPrefix)
}

/** Every intent of an operation, in whatever state: what operations of all processes use now. */
export function* allIntents(root: DataRoot): Generator<IntentRecord> {
  for (const file of intentFiles(root)) {
    if (isDeferred(file)) continue
    try {
      yield readIntent(root.path, file)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }
}

export interface AbandonedIntent {
  readonly file: string
  /** @throws CORRUPT */
  record(): IntentRecord
  /** It was settled. */
  done(): void
  leave(): void
}

/** Intents whose process is gone, or which are deferred, each locked for us: settle what it says, then call `done`. */
export function* abandonedIntents(root: DataRoot, which: 'operations' | 'deferred'): Generator<AbandonedIntent> {
  for (const file of intentFiles(root)) {
    // A file that has vanished meanwhile must not be made again by locking it.
    if (isDeferred(file) !== (which === 'deferred') || !fs.existsSync(file)) continue
    const lock = tryLock(file)
    if (lock === undefined) continue
    yield { file, record: () => readIntent(root.path, file), done: () => lock.releaseAndUnlink(), leave: () => lock.release() }
  }
}

/** Write down that the layer is to be released as soon as no operation holds it. Returns how to take that back. */
export function deferRelease(root: DataRoot, chainId: ChainId): () => void {
  const dir = ownState.intents(root)
  const file = path.join(dir, `${deferredPrefix}${randomHex(8)}`)
  // Whole at once: whoever finds it takes it up at once.
  atomicWriteSync(file, `freed ${chainId}\n`, { mode: 0o600, sync: root.durability !== 'none' })
  return () => fs.rmSync(file, { force: true })
}
