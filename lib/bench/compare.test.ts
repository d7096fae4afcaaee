// Comparisons on made-up results: identical code is not flagged, a real shift is, and the machine's own drift is told from both.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { compareBench } from './compare.ts'
import { median } from './statistics.ts'
import type { BenchResult, Cell } from './types.ts'

const test = suite('compare results')

/** Uniform numbers that are the same in every run (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = state + 0x6d2b79f5 | 0
    let t = Math.imul(state ^ state >>> 15, 1 | state)
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32
  }
}

interface World {
  readonly cells: number
  readonly rounds: number
  /** Standard deviation of the logarithm from round to round; every third cell has three times as much. */
  readonly noise: number
  /** One round in so many takes up to twice as long. */
  readonly outlierEvery: number
  /** Of each cell, from run to run. */
  readonly between: number
}

const ordinary: World = { cells: 100, rounds: 8, noise: 0.05, outlierEvery: 15, between: 0.02 }

function made(random: () => number, world: World, shiftOf: (cell: number) => number = () => 1, referenceShift = 1): BenchResult {
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const cell = (at: number, driver: string, shift: number): Cell => {
    const own = Math.exp(world.between * normal()) * (at + 1) * shift
    const noise = world.noise * (at % 3 === 0 ? 3 : 1)
    return {
      workload: driver === 'plain' ? 'reference' : 'work', measure: 'time', parameter: at, backing: 'ext4', driver,
      rounds: Array.from({ length: world.rounds }, () => [own * Math.exp(noise * normal()) * (random() < 1 / world.outlierEvery ? 1 + random() : 1)]),
    }
  }
  return {
    format: 'layerstack-bench', version: 1, layerstack: '0', startedAt: '2026-01-01T00:00:00.000Z', seconds: 1, roundCount: world.rounds, complete: true,
    settings: { quick: true, durability: 'full', place: '/x' }, machine: { cpu: 'x', cpus: 2, memoryBytes: 1, kernel: '6', node: 'v20', programs: {} },
    drivers: ['overlay2'], backings: [{ name: 'ext4', fileSystem: 'extfs', how: '' }],
    workloads: [
      { name: 'work', title: 'Work', what: '', group: 'write', measures: [{ name: 'time', title: 'time', unit: 'ms' }], parameter: { title: 'n', unit: 'count' } },
      { name: 'reference', title: 'Reference', what: '', group: 'read', measures: [{ name: 'time', title: 'time', unit: 'ms' }] },
    ],
    absent: [], cells: [
      ...Array.from({ length: world.cells }, (_, i) => cell(i, 'overlay2', shiftOf(i))), ...Array.from({ length: 9 }, (_, i) => cell(i, 'plain', referenceShift)),
    ],
  }
}

function flagged(before: BenchResult, after: BenchResult): number[] {
  return compareBench(before, after).cells.filter(({ verdict }) => verdict !== 'same' && verdict !== 'unclear').map(({ cell }) => cell.parameter ?? -1)
}

/** In how many of the tries anything is called different. */
function wrong(tries: number, world: World, drift = 1): number {
  let count = 0
  for (let seed = 1; seed <= tries; seed++) {
    const random = randomFrom(seed)
    if (flagged(made(random, world), made(random, world, () => drift, drift)).length > 0) count++
  }
  return count
}

test('identical code is called different in one of a hundred comparisons at most, over a thousand tries', { timeoutMs: 120_000 }, () => {
  // 10 wrong ones are promised; 20 would come by chance once in 300 such tests.
  const count = wrong(1000, ordinary)
  assert.ok(count <= 20, `${count} of 1000`)
})

test('nor where runs differ more than rounds, where outliers abound, or with few or many rounds', { timeoutMs: 120_000 }, () => {
  for (const [what, world] of Object.entries<World>({
    'runs that differ': { ...ordinary, between: 0.15 }, outliers: { ...ordinary, outlierEvery: 3 }, noisy: { ...ordinary, noise: 0.3 },
    'four rounds': { ...ordinary, rounds: 4 }, 'twenty rounds': { ...ordinary, rounds: 20 },
  })) {
    const count = wrong(100, world)
    assert.ok(count <= 5, `${what}: ${count} of 100`)
  }
})

test('nor when the machine was slower by a third, which is said instead', () => {
  assert.ok(wrong(50, ordinary, 1.33) <= 3)
  const random = randomFrom(7)
  const { drift, referenceDrift } = compareBench(made(random, ordinary), made(random, ordinary, () => 1.33, 1.33))
  assert.ok(drift > 1.27 && drift < 1.4, `drift ${drift}`)
  assert.ok(referenceDrift > 1.2 && referenceDrift < 1.5, `of the reference ${referenceDrift}`)
})

test('nor when others\' load made only half of the figures slower', () => {
  let count = 0
  for (let seed = 1; seed <= 50; seed++) {
    const random = randomFrom(seed)
    if (flagged(made(random, { ...ordinary, rounds: 12 }), made(random, { ...ordinary, rounds: 12 }, at => at % 8 < 5 ? 0.7 : 1, 0.7)).some(at => at % 8 >= 5)) count++
  }
  assert.ok(count <= 3, `${count} of 50`)
})

test('a shift of a fifth is found', () => {
  const found: number[] = []
  let others = 0
  const quiet: World = { ...ordinary, noise: 0.04, between: 0.01, outlierEvery: Infinity }
  for (let seed = 1; seed <= 50; seed++) {
    const random = randomFrom(seed)
    // Cells 1 and 2 are not among the noisy ones.
    const result = flagged(made(random, quiet), made(random, quiet, at => at === 1 ? 1.2 : at === 2 ? 1 / 1.2 : 1))
    found.push(Number(result.includes(1)) + Number(result.includes(2)))
    others += result.filter(at => at !== 1 && at !== 2).length
  }
  const rate = found.reduce((sum, n) => sum + n, 0) / 100
  assert.ok(rate > 0.8, `${rate * 100} % with eight rounds`)
  assert.ok(others <= 3, `${others} wrong ones`)
  const random = randomFrom(99)
  const many: World = { ...quiet, rounds: 16 }
  const result = compareBench(made(random, many), made(random, many, at => at === 1 ? 1.2 : 1))
  const shifted = result.cells.find(({ cell }) => cell.parameter === 1)
  assert.is(shifted?.verdict, 'slower')
  assert.ok((shifted?.low ?? 0) < 1.2 && (shifted?.high ?? 0) > 1.2, `${shifted?.low} to ${shifted?.high}`)
})

test('a shift of everything but the machine itself is the code\'s', () => {
  const random = randomFrom(3)
  const quiet: World = { ...ordinary, outlierEvery: Infinity, rounds: 12 }
  const { cells, drift } = compareBench(made(random, quiet), made(random, quiet, () => 1.4, 1))
  assert.ok(Math.abs(drift - 1) < 0.1, `drift ${drift}`)
  assert.ok(cells.filter(({ verdict }) => verdict === 'slower').length > 60)
  assert.ok(Math.abs(median(cells.map(({ ratio }) => ratio)) - 1.4) < 0.1, String(median(cells.map(({ ratio }) => ratio))))
})

test('with fewer than four rounds nothing is real, and conditions that differ are named', () => {
  const random = randomFrom(5)
  const few: World = { ...ordinary, rounds: 3, noise: 0.001, between: 0, outlierEvery: Infinity }
  const before = made(random, few), after = made(random, few, at => at === 1 ? 3 : 1)
  assert.equal(flagged(before, after), [])
  const other: BenchResult = { ...after, machine: { ...after.machine, kernel: '7' }, settings: { ...after.settings, quick: false } }
  assert.equal(compareBench(before, other).notes, ['kernel: 6 before, 7 now', 'one run was quick and the other was not'])
  assert.throws(() => compareBench({ ...before, version: 2 as never }, after), (error: unknown) => error instanceof TypeError)
})
