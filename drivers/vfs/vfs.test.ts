import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { failure, id, mode, opener } from '../../fixtures/driver-tests.ts'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../../lib/errors.ts'
import { performMount, unmount } from '../../lib/sys/mount.ts'
import vfs from './index.ts'

const test = suite('vfs')
const open = opener(vfs)

test('the layout is dockerd\'s, and ours beside it', async t => {
  const home = `${t.dir}/vfs`
  const driver = await open(home)
  await driver.create(id('a'))
  fs.chmodSync(`${home}/dir/a`, 0o711)
  await driver.create(id('b'), { parent: id('a') })
  assert.equal(fs.readdirSync(home).sort(), ['dir', 'layerstack'])
  assert.equal(fs.readdirSync(`${home}/dir`).sort(), ['a', 'b'])
  // A child's root is its parent's, as dockerd's DirCopy does it.
  assert.equal([mode(home), mode(`${home}/dir`), mode(`${home}/layerstack`), mode(`${home}/dir/b`)], ['710', '710', '700', '711'])
  assert.equal(await driver.content(id('b')), { kind: 'tree', path: `${home}/dir/b`, parentPath: `${home}/dir/a` })
  assert.equal(await driver.metadata(id('b')), { SourceDir: `${home}/dir/b` })
  await driver.remove(id('a'))
  assert.equal(await driver.content(id('b')), { kind: 'tree', path: `${home}/dir/b` })
  // A layer that dockerd made has no parent written down.
  fs.mkdirSync(`${home}/dir/docker`)
  assert.equal(await driver.content(id('docker')), { kind: 'tree', path: `${home}/dir/docker` })
})

test('options, in Docker\'s words', async t => {
  assert.equal(vfs.parseOptions([]), {})
  assert.equal(vfs.parseOptions(['vfs.xattrs=i_want_broken_containers', 'size=5G']), { bestEffortXattrs: true, size: '5G' })
  for (const pair of ['vfs.xattrs=yes', 'vfs.colour=blue', 'x']) assert.throws(() => vfs.parseOptions([pair]), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
  assert.is((await failure(open(`${t.dir}/v`, ['size=5G']), 'NOT_SUPPORTED')).message, 'Filesystem does not support, or has not enabled quotas')
  const driver = await open(`${t.dir}/v`, ['vfs.xattrs=i_want_broken_containers'])
  if (Object.fromEntries(await driver.status())['Extended file attributes'] !== 'best-effort') assert.match(String(Object.fromEntries(await driver.status())['Extended file attributes']), /not kept/)
  assert.is((await failure(driver.create(id('a'), { storageOptions: { size: '1G' } }), 'INVALID_ARGUMENT')).message, '--storage-opt is not supported for vfs on read-only layers')
  assert.is((await failure(driver.create(id('a'), { writable: true, storageOptions: { colour: 'x' } }), 'INVALID_ARGUMENT')).message, 'Storage opt colour not supported')
})

test('status names the way of copying', async t => {
  const status = Object.fromEntries(await (await open(`${t.dir}/v`)).status())
  assert.match(status['Copy method'] ?? '', /^(reflink|copy_file_range|read\/write)$/)
  assert.ok(status['Backing Filesystem'] && status['Extended file attributes'] && status['Owners and devices'] && status['Times'])
  assert.equal(fs.readdirSync(`${t.dir}/v/layerstack`).sort(), ['gone', 'new', 'parents'])
})

test('probe fails only where nothing can be written', { skip: needsRoot }, async t => {
  assert.is((await vfs.probe(`${t.dir}/none/yet`)).ok, true)
  assert.equal(fs.readdirSync(t.dir), [])
  fs.mkdirSync(`${t.dir}/ro`)
  t.defer(() => unmount(`${t.dir}/ro`))
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['ro'] }, `${t.dir}/ro`)
  const probed = await vfs.probe(`${t.dir}/ro/home`)
  assert.ok(!probed.ok && probed.code === 'PREREQUISITE_MISSING' && probed.hint !== '')
})

test('a full disk during a copy leaves no partial layer', { skip: needsRoot }, async t => {
  fs.mkdirSync(`${t.dir}/small`)
  t.defer(() => unmount(`${t.dir}/small`))
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['size=1m'] }, `${t.dir}/small`)
  const home = `${t.dir}/small/vfs`
  const driver = await open(home)
  await driver.create(id('a'))
  for (let i = 0; i < 6; i++) fs.writeFileSync(`${home}/dir/a/f${i}`, Buffer.alloc(100_000, 1))
  await failure(driver.create(id('b'), { parent: id('a') }), 'NO_SPACE')
  assert.is(await driver.exists(id('b')), false)
  assert.equal(fs.readdirSync(home, { recursive: true }).filter(name => String(name).includes('b')), [])
})

test('killed during a copy: nothing shows, and removal clears it', { timeoutMs: 60_000 }, async t => {
  const home = `${t.dir}/v`
  const driver = await open(home)
  await driver.create(id('big'))
  for (let i = 0; i < 1500; i++) fs.writeFileSync(`${home}/dir/big/f${i}`, Buffer.alloc(3000, i))
  const code = `
    const { default: vfs } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)})
    const driver = await vfs.open({ home: ${JSON.stringify(home)}, options: {} })
    console.log('ready')
    for (let i = 0;; i++) { await driver.create('k' + process.pid + '-' + i, { parent: 'big' }); await driver.remove('k' + process.pid + '-' + i) }`
  let caught = 0
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    await sleep(25 + round * 9)
    const ended = once(child, 'exit')
    assert.is(child.exitCode, null, 'the child ended by itself')
    child.kill('SIGKILL')
    await ended
    const again = await open(home)
    for await (const layer of again.list()) assert.is(fs.readdirSync(`${home}/dir/${layer}`).length, 1500, 'a layer that shows is whole')
    assert.equal(fs.readdirSync(`${home}/layerstack/gone`), [])
    for (const begun of [...fs.readdirSync(`${home}/layerstack/new`), ...fs.readdirSync(`${home}/layerstack/parents`)]) { caught++; await again.remove(id(begun)) }
    for await (const layer of again.list()) if (layer !== 'big') await again.remove(layer)
    assert.equal(fs.readdirSync(`${home}/dir`), ['big'])
    assert.equal(fs.readdirSync(`${home}/layerstack`, { recursive: true }).sort(), ['gone', 'new', 'parents'])
  }
  assert.ok(caught > 0, 'no kill came in the middle of a copy')
})

// The whole suite once more as an ordinary user, and without koffi.
const conformanceTest = fileURLToPath(new URL('./vfs.conformance.test.js', import.meta.url))
const runs = [
  ['as an ordinary user', { uid: 65534, gid: 65534 }, {}, needsRoot],
  ['as an ordinary user without native calls', { uid: 65534, gid: 65534 }, { LAYERSTACK_NO_NATIVE: '1' }, needsRoot],
  ['without native calls', {}, { LAYERSTACK_NO_NATIVE: '1' }, false],
] as const
for (const [what, ids, env, skip] of runs) {
  test(`the conformance suite ${what}`, { skip, timeoutMs: 240_000 }, t => {
    fs.chmodSync(t.dir, 0o777)
    const child = spawnSync(process.execPath, [conformanceTest], { ...ids, env: { ...process.env, ...env, TMPDIR: t.dir }, encoding: 'utf8', timeout: 200_000 })
    if (child.stderr.includes('EACCES') && child.stdout === '') t.skip('the checkout cannot be read by other users')
    assert.is(child.status, 0, child.stdout.split('\n').filter(line => !line.includes('•')).join('\n').slice(0, 3000) + child.stderr)
    const summary = JSON.parse(/@harness (.*)/.exec(child.stdout)?.[1] ?? '{}') as { passed: number; failed: number }
    assert.ok(summary.failed === 0 && summary.passed > 50, JSON.stringify(summary))
  })
}
