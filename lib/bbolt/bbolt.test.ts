// bbolt files: written and read back, many keys and large values, crashes between the steps of a commit, damage. That bbolt itself takes
// them is shown with a real dockerd in lib/volumes/dockerd.test.ts.

import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { lock } from '../sys/lock.ts'
import { BoltBucket } from './bucket.ts'
import { BoltFile } from './file.ts'
import { readBolt } from './reader.ts'
import { emptyBase, layOutCommit } from './writer.ts'

const test = suite('bbolt')

type Tree = { readonly [key: string]: string | Tree }

function plain(bucket: BoltBucket): Tree {
  return Object.fromEntries([...bucket.entries()].map(([key, value]) => [key.toString(), value instanceof BoltBucket ? plain(value) : value.toString()]))
}

function fill(bucket: BoltBucket, tree: Tree): BoltBucket {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === 'string') bucket.put(key, value)
    else fill(bucket.makeBucket(key), value)
  }
  return bucket
}

test('an absent file is an empty database, and an update makes it', async t => {
  const file = new BoltFile(path.join(t.dir, 'metadata.db'))
  assert.equal(plain(file.read()), {})
  await file.update(root => root.makeBucket('volumes').put('a', 'first'))
  assert.is(fs.statSync(file.path).mode & 0o777, 0o600)
  assert.equal(plain(file.read()), { volumes: { a: 'first' } })
  await file.update(root => root.makeBucket('volumes').put('b', 'second'))
  await file.update(root => root.makeBucket('volumes').delete('a'))
  assert.equal(plain(file.read()), { volumes: { b: 'second' } })
  assert.is(fs.readdirSync(t.dir).join(), 'metadata.db')
})

test('branch pages, overflow pages, buckets in buckets', async t => {
  const file = new BoltFile(path.join(t.dir, 'x.db'))
  const tree: Record<string, string | Tree> = { many: Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`key-${String(i).padStart(6, '0')}`, `value ${i}`])) }
  tree['large'] = { a: 'x'.repeat(300_000), b: 'y'.repeat(4000), c: '' }
  tree['nested'] = { one: { two: { three: 'deep' } }, empty: {} }
  await file.update(root => { fill(root, tree) })
  assert.equal(plain(file.read()), tree)
  const size = fs.statSync(file.path).size
  for (let i = 0; i < 6; i++) await file.update(root => root.bucket('many')?.put('key-000000', `round ${i}`))
  assert.ok(fs.statSync(file.path).size < 3 * size, 'free pages are used again')
  assert.is(file.read().bucket('many')?.get('key-000000')?.toString(), 'round 5')
})

test('any tree reads back, and two states share no page', () => {
  const leaf = fc.string({ maxLength: 3000 })
  // Prefixed: the harness' comparison takes a key 'constructor' for the object's own.
  const name = fc.string({ minLength: 1, maxLength: 40 }).map(text => `k${text}`)
  const tree = fc.letrec<{ tree: Tree }>(tie => ({
    tree: fc.dictionary(name, fc.oneof({ maxDepth: 2 }, leaf, tie('tree')) as fc.Arbitrary<string | Tree>, { maxKeys: 30, noNullPrototype: true }),
  })).tree
  fc.assert(fc.property(tree, tree, fc.constantFrom(1024, 4096, 16384), (first, second, pageSize) => {
    const a = layOutCommit(fill(new BoltBucket(), first), emptyBase(pageSize))
    const bytes = Buffer.alloc(a.fileBytes)
    for (const { id, bytes: page } of [...a.pages, a.meta]) page.copy(bytes, id * pageSize)
    const before = readBolt(bytes)
    assert.equal(plain(before.root), first)
    const b = layOutCommit(fill(new BoltBucket(), second), { ...before.meta, used: before.used })
    const grown = Buffer.alloc(Math.max(bytes.length, b.fileBytes))
    bytes.copy(grown)
    for (const { id, bytes: page } of b.pages) page.copy(grown, id * pageSize)
    // A kill before the meta page: the old state is whole.
    assert.equal(plain(readBolt(grown).root), first)
    // A torn meta page: the same.
    b.meta.bytes.copy(grown, b.meta.id * pageSize, 0, 40)
    assert.equal(plain(readBolt(grown).root), first)
    b.meta.bytes.copy(grown, b.meta.id * pageSize)
    assert.equal(plain(readBolt(grown).root), second)
  }), { numRuns: 60 })
})

test('the freelist has exactly the pages that nobody uses', async t => {
  const file = new BoltFile(path.join(t.dir, 'x.db'))
  for (let i = 0; i < 12; i++) {
    await file.update(root => {
      const bucket = root.makeBucket('b')
      for (let k = 0; k < 200; k++) bucket.put(`${i % 3}-${k}`, 'v'.repeat(k * (i % 4)))
      if (i % 5 === 4) root.delete('b')
    }, { sync: false })
    const bytes = fs.readFileSync(file.path)
    const { meta, used } = readBolt(bytes)
    const at = Number(meta.freelist) * meta.pageSize
    const free = Array.from({ length: bytes.readUInt16LE(at + 10) }, (_, n) => Number(bytes.readBigUInt64LE(at + 16 + 8 * n)))
    const unused = Array.from({ length: meta.highWater }, (_, id) => id).filter(id => !used.has(id))
    assert.equal(free, unused)
  }
})

test('an open database is read, and not written', async t => {
  const file = new BoltFile(path.join(t.dir, 'x.db'))
  await file.update(root => root.put('a', '1'))
  const held = await lock(file.path)
  try {
    assert.equal(plain(file.read()), { a: '1' })
    await file.update(root => root.put('a', '2'), { timeoutMs: 50 }).then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'LOCKED')))
  } finally {
    held.release()
  }
  assert.equal(plain(file.read()), { a: '1' })
})

test('a failed change changes nothing', async t => {
  const file = new BoltFile(path.join(t.dir, 'x.db'))
  await file.update(root => root.put('a', '1'))
  const before = fs.readFileSync(file.path)
  await file.update(root => { root.put('a', '2'); throw new StorageError('IN_USE', 'no') }).then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'IN_USE')))
  assert.ok(before.equals(fs.readFileSync(file.path)))
})

test('updates of one file at once all count', async t => {
  const file = new BoltFile(path.join(t.dir, 'x.db'))
  await Promise.all(Array.from({ length: 30 }, (_, i) => file.update(root => root.makeBucket('b').put(`k${i}`, 'v'), { sync: false })))
  assert.is(file.read().bucket('b')?.size, 30)
})

test('damage is CORRUPT, with the file\'s name', t => {
  const file = path.join(t.dir, 'x.db')
  for (const bytes of [Buffer.from('not a database'), Buffer.alloc(16384)]) {
    fs.writeFileSync(file, bytes)
    try {
      new BoltFile(file).read()
      assert.unreachable()
    } catch (error) {
      assert.ok(StorageError.is(error, 'CORRUPT') && error.info.path === file && error.info.hint !== undefined)
    }
  }
})

test('no damaged byte makes the reader fail in another way', () => {
  const commit = layOutCommit(fill(new BoltBucket(), { a: { b: 'c'.repeat(5000), d: { e: 'f' } } }), emptyBase(1024))
  const whole = Buffer.alloc(commit.fileBytes)
  for (const { id, bytes } of [...commit.pages, commit.meta]) bytes.copy(whole, id * 1024)
  fc.assert(fc.property(fc.array(fc.tuple(fc.integer({ min: 80, max: whole.length - 1 }), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }), hits => {
    const bytes = Buffer.from(whole)
    for (const [at, value] of hits) bytes[at] = value
    try {
      readBolt(bytes)
    } catch (error) {
      if (!StorageError.is(error, 'CORRUPT')) throw error
    }
  }), { numRuns: 2000 })
})
