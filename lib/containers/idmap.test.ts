// Containers whose owners show shifted: on each driver that can, with what they write, diff and commit unaffected.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import { drivers, open } from '../index.ts'
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
