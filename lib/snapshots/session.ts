// Sessions: a process that makes snapshot layers says beforehand, in a file that it holds locked, which ids it may be making. Whoever
// finds such a file with its lock free removes what of these ids is in no catalogue. No scan is needed, and a snapshot costs no file.
//
// The file holds `FROM TO`: ids `sn-<session>-<n>` with FROM <= n < TO may be half made; those before are in the catalogue or gone.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { syncDirectorySync } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { parseLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { tryLock } from '../sys/lock.ts'
import type { Lock } from '../sys/lock.ts'

/** Ids reserved by one write. */
const block = 64
const namePattern = /^[a-z2-7]{13}$/
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'

/** Begins the driver's id of every snapshot layer, and of no other layer. */
export const snapshotIdPrefix = 'sn-'

export class Session {
  readonly name: string
  readonly #lock: Lock
  readonly #fd: number
  readonly #sync: boolean
  readonly #making = new Set<number>()
  #next = 0
  #reserved = 0

  private constructor(file: string, lock: Lock, fd: number, sync: boolean) {
    this.name = path.basename(file)
    this.#lock = lock
    this.#fd = fd
    this.#sync = sync
  }

  static begin(dir: string, sync: boolean): Session {
    let name = ''
    for (const byte of randomBytes(13)) name += alphabet[byte & 31]
    const file = path.join(dir, name)
    const lock = tryLock(file)
    if (lock === undefined) throw new StorageError('LOCKED', `session ${file} is held by somebody else`, { path: file })
    try {
      const fd = fs.openSync(file, fs.constants.O_WRONLY)
      if (sync) syncDirectorySync(dir)
      return new Session(file, lock, fd, sync)
    } catch (error) {
      // Without a descriptor left, say: nothing is being made yet.
      lock.releaseAndUnlink()
      throw error
    }
  }

  /** A new id, known to be in the making until `settled`. */
  next(): LayerId {
    if (this.#next === this.#reserved) this.#reserve()
    const n = this.#next++
    this.#making.add(n)
    return idOf(this.name, n)
  }

  /** A new id of which nothing will ever be on disk. */
  fleeting(): LayerId {
    const id = this.next()
    this.settled(id)
    return id
  }

  /** The id is in the catalogue, or nothing of it is left. */
  settled(id: LayerId): void {
    this.#making.delete(Number(id.slice(id.lastIndexOf('-') + 1)))
  }

  get idle(): boolean { return this.#making.size === 0 }

  #reserve(): void {
    const from = Math.min(this.#next, ...this.#making)
    this.#reserved += block
    // One write of one sector, in place: whole or not at all.
    fs.writeSync(this.#fd, `${from} ${this.#reserved}`.padEnd(63) + '\n', 0)
    if (this.#sync) fs.fdatasyncSync(this.#fd)
  }

  /** The file goes when nothing is in the making; else it stays for whoever comes next. */
  close(): void {
    fs.closeSync(this.#fd)
    if (this.idle) this.#lock.releaseAndUnlink()
    else this.#lock.release()
  }
}

function idOf(session: string, n: number): LayerId {
  return parseLayerId(`${snapshotIdPrefix}${session}-${n}`)
}

export interface DeadSession {
  readonly name: string
  /** What it may have been making. */
  readonly ids: readonly LayerId[]
  done(): void
  leave(): void
}

/** Is there a session without its process? Cheap, and takes nothing. */
export function hasDeadSession(dir: string): boolean {
  return sessionFiles(dir).some(file => {
    const lock = fs.existsSync(file) ? tryLock(file) : undefined
    lock?.release()
    return lock !== undefined
  })
}

/** Sessions whose process is gone, each locked for the caller. */
export function* deadSessions(dir: string): Generator<DeadSession> {
  for (const file of sessionFiles(dir)) {
    // A file that has vanished meanwhile must not be made again by locking it.
    if (!fs.existsSync(file)) continue
    const lock = tryLock(file)
    if (lock === undefined) continue
    const name = path.basename(file)
    const found = /^(\d+) (\d+) *\n$/.exec(fs.readFileSync(file, 'latin1'))
    // Empty: it died before it made anything.
    const from = Number(found?.[1] ?? 0), to = Number(found?.[2] ?? 0)
    yield {
      name, ids: Array.from({ length: Math.max(0, to - from) }, (_, i) => idOf(name, from + i)),
      done: () => lock.releaseAndUnlink(), leave: () => lock.release(),
    }
  }
}

function sessionFiles(dir: string): string[] {
  return namesIn(dir).filter(name => namePattern.test(name)).map(name => path.join(dir, name))
}
