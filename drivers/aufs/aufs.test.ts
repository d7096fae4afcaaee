import fs from 'node:fs'
import { id, mode } from '../../fixtures/driver-tests.ts'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { applyLayer, listChanges, writeLayer } from '../../lib/diff/index.ts'
import { StorageError } from '../../lib/errors.ts'
import aufs, { openUnprobed } from './index.ts'
import { aufsMounts } from './mount-options.ts'

const test = suite('aufs')

test('the layout is dockerd\'s, to the byte', async t => {
  const home = `${t.dir}/aufs`
  const driver = await openUnprobed(home, true)
  for (const [name, parent] of [['base', undefined], ['mid', 'base'], ['top', 'mid']] as const) await driver.create(id(name), parent === undefined ? {} : { parent: id(parent) })
  assert.equal(fs.readdirSync(home).sort(), ['diff', 'layers', 'layerstack', 'mnt'])
  assert.equal(['diff', 'layers', 'mnt', 'diff/top', 'mnt/top', 'layers/top'].map(name => mode(`${home}/${name}`)), ['710', '710', '710', '755', '755', '644'])
  assert.equal(['base', 'mid', 'top'].map(name => fs.readFileSync(`${home}/layers/${name}`, 'latin1')), ['', 'base\n', 'mid\nbase\n'])
  assert.equal(fs.readdirSync(`${home}/layers`).sort(), ['base', 'mid', 'top'])
  assert.equal(await driver.content(id('top')), { kind: 'branch', path: `${home}/diff/top`, whiteouts: 'aufs', xattrPrefix: 'trusted.overlay.', lowers: [`${home}/diff/mid`, `${home}/diff/base`] })
  assert.is(driver.mountpoint(id('top')), `${home}/mnt/top`)
  assert.equal((await driver.status()).map(([key]) => key), ['Root Dir', 'Backing Filesystem', 'Dirs', 'Dirperm1 Supported'])
  assert.is((await driver.status())[2]?.[1], '3')
  await driver.remove(id('top'))
  assert.equal([fs.readdirSync(`${home}/diff`).sort(), fs.readdirSync(`${home}/mnt`).sort()], [['base', 'mid'], ['base', 'mid']])
})

test('mounts in moby\'s words', async t => {
  const home = `${t.dir}/aufs`
  const driver = await openUnprobed(home, true)
  for (const [name, parent] of [['base', undefined], ['mid', 'base'], ['top', 'mid']] as const) await driver.create(id(name), parent === undefined ? {} : { parent: id(parent) })
  assert.equal(await driver.mounts(id('top'), 'rw'), [{ type: 'aufs', source: 'none', options: [`br:${home}/diff/top=rw:${home}/diff/mid=ro+wh:${home}/diff/base=ro+wh`, 'dio', 'xino=/dev/shm/aufs.xino', 'dirperm1'] }])
  // It has a child, so nobody writes to it any more.
  assert.equal(await driver.mounts(id('mid'), 'rw'), [{ type: 'aufs', source: 'none', options: [`br:${home}/diff/mid=ro+wh:${home}/diff/base=ro+wh`, 'dio', 'xino=/dev/shm/aufs.xino', 'dirperm1', 'ro'] }])
  assert.equal(await driver.mounts(id('base'), 'ro'), [{ type: 'bind', source: `${home}/diff/base`, options: ['bind', 'ro'] }])
})

// moby TestMountMoreThan42Layers, TestMountMoreThan42LayersMatchingPathLength.
test('branches beyond a page of options are appended by remounts, none lost, none cut', () => {
  for (const count of [2, 30, 60, 127]) {
    for (const length of [10, 60, 90, 200]) {
      const branches = Array.from({ length: count }, (_, i) => `/${'p'.repeat(length)}/${i}`)
      for (const dirperm1 of [true, false]) {
        const [first, ...rest] = aufsMounts(branches, 'rw', dirperm1)
        assert.ok(first)
        const named = [...(first.options[0] ?? '').slice('br:'.length).split(':'), ...rest.flatMap(mount => mount.options.slice(1).map(word => word.slice('append:'.length)))]
        assert.equal(named, branches.map((dir, i) => `${dir}=${i === 0 ? 'rw' : 'ro+wh'}`))
        for (const mount of rest) assert.ok(mount.options[0] === 'remount' && mount.options.slice(1).every(word => word.startsWith('append:')))
        for (const mount of [first, ...rest]) assert.ok(mount.options.filter(word => word !== 'remount').join(',').length < 4096)
        assert.is(first.options.includes('dirperm1'), dirperm1)
      }
    }
  }
})

test('what aufs writes into a branch is read: whiteouts, opaque directories, its own bookkeeping left out', { skip: needsRoot }, async t => {
  const driver = await openUnprobed(`${t.dir}/aufs`, true)
  await driver.create(id('base'))
  const base = (await driver.content(id('base'))).path
  for (const dir of ['d', 'e']) { fs.mkdirSync(`${base}/${dir}`); fs.writeFileSync(`${base}/${dir}/old`, 'x') }
  fs.writeFileSync(`${base}/f`, 'x')
  await driver.create(id('top'), { parent: id('base'), writable: true })
  const content = await driver.content(id('top'))
  assert.ok(content.kind === 'branch')
  // As a mount with a writable branch leaves it (fs/aufs/whout.c).
  fs.mkdirSync(`${content.path}/.wh..wh.plnk`)
  fs.mkdirSync(`${content.path}/.wh..wh.orph`)
  fs.writeFileSync(`${content.path}/.wh..wh.aufs`, '')
  fs.writeFileSync(`${content.path}/.wh.f`, '')
  fs.writeFileSync(`${content.path}/.wh.e`, '')
  fs.mkdirSync(`${content.path}/d`)
  fs.writeFileSync(`${content.path}/d/.wh..wh..opq`, '')
  fs.writeFileSync(`${content.path}/d/new`, 'n')
  fs.linkSync(`${content.path}/d/new`, `${content.path}/.wh..wh.plnk/4711.815`)
  const changes: string[] = []
  for await (const change of listChanges(content.path, content.lowers, { whiteouts: 'aufs' })) changes.push(`${change.kind} ${change.path}`)
  assert.equal(changes, ['C /d', 'A /d/new', 'D /d/old', 'D /e', 'D /f'])
  fs.mkdirSync(`${t.dir}/again`)
  fs.cpSync(base, `${t.dir}/again`, { recursive: true })
  await applyLayer(writeLayer(content.path, content.lowers, { whiteouts: 'aufs' }), `${t.dir}/again`)
  assert.equal(fs.readdirSync(`${t.dir}/again`, { recursive: true }).sort(), ['d', 'd/new'])
})

// moby TestInitStaleCleanup.
test('what dockerd left under removal is cleared when the home is opened', async t => {
  const home = `${t.dir}/aufs`
  await openUnprobed(home, false)
  for (const name of ['diff/one-removing', 'mnt/two-removing']) fs.mkdirSync(`${home}/${name}/in`, { recursive: true })
  await openUnprobed(home, false)
  assert.equal([fs.readdirSync(`${home}/diff`), fs.readdirSync(`${home}/mnt`)], [[], []])
})

test('without aufs in the kernel the probe says so, and a store still opens for reading', async t => {
  assert.throws(() => aufs.parseOptions(['aufs.colour=blue']), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
  const home = `${t.dir}/aufs`
  const driver = await openUnprobed(home, false)
  await driver.create(id('base'))
  const probed = await aufs.probe(home)
  if (!probed.ok && !/aufs|native|CAP/.test(probed.reason)) assert.unreachable(probed.reason)
  if (!probed.ok) assert.ok(probed.hint !== '')
  const reader = await aufs.open({ home, options: {}, readOnly: true })
  assert.is(await reader.exists(id('base')), true)
  try { await reader.create(id('x')); assert.unreachable() } catch (error) { assert.ok(StorageError.is(error, 'READ_ONLY')) }
})
