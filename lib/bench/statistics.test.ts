// The statistics against values from tables and against enumeration.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { holm, mannWhitney, median, medianInterval, normalTail, robustDeviation, studentQuantile, studentTails, typical, variance } from './statistics.ts'

const test = suite('statistics')

function close(actual: number, expected: number, within: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= within, `${what}: ${actual}, not ${expected}`)
}

test('medians, quartiles, spreads', () => {
  assert.is(median([3, 1, 2]), 2)
  assert.is(median([4, 1, 2, 3]), 2.5)
  assert.is(typical([9]), 9)
  assert.is(typical([5, 1, 4, 2, 3]), 2)
  assert.is(variance([2, 4, 4, 4, 5, 5, 7, 9]), 32 / 7)
  assert.is(variance([1]), 0)
  close(robustDeviation([1, 2, 3, 4, 1000]), 1.4826, 1e-12, 'an outlier does not count')
})

test('order statistics around the median, as tables have them', () => {
  // Conover, Practical Nonparametric Statistics, table A3: n = 6 takes the extremes, 9 the second, 20 the sixth, at 95 % at least.
  for (const [n, rank, coverage] of [[6, 0, 0.96875], [8, 0, 0.9921875], [9, 1, 0.9609375], [12, 2, 0.961425781], [20, 5, 0.958610535]] as const) {
    const interval = medianInterval(Array.from({ length: n }, (_, i) => i + 1))
    assert.is(interval.low, rank + 1, `lower of ${n}`)
    assert.is(interval.high, n - rank, `upper of ${n}`)
    close(interval.coverage, coverage, 1e-8, `coverage of ${n}`)
  }
  assert.equal(medianInterval([7]), { median: 7, low: 7, high: 7, coverage: 0, count: 1 })
  assert.is(medianInterval([1, 2, 3]).coverage, 0.75)
})

test('tails of the normal and of Student\'s distribution', () => {
  close(normalTail(1.959964), 0.025, 1e-7, 'normal')
  close(normalTail(-1), 0.841344746, 1e-8, 'normal, below')
  close(studentTails(2.228139, 10), 0.05, 1e-6, 't, 10 degrees')
  close(studentTails(12.7062, 1), 0.05, 1e-6, 't, 1 degree')
  // Integrated numerically by Simpson's rule, elsewhere.
  close(studentTails(6.0, 14), 3.2547759e-5, 1e-11, 't, far out')
  close(studentQuantile(0.05, 14), 2.144787, 1e-5, 'quantile')
})

/** Every way to choose which of n + m ranks are a's. */
function enumerated(a: readonly number[], b: readonly number[]): number {
  const all = [...a, ...b]
  const u = (chosen: ReadonlySet<number>): number => {
    let sum = 0
    all.forEach((x, i) => { if (chosen.has(i)) all.forEach((y, j) => { if (!chosen.has(j) && x > y) sum++ }) })
    return Math.min(sum, a.length * b.length - sum)
  }
  const own = u(new Set(a.keys()))
  let count = 0, total = 0
  for (let bits = 0; bits < 1 << all.length; bits++) {
    const chosen = new Set([...all.keys()].filter(i => (bits >> i & 1) === 1))
    if (chosen.size !== a.length) continue
    total++
    if (u(chosen) <= own) count++
  }
  return count / total
}

test('Mann and Whitney, exact, as enumeration has it', () => {
  for (const [a, b] of [[[1, 2, 3, 4], [5, 6, 7, 8, 9]], [[1, 4, 6], [2, 3, 5, 7, 8]], [[3, 1, 4.5, 9], [2.6, 5.3, 5.8, 9.7]]] as const) {
    close(mannWhitney(a, b), Math.min(1, enumerated(a, b)), 1e-12, `${a} | ${b}`)
  }
  assert.is(mannWhitney([1, 1, 1], [1, 1, 1]), 1)
  // Twelve and twelve, quite apart: 2 / C(24, 12).
  close(mannWhitney(Array.from({ length: 12 }, (_, i) => i), Array.from({ length: 12 }, (_, i) => 20 + i)), 2 / 2_704_156, 1e-12, 'far apart')
  // With ties the corrected normal approximation: U = 6.5, ties of 3, 2 and 3, so z = 11 / sqrt(3 (13 - 54 / 132)) = 1.7898.
  close(mannWhitney([1, 2, 2, 3, 4, 5], [2, 4, 5, 5, 6, 7]), 0.0734867, 1e-6, 'ties')
})

test('Holm\'s correction', () => {
  assert.equal(holm([0.01, 0.04, 0.03, 0.005]).map(p => Number(p.toFixed(6))), [0.03, 0.06, 0.06, 0.02])
  assert.equal(holm([0.5, 0.9]), [1, 1])
})
