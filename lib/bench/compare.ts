// Two results side by side: ratios with their spread, and which of them are real. Pure; prints nothing.
//
// What is compared is the logarithm of a round's typical sample, since a round repeats everything: file systems, stores, layers. A difference is real when
//   1. it is at least `leastChange`, both with the drift of the machine taken out and without,
//   2. a t test finds it, at a chance of at most `alpha` that any one of all cells is called different wrongly (Holm), with a variance that is never
//      taken for less than what cells have on the whole, and to which the differences between the runs that all cells show have been added,
//   3. the ranks agree (Mann and Whitney, p < 0.05), so that no outlier decides: at least four rounds on each side.

import { mannWhitney, mean, median, holm, robustDeviation, studentQuantile, studentTails, typical, variance } from './statistics.ts'
import { cellKey, plain } from './types.ts'
import type { BenchResult, Cell, Unit } from './types.ts'

export interface CompareOptions {
  /** The chance of calling anything different that is not. Default 0.01. */
  readonly alpha?: number
  /** The least difference that matters, as a part: default 0.1, a tenth. */
  readonly leastChange?: number
}

export type Verdict = 'slower' | 'faster' | 'more' | 'less' | 'same' | 'unclear'

export interface ComparedCell {
  readonly cell: Omit<Cell, 'rounds'>
  readonly unit: Unit
  /** Medians of both sides, in the unit. */
  readonly before: number
  readonly after: number
  readonly rounds: readonly [number, number]
  /** After by before, with so much of the drift taken out, from none to all, as brings it nearest to 1. */
  readonly ratio: number
  /** The 95 % interval, whether the drift is taken out or not. */
  readonly low: number
  readonly high: number
  /** Corrected for all comparisons. */
  readonly p: number
  /** `slower`, `faster` (for space `more`, `less`): real. `same`: the interval lies within the least change. Else `unclear`. */
  readonly verdict: Verdict
}

export interface Comparison {
  /** By how much everything was slower (over 1) or faster in the second run. */
  readonly drift: number
  /** The same of what has nothing to do with layerstack: hashing, and files in an ordinary directory. */
  readonly referenceDrift: number
  /** What speaks against comparing the two. */
  readonly notes: readonly string[]
  readonly cells: readonly ComparedCell[]
  readonly alpha: number
  readonly leastChange: number
}

interface Pair {
  readonly cell: Cell
  readonly unit: Unit
  readonly a: readonly number[]
  readonly b: readonly number[]
  readonly difference: number
  readonly error: number
  readonly degrees: number
}

/** Below it a space counts as this: no logarithm of nothing. */
const leastBytes = 4096

/** Cells that only one of the two has, or with fewer than two rounds, are left out. @throws TypeError for what is no result of this version */
export function compareBench(before: BenchResult, after: BenchResult, options: CompareOptions = {}): Comparison {
  const { alpha = 0.01, leastChange = 0.1 } = options
  for (const result of [before, after]) if (result.format !== 'layerstack-bench' || result.version !== 1) throw new TypeError('not a result of layerstack bench')
  const raw = pairsOf(before, after)
  const spread = Math.max(0.0001, median(raw.map(pair => pooled(pair.a, pair.b))) || 0)
  const pairs = raw.map(pair => ({ ...pair, ...welch(pair.a, pair.b, spread) }))
  const { drift, reference } = driftOf(pairs)
  const own = pairs.filter(({ cell }) => cell.driver !== plain)
  const between = betweenRuns(own)
  const total = own.map(pair => Math.sqrt(pair.error ** 2 + between))
  const shares = own.map(pair => shareOf(pair.difference, drift))
  const raws = own.map((pair, i) => studentTails(Math.abs(pair.difference - (shares[i] ?? 0)) / (total[i] ?? 1), pair.degrees))
  const corrected = holm(raws)
  const least = Math.log(1 + leastChange)
  // Found by bisection, and the same for many.
  const quantiles = new Map<number, number>()
  const quantile = (degrees: number): number => {
    const key = Math.floor(degrees * 4) / 4
    const known = quantiles.get(key) ?? studentQuantile(0.05, key)
    quantiles.set(key, known)
    return known
  }
  const cells = own.map((pair, i): ComparedCell => {
    const share = shares[i] ?? 0, shift = pair.difference - share, half = quantile(pair.degrees) * (total[i] ?? 0)
    const low = Math.min(pair.difference, pair.difference - drift) - half, high = Math.max(pair.difference, pair.difference - drift) + half
    const p = corrected[i] ?? 1
    const real = Math.abs(shift) >= least && p < alpha && mannWhitney(pair.a.map(value => value + share), pair.b) < 0.05
    const verdict = real ? words(pair.unit, shift) : low >= -least && high <= least ? 'same' : 'unclear'
    const { rounds: _, ...cell } = pair.cell
    return {
      cell, unit: pair.unit, before: Math.exp(median(pair.a)), after: Math.exp(median(pair.b)), rounds: [pair.a.length, pair.b.length],
      ratio: Math.exp(shift), low: Math.exp(low), high: Math.exp(high), p, verdict,
    }
  })
  return { drift: Math.exp(drift), referenceDrift: Math.exp(reference), notes: notesOf(before, after), cells, alpha, leastChange }
}

function words(unit: Unit, shift: number): Verdict {
  return unit === 'bytes' ? shift > 0 ? 'more' : 'less' : shift > 0 ? 'slower' : 'faster'
}

function pairsOf(before: BenchResult, after: BenchResult): Omit<Pair, 'error' | 'degrees'>[] {
  const old = new Map(before.cells.map(cell => [cellKey(cell), cell]))
  const units = new Map(after.workloads.flatMap(({ name, measures }) => measures.map(measure => [`${name} ${measure.name}`, measure.unit] as const)))
  return after.cells.flatMap(cell => {
    const other = old.get(cellKey(cell))
    const unit = units.get(`${cell.workload} ${cell.measure}`)
    if (other === undefined || unit === undefined || other.rounds.length < 2 || cell.rounds.length < 2) return []
    const [a, b] = [other, cell].map(side => side.rounds.map(samples => Math.log(Math.max(typical(samples), unit === 'bytes' ? leastBytes : 1e-6)))) as [number[], number[]]
    return [{ cell, unit, a, b, difference: mean(b) - mean(a) }]
  })
}

function pooled(a: readonly number[], b: readonly number[]): number {
  return ((a.length - 1) * variance(a) + (b.length - 1) * variance(b)) / (a.length + b.length - 2)
}

/** The error of the difference of two means whose spreads differ, none taken for less than `least`, and its degrees of freedom (Welch and Satterthwaite). */
function welch(a: readonly number[], b: readonly number[], least: number): { error: number; degrees: number } {
  const [x, y] = [a, b].map(side => Math.max(least, variance(side)) / side.length) as [number, number]
  return { error: Math.sqrt(x + y), degrees: (x + y) ** 2 / (x ** 2 / (a.length - 1) + y ** 2 / (b.length - 1)) }
}

/**
 * How much of the drift a difference is charged with: as much as explains most of it. Others' load falls on figures unequally: when it went from ten to three, long
 * steps took 30 % less and short ones as long as before, which must not be called slower for that.
 */
function shareOf(difference: number, drift: number): number {
  return drift < 0 ? Math.min(0, Math.max(drift, difference)) : Math.max(0, Math.min(drift, difference))
}

/**
 * The common shift. It is the machine's when what has nothing to do with layerstack shifted as well, up to a tenth; a shift of everything else alone is the
 * code's, and stays in the ratios.
 */
function driftOf(pairs: readonly Pair[]): { drift: number; reference: number } {
  const references = pairs.filter(({ cell }) => cell.driver === plain)
  const all = median(pairs.map(pair => pair.difference)) || 0
  const reference = references.length === 0 ? all : median(references.map(pair => pair.difference))
  const error = references.length < 3 ? Infinity : 2 * robustDeviation(references.map(pair => pair.difference)) / Math.sqrt(references.length)
  return { drift: Math.abs(all - reference) <= Math.max(Math.log(1.1), error) ? all : reference, reference }
}

/**
 * The variance by which two runs differ beyond what their rounds tell: so much that the differences of all cells, each by its own error and this, spread as chance
 * has it (Paule and Mandel's estimate, with a robust spread, as some code may really have changed).
 */
function betweenRuns(pairs: readonly Pair[]): number {
  if (pairs.length < 10) return 0
  const center = median(pairs.map(pair => pair.difference))
  const spread = (between: number): number => robustDeviation(pairs.map(pair => (pair.difference - center) / Math.sqrt(pair.error ** 2 + between)))
  if (spread(0) <= 1) return 0
  let low = 0, high = 10
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2
    if (spread(middle) > 1) low = middle
    else high = middle
  }
  return high
}

function notesOf(before: BenchResult, after: BenchResult): string[] {
  const notes: string[] = []
  const differ = (what: string, a: unknown, b: unknown): void => { if (String(a) !== String(b)) notes.push(`${what}: ${a} before, ${b} now`) }
  differ('processor', before.machine.cpu, after.machine.cpu)
  differ('processors', before.machine.cpus, after.machine.cpus)
  differ('kernel', before.machine.kernel, after.machine.kernel)
  differ('Node', before.machine.node, after.machine.node)
  differ('durability', before.settings.durability, after.settings.durability)
  if (before.settings.quick !== after.settings.quick) notes.push('one run was quick and the other was not')
  for (const [program, version] of Object.entries(after.machine.programs)) {
    if (before.machine.programs[program] !== undefined) differ(program, before.machine.programs[program], version)
  }
  return notes
}
