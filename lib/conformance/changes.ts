// What changed: moby's graphtest DriverTestChanges and DriverTestDiffApply, and the rules of its change lists.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import { applyTar, changesIn, diffOf, makeLayer, newId } from './context.ts'
import type { Suite } from './context.ts'
import { assertSame, dump } from './compare.ts'

export function changes(s: Suite): void {
  // moby graphtest DriverTestChanges(20): permanently skipped for overlay2 there.
  s.test('of twenty files every third is changed, added, removed: exactly those are listed', {}, async c => {
    const base = await makeLayer(c, undefined, dir => {
      for (let i = 0; i < 20; i++) fs.writeFileSync(`${dir}/file-${i}`, `base ${i}`)
    })
    const expected: string[] = []
    const upper = await makeLayer(c, base, dir => {
      for (let i = 0; i < 20; i += 3) {
        fs.writeFileSync(`${dir}/file-${i}`, `upper ${i}`)
        expected.push(`C /file-${i}`)
        fs.writeFileSync(`${dir}/new-${i}`, 'x')
        expected.push(`A /new-${i}`)
        if (i + 1 < 20) { fs.rmSync(`${dir}/file-${i + 1}`); expected.push(`D /file-${i + 1}`) }
      }
    })
    assert.deepEqual(await changesIn(c, upper, base), expected.sort())
  })

  // moby graphtest DriverTestDiffApply(10).
  s.test('a diff applied to a sibling gives the same tree', {}, async c => {
    const fill = (dir: string, seed: number): void => {
      fs.mkdirSync(`${dir}/directory-0`, { recursive: true })
      for (let i = 0; i < 10; i++) fs.writeFileSync(`${dir}/directory-0/file-${i}`, Buffer.alloc(64, seed * 7 + i))
    }
    const base = await makeLayer(c, undefined, dir => {
      fill(dir, 3)
      fs.writeFileSync(`${dir}/file-remove.txt`, 'removed in the upper')
      fs.mkdirSync(`${dir}/var/lib`, { recursive: true })
      fs.writeFileSync(`${dir}/var/lib/state`, 'x')
    })
    const upper = await makeLayer(c, base, dir => {
      fill(dir, 6)
      fs.rmSync(`${dir}/file-remove.txt`)
      fs.rmSync(`${dir}/var`, { recursive: true })
    })
    const sibling = await applyTar(c, base, await diffOf(c, upper, base))
    assertSame(await c.show(sibling, 'ro', dir => dump(dir)), await c.show(upper, 'ro', dir => dump(dir)), 'the sibling')
    assert.deepEqual(await changesIn(c, sibling, base), await changesIn(c, upper, base))
  })

  s.test('nothing changed is an empty list; a base layer\'s content is all additions', {}, async c => {
    const base = await makeLayer(c, undefined, dir => { fs.mkdirSync(`${dir}/d`); fs.writeFileSync(`${dir}/d/f`, 'x') })
    const top = newId('top')
    await c.driver.create(top, { parent: base, writable: true })
    assert.deepEqual(await changesIn(c, top, base), [])
    await c.show(top, 'rw', dir => fs.readFileSync(`${dir}/d/f`))
    assert.deepEqual(await changesIn(c, top, base), [])
    assert.deepEqual(await changesIn(c, base, undefined), ['A /d', 'A /d/f'])
  })

  // moby's rules: a directory with changes is a C of its own; a deleted directory is one D; a change of type is one C.
  s.test('directories above a change, deleted directories, and changes of type', {}, async c => {
    const base = await makeLayer(c, undefined, dir => {
      fs.mkdirSync(`${dir}/a/b`, { recursive: true })
      fs.writeFileSync(`${dir}/a/b/f`, '1')
      fs.mkdirSync(`${dir}/gone/deep`, { recursive: true })
      fs.writeFileSync(`${dir}/gone/deep/f`, '2')
      fs.writeFileSync(`${dir}/type`, '3')
    })
    const top = await makeLayer(c, base, dir => {
      fs.chmodSync(`${dir}/a/b/f`, 0o600)
      fs.rmSync(`${dir}/gone`, { recursive: true })
      fs.rmSync(`${dir}/type`)
      fs.mkdirSync(`${dir}/type`)
    })
    assert.deepEqual(await changesIn(c, top, base), ['C /a', 'C /a/b', 'C /a/b/f', 'C /type', 'D /gone'])
  })

  // moby ac5d363e, #39428: correct for opaque directories, and without walking the parent.
  s.test('a directory removed and made again lists what it lost and what it has', {}, async c => {
    const base = await makeLayer(c, undefined, dir => {
      fs.mkdirSync(`${dir}/d/sub`, { recursive: true })
      for (const name of ['d/old', 'd/stays', 'd/sub/f']) fs.writeFileSync(`${dir}/${name}`, name)
    })
    const top = await makeLayer(c, base, dir => {
      fs.rmSync(`${dir}/d`, { recursive: true })
      fs.mkdirSync(`${dir}/d`)
      fs.writeFileSync(`${dir}/d/stays`, 'other')
      fs.writeFileSync(`${dir}/d/new`, 'x')
    })
    assert.deepEqual(await changesIn(c, top, base), ['A /d/new', 'C /d', 'C /d/stays', 'D /d/old', 'D /d/sub'])
  })

  s.test('a file made and deleted in the same layer leaves no trace in the list', {}, async c => {
    const base = await makeLayer(c, undefined, dir => fs.writeFileSync(`${dir}/f`, 'x'))
    const top = await makeLayer(c, base, dir => { fs.writeFileSync(`${dir}/tmp`, 'x'); fs.rmSync(`${dir}/tmp`); fs.mkdirSync(`${dir}/t`); fs.rmdirSync(`${dir}/t`) })
    assert.deepEqual(await changesIn(c, top, base), [])
  })
}
