import { assert, suite } from '../../fixtures/harness/index.ts'
import { listMatcher, pruneMatcher } from './filters.ts'
import type { Volume } from './volume.ts'

const test = suite('volume filters')
const volume = { name: 'data', driver: 'local', labels: { a: 'b', empty: '' }, anonymous: true } as unknown as Volume

test('a label that every object inherits is no label: a prune must not take the volume for marked', () => {
  for (const label of ['constructor', 'toString', '__proto__', 'hasOwnProperty', 'constructor=']) {
    assert.is(listMatcher({ label: [label] }, () => false)(volume), false, label)
    assert.is(pruneMatcher({ label: [label] })(volume), false, label)
    assert.is(pruneMatcher({ 'label!': [label] })(volume), true, label)
  }
  for (const label of ['a', 'a=b', 'empty', 'empty=']) assert.is(listMatcher({ label: [label] }, () => false)(volume), true, label)
})
