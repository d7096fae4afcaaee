// Plots as SVG text: lines over a parameter, dots with intervals, and the ratios of a comparison. Logarithmic axes; shapes and dashes beside colours; every
// mark says its figures when pointed at. Colours and fonts are the page's, by class.

import { formatRatio, formatValue } from './format.ts'
import type { Unit } from '../types.ts'

export interface Point {
  /** The parameter. */
  readonly x: number
  readonly median: number
  readonly low: number
  readonly high: number
  readonly rounds: number
}

export interface Series {
  readonly name: string
  /** Which of the page's looks it has, from 1. */
  readonly look: number
  readonly points: readonly Point[]
}

export interface LinePanel {
  readonly title: string
  /** For those who do not see it. */
  readonly description: string
  readonly series: readonly Series[]
  readonly xTitle: string
  readonly formatX: (value: number) => string
  readonly unit: Unit
  /** The least and the greatest value, the same for panels that stand side by side. */
  readonly range: readonly [number, number]
}

const width = 380, height = 250
const left = 62, right = 14, top = 12, bottom = 44

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
}

let serial = 0

function svg(viewWidth: number, viewHeight: number, title: string, description: string, body: string): string {
  const id = `c${++serial}`
  return `<svg viewBox="0 0 ${viewWidth} ${viewHeight}" role="img" aria-labelledby="${id}t ${id}d"><title id="${id}t">${escape(title)}</title><desc id="${id}d">${escape(description)}</desc>${body}</svg>`
}

function scale(domain: readonly [number, number], from: number, to: number): (value: number) => number {
  const [a, b] = domain.map(Math.log) as [number, number]
  return value => b === a ? (from + to) / 2 : from + (Math.log(value) - a) / (b - a) * (to - from)
}

/** Decades, with 2 and 5 between them when there are few. */
function ticks([low, high]: readonly [number, number]): number[] {
  const found: number[] = []
  const few = Math.log10(high / low) < 2.2
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of few ? [1, 2, 5] : [1]) {
      const value = factor * 10 ** power
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value)
    }
  }
  const step = Math.ceil(found.length / 7)
  return found.filter((_, i) => i % step === 0)
}

/** A range that reaches a little beyond what it holds, and never less than a factor of three. */
export function rangeOf(values: readonly number[]): readonly [number, number] {
  const positive = values.filter(value => value > 0)
  if (positive.length === 0) return [1, 10]
  let low = Math.min(...positive) / 1.25, high = Math.max(...positive) * 1.25
  if (high / low < 3) {
    const middle = Math.sqrt(low * high)
    low = middle / Math.sqrt(3)
    high = middle * Math.sqrt(3)
  }
  return [low, high]
}

const n = (value: number): string => String(Math.round(value * 10) / 10)

/** The shapes of the looks: circle, square, triangle, diamond, triangle upside down, cross. */
export function marker(look: number, x: number, y: number, inside = ''): string {
  const cls = `class="m s${look}"`
  const r = 4.2
  switch (look) {
    case 1: return `<circle ${cls} cx="${n(x)}" cy="${n(y)}" r="${r}">${inside}</circle>`
    case 2: return `<rect ${cls} x="${n(x - 3.8)}" y="${n(y - 3.8)}" width="7.6" height="7.6">${inside}</rect>`
    case 3: return `<path ${cls} d="M${n(x)} ${n(y - 5)}l5 8.6h-10z">${inside}</path>`
    case 4: return `<path ${cls} d="M${n(x)} ${n(y - 5.4)}l5.4 5.4-5.4 5.4-5.4-5.4z">${inside}</path>`
    case 5: return `<path ${cls} d="M${n(x)} ${n(y + 5)}l5-8.6h-10z">${inside}</path>`
    default: return `<path ${cls} d="M${n(x - 1.5)} ${n(y - 5)}h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z">${inside}</path>`
  }
}

function tip(name: string, point: Point, unit: Unit, x: string): string {
  const value = (v: number): string => formatValue(v, unit)
  return `<title>${escape(`${name}${x === '' ? '' : `, ${x}`}: ${value(point.median)} (${value(point.low)} to ${value(point.high)}, ${point.rounds} rounds)`)}</title>`
}

export function linePanel({ title, description, series, xTitle, formatX, unit, range }: LinePanel): string {
  const values = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b)
  const x = scale([values[0] ?? 1, values.at(-1) ?? 1], left + 16, width - right - 16)
  const y = scale(range, height - bottom, top)
  const grid = ticks(range).map(value => `<line class="g" x1="${left}" x2="${width - right}" y1="${n(y(value))}" y2="${n(y(value))}"/><text class="t e" x="${left - 7}" y="${n(y(value) + 4)}">${formatValue(value, unit)}</text>`).join('')
  let lastLabel = -Infinity
  const xLabels = values.map(value => {
    const at = x(value), text = formatX(value)
    const tickMark = `<line class="a" x1="${n(at)}" x2="${n(at)}" y1="${height - bottom}" y2="${height - bottom + 4}"/>`
    if (at - lastLabel < text.length * 6.2 + 6) return tickMark
    lastLabel = at
    return `${tickMark}<text class="t c" x="${n(at)}" y="${height - bottom + 18}">${escape(text)}</text>`
  }).join('')
  const axis = `<line class="a" x1="${left}" x2="${width - right}" y1="${height - bottom}" y2="${height - bottom}"/><text class="t c" x="${n((left + width - right) / 2)}" y="${height - 8}">${escape(xTitle)}</text>`
  const lines = series.map(({ name, look, points }) => {
    const shown = points.filter(({ median }) => median > 0)
    const path = shown.length < 2 ? '' : `<path class="l s${look}" d="M${shown.map(point => `${n(x(point.x))} ${n(y(point.median))}`).join('L')}"/>`
    return path + shown.map(point => whisker(look, x(point.x), y(Math.max(point.low, range[0])), y(Math.min(point.high, range[1])))).join('')
      + shown.map(point => marker(look, x(point.x), y(point.median), tip(name, point, unit, formatX(point.x)))).join('')
  }).join('')
  return svg(width, height, title, description, grid + axis + xLabels + lines)
}

function whisker(look: number, x: number, from: number, to: number): string {
  return Math.abs(from - to) < 3 ? '' : `<path class="w s${look}" d="M${n(x)} ${n(from)}V${n(to)}M${n(x - 3)} ${n(from)}h6M${n(x - 3)} ${n(to)}h6"/>`
}

export interface DotRow {
  readonly group: string
  readonly name: string
  readonly look: number
  readonly point: Point
}

/** Rows of dots with intervals on one axis, in groups. */
export function dotPanel(options: { readonly title: string; readonly description: string; readonly rows: readonly DotRow[]; readonly unit: Unit }): string {
  const { rows, unit, title, description } = options
  const range = rangeOf(rows.flatMap(({ point }) => [point.low, point.median, point.high]))
  const label = 104, value = 66, rowHeight = 19, groupHeight = 22
  const x = scale(range, label + 8, width - value - 8)
  let at = 4
  let body = ''
  let group = ''
  const groups = new Set(rows.map(row => row.group)).size
  for (const row of rows) {
    if (row.group !== group && groups > 1) {
      group = row.group
      body += `<text class="t h" x="0" y="${n(at + 14)}">${escape(group)}</text>`
      at += groupHeight
    }
    const y = at + rowHeight / 2
    const { median, low, high } = row.point
    body += `<line class="g" x1="${label}" x2="${width - value}" y1="${n(y)}" y2="${n(y)}"/><text class="t e" x="${label - 6}" y="${n(y + 4)}">${escape(row.name)}</text>`
    if (median > 0) {
      const from = x(Math.max(low, range[0])), to = x(Math.min(high, range[1]))
      if (to - from > 3) body += `<path class="w s${row.look}" d="M${n(from)} ${n(y)}H${n(to)}M${n(from)} ${n(y - 3)}v6M${n(to)} ${n(y - 3)}v6"/>`
      body += marker(row.look, x(median), y, tip(groups > 1 ? `${row.name} on ${row.group}` : row.name, row.point, unit, ''))
    }
    body += `<text class="t v" x="${width - value + 4}" y="${n(y + 4)}">${formatValue(median, unit)}</text>`
    at += rowHeight
  }
  const all = ticks(range).map(tick => `<line class="g d" x1="${n(x(tick))}" x2="${n(x(tick))}" y1="2" y2="${n(at + 3)}"/>`).join('')
  let last = -Infinity
  const labels = ticks(range).map(tick => {
    const text = formatValue(tick, unit), center = x(tick)
    if (center - last < text.length * 6.5 + 8) return ''
    last = center
    return `<text class="t c" x="${n(center)}" y="${n(at + 17)}">${text}</text>`
  }).join('')
  return svg(width, at + 24, title, description, all + body + labels)
}

export interface RatioMark {
  readonly name: string
  readonly ratio: number
  readonly low: number
  readonly high: number
  readonly real: boolean
}

/** All ratios of a comparison in ascending order with their intervals; real ones stand out. */
export function ratioPanel(options: { readonly title: string; readonly description: string; readonly marks: readonly RatioMark[] }): string {
  const marks = [...options.marks].sort((a, b) => a.ratio - b.ratio)
  const wide = 1100, tall = 260, from = 56
  const clamp = (value: number): number => Math.min(8, Math.max(1 / 8, value))
  const reach = Math.max(1.5, ...marks.map(({ ratio }) => clamp(Math.max(ratio, 1 / ratio)))) * 1.15
  const range: readonly [number, number] = [1 / reach, reach]
  const y = scale(range, tall - 22, 10)
  const grid = [1 / 8, 1 / 4, 1 / 2, 0.8, 1, 1.25, 2, 4, 8].filter(value => value > range[0] && value < range[1])
    .map(value => `<line class="${value === 1 ? 'a' : 'g'}" x1="${from}" x2="${wide - 6}" y1="${n(y(value))}" y2="${n(y(value))}"/><text class="t e" x="${from - 7}" y="${n(y(value) + 4)}">${formatRatio(value)} ×</text>`).join('')
  const step = (wide - from - 16) / Math.max(1, marks.length)
  const inside = (value: number): number => y(Math.min(range[1], Math.max(range[0], value)))
  const drawn = marks.map((mark, i) => {
    const x = from + 8 + (i + 0.5) * step
    const title = `<title>${escape(`${mark.name}: ${formatRatio(mark.ratio)} × (${formatRatio(mark.low)} to ${formatRatio(mark.high)})${mark.real ? ', real' : ''}`)}</title>`
    const bar = `<line class="${mark.real ? 'r' : 'q'}" x1="${n(x)}" x2="${n(x)}" y1="${n(inside(mark.low))}" y2="${n(inside(mark.high))}">${title}</line>`
    return bar + (mark.real ? `<circle class="rm" cx="${n(x)}" cy="${n(inside(mark.ratio))}" r="4.5">${title}</circle>` : `<circle class="qm" cx="${n(x)}" cy="${n(inside(mark.ratio))}" r="1.6"/>`)
  }).join('')
  return svg(wide, tall, options.title, options.description, `${grid}${drawn}<text class="t c" x="${wide / 2}" y="${tall - 4}">all figures, in the order of their ratio</text>`)
}
