// Docker's reference grammar, by the tables of distribution/reference (normalize_test.go, reference_test.go).

import { assert, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { familiarMatch, familiarName, familiarString, fullString, parseReference, storedForm, tagNameOnly } from './reference.ts'

const test = suite('images/reference')
const sha = 'sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff'

const good: readonly (readonly [text: string, full: string, familiar: string])[] = [
  ['ubuntu', 'docker.io/library/ubuntu', 'ubuntu'],
  ['docker.io/ubuntu', 'docker.io/library/ubuntu', 'ubuntu'],
  ['docker.io/library/ubuntu', 'docker.io/library/ubuntu', 'ubuntu'],
  ['index.docker.io/library/ubuntu:1', 'docker.io/library/ubuntu:1', 'ubuntu:1'],
  ['library/ubuntu', 'docker.io/library/ubuntu', 'ubuntu'],
  ['library/foo/bar', 'docker.io/library/foo/bar', 'library/foo/bar'],
  ['user/app:1.0_x-y', 'docker.io/user/app:1.0_x-y', 'user/app:1.0_x-y'],
  ['private.io/fooo/bar', 'private.io/fooo/bar', 'private.io/fooo/bar'],
  ['localhost/app', 'localhost/app', 'localhost/app'],
  ['localhost:5000/app:v1', 'localhost:5000/app:v1', 'localhost:5000/app:v1'],
  ['[2001:db8::1]:5000/repo', '[2001:db8::1]:5000/repo', '[2001:db8::1]:5000/repo'],
  ['Uppercase/lower', 'Uppercase/lower', 'Uppercase/lower'],
  ['test:5000/repo', 'test:5000/repo', 'test:5000/repo'],
  [`ubuntu@${sha}`, `docker.io/library/ubuntu@${sha}`, `ubuntu@${sha}`],
  [`ubuntu:1@${sha}`, `docker.io/library/ubuntu:1@${sha}`, `ubuntu:1@${sha}`],
  ['foo__bar', 'docker.io/library/foo__bar', 'foo__bar'],
  ['foo--bar/a.b', 'docker.io/foo--bar/a.b', 'foo--bar/a.b'],
  ['xn--n3h.com/myimage:xn--n3h.com', 'xn--n3h.com/myimage:xn--n3h.com', 'xn--n3h.com/myimage:xn--n3h.com'],
  [`${'a'.repeat(247)}`, `docker.io/library/${'a'.repeat(247)}`, 'a'.repeat(247)],
  [`x:${'t'.repeat(128)}`, `docker.io/library/x:${'t'.repeat(128)}`, `x:${'t'.repeat(128)}`],
]
for (const [text, full, familiar] of good) {
  test(`parses ${text.slice(0, 60)}`, () => {
    const ref = parseReference(text)
    assert.is(fullString(ref), full)
    assert.is(familiarString(ref), familiar)
    // The familiar form stands for the same.
    assert.is(fullString(parseReference(familiar)), full)
  })
}

const bad: readonly (readonly [text: string, message: RegExp])[] = [
  ['', /^invalid reference format$/],
  [':justtag', /^invalid reference format$/],
  [`@${sha}`, /^invalid reference format$/],
  ['foo//bar', /^invalid reference format$/],
  ['-foo/bar', /^invalid reference format$/],
  ['foo/bar-', /^invalid reference format$/],
  ['foo___bar', /^invalid reference format$/],
  ['foo..bar', /^invalid reference format$/],
  ['foo bar', /^invalid reference format$/],
  ['a:b:c', /^invalid reference format$/],
  [`x:${'t'.repeat(129)}`, /^invalid reference format$/],
  ['ubuntu\n', /^invalid reference format$/],
  ['Ubuntu', /^invalid reference format: repository name \(library\/Ubuntu\) must be lowercase$/],
  ['docker.io/Foo/bar', /must be lowercase$/],
  ['repo@sha256:ffff', /^invalid reference format$/],
  ['repo@sha256:fffffffffffffffffffffffffffffffff', /^invalid checksum digest length$/],
  ['repo@md5:fffffffffffffffffffffffffffffffff', /^unsupported digest algorithm$/],
  [`repo@${sha.toUpperCase().replace('SHA', 'sha')}`, /^invalid checksum digest format$/],
  ['f'.repeat(64), /cannot specify 64-byte hexadecimal strings$/],
  ['a/'.repeat(128) + 'a', /must not be more than 255 characters$/],
  ['a'.repeat(5000), /^invalid reference format: it is too long$/],
]
for (const [text, message] of bad) {
  test(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
    assert.throws(() => parseReference(text), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT') && message.test(error.message))
  })
}

test('a long hostile text is decided at once', () => {
  const started = performance.now()
  for (const text of ['a-'.repeat(500), 'a.'.repeat(500), `${'a'.repeat(1000)}!`, 'a/'.repeat(500), `${'a.a'.repeat(300)}:!`]) {
    try { parseReference(text) } catch (error) { assert.ok(StorageError.is(error, 'INVALID_ARGUMENT')) }
  }
  assert.ok(performance.now() - started < 500)
})

test('the stored form has one of tag and digest', () => {
  assert.is(familiarString(storedForm(parseReference('x'))), 'x:latest')
  assert.is(familiarString(storedForm(parseReference(`x:1@${sha}`))), `x@${sha}`)
  assert.is(familiarString(tagNameOnly(parseReference(`x@${sha}`))), `x@${sha}`)
  assert.is(familiarName(parseReference('ghcr.io/a/b:1')), 'ghcr.io/a/b')
})

test('patterns match as Go\'s path.Match on the familiar form', () => {
  const match = (pattern: string, text: string): boolean => familiarMatch(pattern, parseReference(text))
  assert.ok(match('ubuntu', 'ubuntu:1'))
  assert.ok(match('ubuntu:*', 'ubuntu:1'))
  assert.ok(match('*/app', 'user/app:2'))
  assert.not(match('*', 'user/app:2'))
  assert.ok(match('u[a-c]untu', 'ubuntu'))
  assert.not(match('u[^b]untu', 'ubuntu'))
  assert.ok(match('ubunt?', 'ubuntu'))
  assert.not(match('u.untu', 'ubuntu'))
  assert.throws(() => match('[', 'ubuntu'), /syntax error in pattern/)
})
