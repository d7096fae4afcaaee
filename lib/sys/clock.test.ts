import { assert, needsNative, suite } from '../../fixtures/harness/index.ts'
import { anchoredNs, wallClockNs } from './clock.ts'

const test = suite('wall clock')

const ms = (ns: bigint): number => Number(ns / 1_000_000n)

test('the kernel\'s clock: nanoseconds that never lie before Date.now()', { skip: needsNative }, () => {
  let finer = false
  for (let i = 0; i < 1000; i++) {
    const before = Date.now(), now = wallClockNs(), after = Date.now()
    assert.ok(ms(now) >= before && ms(now) <= after, `${before} ${now} ${after}`)
    if (now % 1_000n !== 0n) finer = true
  }
  assert.ok(finer, 'never finer than a microsecond')
})

test('without native calls: tied to the wall clock, ascending, and tied anew when that is set', () => {
  let last = 0n
  for (let i = 0; i < 1000; i++) {
    const before = Date.now(), now = anchoredNs(), after = Date.now()
    assert.ok(ms(now) >= before - 1 && ms(now) <= after + 2, `${before} ${now} ${after}`)
    assert.ok(now >= last)
    last = now
  }
  const real = Date.now
  try {
    Date.now = () => real() + 3_600_000
    assert.ok(Math.abs(ms(anchoredNs()) - real() - 3_600_000) <= 2)
  } finally {
    Date.now = real
  }
  assert.ok(Math.abs(ms(anchoredNs()) - Date.now()) <= 2)
})
