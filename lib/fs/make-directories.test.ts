import fs from 'node:fs'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { isErrno } from '../errors.ts'
import { makeDirectories } from './make-directories.ts'

const test = suite('fs/make-directories')

test('all that is missing, with the mode for the last', t => {
  const old = process.umask(0o077)
  try { makeDirectories(`${t.dir}/a/b/c`, 0o710) } finally { process.umask(old) }
  assert.equal(['a', 'a/b', 'a/b/c'].map(name => fs.statSync(`${t.dir}/${name}`).mode & 0o777), [0o755, 0o755, 0o710])
  makeDirectories(`${t.dir}/a/b`, 0o700)
  assert.is(fs.statSync(`${t.dir}/a/b`).mode & 0o777, 0o755)
})

test('a file in the way, and a place where nothing can be made, are errors rather than a loop', t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  assert.throws(() => makeDirectories(`${t.dir}/f`), (e: unknown) => isErrno(e, 'EEXIST'))
  assert.throws(() => makeDirectories(`${t.dir}/f/g`), (e: unknown) => isErrno(e, 'ENOTDIR'))
  assert.throws(() => makeDirectories('/proc/layerstack/none'), (e: unknown) => isErrno(e, 'ENOENT'))
})
