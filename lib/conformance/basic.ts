// What every driver must do: moby's graphtest CreateEmpty, CreateBase, CreateSnap; ids, errors, options; and that a failure leaves nothing.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import type { Code } from '../errors.ts'
import { readNames } from '../fs/walk.ts'
import { randomId } from '../ids.ts'
import { listed, makeLayer, newId } from './context.ts'
import type { Case, Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'

export const failsWith = (code: Code) => (error: unknown): boolean => {
  assert.ok(StorageError.is(error), `expected a StorageError ${code}, got ${String(error)}`)
  assert.equal(error.code, code, error.message)
  assert.match(error.message, /\S/)
  return true
}

/** moby's base layer: a directory and a file with unusual modes and, as root, owners. */
export async function makeBase(c: Case, ownership: boolean): Promise<ReturnType<typeof newId>> {
  return makeLayer(c, undefined, dir => {
    fs.mkdirSync(`${dir}/a subdir`)
    if (ownership) fs.chownSync(`${dir}/a subdir`, 1, 2)
    fs.chmodSync(`${dir}/a subdir`, 0o1705)
    fs.writeFileSync(`${dir}/a file`, 'Some data')
    fs.chmodSync(`${dir}/a file`, ownership ? 0o4222 : 0o4622)
  }, 'base')
}

function verifyBase(dir: string, ownership: boolean): void {
  const sub = fs.lstatSync(`${dir}/a subdir`), file = fs.lstatSync(`${dir}/a file`)
  assert.equal(sub.mode & 0o7777, 0o1705)
  assert.equal(file.mode & 0o7777, ownership ? 0o4222 : 0o4622)
  if (ownership) assert.deepEqual([sub.uid, sub.gid, file.uid, file.gid], [1, 2, 0, 0])
  assert.equal(fs.readFileSync(`${dir}/a file`, 'utf8'), 'Some data')
  assert.deepEqual(fs.readdirSync(dir).filter(name => name !== 'lost+found').sort(), ['a file', 'a subdir'])
}

/** Everything in a home, but for times: to show that a failed call has left nothing. */
const homeDump = (c: Case): string[] => dump(c.home)

export function basic(s: Suite): void {
  const { ownership } = s.supports

  // moby graphtest DriverTestCreateEmpty; containerd RootPermission (the mode is 0755 whatever the umask).
  for (const umask of [0, 0o077]) {
    s.test(`an empty layer is an empty directory, 0755, with umask ${umask.toString(8)}`, {}, async c => {
      const id = newId('empty')
      const old = process.umask(umask)
      try { await c.driver.create(id) } finally { process.umask(old) }
      assert.equal(await c.driver.exists(id), true)
      await c.show(id, 'rw', dir => {
        const st = fs.lstatSync(dir)
        assert.ok(st.isDirectory())
        assert.equal(st.mode & 0o7777, 0o755)
        assert.deepEqual([st.uid, st.gid], [process.geteuid?.(), process.getegid?.()])
        assert.deepEqual(readNames(dir).map(String).filter(name => name !== 'lost+found'), [])
      })
      await c.driver.remove(id)
      assert.equal(await c.driver.exists(id), false)
    })
  }

  // moby graphtest DriverTestCreateBase.
  s.test('a base layer keeps what was written, over a second mount', {}, async c => {
    const id = await makeBase(c, ownership)
    await c.show(id, 'rw', dir => verifyBase(dir, ownership))
  })

  // moby graphtest DriverTestCreateSnap.
  s.test('a child shows its parent\'s content', {}, async c => {
    const child = newId('snap')
    await c.driver.create(child, { parent: await makeBase(c, ownership), writable: true })
    await c.show(child, 'rw', dir => verifyBase(dir, ownership))
  })

  s.test('a child\'s writes stay its own', {}, async c => {
    const base = await makeBase(c, ownership)
    const before = await c.show(base, 'ro', dir => dump(dir))
    const [a, b] = [newId('a'), newId('b')]
    for (const id of [a, b]) await c.driver.create(id, { parent: base, writable: true })
    await c.show(a, 'rw', dir => { fs.writeFileSync(`${dir}/mine`, 'x'); fs.rmSync(`${dir}/a file`) })
    assertSame(await c.show(b, 'ro', dir => dump(dir)), before, 'the sibling')
    assertSame(await c.show(base, 'ro', dir => dump(dir)), before, 'the parent')
  })

  // overlay2 and vfs of dockerd adopt the directory and, on a later failure, delete the layer that was there (moby-storage.md § 2.1).
  s.test('an id that exists is ALREADY_EXISTS, and the layer is not touched', {}, async c => {
    const id = await makeBase(c, ownership)
    const before = homeDump(c)
    await assert.rejects(c.driver.create(id), failsWith('ALREADY_EXISTS'))
    await assert.rejects(c.driver.create(id, { parent: id }), failsWith('ALREADY_EXISTS'))
    const empty = newId('empty')
    await c.driver.create(empty)
    await assert.rejects(c.driver.create(empty), failsWith('ALREADY_EXISTS'))
    await c.driver.remove(empty)
    if (before.every(line => !line.includes('committed'))) assertSame(homeDump(c).filter(line => !line.includes('/committed ')), before, 'the home')
    await c.show(id, 'ro', dir => verifyBase(dir, ownership))
  })

  // aufs's TestCreateWithInvalidParent.
  s.test('an unknown parent is NOT_FOUND and leaves nothing', {}, async c => {
    const before = homeDump(c)
    const id = newId('orphan')
    await assert.rejects(c.driver.create(id, { parent: newId('nobody') }), failsWith('NOT_FOUND'))
    assert.equal(await c.driver.exists(id), false)
    assertSame(homeDump(c), before, 'the home')
    await c.driver.create(id)
  })

  s.test('an unknown layer is NOT_FOUND everywhere', {}, async c => {
    const id = newId('nobody')
    assert.equal(await c.driver.exists(id), false)
    await assert.rejects(c.driver.mounts(id, 'rw'), failsWith('NOT_FOUND'))
    await assert.rejects(c.driver.mounts(id, 'ro'), failsWith('NOT_FOUND'))
    await assert.rejects(c.driver.content(id), failsWith('NOT_FOUND'))
    await assert.rejects(c.driver.usage(id), failsWith('NOT_FOUND'))
    await assert.rejects(c.driver.metadata(id), failsWith('NOT_FOUND'))
  })

  s.test('an unknown option of a layer is INVALID_ARGUMENT and leaves nothing', {}, async c => {
    const before = homeDump(c)
    const id = newId('options')
    await assert.rejects(c.driver.create(id, { writable: true, storageOptions: { colour: 'blue' } }), failsWith('INVALID_ARGUMENT'))
    // moby: "--storage-opt … only supported for ReadWrite Layers".
    await assert.rejects(c.driver.create(id, { storageOptions: { size: '50M' } }), failsWith('INVALID_ARGUMENT'))
    if (!s.supports.quota) await assert.rejects(c.driver.create(id, { writable: true, storageOptions: { size: '50M' } }), failsWith('NOT_SUPPORTED'))
    assertSame(homeDump(c), before, 'the home')
  })

  // moby graphtest DriverTestSetQuota.
  s.test('a layer\'s size limit holds', { quota: true }, async c => {
    const id = newId('quota')
    await c.driver.create(id, { writable: true, storageOptions: { size: '50M' } })
    await c.show(id, 'rw', dir => {
      fs.writeFileSync(`${dir}/small`, Buffer.alloc(25 << 20, 1))
      assert.throws(() => fs.writeFileSync(`${dir}/big`, Buffer.alloc(50 << 20, 1)), (error: unknown) => isErrno(error, 'EDQUOT', 'ENOSPC'))
    })
  })

  s.test('mounts are described in the same words each time, and performing them is left to the caller', {}, async c => {
    const base = await makeBase(c, ownership)
    const child = newId('child')
    await c.driver.create(child, { parent: base, writable: true })
    const before = homeDump(c)
    for (const id of [base, child]) {
      for (const access of ['rw', 'ro'] as const) {
        const mounts = await c.driver.mounts(id, access)
        assert.ok(mounts.length > 0)
        assert.deepEqual(await c.driver.mounts(id, access), mounts)
        for (const mount of mounts) assert.ok(mount.type !== '' && (mount.source !== '' || mount.type === 'overlay'))
      }
    }
    assertSame(homeDump(c), before, 'the home')
    if (!s.supports.nativeMounts) assert.ok((await c.driver.mounts(child, 'rw')).every(mount => mount.options.includes('bind')))
  })

  s.test('content lies in the layer\'s own directory', {}, async c => {
    const base = await makeBase(c, ownership)
    const child = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/new`, 'x'))
    const content = await c.driver.content(child)
    assert.ok(path.isAbsolute(content.path))
    assert.equal(fs.readFileSync(`${content.path}/new`, 'utf8'), 'x')
    // A branch has what changed, a tree has it all.
    assert.equal(fs.existsSync(`${content.path}/a file`), content.kind === 'tree')
    if (content.kind === 'branch') assert.deepEqual(content.lowers, [(await c.driver.content(base)).path])
    else if (content.parentPath !== undefined) assert.equal(content.parentPath, (await c.driver.content(base)).path)
  })

  s.test('list, status, metadata and supports speak plainly', {}, async c => {
    assert.deepEqual(await listed(c.driver), [])
    const ids = [await makeBase(c, ownership), randomId()].sort()
    await c.driver.create(ids.find(id => !id.startsWith('base')) ?? assert.fail('no id'))
    assert.deepEqual(await listed(c.driver), ids)
    for (const [key, value] of await c.driver.status()) assert.ok(typeof key === 'string' && key !== '' && typeof value === 'string')
    for (const id of ids) for (const value of Object.values(await c.driver.metadata(id))) assert.equal(typeof value, 'string')
    assert.deepEqual({ ...c.driver.supports }, { ...s.supports })
    assert.match(c.driver.name, /^[a-z0-9-]+$/)
  })

  s.test('usage counts the layer\'s blocks, each inode once, holes not', {}, async c => {
    const id = await makeLayer(c, undefined, dir => {
      fs.writeFileSync(`${dir}/file`, Buffer.alloc(1 << 20, 1))
      fs.linkSync(`${dir}/file`, `${dir}/same`)
      fs.writeFileSync(`${dir}/hole`, '')
      fs.truncateSync(`${dir}/hole`, 1 << 30)
    })
    const usage = await c.driver.usage(id)
    assert.ok(usage.sizeBytes >= 1 << 20 && usage.sizeBytes < 2 << 20, `${usage.sizeBytes} bytes`)
    assert.equal(usage.inodes, 3)
  })
}
