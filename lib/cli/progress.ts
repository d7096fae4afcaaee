// Progress on a terminal: a line for the whole and one for each part under way, with rate and time left; all wiped at the end. Silent where stderr is
// no terminal, and for what takes less than a moment.

import { styleText } from 'node:util'
import { hasColor } from './style.ts'
import { humanSize } from './units.ts'

const delayMs = 300
const frameMs = 100
const barWidth = 20
const hideCursor = '\x1b[?25l', showCursor = '\x1b[?25h'

interface Part {
  readonly label: string
  done: number
  total: number | undefined
  beganMs: number
}

/** Where the lines go: stderr, or in a test something like it. */
export interface Screen {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly rows?: number
  write(text: string): unknown
}

export class Progress implements Disposable {
  readonly #title: string
  readonly #screen: Screen
  readonly #parts = new Map<string, Part>()
  readonly #beganMs = performance.now()
  #timer: NodeJS.Timeout | undefined
  #lines = 0
  #hidden = false
  readonly #restore = (): void => { if (this.#hidden) this.#screen.write(showCursor) }

  constructor(title: string, screen: Screen = process.stderr) {
    this.#title = title
    this.#screen = screen
    if (screen.isTTY !== true || process.env['TERM'] === 'dumb') return
    this.#timer = setTimeout(() => {
      this.#hidden = true
      screen.write(hideCursor)
      process.once('exit', this.#restore)
      this.#draw()
      this.#timer = setInterval(() => this.#draw(), frameMs)
      this.#timer.unref()
    }, delayMs)
    this.#timer.unref()
  }

  /** `done` of `total` bytes of one part; the total may not be known. */
  update(key: string, label: string, done: number, total?: number): void {
    if (this.#timer === undefined) return
    const part = this.#parts.get(key)
    if (part === undefined) this.#parts.set(key, { label, done, total, beganMs: performance.now() })
    else {
      // Announced long before it began, perhaps: its rate counts from its first bytes.
      if (part.done === 0 && done > 0) part.beganMs = performance.now()
      part.done = done
      part.total = total
    }
  }

  /** Wipe the lines and show the cursor. Idempotent. */
  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#wipe()
    this.#restore()
    this.#hidden = false
    process.off('exit', this.#restore)
  }

  [Symbol.dispose](): void {
    this.stop()
  }

  #wipe(): void {
    if (this.#lines > 0) this.#screen.write(`\x1b[${this.#lines}A\r\x1b[J`)
    this.#lines = 0
  }

  #draw(): void {
    const all = [...this.#parts.values()]
    const busy = all.filter(part => part.total === undefined || part.done < part.total)
    const totals = all.map(part => part.total)
    const total = totals.every(value => value !== undefined) && totals.length > 0 ? totals.reduce((sum, value) => sum + value, 0) : undefined
    const whole: Part = { label: this.#title, done: all.reduce((sum, part) => sum + part.done, 0), total, beganMs: this.#beganMs }
    // One part says nothing that the whole does not say.
    const shown = all.length > 1 ? busy.slice(0, Math.max(0, Math.min(8, (this.#screen.rows || 24) - 3))) : []
    const lines = [whole, ...shown].map((part, i) => this.#line(part, i > 0))
    this.#wipe()
    this.#screen.write(lines.map(line => `${line}\n`).join(''))
    this.#lines = lines.length
  }

  #line({ label, done, total, beganMs }: Part, indented: boolean): string {
    const seconds = (performance.now() - beganMs) / 1000
    const rate = seconds > 0 ? done / seconds : 0
    const fields = [`${indented ? '  ' : ''}${label}`.padEnd(14)]
    let bar = ''
    if (total !== undefined && total > 0) {
      const filled = Math.round(Math.min(1, done / total) * barWidth)
      bar = `${'━'.repeat(filled)}${' '.repeat(barWidth - filled)}`
      fields.push(bar, `${humanSize(done, 3)}/${humanSize(total, 3)}`)
    } else fields.push(done > 0 ? humanSize(done, 3) : clock(seconds))
    if (done > 0) fields.push(`${humanSize(rate, 3)}/s`)
    if (total !== undefined && done > 0 && done < total) fields.push(`${clock((total - done) / rate)} left`)
    // A line that wraps would be counted as one and leave a rest behind.
    const text = [...fields.join('  ')].slice(0, (this.#screen.columns || 80) - 1).join('')
    return bar !== '' && hasColor(this.#screen) ? text.replace(bar, styleText('cyan', bar)) : text
  }
}

function clock(seconds: number): string {
  const whole = Math.round(seconds)
  return whole < 60 ? `${whole}s` : whole < 3600 ? `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, '0')}s` : `${Math.floor(whole / 3600)}h${String(Math.floor(whole / 60) % 60).padStart(2, '0')}m`
}
