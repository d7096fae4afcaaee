// Disk use of snapshots without walking a tree on the caller's time more than must be: what is committed is counted once, one at a time
// in the background; what is active is counted when asked, and the answer serves for a while that grows with what it cost.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Usage } from '../driver.ts'
import type { LayerId } from '../ids.ts'

/** An answer that took longer than this serves for a while: what is counted faster is counted whenever it is asked for. */
const cheapMs = 50
/** For this many times the time that it took: polling costs a twentieth of one processor at most. */
const reuse = 20
const settleMs = 200

export class UsageCache {
  readonly #count: (id: LayerId) => Promise<Usage>
  readonly #answers = new Map<LayerId, { readonly usage: Usage; readonly untilMs: number }>()
  readonly #running = new Map<LayerId, Promise<Usage>>()
  #background: Promise<void> = Promise.resolve()
  readonly #stop = new AbortController()
  #closed = false

  constructor(count: (id: LayerId) => Promise<Usage>) { this.#count = count }

  /** Count the layer, or give an answer that is fresh enough. Two who ask at once share one walk. */
  async active(id: LayerId): Promise<Usage> {
    const known = this.#answers.get(id)
    if (known !== undefined && performance.now() < known.untilMs) return known.usage
    return await this.fresh(id)
  }

  /** Count the layer now, or join the count that runs. */
  async fresh(id: LayerId): Promise<Usage> {
    let running = this.#running.get(id)
    if (running === undefined) {
      const startMs = performance.now()
      running = this.#count(id).then(usage => {
        const nowMs = performance.now(), tookMs = nowMs - startMs
        if (tookMs > cheapMs) this.#answers.set(id, { usage, untilMs: nowMs + tookMs * reuse })
        return usage
      }).finally(() => this.#running.delete(id))
      this.#running.set(id, running)
    }
    return await running
  }

  /** Count later, behind what waits already, and hand the result to `keep`. A layer that has gone meanwhile is passed over. */
  later(id: LayerId, keep: (usage: Usage) => void): void {
    this.forget(id)
    this.#background = this.#background.then(async () => {
      // Out of the way of whoever unpacks an image: layer after layer is committed within moments.
      if (!this.#closed) await sleep(settleMs, undefined, { ref: false, signal: this.#stop.signal }).catch(() => undefined)
      if (this.#closed) return
      try {
        keep(await this.#count(id))
      } catch {
        // Removed before its turn came; usage() counts whatever is asked for and was not kept.
      }
    })
  }

  /** The layer is gone or has changed its meaning. */
  forget(id: LayerId): void {
    this.#answers.delete(id)
  }

  /** What waits is dropped; what runs is waited for. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stop.abort()
    await this.#background
  }
}
