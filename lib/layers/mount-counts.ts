// Who holds a mount: counts that processes share and that survive a crash. Each mounted layer has a small file of holders, changed under a
// kernel lock: processes, by pid and start time, so that the dead do not count; and persistent holds (a command line that mounted and
// went), which end with an unmount or with the boot.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError, told } from '../errors.ts'
import { isLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { unlinkIfThere } from '../sys/files.ts'
import { isAlive, isLocked, lock, processIdentity } from '../sys/lock.ts'

export interface Holders {
  /** The boot in which the holds were taken (/proc/sys/kernel/random/boot_id). */
  readonly boot: string
  /** Process identity → number of holds. */
  readonly processes: Readonly<Record<string, number>>
  /** Holds that no process stands for. */
  readonly persistent: number
}

/** What does not change while the process runs: two reads of /proc, 25 µs, are saved at each mount and unmount. */
function once(read: () => string): () => string {
  let known: string | undefined
  return () => known ??= read()
}

export const bootId = once(() => {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return ''
    throw error
  }
})

const none: Omit<Holders, 'boot'> = { processes: {}, persistent: 0 }

export class MountCounts {
  readonly #dir: string

  /** `dir` holds one file a layer; it must exist. */
  constructor(dir: string) { this.#dir = dir }

  /** How many hold the layer now; the dead are not counted. */
  count(id: LayerId): number {
    return total(this.#read(id))
  }

  /** Take a hold after `work` has seen to it that there is a mount to hold. Both or neither: `undo` is for a hold that cannot be written down. */
  async hold(id: LayerId, persistent: boolean, work: () => void, undo?: () => void): Promise<void> {
    await this.#change(id, holders => {
      work()
      if (persistent) return { ...holders, persistent: holders.persistent + 1 }
      const me = identity()
      return { ...holders, processes: { ...holders.processes, [me]: (holders.processes[me] ?? 0) + 1 } }
    }, undo)
  }

  /**
   * Give back one of this process's own holds, or a persistent one, and run `whenLast` if it was the last.
   * @throws FAILED_PRECONDITION when there is none to give back
   */
  async drop(id: LayerId, persistent: boolean, whenLast: () => void): Promise<void> {
    await this.#change(id, holders => {
      const me = identity()
      const mine = holders.processes[me] ?? 0
      let next: Holders
      if (!persistent && mine > 0) {
        const { [me]: _, ...others } = holders.processes
        next = { ...holders, processes: mine > 1 ? { ...others, [me]: mine - 1 } : others }
      } else if (persistent && holders.persistent > 0) next = { ...holders, persistent: holders.persistent - 1 }
      else throw new StorageError('FAILED_PRECONDITION', `layer ${id} is not mounted`, { op: 'unmount', key: id })
      if (total(next) === 0) whenLast()
      return next
    })
  }

  /** Run `whenNone` if nobody holds the layer, and forget the dead. */
  async settle(id: LayerId, whenNone: () => void): Promise<void> {
    await this.#change(id, holders => {
      if (total(holders) === 0) whenNone()
      return holders
    })
  }

  /** Layers of which there is a count or a lock: of holders, of the dead, or of a change under way, which is passed over. */
  noted(): LayerId[] {
    // Beside them lie mount points, called `ID.mnt`.
    const ids = new Set(fs.readdirSync(this.#dir).map(name => name.replace(/\.(lock|new)$/, '')).filter(isLayerId).filter(name => !name.endsWith('.mnt')))
    return [...ids].filter(id => !isLocked(path.join(this.#dir, `${id}.lock`)))
  }

  /** Forget all holds, running `work` first; used to unmount by force and while a layer is removed. */
  async clear(id: LayerId, work: (holders: number) => void | Promise<void>): Promise<void> {
    await this.#change(id, async holders => {
      await work(total(holders))
      return { ...holders, ...none }
    })
  }

  async #change(id: LayerId, change: (holders: Holders) => Holders | Promise<Holders>, undo?: () => void): Promise<void> {
    try {
      await this.#changeLocked(id, change, undo)
    } catch (error) {
      throw told(error, `counting who has layer ${id} mounted`, { key: id })
    }
  }

  async #changeLocked(id: LayerId, change: (holders: Holders) => Holders | Promise<Holders>, undo: (() => void) | undefined): Promise<void> {
    const file = path.join(this.#dir, id)
    const held = await lock(`${file}.lock`)
    // Until it is known: what could not be read is not forgotten.
    let left = 1
    try {
      const before = this.#read(id)
      left = total(before)
      const next = await change(before)
      left = total(next)
      if (left > 0) {
        try {
          write(file, JSON.stringify(next))
        } catch (error) {
          left = total(before)
          if (left === 0) undo?.()
          throw error
        }
      }
    } finally {
      if (left === 0) {
        try {
          for (const gone of [file, `${file}.new`]) if (fs.existsSync(gone)) unlinkIfThere(gone)
        } finally {
          // Removed while locked: whoever waits for it sees that the name is gone, and makes a new one.
          held.releaseAndUnlink()
        }
      } else held.release()
    }
  }

  #read(id: LayerId): Holders {
    const boot = bootId()
    // Most ask of a layer that nobody has mounted, and to learn that from an exception costs 20 µs.
    if (!fs.existsSync(path.join(this.#dir, id))) return { boot, ...none }
    let text: string
    try {
      text = fs.readFileSync(path.join(this.#dir, id), 'utf8')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return { boot, ...none }
      throw error
    }
    const holders = decode(text)
    // Mounts end with the boot, and so does every hold on them. The file is not synced: what a power cut spoilt is of an earlier boot, too.
    if (holders?.boot !== boot) return { boot, ...none }
    return { ...holders, processes: Object.fromEntries(Object.entries(holders.processes).filter(([who]) => who === identity() || isAlive(who))) }
  }
}

/** Only the holder of the lock writes it, so that a kill leaves one name, which the next change takes over. */
function write(file: string, text: string): void {
  if (!fs.existsSync(file)) {
    // The first hold, in its place: whoever reads half of it, now or after a kill, finds what was so until now, that nobody holds it.
    const fd = fs.openSync(file, 'wx', 0o600)
    try {
      fs.writeFileSync(fd, text)
    } catch (error) {
      fs.unlinkSync(file)
      throw error
    } finally {
      fs.closeSync(fd)
    }
    return
  }
  fs.writeFileSync(`${file}.new`, text, { mode: 0o600 })
  fs.renameSync(`${file}.new`, file)
}

function decode(text: string): Holders | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || !('boot' in value && 'processes' in value && 'persistent' in value)) return undefined
    return value as Holders
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

const identity = once(() => processIdentity(process.pid) ?? String(process.pid))

function total(holders: Holders): number {
  return Object.values(holders.processes).reduce((sum, n) => sum + n, holders.persistent)
}
