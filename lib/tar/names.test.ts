// Names against a plain model of Go's path.Clean.

import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { cleanName, pathClean } from './names.ts'

const test = suite('tar/names')

test('examples', () => {
  const cases: [string, string][] = [
    ['', ''], ['.', ''], ['/', ''], ['..', ''], ['../../..', ''], ['a', 'a'], ['a/', 'a'], ['/a', 'a'], ['./a//b/', 'a/b'], ['a/../b', 'b'], ['a/../../b', 'b'],
    ['..gitme', '..gitme'], ['...', '...'], ['a/.../b', 'a/.../b'], ['.wh..', '.wh..'], ['a/./b', 'a/b'], ['../a', 'a'], ['a/b/..', 'a'], ['.a/b.', '.a/b.'],
  ]
  for (const [name, clean] of cases) assert.is(cleanName(Buffer.from(name)).toString(), clean, name)
})

test('as the model, and itself when clean', () => {
  const name = fc.string({ unit: fc.constantFrom('/', '.', 'a', 'ü'), maxLength: 20 })
  fc.assert(fc.property(name, text => {
    // Node's normalize differs from Go's Clean only in keeping a trailing slash.
    const model = (value: string): string => path.posix.normalize(value).replace(/(.)\/$/, '$1')
    assert.is(pathClean(Buffer.from(text)).toString(), model(text))
    const clean = cleanName(Buffer.from(text))
    assert.is(clean.toString(), model(`/${text}`).slice(1))
    assert.is(cleanName(clean), clean)
  }), { numRuns: 2000 })
})

test('bytes that are not UTF-8 stay', () => {
  assert.equal([...cleanName(Buffer.from([0x2f, 0xff, 0x2f, 0x2e, 0x2e, 0x2f, 0xfe, 0x2f]))], [0xfe])
})
