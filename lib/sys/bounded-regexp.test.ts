import { assert, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { boundedTest } from './bounded-regexp.ts'

const test = suite('expressions of clients')

test('what ends is answered, what does not is refused', () => {
  for (const [pattern, text, found] of [[/^a.*b.*c$/, 'a-b-c', true], [/x/u, 'y', false], [/(a+)+$/, 'aaaa', true], [/^(?:a|b)*c+$/i, 'ABC', true]] as const) assert.is(boundedTest(pattern, text), found, String(pattern))
  for (const [pattern, text] of [[/^(a+)+$/, `${'a'.repeat(60)}!`], [/(x+x+)+y/, 'x'.repeat(300)]] as const) {
    try {
      boundedTest(pattern, text)
      assert.unreachable()
    } catch (error) {
      assert.ok(StorageError.is(error, 'INVALID_ARGUMENT'), String(error))
    }
  }
  // The next one is not affected.
  assert.ok(boundedTest(/a+b+/, 'ab'))
})
