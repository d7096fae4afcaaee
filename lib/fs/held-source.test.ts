// Streams that fail before anybody reads them.

import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { failure, openIn } from '../../fixtures/storage.ts'
import { StorageError } from '../errors.ts'
import { heldSource } from './held-source.ts'

const test = suite('held sources')

test('the failure is the reader\'s', async t => {
  const missing = path.join(t.dir, 'missing')
  const stream = heldSource(fs.createReadStream(missing))
  await sleep(20)
  const read = async (): Promise<void> => { for await (const _ of stream) continue }
  await read().then(() => assert.unreachable('it was read'), (error: unknown) => assert.is((error as NodeJS.ErrnoException).code, 'ENOENT'))
  const plain = [1, 2]
  assert.is(heldSource(plain), plain)
})

test('a file that cannot be opened fails the call and nothing else', async t => {
  const storage = await openIn(t, 'vfs'), missing = path.join(t.dir, 'missing')
  for (const call of [() => storage.images.load(fs.createReadStream(missing)), () => storage.images.import(fs.createReadStream(missing)), () => storage.volumes.import('new', fs.createReadStream(missing))]) {
    const error = await failure(call())
    assert.ok(StorageError.is(error, 'NOT_FOUND'), String(error))
  }
  assert.equal(storage.volumes.list(), [])
})
