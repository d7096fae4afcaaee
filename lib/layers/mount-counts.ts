// Who holds a mount: counts that processes share and that survive a crash. Each mounted layer has a small file of holders, changed under a
// kernel lock: processes, by pid and start time, so that the dead do not count; and persistent holds (a command line that mounted and
// went), which end with an unmount or with the boot.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import type { LayerId } from '../ids.ts'
import { isAlive, lock, processIdentity } from '../sys/lock.ts'

export interface Holders {
  /** The boot in which the holds were taken (/proc/sys/kernel/random/boot_id). */
  readonly boot: string
  /** Process identity → number of holds. */
  readonly processes: Readonly<Record<string, number>>
  /** Holds that no process stands for. */
  readonly persistent: number
}

function bootId(): string {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return ''
    throw error
  }
}

const none: Omit<Holders, 'boot'> = { processes: {}, persistent: 0 }

export class MountCounts {
  readonly #dir: string

  /** `dir` holds one file a layer; it must exist. */
  constructor(dir: string) { this.#dir = dir }

  /** How many hold the layer now; the dead are not counted. */
  count(id: LayerId): number {
    return total(this.#read(id))
  }

  /** Take a hold and run `whenFirst` if the layer has no mount to show for it yet. Both or neither. */
  async hold(id: LayerId, persistent: boolean, whenFirst: (alreadyHeld: boolean) => void): Promise<void> {
    await this.#change(id, holders => {
      whenFirst(total(holders) > 0)
      if (persistent) return { ...holders, persistent: holders.persistent + 1 }
      const me = identity()
      return { ...holders, processes: { ...holders.processes, [me]: (holders.processes[me] ?? 0) + 1 } }
    })
  }

  /**
   * Give a hold back, this process's own first, and run `whenLast` if it was the last.
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

  /** Forget all holds, running `work` first; used to unmount by force and before a layer is removed. */
  async clear(id: LayerId, work: (holders: number) => void): Promise<void> {
    await this.#change(id, holders => {
      work(total(holders))
      return { ...holders, ...none }
    })
  }

  async #change(id: LayerId, change: (holders: Holders) => Holders): Promise<void> {
    const file = path.join(this.#dir, id)
    const held = await lock(`${file}.lock`)
    try {
      const next = change(this.#read(id))
      if (total(next) === 0) {
        fs.rmSync(file, { force: true })
        // Removed while locked: whoever waits for it sees that the name is gone, and makes a new one.
        held.releaseAndUnlink()
      } else atomicWriteSync(file, JSON.stringify(next), { mode: 0o600, sync: false })
    } finally {
      held.release()
    }
  }

  #read(id: LayerId): Holders {
    const boot = bootId()
    let text: string
    try {
      text = fs.readFileSync(path.join(this.#dir, id), 'utf8')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return { boot, ...none }
      throw error
    }
    const holders = JSON.parse(text) as Holders
    // Mounts end with the boot, and so does every hold on them.
    if (holders.boot !== boot) return { boot, ...none }
    return { ...holders, processes: Object.fromEntries(Object.entries(holders.processes).filter(([who]) => isAlive(who))) }
  }
}

function identity(): string {
  return processIdentity(process.pid) ?? String(process.pid)
}

function total(holders: Holders): number {
  return Object.values(holders.processes).reduce((sum, n) => sum + n, holders.persistent)
}
