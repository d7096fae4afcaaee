// One check for each bug that users of the field's drivers have suffered from and that a driver can have; the number is the issue's. Those that
// a group tests anyway are named there: moby#45939, #14474 (lifecycle), #39428, ac5d363e (changes), #5419, #43882 (metadata), #26380 (depth).

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import { listed, makeLayer, newId } from './context.ts'
import type { Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'
import { makeBase } from './basic.ts'
import { mountTable, performMount, unmount } from '../sys/mount.ts'

export function issues(s: Suite): void {
  // moby#35747, #42964: after a power cut `link` and `lower` were empty. What a layer needs must be whole as soon as the layer shows.
  s.test('moby#42964: a layer that shows is complete, whenever one looks', {}, async c => {
    const base = await makeBase(c, s.supports.ownership)
    const second = await c.reopen()
    const id = newId('watched')
    const creating = c.driver.create(id, { parent: base })
    let done = false
    void creating.then(() => { done = true })
    let looks = 0
    do {
      if (await second.exists(id)) {
        await second.mounts(id, 'rw')
        const content = await second.content(id)
        assert.ok(fs.existsSync(content.path))
        if (content.kind === 'tree') assert.equal(fs.readdirSync(content.path).length, 2)
      }
      looks++
      await new Promise(resolve => setImmediate(resolve))
    } while (!done)
    await creating
    assert.ok(looks > 0)
  })

  // moby#32461, #30392: a mount that leaked into another place made the removal fail with EBUSY and left half a layer. A bind mount of the same file
  // system shows in no device number: whoever goes by that alone deletes somebody's data.
  for (const type of ['tmpfs', 'bind']) {
    s.test(`moby#32461: a removal stopped by a ${type} mount inside can be repeated, and harms nothing`, { mounts: true }, async c => {
      const base = await makeBase(c, s.supports.ownership)
      const id = await makeLayer(c, base, dir => { fs.mkdirSync(`${dir}/in`); fs.writeFileSync(`${dir}/in/f`, 'x') })
      const other = newId('other')
      await c.driver.create(other, { parent: base })
      const place = `${(await c.driver.content(id)).path}/in`
      const source = `${c.home}-source`
      fs.mkdirSync(source)
      performMount(type === 'bind' ? { type, source, options: ['bind'] } : { type, source: 'tmpfs', options: ['size=64k'] }, place)
      let where = place
      try {
        fs.writeFileSync(`${place}/precious`, 'data of somebody else')
        await c.driver.remove(id).catch(() => undefined)
        // The driver may have moved the layer out of sight before it found the mount, and the mount with it.
        where = mountTable().filter(m => m.target.startsWith(`${fs.realpathSync(c.home)}/`)).at(-1)?.target ?? place
        assert.equal(fs.readFileSync(`${where}/precious`, 'utf8'), 'data of somebody else', 'the removal went through a mount point')
      } finally {
        unmount(where)
      }
      await c.driver.remove(id)
      assert.equal(await c.driver.exists(id), false)
      assert.deepEqual(await listed(c.driver), [base, other].sort())
    })
  }

  // moby#31944, #30257: sizes that count holes, or hard links twice, or go negative.
  s.test('moby#31944: usage grows by what is written and falls by what is removed', {}, async c => {
    const id = newId('usage')
    await c.driver.create(id)
    const empty = await c.driver.usage(id)
    await c.show(id, 'rw', dir => fs.writeFileSync(`${dir}/f`, Buffer.alloc(1 << 20, 1)))
    const full = await c.driver.usage(id)
    await c.show(id, 'rw', dir => fs.rmSync(`${dir}/f`))
    assert.deepEqual([full.sizeBytes - empty.sizeBytes >= 1 << 20, full.inodes - empty.inodes], [true, 1])
    assert.deepEqual(await c.driver.usage(id), empty)
  })

  // moby#17876, for-linux#964: chmod copies the whole file up. It may; but the content must be right and the parent untouched.
  s.test('for-linux#964: chmod of a lower file keeps its bytes and leaves the parent\'s mode', {}, async c => {
    const bytes = Buffer.alloc(2 << 20, 5)
    const base = await makeLayer(c, undefined, dir => { fs.writeFileSync(`${dir}/f`, bytes); fs.chmodSync(`${dir}/f`, 0o644) })
    const top = await makeLayer(c, base, dir => fs.chmodSync(`${dir}/f`, 0o755))
    await c.show(top, 'ro', dir => { assert.ok(fs.readFileSync(`${dir}/f`).equals(bytes)); assert.equal(fs.statSync(`${dir}/f`).mode & 0o777, 0o755) })
    await c.show(base, 'ro', dir => assert.equal(fs.statSync(`${dir}/f`).mode & 0o777, 0o644))
  })

  // Overlay's copy-up leaves whoever has the lower file open with the old one.
  s.test('a reader that was there first sees the old bytes, the next one the new, nobody a mixture', {}, async c => {
    const base = await makeLayer(c, undefined, dir => fs.writeFileSync(`${dir}/f`, 'a'.repeat(8192)))
    await makeLayer(c, base, dir => {
      const fd = fs.openSync(`${dir}/f`, 'r')
      try {
        fs.writeFileSync(`${dir}/g`, 'b'.repeat(8192))
        fs.renameSync(`${dir}/g`, `${dir}/f`)
        assert.equal(fs.readFileSync(fd, 'utf8'), 'a'.repeat(8192))
        assert.equal(fs.readFileSync(`${dir}/f`, 'utf8'), 'b'.repeat(8192))
      } finally {
        fs.closeSync(fd)
      }
    })
  })

  // dockerd's vfs: a copy that failed half-way stayed as a layer.
  s.test('a creation that fails half-way leaves nothing that shows, and the id is free', {}, async c => {
    const base = await makeBase(c, s.supports.ownership)
    const content = await c.driver.content(base)
    const id = newId('failed')
    const before = dump(c.home)
    if (content.kind !== 'tree' || process.geteuid?.() === 0) {
      // Root reads everything; the failing copy is tested where a file can be unreadable, and in lib/fs with full file systems.
      await assert.rejects(c.driver.create(id, { parent: newId('nobody') }))
    } else {
      fs.chmodSync(`${content.path}/a file`, 0)
      await assert.rejects(c.driver.create(id, { parent: base }))
      fs.chmodSync(`${content.path}/a file`, 0o4622)
    }
    assert.equal(await c.driver.exists(id), false)
    assertSame(dump(c.home), before, 'the home')
    await c.driver.create(id, { parent: base })
  })

  // moby#21925, #43586: what the driver lists must be all there is, and nothing that is no layer.
  s.test('moby#43586: strange files in the home are not layers', {}, async c => {
    const base = await makeBase(c, s.supports.ownership)
    fs.writeFileSync(`${c.home}/README`, 'x')
    fs.mkdirSync(`${c.home}/.tmp-unknown`)
    const second = await c.reopen()
    assert.deepEqual(await listed(second), [base])
    assert.ok(fs.existsSync(`${c.home}/README`) && fs.existsSync(`${c.home}/.tmp-unknown`))
  })
}
