import fs from 'node:fs'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { isErrno } from '../errors.ts'
import { atomicWrite, atomicWriteSync, syncDirectory, syncDirectorySync, writeNew } from './atomic.ts'

const test = suite('fs/atomic')

test('a new file, and one that is replaced, with the mode whatever the umask', async t => {
  const file = `${t.dir}/f`
  const old = process.umask(0o077)
  try {
    await atomicWrite(file, 'one', { mode: 0o664 })
    assert.is(fs.statSync(file).mode & 0o777, 0o664)
    const ino = fs.statSync(file).ino
    atomicWriteSync(file, Buffer.from('two'))
    assert.equal([fs.readFileSync(file, 'utf8'), fs.statSync(file).mode & 0o777], ['two', 0o644])
    assert.is.not(fs.statSync(file).ino, ino)
  } finally {
    process.umask(old)
  }
  await atomicWrite(file, '', { sync: false })
  assert.is(fs.readFileSync(file, 'utf8'), '')
  assert.equal(fs.readdirSync(t.dir), ['f'])
})

test('a reader sees the old bytes or the new, never a part', async t => {
  const file = `${t.dir}/f`
  const texts = ['a'.repeat(100_000), 'b'.repeat(50_000)]
  await atomicWrite(file, texts[0] ?? '')
  const writing = (async () => { for (let i = 0; i < 40; i++) await atomicWrite(file, texts[i % 2] ?? '') })()
  let done = false
  void writing.then(() => { done = true })
  while (!done) {
    assert.ok(texts.includes(fs.readFileSync(file, 'utf8')))
    await new Promise(resolve => setImmediate(resolve))
  }
})

test('a failure leaves the old file and no temporary one', async t => {
  fs.mkdirSync(`${t.dir}/taken/in`, { recursive: true })
  for (const write of [async () => atomicWrite(`${t.dir}/taken`, 'x'), async () => atomicWriteSync(`${t.dir}/taken`, 'x')]) {
    let error: unknown
    try { await write() } catch (e) { error = e }
    assert.ok(isErrno(error, 'EISDIR', 'ENOTEMPTY', 'EEXIST'))
  }
  assert.equal(fs.readdirSync(t.dir), ['taken'])
  let missing: unknown
  try { await atomicWrite(`${t.dir}/none/f`, 'x') } catch (e) { missing = e }
  assert.ok(isErrno(missing, 'ENOENT'))
})

test('writeNew never opens what is there, not even through a link', t => {
  fs.writeFileSync(`${t.dir}/f`, 'precious')
  fs.symlinkSync('f', `${t.dir}/l`)
  for (const name of ['f', 'l']) assert.throws(() => writeNew(`${t.dir}/${name}`, 'x', 0o644), (e: unknown) => isErrno(e, 'EEXIST', 'ELOOP'))
  assert.is(fs.readFileSync(`${t.dir}/f`, 'utf8'), 'precious')
})

test('directories are synced; what is none is refused', async t => {
  await syncDirectory(t.dir)
  syncDirectorySync(t.dir)
  fs.writeFileSync(`${t.dir}/f`, '')
  let error: unknown
  try { await syncDirectory(`${t.dir}/f`) } catch (e) { error = e }
  assert.ok(isErrno(error, 'ENOTDIR'))
})
