// From creation to removal, with mounts held, stores opened again, and removals repeated.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { performMounts, unmount } from '../sys/mount.ts'
import { listed, makeLayer, newId } from './context.ts'
import type { Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'
import { failsWith, makeBase } from './basic.ts'

export function lifecycle(s: Suite): void {
  const { ownership } = s.supports

  // aufs's TestCleanupWithNoDirs, TestRemoveImage; btrfs of dockerd fails here.
  s.test('removal is idempotent, and removing what never was is fine', {}, async c => {
    const id = await makeBase(c, ownership)
    await c.driver.remove(id)
    await c.driver.remove(id)
    await c.driver.remove(newId('nobody'))
    assert.equal(await c.driver.exists(id), false)
    assert.deepEqual(await listed(c.driver), [])
  })

  // moby#45939: orphaned directories fill the disk; overlay2 of dockerd leaves dangling l/ links.
  s.test('after all layers are removed the home is as it was when it was new', {}, async c => {
    const before = dump(c.home)
    const ids = [await makeBase(c, ownership)]
    for (let i = 0; i < 4; i++) ids.push(await makeLayer(c, ids.at(-1), dir => { fs.writeFileSync(`${dir}/f${i}`, 'x'); fs.chmodSync(`${dir}/a file`, 0o600) }))
    for (const id of ids.reverse()) await c.driver.remove(id)
    assertSame(dump(c.home), before, 'the home')
  })

  s.test('an id can be used again after its removal', {}, async c => {
    const id = newId('again')
    await c.driver.create(id)
    await c.show(id, 'rw', dir => fs.writeFileSync(`${dir}/old`, 'x'))
    await c.driver.remove(id)
    await c.driver.create(id)
    await c.show(id, 'rw', dir => assert.deepEqual(fs.readdirSync(dir), []))
  })

  s.test('a store that is opened again has its layers, and a second opener sees the first one\'s', {}, async c => {
    const base = await makeBase(c, ownership)
    const child = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/new`, 'x'))
    const before = await c.show(child, 'ro', dir => dump(dir))
    const second = await c.reopen()
    assert.deepEqual(await listed(second), [base, child].sort())
    assert.deepEqual(await second.mounts(child, 'ro'), await c.driver.mounts(child, 'ro'))
    await c.driver.close()
    await c.driver.close() // containerd CloseTwice
    const third = newId('third')
    await second.create(third, { parent: child })
    assert.equal(await second.exists(third), true)
    assertSame(await c.show(child, 'ro', dir => dump(dir)), before, 'the layer')
  })

  // containerd ViewReadonly.
  s.test('a read-only mount refuses writes, and shows what is there', { mounts: true }, async c => {
    const base = await makeBase(c, ownership)
    const child = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/new`, 'x'))
    for (const id of [base, child]) {
      await c.show(id, 'ro', dir => {
        assert.throws(() => fs.writeFileSync(`${dir}/no`, 'x'), (error: unknown) => isErrno(error, 'EROFS'))
        assert.throws(() => fs.chmodSync(`${dir}/a file`, 0o600), (error: unknown) => isErrno(error, 'EROFS'))
        assert.ok(fs.existsSync(`${dir}/a file`))
      })
    }
  })

  s.test('a layer with a child is mounted read-only from then on', { mounts: true, independentLayers: true }, async c => {
    const base = await makeBase(c, ownership)
    const middle = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/new`, 'x'))
    await c.driver.create(newId('top'), { parent: middle })
    await c.show(middle, 'rw', dir => assert.throws(() => fs.writeFileSync(`${dir}/no`, 'x'), (error: unknown) => isErrno(error, 'EROFS')))
  })

  // containerd's suite unmounts with MNT_DETACH, so a driver must stand a removal just after; moby#22260, #14474: "device or resource busy".
  s.test('a layer whose mount is gone but whose file is still open can be removed', { mounts: true }, async c => {
    const base = await makeBase(c, ownership)
    const id = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/held`, 'still here'))
    const fd = await c.show(id, 'rw', dir => fs.openSync(`${dir}/held`, 'r'))
    try {
      await c.driver.remove(id)
      assert.equal(await c.driver.exists(id), false)
      assert.equal(fs.readFileSync(fd, 'utf8'), 'still here')
    } finally {
      fs.closeSync(fd)
    }
  })

  // aufs's TestRemoveMountedDir. The driver may unmount or refuse; what it may not is delete through the mount.
  s.test('removing a layer that is mounted in its own place harms no other layer', { mounts: true }, async c => {
    const base = await makeBase(c, ownership)
    const before = await c.show(base, 'ro', dir => dump(dir))
    const id = await makeLayer(c, base, dir => fs.writeFileSync(`${dir}/new`, 'x'))
    const place = c.driver.mountpoint?.(id)
    if (place === undefined) return
    fs.mkdirSync(place, { mode: 0o700, recursive: true })
    performMounts(await c.driver.mounts(id, 'rw'), place)
    try {
      await assert.rejects(c.driver.remove(id), failsWith('BUSY'))
      assert.ok(fs.existsSync(path.join(place, 'a file')))
    } finally {
      unmount(place)
      if (c.driver.keepsMountpoints !== true) fs.rmdirSync(place)
    }
    await c.driver.remove(id)
    assertSame(await c.show(base, 'ro', dir => dump(dir)), before, 'the parent')
  })

  s.test('what a container made removable by nobody is removed all the same', {}, async c => {
    const id = await makeLayer(c, undefined, dir => {
      fs.mkdirSync(`${dir}/closed/inner`, { recursive: true })
      fs.writeFileSync(`${dir}/closed/inner/f`, 'x')
      fs.chmodSync(`${dir}/closed/inner`, 0)
      fs.chmodSync(`${dir}/closed`, 0o500)
      // Deeper than PATH_MAX, made step by step as a container would.
      const name = 'd'.repeat(200)
      let tower = `${dir}/${name}`
      fs.mkdirSync(tower)
      for (let i = 0; i < 30; i++) {
        // A new top around the old tower: every path stays short.
        fs.mkdirSync(`${dir}/top`)
        fs.renameSync(tower, `${dir}/top/${name}`)
        fs.renameSync(`${dir}/top`, tower = `${dir}/${name}`)
      }
    })
    await c.driver.remove(id)
    assert.deepEqual(await listed(c.driver), [])
    assertSame(dump(c.home), dump((await c.reopen(), c.home)), 'the home')
  })
}
