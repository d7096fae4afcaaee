// Containers whose owners show shifted: on each driver that can, with what they write, diff and commit unaffected.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { assert, needsRoot, suite, tempBase } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, changesText, failure } from '../../fixtures/storage.ts'
import { StorageError } from '../errors.ts'
import { drivers, open, readTar } from '../index.ts'
import type { IdMap, MountedContainer } from '../index.ts'

const test = suite('containers/idmap')
const idMap: IdMap = { uids: [{ container: 0, host: 100_000, size: 65536 }], gids: [{ container: 0, host: 100_000, size: 65536 }] }
const image = makeImage({ layers: [[{ path: 'etc/', type: 'dir' }, { path: 'etc/passwd', type: 'file', content: 'root\n' }, { path: 'home/', type: 'dir', uid: 1000, gid: 1000 }]] })

for (const driver of ['overlay2', 'vfs', 'btrfs'] as const) {
  const skip = needsRoot || (driver === 'btrfs' ? skipWithoutImage('btrfs') : false)
  test(`${driver}: files show shifted, are stored as they are, and diff and commit do not notice`, { skip, timeoutMs: 60_000 }, async t => {
    let place = t.dir
    if (driver === 'btrfs') {
      const mounted = mountImage('btrfs')
      t.defer(() => mounted.close())
      place = mounted.dir
    }
    const storage = await open({ root: `${place}/root`, driver, durability: 'none' })
    t.defer(() => storage.close())
    await storage.images.load(write(t.dir, 'a.tar', makeTar(oldDockerArchive([image]))))
    const { id } = await storage.containers.create({ image: 'app:1', name: 'box', idMap })
    assert.ok((await storage.containers.mounts('box')).every(mount => mount.options.includes('uidmap=0:100000:65536')))
    let box: MountedContainer
    try {
      box = await storage.containers.mount('box')
    } catch (error) {
      if (!StorageError.is(error, 'NOT_SUPPORTED')) throw error
      return t.skip(error.message)
    }
    assert.is(storage.containers.mountState('box').path, box.path)
    const owner = (name: string): number => fs.lstatSync(`${box.path}/${name}`).uid
    assert.equal([owner('.'), owner('etc/passwd'), owner('home')], [100_000, 100_000, 101_000])
    // Root of the container's user namespace, as seen from here.
    const script = 'echo changed >> etc/passwd && mkdir new && chown 101000 new && rm -f nothing'
    const { status, stderr } = spawnSync('setpriv', ['--reuid=100000', '--regid=100000', '--clear-groups', '--bounding-set=-all,+chown', '--inh-caps=+chown', '--ambient-caps=+chown', 'sh', '-c', script], { cwd: box.path, encoding: 'utf8' })
    assert.is(status, 0, stderr)
    assert.equal([owner('etc/passwd'), owner('new')], [100_000, 101_000])
    await box.unmount()
    assert.is(storage.containers.mountState('box').path, undefined)
    const changes: string[] = []
    for await (const { kind, path } of storage.containers.diff(id)) changes.push(`${kind} ${path}`)
    assert.equal(changes, ['C /etc', 'C /etc/passwd', 'A /new'])
    const { chainId } = await storage.containers.commit('box', { reference: 'made:1' })
    assert.ok(chainId)
    const content = await storage.driver.content((await storage.layers.get(chainId)).cacheId)
    assert.equal(['etc/passwd', 'new'].map(name => fs.lstatSync(`${content.path}/${name}`).uid), [0, 1000])
    await storage.containers.remove('box')
  })
}

const owned = makeImage({ layers: [
  [
    { path: './', type: 'dir', mode: 0o751 }, { path: 'etc/', type: 'dir' }, { path: 'etc/passwd', type: 'file', content: 'root\n' }, { path: 'home/', type: 'dir', uid: 1000, gid: 1000 },
    { path: 'home/mine', type: 'file', content: 'x', uid: 1000, gid: 1000 }, { path: 'home/link', type: 'hardlink', linkname: 'home/mine' }, { path: 'bin/', type: 'dir' },
    { path: 'bin/su', type: 'file', content: 'su', mode: 0o4755 }, { path: 'bin/sh', type: 'symlink', linkname: 'su', uid: 1000 },
  ],
  [{ path: 'home/.wh.none', type: 'file', content: '' }, { path: 'etc/more', type: 'file', content: 'm', uid: 7 }],
] })

for (const driver of ['overlay2', 'vfs', 'fuse-overlayfs'] as const) {
  const probe = await drivers[driver].probe(tempBase())
  test(`${driver}: owners on disk where that is asked for; mounts, diff, commit and export do not notice`, { skip: needsRoot || (probe.ok ? false : probe.reason), timeoutMs: 60_000 }, async t => {
    const storage = await open({ root: `${t.dir}/root`, driver, durability: 'none' })
    t.defer(() => storage.close())
    await storage.images.load(write(t.dir, 'a.tar', makeTar(oldDockerArchive([owned]))))
    const { id } = await storage.containers.create({ image: 'app:1', name: 'box', idMap, chown: true })
    assert.ok((await storage.containers.mounts('box')).every(mount => mount.options.every(option => !option.startsWith('uidmap='))))
    // Known to another who opens the root.
    const other = await open({ root: `${t.dir}/root`, driver, durability: 'none' })
    t.defer(() => other.close())
    const box = await other.containers.mount('box')
    const owner = (name: string): number => fs.lstatSync(`${box.path}/${name}`).uid
    assert.equal(['.', 'etc', 'etc/passwd', 'etc/more', 'home', 'home/mine', 'bin/sh', 'etc/hosts', 'dev/console'].map(owner), [100_000, 100_000, 100_000, 100_007, 101_000, 101_000, 101_000, 100_000, 100_000])
    assert.is(fs.statSync(`${box.path}/bin/su`).mode & 0o7777, 0o4755)
    assert.is(fs.statSync(`${box.path}/home/mine`).ino, fs.statSync(`${box.path}/home/link`).ino)
    assert.equal(await changesText(storage.containers.diff(id)), [])
    fs.appendFileSync(`${box.path}/etc/passwd`, 'changed\n')
    fs.mkdirSync(`${box.path}/new`)
    fs.chownSync(`${box.path}/new`, 101_000, 100_000)
    fs.writeFileSync(`${box.path}/hosts-own`, '')
    await box.unmount()
    assert.equal(await changesText(storage.containers.diff(id)), ['C /etc', 'C /etc/passwd', 'A /hosts-own', 'A /new'])
    const exported = new Map<string, number>()
    for await (const { header: { name, uid } } of readTar(storage.containers.export('box'))) exported.set(name.toString(), uid)
    assert.equal(['etc/passwd', 'home/link', 'new/', 'hosts-own'].map(name => exported.get(name)), [0, 1000, 1000, 65534])
    const { chainId } = await storage.containers.commit('box', { reference: 'made:1' })
    assert.ok(chainId)
    const written = new Map<string, number>()
    for await (const { header: { name, uid } } of readTar(storage.layers.tar(chainId))) written.set(name.toString(), uid)
    assert.equal([...written].sort(), [['etc/', 0], ['etc/passwd', 0], ['hosts-own', 65534], ['new/', 1000]])
    await storage.containers.remove('box')
    // 1000 is mapped, 1001 on is not; nothing is left of the attempt.
    const few: IdMap = { uids: [{ container: 0, host: 100_000, size: 7 }], gids: [{ container: 0, host: 100_000, size: 65536 }] }
    const refused = await failure(storage.containers.create({ image: 'app:1', name: 'few', idMap: few, chown: true }))
    assert.ok(StorageError.is(refused, 'FAILED_PRECONDITION'), String(refused))
    assert.match(refused.message, /owner/)
    assert.ok(StorageError.is(await failure(storage.containers.create({ image: 'app:1', chown: true })), 'INVALID_ARGUMENT'))
    assert.equal(storage.containers.list(), [])
    assert.equal((await all(storage.check())).filter(finding => finding.severity !== 'notice'), [])
  })
}

for (const chown of [false, true]) {
  test(`a volume is filled with the owners that the container sees, ${chown ? 'chowned' : 'mounted shifted'}`, { skip: needsRoot, timeoutMs: 60_000 }, async t => {
    const storage = await open({ root: `${t.dir}/root`, driver: 'overlay2', durability: 'none' })
    t.defer(() => storage.close())
    await storage.images.load(write(t.dir, 'a.tar', makeTar(oldDockerArchive([owned]))))
    try {
      await storage.containers.create({ image: 'app:1', name: 'box', idMap, chown, mounts: { binds: ['data:/home', `${t.dir}:/bound`] } })
    } catch (error) {
      if (!StorageError.is(error, 'NOT_SUPPORTED')) throw error
      return t.skip(error.message)
    }
    const { Mountpoint: mountpoint } = await storage.volumes.inspect('data')
    assert.equal(['.', 'mine'].map(name => fs.statSync(`${mountpoint}/${name}`).uid), [101_000, 101_000])
    assert.equal(await changesText(storage.containers.diff('box')), [])
    // A second container with the same mapping shares it.
    await storage.containers.create({ image: 'app:1', name: 'second', idMap, chown, mounts: { binds: ['data:/home'] } })
    assert.is(fs.statSync(`${mountpoint}/mine`).uid, 101_000)
  })
}

test('a mapping that is none is refused at once; a driver that cannot says so when it is mounted', { skip: needsRoot }, async t => {
  const storage = await open({ root: `${t.dir}/root`, driver: 'overlay2', durability: 'none' })
  t.defer(() => storage.close())
  try { await storage.containers.create({ name: 'box', idMap: { uids: [], gids: [] } }); assert.unreachable() } catch (error) { assert.ok(StorageError.is(error, 'INVALID_ARGUMENT')) }
  assert.equal(storage.containers.list(), [])
  if (!(await drivers['fuse-overlayfs'].probe(t.dir)).ok) return
  const fuse = await open({ root: `${t.dir}/fuse`, driver: 'fuse-overlayfs', durability: 'none' })
  t.defer(() => fuse.close())
  await fuse.containers.create({ name: 'box', idMap })
  try { await fuse.containers.mount('box'); assert.unreachable() } catch (error) { assert.ok(StorageError.is(error, 'NOT_SUPPORTED')) }
})
