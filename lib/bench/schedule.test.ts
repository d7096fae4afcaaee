import { assert, suite } from '../../fixtures/harness/index.ts'
import { leastRounds, Schedule } from './schedule.ts'

const test = suite('schedule')

/** Play the rounds with these costs; returns how often each was made, and the time it took. */
function play(costsMs: Readonly<Record<string, number>>, rounds: number, minutes: number | undefined): { made: Record<string, number>; spentMs: number } {
  const schedule = new Schedule(rounds, minutes)
  const made: Record<string, number> = {}
  let spentMs = 0
  for (let round = 1; round <= rounds; round++) {
    const due = schedule.plan(round, spentMs)
    for (const [key, costMs] of Object.entries(costsMs)) {
      if (!due(key)) continue
      made[key] = (made[key] ?? 0) + 1
      spentMs += costMs
      schedule.took(key, costMs, false)
    }
  }
  return { made, spentMs }
}

test('without a limit everything comes every time', () => {
  assert.equal(play({ a: 1, b: 100_000 }, 5, undefined).made, { a: 5, b: 5 })
})

test('with one, cheap visits come every time and dear ones as their share allows', () => {
  const { made, spentMs } = play({ cheap: 10, middling: 2_000, dear: 8_000 }, 12, 1)
  assert.is(made['cheap'], 12)
  assert.ok((made['dear'] ?? 0) >= leastRounds && (made['dear'] ?? 0) < (made['middling'] ?? 0), JSON.stringify(made))
  assert.ok(spentMs < 66_000 && spentMs > 45_000, `${spentMs} ms`)
})

test('where the time does not even suffice for that, it counts', () => {
  const { made, spentMs } = play(Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`v${i}`, 2_000])), 12, 2)
  assert.ok(spentMs <= 130_000, `${spentMs} ms`)
  assert.ok(Object.values(made).every(count => count >= 1))
})

test('what is left is told', () => {
  const schedule = new Schedule(4, undefined)
  schedule.took('a', 1000, false)
  assert.is(schedule.remainingMs(2, 1000), 3000)
  schedule.dropped('a')
  assert.is(schedule.remainingMs(2, 1000), 0)
})
