// `.dive-ci` files as dive reads them, and the rules' verdicts at their edges.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { write } from '../../fixtures/image-store.ts'
import { failure } from '../../fixtures/storage.ts'
import { checkCiRules, parseCiRule, parseCiRules, readCiRules } from './index.ts'
import type { CiRules, Efficiency } from './index.ts'

const test = suite('compare/ci-rules')

test('the file of dive\'s README', t => {
  const text = `rules:
  # If the efficiency is measured below X%, mark as failed.
  # Expressed as a ratio between 0-1.
  lowestEfficiency: 0.95

  # If the amount of wasted space is at least X or larger than X, mark as failed.
  # Expressed in B, KB, MB, and GB.
  highestWastedBytes: 20MB

  highestUserWastedPercent: 0.20
`
  const expected = { lowestEfficiency: 0.95, highestWastedBytes: 20_000_000, highestUserWastedPercent: 0.2 }
  assert.equal(parseCiRules(text), expected)
  assert.equal(readCiRules(write(t.dir, '.dive-ci', Buffer.from(text))), expected)
})

test('other spellings, rules that are off, defaults', () => {
  assert.equal(parseCiRules(''), { lowestEfficiency: 0.9, highestWastedBytes: undefined, highestUserWastedPercent: 0.1 })
  assert.equal(parseCiRules('---\nlowest-efficiency-threshold: "0.5"\nhighest-wasted-bytes: \'1.5 GiB\' # much\nhighest-user-wasted-percent: disabled\n'),
    { lowestEfficiency: 0.5, highestWastedBytes: 1_610_612_736, highestUserWastedPercent: undefined })
  for (const off of ['disabled', 'off', 'false', 'Off', '']) assert.is(parseCiRule('lowestEfficiency', off), undefined)
})

test('sizes as dive writes them', () => {
  for (const [text, bytes] of [['0', 0], ['42', 42], ['42 B', 42], ['1kB', 1000], ['1KiB', 1024], ['1Ki', 1024], ['2.5mb', 2_500_000], ['1,005.03 MB', 1_005_030_000], ['.5GB', 500_000_000]] as const) {
    assert.is(parseCiRule('highestWastedBytes', text), bytes, text)
  }
})

test('what is no rule is told with its line', async () => {
  for (const text of ['lowestEfficiency: 1.5', 'lowestEfficiency: -0.1', 'highestUserWastedPercent: 20', 'highestWastedBytes: much', 'highestWastedBytes: 1XB', 'lowestEficiency: 0.9', '- a', 'rules']) {
    assert.is((await failure(() => parseCiRules(text))).code, 'INVALID_ARGUMENT', text)
  }
  assert.match((await failure(() => parseCiRules('rules:\n  foo: 1\n'))).message, /line 2/)
  assert.is((await failure(() => readCiRules('/nowhere/.dive-ci'))).code, 'NOT_FOUND')
})

test('verdicts: at the threshold a rule holds', () => {
  const figures = (efficiency: number, wastedBytes: number, wastedUserPercent: number): Efficiency =>
    ({ efficiency, wastedBytes, wastedUserPercent, sizeBytes: 0, userSizeBytes: 0, wasted: [] })
  const rules: CiRules = { lowestEfficiency: 0.9, highestWastedBytes: 100, highestUserWastedPercent: 0.1 }
  const verdict = (found: Efficiency, held: CiRules = rules): string => checkCiRules(found, held).map(({ rule, status }) => `${rule} ${status}`).join(', ')
  assert.is(verdict(figures(0.9, 100, 0.1)), 'highestUserWastedPercent pass, highestWastedBytes pass, lowestEfficiency pass')
  assert.is(verdict(figures(0.8999, 101, 0.1001)), 'highestUserWastedPercent fail, highestWastedBytes fail, lowestEfficiency fail')
  assert.is(verdict(figures(1, 0, NaN)), 'highestUserWastedPercent pass, highestWastedBytes pass, lowestEfficiency pass')
  assert.is(verdict(figures(0, 1e9, Infinity), { lowestEfficiency: undefined, highestWastedBytes: undefined, highestUserWastedPercent: 0.1 }),
    'highestUserWastedPercent fail, highestWastedBytes skip, lowestEfficiency skip')
})
