// Which visits a round makes, when time is limited: cheap ones come every time, dear ones as often as their share of the time allows, and each at
// least three times where the time suffices for that. Pure.

export const leastRounds = 3

interface Known {
  costMs: number
  done: number
  credit: number
}

export class Schedule {
  readonly #visits = new Map<string, Known>()
  readonly #rounds: number
  readonly #minutes: number | undefined

  /** `minutes` undefined: every visit in every one of the `rounds`. */
  constructor(rounds: number, minutes: number | undefined) {
    this.#rounds = rounds
    this.#minutes = minutes
  }

  /** A visit was made and took so long, set-up and all. */
  took(key: string, ms: number, warming: boolean): void {
    const known = this.#visits.get(key) ?? { costMs: ms, done: 0, credit: 0 }
    // The last one counts most, since the machine's load changes.
    known.costMs = known.done === 0 ? ms : (known.costMs + ms) / 2
    if (!warming) known.done++
    this.#visits.set(key, known)
  }

  dropped(key: string): void {
    this.#visits.delete(key)
  }

  /** Rounds each visit still has coming, once all have been made. */
  #quotas(spentMs: number, left: number): Map<string, number> {
    const quotas = new Map<string, number>()
    if (this.#minutes === undefined) {
      for (const key of this.#visits.keys()) quotas.set(key, left)
      return quotas
    }
    const leftMs = this.#minutes * 60_000 - spentMs
    let least = leastRounds
    const quota = ({ costMs, done }: Known, shareMs: number): number => Math.min(left, Math.max(least - done, shareMs / Math.max(costMs, 0.01), 0))
    const total = (shareMs: number): number => [...this.#visits.values()].reduce((sum, known) => sum + known.costMs * quota(known, shareMs), 0)
    // On a machine too slow for that, the time counts.
    if (total(0) > leftMs) least = 0
    // Every visit gets the same share of the time, as far as it can use it.
    let low = 0, high = Math.max(1, leftMs)
    for (let i = 0; i < 50; i++) {
      const middle = (low + high) / 2
      if (total(middle) > leftMs) high = middle
      else low = middle
    }
    for (const [key, known] of this.#visits) quotas.set(key, quota(known, low))
    return quotas
  }

  /**
   * Tells of each visit whether round `round` (the first is 1) makes it. Asked once a round, since it keeps accounts; visits that were never made are made.
   */
  plan(round: number, spentMs: number): (key: string) => boolean {
    const left = this.#rounds - round + 1
    const quotas = this.#quotas(spentMs, left)
    const chosen = new Set<string>()
    for (const [key, quota] of quotas) {
      const known = this.#visits.get(key) as Known
      known.credit += quota / left
      if (known.credit < 1 - 1e-9) continue
      known.credit -= 1
      chosen.add(key)
    }
    return key => !this.#visits.has(key) || chosen.has(key)
  }

  /** The time that the rounds from `round` on are going to take. */
  remainingMs(round: number, spentMs: number): number {
    let total = 0
    for (const [key, quota] of this.#quotas(spentMs, Math.max(0, this.#rounds - round + 1))) total += quota * (this.#visits.get(key)?.costMs ?? 0)
    return total
  }
}
