// Deep chains: moby's DeepLayerRead, containerd's 128LayersMount, aufs's MountMoreThan42Layers, and the page of mount options.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import { removeTreeSync } from '../fs/remove-tree.ts'
import type { LayerId } from '../ids.ts'
import { makeLayer, newId } from './context.ts'
import type { Case, Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'
import { failsWith } from './basic.ts'

/** Write into a layer's content directly, as an image layer is applied: mounting each of n layers would cost n² lowers. */
async function addLayer(c: Case, parent: LayerId | undefined, fill: (dir: string) => void): Promise<LayerId> {
  const id = newId('deep')
  await c.driver.create(id, parent === undefined ? {} : { parent })
  fill((await c.driver.content(id)).path)
  return id
}

async function deepChain(c: Case, n: number): Promise<LayerId[]> {
  const ids = [await addLayer(c, undefined, dir => fs.writeFileSync(`${dir}/testfile`, 'base'))]
  for (let i = 1; i <= n; i++) {
    const parent = ids.at(-1) ?? assert.fail()
    ids.push(await addLayer(c, parent, dir => {
      fs.writeFileSync(`${dir}/top-id`, String(i))
      fs.mkdirSync(`${dir}/layer-${i}`)
      fs.writeFileSync(`${dir}/layer-${i}/layer-id`, String(i))
      fs.writeFileSync(`${dir}/layer-${i}/parent-id`, parent)
    }))
  }
  return ids
}

function verifyChain(dir: string, ids: readonly LayerId[]): void {
  const n = ids.length - 1
  assert.equal(fs.readFileSync(`${dir}/testfile`, 'utf8'), 'base')
  assert.equal(fs.readFileSync(`${dir}/top-id`, 'utf8'), String(n))
  for (let i = 1; i <= n; i++) {
    assert.equal(fs.readFileSync(`${dir}/layer-${i}/layer-id`, 'utf8'), String(i))
    assert.equal(fs.readFileSync(`${dir}/layer-${i}/parent-id`, 'utf8'), ids[i - 1])
  }
}

export function depth(s: Suite): void {
  // moby graphtest DriverTestDeepLayerRead(128); 42 was aufs's first limit; 400 is beyond the page of mount(2), 500 the kernel's.
  for (const n of [43, 128, 400]) {
    if (n === 400 && !s.supports.independentLayers) continue // n copies of n files prove nothing more than 128 do
    s.test(`${n} layers below a writable one can be read`, { depth: n, timeoutMs: 120_000 }, async c => {
      const ids = await deepChain(c, n - 1)
      const top = newId('top')
      await c.driver.create(top, { parent: ids.at(-1) ?? assert.fail(), writable: true })
      await c.show(top, 'rw', dir => {
        verifyChain(dir, ids)
        fs.writeFileSync(`${dir}/testfile`, 'changed')
        assert.equal(fs.readFileSync(`${dir}/testfile`, 'utf8'), 'changed')
      })
      await c.show(ids.at(-1) ?? assert.fail(), 'ro', dir => verifyChain(dir, ids))
    })
  }

  // containerd 128LayersMount: each layer compared with a flat directory before and after.
  s.test('each of 128 layers shows what a flat directory shows', { depth: 128, timeoutMs: 180_000 }, async c => {
    const flat = `${c.work}/flat`
    fs.mkdirSync(flat)
    const ids: LayerId[] = []
    for (let i = 0; i < 128; i++) {
      const change = (dir: string): void => {
        fs.writeFileSync(`${dir}/f${i}`, `layer ${i}`)
        if (i % 3 === 2) fs.rmSync(`${dir}/f${i - 1}`, { force: true })
        if (i % 5 === 4) { fs.mkdirSync(`${dir}/d${i}`); fs.renameSync(`${dir}/f${i}`, `${dir}/d${i}/moved`) }
        fs.writeFileSync(`${dir}/same`, `${i}`)
      }
      const before = dump(flat)
      ids.push(await makeLayer(c, ids.at(-1), dir => { assertSame(dump(dir), before, `layer ${i} before`); change(dir) }))
      change(flat)
      assertSame(await c.show(ids.at(-1) ?? assert.fail(), 'ro', dir => dump(dir)), dump(flat), `layer ${i} after`)
    }
  })

  // moby for-linux#1012, #26380, containers/storage#1159: the limit must be the driver's word, not a mount that fails with a misleading text.
  s.test('one layer too many is LIMIT_EXCEEDED at its creation', { timeoutMs: 120_000 }, async c => {
    if (s.supports.maxDepth > 10_000) return // no limit to reach
    let parent: LayerId | undefined
    for (let i = 0; i < s.supports.maxDepth; i++) parent = await addLayer(c, parent, dir => fs.writeFileSync(`${dir}/f${i}`, ''))
    const last = newId('last')
    await c.driver.create(last, { ...(parent === undefined ? {} : { parent }), writable: true })
    for (const access of ['rw', 'ro'] as const) await c.show(last, access, dir => assert.equal(fs.readdirSync(dir).length, s.supports.maxDepth))
    const beyond = newId('beyond')
    await assert.rejects(c.driver.create(beyond, { parent: last }), failsWith('LIMIT_EXCEEDED'))
    assert.equal(await c.driver.exists(beyond), false)
  })

  // The page limit also depended on the data root's length (aufs's MountMoreThan42LayersMatchingPathLength).
  for (const length of [120, 300]) {
    s.test(`128 layers in a home with a path longer than ${length} bytes`, { depth: 128, timeoutMs: 120_000 }, async c => {
      const far = `${c.work}/${Array.from({ length: Math.ceil(length / 60) }, () => 'p'.repeat(59)).join('/')}`
      fs.mkdirSync(far, { recursive: true })
      const elsewhere = await c.openAt(`${far}/home`)
      try {
        const there: Case = { ...c, driver: elsewhere, show: c.showWith(elsewhere) }
        const ids = await deepChain(there, 127)
        const top = newId('top')
        await elsewhere.create(top, { parent: ids.at(-1) ?? assert.fail(), writable: true })
        await there.show(top, 'rw', dir => { verifyChain(dir, ids); fs.writeFileSync(`${dir}/new`, 'x') })
      } finally {
        await elsewhere.close()
        removeTreeSync(far)
      }
    })
  }
}
