// Many at once: in this process and, over a second opener, as another process would.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import { StorageError } from '../errors.ts'
import { listed, makeLayer, newId } from './context.ts'
import type { Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'
import { makeBase } from './basic.ts'

export function concurrency(s: Suite): void {
  s.test('of eight creations of one id exactly one wins', {}, async c => {
    const second = await c.reopen()
    const base = await makeBase(c, s.supports.ownership)
    for (const options of [{}, { parent: base }]) {
      const id = newId('race')
      const results = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? c.driver : second).create(id, options)))
      assert.equal(results.filter(r => r.status === 'fulfilled').length, 1)
      for (const r of results) if (r.status === 'rejected') assert.ok(StorageError.is(r.reason, 'ALREADY_EXISTS'), String(r.reason))
      await c.show(id, 'ro', dir => assert.equal(fs.readdirSync(dir).length, 'parent' in options ? 2 : 0))
      await c.driver.remove(id)
    }
  })

  s.test('many children of one parent, created, written and removed at once', {}, async c => {
    const before = dump(c.home)
    const base = await makeBase(c, s.supports.ownership)
    const shown = await c.show(base, 'ro', dir => dump(dir))
    const ids = Array.from({ length: 24 }, () => newId('child'))
    await Promise.all(ids.map(async id => {
      await c.driver.create(id, { parent: base, writable: true })
      await c.show(id, 'rw', dir => fs.writeFileSync(`${dir}/${id}`, id))
      await c.show(id, 'ro', dir => assert.deepEqual(fs.readdirSync(dir).sort(), ['a file', 'a subdir', id].sort()))
    }))
    assert.equal((await listed(c.driver)).length, 25)
    assertSame(await c.show(base, 'ro', dir => dump(dir)), shown, 'the parent')
    await Promise.all([...ids, ...ids].map(id => c.driver.remove(id)))
    await c.driver.remove(base)
    assertSame(dump(c.home), before, 'the home')
  })

  // moby#21814, #37957, #32618: layers were unpacked strictly one after another.
  s.test('layers of one chain are filled at once, before their parents are', { independentLayers: true }, async c => {
    const ids = Array.from({ length: 6 }, () => newId('chain'))
    for (const [i, id] of ids.entries()) {
      const parent = ids[i - 1]
      await c.driver.create(id, parent === undefined ? {} : { parent })
    }
    await Promise.all(ids.toReversed().map(async (id, i) => {
      const { path } = await c.driver.content(id)
      await fs.promises.writeFile(`${path}/same`, id)
      await fs.promises.writeFile(`${path}/f${i}`, id)
    }))
    await c.show(ids.at(-1) ?? assert.fail(), 'ro', dir => {
      assert.equal(fs.readdirSync(dir).length, 7)
      assert.equal(fs.readFileSync(`${dir}/same`, 'utf8'), ids.at(-1))
    })
  })

  s.test('usage, list and content while others create and remove', {}, async c => {
    const base = await makeLayer(c, undefined, dir => fs.writeFileSync(`${dir}/f`, 'x'))
    let busy = true
    const churn = (async () => {
      for (let i = 0; i < 40; i++) {
        const id = newId('churn')
        await c.driver.create(id, { parent: base })
        await c.driver.remove(id)
      }
      busy = false
    })()
    while (busy) {
      assert.ok((await listed(c.driver)).includes(base))
      assert.equal((await c.driver.usage(base)).inodes, 2)
      // A driver that answers both from memory would let no timer and no thread's message through.
      await new Promise(resolve => setImmediate(resolve))
    }
    await churn
    assert.deepEqual(await listed(c.driver), [base])
  })
}
