import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import overlay2 from '../../drivers/overlay2/index.ts'
import { StorageError } from '../errors.ts'
import type { LayerId } from '../ids.ts'
import { bindIdmapped, idMapOptions, splitIdMap } from './idmap.ts'
import type { IdMap } from './idmap.ts'
import { mountTable, performMount, performMounts, unmount } from './mount.ts'

const test = suite('sys/idmap')
const map: IdMap = { uids: [{ container: 0, host: 100_000, size: 65536 }], gids: [{ container: 0, host: 200_000, size: 1000 }, { container: 1000, host: 300_000, size: 64536 }] }

test('the mapping in containerd\'s words, and what is no mapping', () => {
  assert.equal(idMapOptions(map), ['uidmap=0:100000:65536', 'gidmap=0:200000:1000/1000:300000:64536'])
  assert.equal(splitIdMap(['ro', ...idMapOptions(map), 'index=off']), { rest: ['ro', 'index=off'], lines: { uid: '0 100000 65536', gid: '0 200000 1000\n1000 300000 64536' } })
  assert.is(splitIdMap(['ro']).lines, undefined)
  for (const range of [{ container: -1, host: 0, size: 1 }, { container: 0, host: 0, size: 0 }, { container: 0, host: 2 ** 32 - 1, size: 2 }, { container: 0.5, host: 0, size: 1 }]) {
    assert.throws(() => idMapOptions({ uids: [range], gids: map.gids }), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
  }
  assert.throws(() => idMapOptions({ uids: [], gids: map.gids }), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
})

function idmappedHere(dir: string): string | false {
  fs.mkdirSync(`${dir}/probe/at`, { recursive: true })
  try {
    bindIdmapped(`${dir}/probe`, `${dir}/probe/at`, { uid: '0 1000 1', gid: '0 1000 1' }, true)
    unmount(`${dir}/probe/at`)
    return false
  } catch (error) {
    if (!StorageError.is(error, 'NOT_SUPPORTED')) throw error
    return error.message
  }
}

test('a bound tree shows shifted owners, and stores what is written shifted back', { skip: needsRoot }, t => {
  const reason = idmappedHere(t.dir)
  if (reason !== false) t.skip(reason)
  fs.mkdirSync(`${t.dir}/tree`)
  fs.writeFileSync(`${t.dir}/tree/f`, 'x')
  fs.chownSync(`${t.dir}/tree/f`, 7, 1005)
  fs.mkdirSync(`${t.dir}/m`)
  t.defer(() => unmount(`${t.dir}/m`))
  performMount({ type: 'bind', source: `${t.dir}/tree`, options: ['bind', 'rw', ...idMapOptions(map)] }, `${t.dir}/m`)
  const seen = fs.lstatSync(`${t.dir}/m/f`)
  assert.equal([seen.uid, seen.gid], [100_007, 300_005])
  fs.chownSync(`${t.dir}/m/f`, 100_001, 200_002)
  const stored = fs.lstatSync(`${t.dir}/tree/f`)
  assert.equal([stored.uid, stored.gid], [1, 2])
  unmount(`${t.dir}/m`)
  performMount({ type: 'bind', source: `${t.dir}/tree`, options: ['bind', 'ro', ...idMapOptions(map)] }, `${t.dir}/m`)
  assert.throws(() => fs.writeFileSync(`${t.dir}/m/g`, ''))
})

test('an overlay of idmapped layers: one mount for all, gone afterwards; layers keep the image\'s owners', { skip: needsRoot }, async t => {
  const reason = idmappedHere(t.dir)
  if (reason !== false) t.skip(reason)
  const id = (name: string): LayerId => name as LayerId
  const driver = await overlay2.open({ home: `${t.dir}/overlay2`, options: {} })
  await driver.create(id('base'))
  const base = (await driver.content(id('base'))).path
  fs.writeFileSync(`${base}/f`, 'x')
  fs.chownSync(`${base}/f`, 5, 6)
  await driver.create(id('mid'), { parent: id('base') })
  await driver.create(id('top'), { parent: id('mid'), writable: true })
  const [mount] = await driver.mounts(id('top'), 'rw')
  assert.ok(mount)
  fs.mkdirSync(`${t.dir}/m`)
  t.defer(() => unmount(`${t.dir}/m`))
  performMounts([{ ...mount, options: [...mount.options, ...idMapOptions(map)] }], `${t.dir}/m`)
  assert.equal(mountTable().filter(m => m.target.includes('layerstack-idmap-')), [])
  const seen = fs.lstatSync(`${t.dir}/m/f`)
  assert.equal([seen.uid, seen.gid], [100_005, 200_006])
  // Copied up and stored with the owner that it has in the container, so that a diff needs no translation.
  fs.appendFileSync(`${t.dir}/m/f`, 'y')
  const child = (path: string, uid: number): void => { fs.mkdirSync(path); fs.chownSync(path, uid, 200_000) }
  child(`${t.dir}/m/d`, 100_009)
  const upper = (await driver.content(id('top'))).path
  assert.equal(['f', 'd'].map(name => { const { uid, gid } = fs.lstatSync(`${upper}/${name}`); return [uid, gid] }), [[5, 6], [9, 0]])
})
