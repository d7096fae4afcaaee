// Intents: before an operation makes something that could be left behind, it says so in a small file that it holds locked. Whoever finds
// one whose lock is free rolls back what it names. No scan of the store is needed to know what a crash left.
//
// A file is a list of lines, appended and synced before the deed: `layer ID`, `path PATH`, `hold CHAINID`, `published CHAINID`. A last line
// without its newline was never acted upon.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { syncDirectorySync } from '../fs/atomic.ts'
import { isDigest, parseLayerId } from '../ids.ts'
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
  /** Layers made visible that may have no user yet. */
  readonly published: readonly ChainId[]
}

export class Intent {
  readonly #file: string
  readonly #lock: Lock
  readonly #fd: number
  readonly #sync: boolean

  constructor(file: string, lock: Lock, fd: number, sync: boolean) {
    this.#file = file
    this.#lock = lock
    this.#fd = fd
    this.#sync = sync
  }

  /** Begin. Nothing is written down until something is named. */
  static begin(root: DataRoot, name: string): Intent {
    const dir = ownState.intents(root)
    const file = path.join(dir, `${name.replaceAll(/[^a-z0-9-]/g, '-')}-${randomBytes(8).toString('hex')}`)
    const lock = tryLock(file)
    if (lock === undefined) throw new StorageError('LOCKED', `intent ${file} is held by somebody else`)
    const sync = root.durability !== 'none'
    const fd = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_APPEND)
    if (sync) syncDirectorySync(dir)
    return new Intent(file, lock, fd, sync)
  }

  note(kind: 'layer' | 'path' | 'hold' | 'published', values: readonly string[]): void {
    if (values.length === 0) return
    fs.writeSync(this.#fd, values.map(value => `${kind} ${value}\n`).join(''))
    if (this.#sync) fs.fdatasyncSync(this.#fd)
  }

  /** What it says so far. */
  record(): IntentRecord {
    return readIntent(this.#file)
  }

  /** Leave it to the next process that opens the store. */
  leave(): void {
    fs.closeSync(this.#fd)
    this.#lock.release()
  }

  /** The operation is over, nothing is left to undo. */
  end(): void {
    fs.closeSync(this.#fd)
    this.#lock.releaseAndUnlink()
  }
}

export function readIntent(file: string): IntentRecord {
  const layers: LayerId[] = [], paths: string[] = [], holds: ChainId[] = [], published: ChainId[] = []
  for (const line of fs.readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
    const at = line.indexOf(' ')
    const kind = line.slice(0, at), value = line.slice(at + 1)
    if (kind === 'layer') layers.push(parseLayerId(value))
    else if (kind === 'path') paths.push(value)
    else if (kind === 'hold' && isDigest(value)) holds.push(value as ChainId)
    else if (kind === 'published' && isDigest(value)) published.push(value as ChainId)
    else throw new StorageError('CORRUPT', `intent ${file} has a line that nobody writes: ${JSON.stringify(line)}`, { path: file })
  }
  return { name: path.basename(file), layers, paths, holds, published }
}

function intentFiles(root: DataRoot): string[] {
  const dir = ownState.intents(root)
  try {
    return fs.readdirSync(dir).filter(name => !name.endsWith('.owner')).map(name => path.join(dir, name))
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

/** Every intent there is, in whatever state: what operations of all processes use now. */
export function* allIntents(root: DataRoot): Generator<IntentRecord> {
  for (const file of intentFiles(root)) {
    try {
      yield readIntent(file)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }
}

/** Intents whose process is gone, each locked for us: undo what it says, then call `done`. */
export function* abandonedIntents(root: DataRoot): Generator<{ readonly record: IntentRecord; done(): void; leave(): void }> {
  for (const file of intentFiles(root)) {
    // A file that has vanished meanwhile must not be made again by locking it.
    if (!fs.existsSync(file)) continue
    const lock = tryLock(file)
    if (lock === undefined) continue
    const record = readIntent(file)
    yield { record, done: () => lock.releaseAndUnlink(), leave: () => lock.release() }
  }
}
