import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { failure, id, mode, opener } from '../../fixtures/driver-tests.ts'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { StorageError } from '../../lib/errors.ts'
import { faults, sysError } from '../../lib/sys/native.ts'
import { performMount, unmount } from '../../lib/sys/mount.ts'
import overlay2 from './index.ts'
import { newLinkName } from './layout.ts'

const test = suite('overlay2')
const open = opener(overlay2)

test('the layout is dockerd\'s, to the byte', { skip: needsRoot }, async t => {
  const home = `${t.dir}/overlay2`
  const old = process.umask(0o077)
  t.defer(() => process.umask(old))
  const driver = await open(home)
  for (const [name, parent] of [['base', undefined], ['mid', 'base'], ['top', 'mid']] as const) await driver.create(id(name), parent === undefined ? {} : { parent: id(parent) })
  assert.equal([mode(home), mode(`${home}/l`)], ['710', '700'])
  const links = Object.fromEntries(['base', 'mid', 'top'].map(name => [name, fs.readFileSync(`${home}/${name}/link`, 'latin1')]))
  for (const [name, link] of Object.entries(links)) {
    assert.match(link, /^[A-Z2-7]{26}$/)
    assert.is(fs.readlinkSync(`${home}/l/${link}`), `../${name}/diff`)
    assert.equal([mode(`${home}/${name}`), mode(`${home}/${name}/diff`), mode(`${home}/${name}/link`)], ['710', '755', '644'])
  }
  assert.equal(fs.readdirSync(`${home}/base`).sort(), ['committed', 'diff', 'link'])
  assert.equal(fs.readdirSync(`${home}/mid`).sort(), ['committed', 'diff', 'link', 'lower', 'work'])
  assert.equal(fs.readdirSync(`${home}/top`).sort(), ['diff', 'link', 'lower', 'work'])
  assert.is(fs.readFileSync(`${home}/top/lower`, 'latin1'), `l/${links['mid']}:l/${links['base']}`)
  assert.equal([mode(`${home}/top/lower`), mode(`${home}/top/work`), mode(`${home}/mid/committed`), fs.statSync(`${home}/mid/committed`).size], ['644', '700', '600', 0])
  assert.equal(fs.readdirSync(home).sort(), ['base', 'l', 'mid', 'top'])

  const [rw] = await driver.mounts(id('top'), 'rw')
  assert.equal(rw, { type: 'overlay', source: 'overlay', options: ['index=off', `lowerdir=${home}/l/${links['mid']}:${home}/l/${links['base']}`, `upperdir=${home}/top/diff`, `workdir=${home}/top/work`] })
  const [ro] = await driver.mounts(id('mid'), 'rw')
  assert.equal(ro?.options, ['index=off', `lowerdir=${home}/l/${links['mid']}:${home}/l/${links['base']}`, 'ro'])
  assert.equal(await driver.mounts(id('base'), 'ro'), [{ type: 'bind', source: `${home}/base/diff`, options: ['bind', 'ro'] }])
  assert.equal(await driver.metadata(id('top')), { LowerDir: `${home}/mid/diff:${home}/base/diff`, MergedDir: `${home}/top/merged`, UpperDir: `${home}/top/diff`, WorkDir: `${home}/top/work` })
  assert.equal(await driver.metadata(id('base')), { MergedDir: `${home}/base/merged`, UpperDir: `${home}/base/diff`, WorkDir: `${home}/base/work` })
})

test('link names are 26 letters of base32, all of them used', () => {
  const letters = new Set<string>()
  for (let i = 0; i < 200; i++) for (const letter of newLinkName()) letters.add(letter)
  assert.equal([...letters].sort().join(''), '234567ABCDEFGHIJKLMNOPQRSTUVWXYZ')
})

test('options, in Docker\'s words', async t => {
  assert.equal(overlay2.parseOptions(['overlay2.override_kernel_check=true', 'OVERLAY2.SIZE = 10G']), { size: '10G' })
  for (const [pair, text] of [['overlay2.colour=blue', 'overlay2: unknown option overlay2.colour'], ['nonsense', 'unable to parse storage-opt key/value: nonsense']] as const) {
    assert.throws(() => overlay2.parseOptions([pair]), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT') && e.message === text)
  }
  if (needsRoot !== false) return
  const error = await failure(open(`${t.dir}/o`, ['overlay2.size=10G']), 'NOT_SUPPORTED')
  assert.match(error.message, /^Storage [Oo]ption overlay2.size/)
  assert.not.ok(fs.existsSync(`${t.dir}/o`))
})

test('status has docker info\'s lines in their order', { skip: needsRoot }, async t => {
  const status = await (await open(`${t.dir}/o`)).status()
  assert.equal(status.map(([key]) => key), ['Backing Filesystem', 'Supports d_type', 'Using metacopy', 'Native Overlay Diff', 'userxattr'])
  const values = Object.fromEntries(status)
  assert.is(values['Supports d_type'], 'true')
  for (const key of ['Using metacopy', 'Native Overlay Diff', 'userxattr']) assert.match(values[key] ?? '', /^(true|false)$/)
  const parameter = (name: string): string => fs.readFileSync(`/sys/module/overlay/parameters/${name}`, 'latin1').trim()
  assert.is(values['Using metacopy'], String(parameter('metacopy') === 'Y'))
  if (parameter('redirect_dir') === 'N') assert.is(values['Native Overlay Diff'], 'true')
})

test('probe leaves nothing, and knows an overlay below it and a read-only place', { skip: needsRoot }, async t => {
  assert.is((await overlay2.probe(`${t.dir}/none/yet`)).ok, true)
  assert.equal(fs.readdirSync(t.dir), [])
  for (const name of ['lower', 'upper', 'work', 'merged', 'ro']) fs.mkdirSync(`${t.dir}/${name}`)
  t.defer(() => { unmount(`${t.dir}/merged`); unmount(`${t.dir}/ro`) })
  performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${t.dir}/lower`, `upperdir=${t.dir}/upper`, `workdir=${t.dir}/work`] }, `${t.dir}/merged`)
  const nested = await overlay2.probe(`${t.dir}/merged/home`)
  assert.ok(!nested.ok)
  assert.is(nested.code, 'INCOMPATIBLE_FILESYSTEM') // moby#27110
  assert.match(nested.reason, /overlay/)
  assert.equal(fs.readdirSync(`${t.dir}/merged`), [])
  await failure(open(`${t.dir}/merged/home`), 'INCOMPATIBLE_FILESYSTEM')
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['ro'] }, `${t.dir}/ro`)
  const readOnly = await overlay2.probe(`${t.dir}/ro/home`)
  assert.ok(!readOnly.ok && readOnly.code === 'PREREQUISITE_MISSING')
})

test('a file system without types in its listings is named with what to do', { skip: skipWithoutImage('ext4') }, async t => {
  const image = mountImage('ext4', { sizeBytes: 64 * 2 ** 20, mkfs: ['-O', '^filetype'] })
  t.defer(() => image.close())
  const probed = await overlay2.probe(`${image.dir}/home`)
  assert.ok(!probed.ok && probed.code === 'INCOMPATIBLE_FILESYSTEM', JSON.stringify(probed))
  assert.match(probed.reason, /formatted without d_type support/)
  assert.match(probed.hint, /tune2fs -O filetype/)
})

test('a home whose path holds what separates options', { skip: needsRoot }, async t => {
  const driver = await open(`${t.dir}/odd :,\\ home`)
  await driver.create(id('a'))
  fs.writeFileSync(`${(await driver.content(id('a'))).path}/f`, 'x')
  await driver.create(id('b'), { parent: id('a') })
  const [mount] = await driver.mounts(id('b'), 'rw')
  fs.mkdirSync(`${t.dir}/m`)
  t.defer(() => unmount(`${t.dir}/m`))
  assert.ok(mount)
  performMount(mount, `${t.dir}/m`)
  fs.writeFileSync(`${t.dir}/m/g`, 'y')
  assert.equal(fs.readdirSync((await driver.content(id('b'))).path), ['g'])
  assert.equal(fs.readdirSync(`${t.dir}/m`).sort(), ['f', 'g'])
})

test('what a power cut did to older stores is CORRUPT, with a hint, not a strange mount', { skip: needsRoot }, async t => {
  const home = `${t.dir}/o`
  const before = await open(home)
  await before.create(id('a'))
  await before.create(id('b'), { parent: id('a') })
  await before.create(id('c'), { parent: id('b') })
  // Who opens it after the power cut remembers nothing.
  const driver = await open(home)
  const link = fs.readFileSync(`${home}/a/link`, 'latin1')
  fs.writeFileSync(`${home}/a/link`, '') // moby#42964
  assert.ok((await failure(driver.create(id('d'), { parent: id('a') }), 'CORRUPT')).info.hint)
  fs.writeFileSync(`${home}/a/link`, link)
  fs.rmSync(`${home}/l/${link}`)
  assert.ok((await failure(driver.content(id('c')), 'CORRUPT')).info.hint)
  fs.symlinkSync('../../../etc', `${home}/l/${link}`)
  await failure(driver.content(id('c')), 'CORRUPT')
  fs.writeFileSync(`${home}/c/lower`, '')
  await failure(driver.mounts(id('c'), 'rw'), 'CORRUPT')
  fs.writeFileSync(`${home}/c/lower`, 'l/../../etc')
  await failure(driver.mounts(id('c'), 'rw'), 'CORRUPT')
  // A link file with a path in it may not lead a removal astray.
  fs.writeFileSync(`${home}/b/link`, '../../precious')
  fs.writeFileSync(`${t.dir}/precious`, 'x')
  await driver.remove(id('b'))
  assert.ok(fs.existsSync(`${t.dir}/precious`))
})

test('a removal that was told wrongly what the layer holds removes all of it', { skip: needsRoot }, async t => {
  const home = `${t.dir}/o`
  const driver = await open(home)
  for (const holds of [[], [{ name: 'not', isDirectory: false }], [{ name: 'a', isDirectory: true }], [{ name: 'a', isDirectory: true }, { name: 'a/b', isDirectory: false }]]) {
    await driver.create(id('x'))
    fs.mkdirSync(`${home}/x/diff/a`)
    for (const name of ['b', 'c']) fs.writeFileSync(`${home}/x/diff/a/${name}`, '')
    await driver.remove(id('x'), holds)
    assert.equal([fs.readdirSync(home), fs.readdirSync(`${home}/l`)], [['l'], []])
  }
})

test('a fault at each native call of create leaves nothing', { skip: needsRoot }, async t => {
  const home = `${t.dir}/o`
  const driver = await open(home)
  await driver.create(id('a'))
  t.defer(() => { delete faults.before })
  faults.before = name => { if (name === 'renameat2') throw sysError(name, 28) }
  await failure(driver.create(id('b'), { parent: id('a') }), 'NO_SPACE')
  delete faults.before
  assert.equal(fs.readdirSync(home).sort(), ['a', 'l'])
  assert.is(fs.readdirSync(`${home}/l`).length, 1)
})

test('read-only: looks without writing anything', { skip: needsRoot }, async t => {
  const home = `${t.dir}/o`
  const writer = await open(home)
  await writer.create(id('a'))
  const names = (): string[] => fs.readdirSync(home, { recursive: true }).map(String).sort()
  const before = names()
  const reader = await overlay2.open({ home, options: {}, readOnly: true })
  assert.is(await reader.exists(id('a')), true)
  await failure(reader.create(id('b')), 'READ_ONLY')
  await failure(reader.remove(id('a')), 'READ_ONLY')
  assert.ok((await reader.status()).length >= 3)
  assert.equal(names(), before)
  await failure(overlay2.open({ home: `${t.dir}/none`, options: {}, readOnly: true }), 'NOT_FOUND')
})

test('killed at any moment: a layer is whole or not there, and removal clears the rest', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const home = `${t.dir}/o`
  const code = `
    const { default: overlay2 } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)})
    const driver = await overlay2.open({ home: ${JSON.stringify(home)}, options: {} })
    if (!await driver.exists('base')) await driver.create('base')
    console.log('ready')
    for (let i = 0;; i++) { const id = 'k' + process.pid + '-' + i; await driver.create(id, { parent: 'base' }); if (i % 2) await driver.remove(id) }`
  for (let round = 0; round < 8; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    await sleep(10 + round * 3)
    const ended = once(child, 'exit')
    assert.is(child.exitCode, null, 'the child ended by itself')
    child.kill('SIGKILL')
    await ended
    const driver = await open(home)
    assert.equal(fs.readdirSync(home).filter(name => name.startsWith('.gone-')), [])
    for await (const layer of driver.list()) {
      const content = await driver.content(layer)
      assert.ok(fs.existsSync(content.path))
      assert.is((await driver.mounts(layer, 'rw')).length, 1)
      assert.is(fs.readlinkSync(`${home}/l/${fs.readFileSync(`${home}/${layer}/link`, 'latin1')}`), `../${layer}/diff`)
    }
  }
  // What an intent would name: every id that was begun.
  const driver = await open(home)
  const begun = fs.readdirSync(home).filter(name => name !== 'l').map(name => name.replace(/^\.new-/, ''))
  for (const layer of begun) await driver.remove(id(layer))
  assert.equal(fs.readdirSync(home), ['l'])
  assert.equal(fs.readdirSync(`${home}/l`), [])
})
