// Progress of a benchmark on a terminal: one line, rewritten, with what is measured now and the time that is left. Draws when it is told something, for
// the main thread is in the middle of a measurement otherwise. Silent where stderr is no terminal.

import { formatParameter, formatSeconds } from '../bench/report/format.ts'
import type { BenchProgress, BenchWorkload } from '../index.ts'
import type { Screen } from './progress.ts'
import { hasColor } from './style.ts'

const frameMs = 80
const barWidth = 24
const hideCursor = '\x1b[?25l', showCursor = '\x1b[?25h'

export class BenchLine implements Disposable {
  readonly #screen: Screen
  readonly #workloads: ReadonlyMap<string, BenchWorkload>
  readonly #restore = (): void => { this.#screen.write(showCursor) }
  #drawnMs = -Infinity
  #shown = false

  constructor(workloads: readonly BenchWorkload[], screen: Screen = process.stderr) {
    this.#screen = screen
    this.#workloads = new Map(workloads.map(work => [work.name, work]))
  }

  update(progress: BenchProgress): void {
    const nowMs = performance.now()
    if (this.#screen.isTTY !== true || process.env['TERM'] === 'dumb' || nowMs - this.#drawnMs < frameMs) return
    this.#drawnMs = nowMs
    if (!this.#shown) {
      this.#screen.write(hideCursor)
      process.once('exit', this.#restore)
    }
    this.#shown = true
    this.#screen.write(`\r\x1b[K${this.#line(progress)}`)
  }

  #line({ round, done, remainingMs, backing, driver, workload, parameter }: BenchProgress): string {
    const filled = Math.round(done * barWidth)
    const bar = `${'━'.repeat(filled)}${' '.repeat(barWidth - filled)}`
    const work = this.#workloads.get(workload)
    const fields = [
      round === 0 ? 'Warming up' : `Round ${round}`.padEnd(10), bar, remainingMs === undefined ? '' : `${formatSeconds(remainingMs / 1000)} left`,
      `${driver} on ${backing}: ${work?.title ?? workload}${parameter === undefined ? '' : `, ${formatParameter(parameter, work?.parameter)}`}`,
    ].filter(field => field !== '')
    const text = [...fields.join('  ')].slice(0, (this.#screen.columns || 80) - 1).join('')
    return hasColor(this.#screen) ? text.replace(bar, `\x1b[36m${bar}\x1b[39m`) : text
  }

  /** Wipe the line and show the cursor. Idempotent. */
  stop(): void {
    if (!this.#shown) return
    this.#shown = false
    this.#drawnMs = -Infinity
    this.#screen.write('\r\x1b[K')
    this.#restore()
    process.off('exit', this.#restore)
  }

  [Symbol.dispose](): void {
    this.stop()
  }
}
