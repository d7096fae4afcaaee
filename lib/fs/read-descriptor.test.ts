// Reading an open descriptor: whole, in part, by several at once; and it stays open however the loop ends.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { readDescriptor } from './read-descriptor.ts'

const test = suite('fs/read-descriptor')

async function all(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test('a range by position, by two readers at once, and never closed', async t => {
  const bytes = Buffer.alloc(3_000_000, 'abcdefg'), file = path.join(t.dir, 'file')
  fs.writeFileSync(file, bytes)
  const fd = fs.openSync(file, 'r')
  t.defer(() => fs.closeSync(fd))
  const [one, other] = await Promise.all([all(readDescriptor(fd, { offset: 7, length: 2_500_000 })), all(readDescriptor(fd, { offset: 0, length: bytes.length }))])
  assert.ok(one.equals(bytes.subarray(7, 2_500_007)))
  assert.ok(other.equals(bytes))
  assert.is((await all(readDescriptor(fd, { offset: 2_999_999, length: 100 }))).length, 1, 'a range behind the end is cut')
  for await (const _ of readDescriptor(fd, { offset: 0, length: 10 })) break
  await readDescriptor(fd).return(undefined)
  // A descriptor that a stream closes is closed a turn later.
  await sleep(20)
  assert.is(fs.fstatSync(fd).size, bytes.length)
  // Nothing so far has moved the descriptor's own position.
  assert.ok((await all(readDescriptor(fd))).equals(bytes))
})

test('a pipe, to its end', async t => {
  const fifo = path.join(t.dir, 'fifo')
  assert.is(spawnSync('mkfifo', [fifo]).status, 0)
  const fd = fs.openSync(fifo, fs.constants.O_RDWR)
  const reader = fs.openSync(fifo, fs.constants.O_RDONLY)
  fs.writeSync(fd, 'through a pipe')
  fs.closeSync(fd)
  assert.is((await all(readDescriptor(reader))).toString(), 'through a pipe')
  fs.closeSync(reader)
})
