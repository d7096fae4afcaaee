// One visit of a workload: times steps, keeps the samples, and decides how often a step is repeated. Knows neither rounds nor drivers.

import { StorageError } from '../errors.ts'
import type { Stage } from './stage.ts'
import type { Measure } from './types.ts'

/** The workload cannot be run here: no failure, but a reason to be shown. */
export class NotHere extends Error {}

export interface RepeatOptions {
  /** Most repetitions, the one to warm up not counted. Default 20. */
  readonly most?: number
  /** Stop after this much time, but not before the third. Default 120. */
  readonly budgetMs?: number
}

/** A repetition longer than this is a sample at once: warming up would cost more than it gains. */
const longMs = 250

export class Visit {
  readonly stage: Stage
  readonly parameter: number
  readonly quick: boolean
  /** The scratch of the whole run, for what is made once. */
  readonly cache: Map<string, unknown>
  readonly samples = new Map<string, number[]>()
  readonly #measures: ReadonlyMap<string, Measure>
  readonly #signal: AbortSignal | undefined

  constructor(options: { readonly stage: Stage; readonly parameter: number; readonly quick: boolean; readonly measures: readonly Measure[]; readonly cache: Map<string, unknown>; readonly signal?: AbortSignal | undefined }) {
    this.stage = options.stage
    this.parameter = options.parameter
    this.quick = options.quick
    this.cache = options.cache
    this.#measures = new Map(options.measures.map(measure => [measure.name, measure]))
    this.#signal = options.signal
  }

  /** A sample in the measure's unit. */
  record(name: string, value: number): void {
    if (!this.#measures.has(name)) throw new TypeError(`the workload has no measure ${name}`)
    const list = this.samples.get(name)
    if (list === undefined) this.samples.set(name, [value])
    else list.push(value)
  }

  /** Time something synchronous; `times`: it does that many of what the measure is about. Returns milliseconds of the whole. */
  timeSync(name: string, work: () => void, times = 1): number {
    const began = performance.now()
    work()
    return this.#took(name, performance.now() - began, times)
  }

  async time(name: string, work: () => Promise<unknown>, times = 1): Promise<number> {
    const began = performance.now()
    await work()
    return this.#took(name, performance.now() - began, times)
  }

  #took(name: string, ms: number, times: number): number {
    this.record(name, this.#measures.get(name)?.unit === 'µs' ? ms * 1000 / times : ms / times)
    return ms
  }

  /** Run `work` until it has been sampled enough; what the first run recorded is dropped, unless it was long. @throws ABORTED */
  async repeat(work: (i: number) => Promise<void> | void, { most = 20, budgetMs = 120 }: RepeatOptions = {}): Promise<void> {
    let spentMs = 0
    for (let i = 0; i < most + 1; i++) {
      this.checkAborted()
      const began = performance.now()
      await work(i)
      const tookMs = performance.now() - began
      if (i === 0 && tookMs < longMs) this.samples.clear()
      else {
        spentMs += tookMs
        const done = i === 0 || spentMs >= budgetMs && (i >= 3 || tookMs >= longMs)
        if (done) break
      }
      // Signals and timers get their turn.
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  checkAborted(): void {
    if (this.#signal?.aborted === true) throw new StorageError('ABORTED', 'the benchmark was stopped', { op: 'bench' })
  }

  /** Something that is made once in the whole run, such as an archive. */
  once<T>(key: string, make: () => Promise<T>): Promise<T> {
    const known = this.cache.get(key) as Promise<T> | undefined
    const value = known ?? make()
    if (known === undefined) this.cache.set(key, value)
    return value
  }
}
