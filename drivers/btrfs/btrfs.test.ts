import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { failure, id, mode, opener } from '../../fixtures/driver-tests.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import type { MountedImage } from '../../fixtures/loop.ts'
import { random } from '../../fixtures/torture/random.ts'
import { listChanges, writeLayer } from '../../lib/diff/index.ts'
import { isErrno, StorageError } from '../../lib/errors.ts'
import { createSubvolume, destroySubvolume, snapshotSubvolume, subvolumeInfo } from '../../lib/sys/btrfs.ts'
import { setTimes } from '../../lib/sys/files.ts'
import btrfs from './index.ts'

const test = suite('btrfs')
const skip = skipWithoutImage('btrfs')
const open = opener(btrfs)

function mounted(t: Context, sizeBytes = 2 ** 30): MountedImage {
  const image = mountImage('btrfs', { sizeBytes })
  t.defer(() => image.close())
  return image
}

test('options, in Docker\'s words', () => {
  assert.equal(btrfs.parseOptions([]), {})
  assert.equal(btrfs.parseOptions(['btrfs.min_space = 10G']), { minSpaceBytes: 10 * 2 ** 30 })
  for (const pair of ['btrfs.min_space=much', 'btrfs.colour=blue', 'x']) assert.throws(() => btrfs.parseOptions([pair]), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
})

test('probe says what is missing, and leaves nothing', { skip }, async t => {
  const elsewhere = await btrfs.probe(`${t.dir}/none/yet`)
  assert.ok(!elsewhere.ok && elsewhere.code === 'PREREQUISITE_MISSING' && /not on btrfs/.test(elsewhere.reason))
  assert.equal(fs.readdirSync(t.dir), [])
  const { dir } = mounted(t)
  // A kill left this, a subvolume included.
  fs.mkdirSync(`${dir}/.btrfs-probe-1-1-AbCdEf`)
  createSubvolume(`${dir}/.btrfs-probe-1-1-AbCdEf/subvolume`)
  fs.writeFileSync(`${dir}/.btrfs-probe-1-1-AbCdEf/subvolume/file`, 'x')
  assert.is((await btrfs.probe(`${dir}/none/yet`)).ok, true)
  assert.equal(fs.readdirSync(dir), [])
})

test('the layout is dockerd\'s, and ours beside it; the parent is known from the file system', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('a'))
  fs.chmodSync(`${home}/subvolumes/a`, 0o711)
  await driver.create(id('b'), { parent: id('a') })
  assert.equal(fs.readdirSync(home).sort(), ['layerstack', 'quotas', 'subvolumes'])
  assert.equal([mode(home), mode(`${home}/subvolumes`), mode(`${home}/quotas`), mode(`${home}/subvolumes/b`)], ['710', '710', '700', '711'])
  assert.is(fs.lstatSync(`${home}/subvolumes/b`).ino, 256)
  assert.equal(await driver.content(id('b')), { kind: 'tree', path: `${home}/subvolumes/b`, parentPath: `${home}/subvolumes/a` })
  // As dockerd makes them: no record but the snapshot's own.
  snapshotSubvolume(`${home}/subvolumes/b`, `${home}/subvolumes/docker`)
  assert.equal(await driver.content(id('docker')), { kind: 'tree', path: `${home}/subvolumes/docker`, parentPath: `${home}/subvolumes/b` })
  await driver.remove(id('b'))
  assert.equal(await driver.content(id('docker')), { kind: 'tree', path: `${home}/subvolumes/docker` })
  assert.is(await driver.changedPaths?.(id('docker')), undefined)
  assert.equal((await driver.status())[0], ['Btrfs', ''])
})

// moby TestBtrfsSubvolDelete.
test('subvolumes that a container made inside are removed with their layer', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('a'))
  fs.mkdirSync(`${home}/subvolumes/a/deep/er`, { recursive: true })
  createSubvolume(`${home}/subvolumes/a/deep/er/one`)
  fs.mkdirSync(`${home}/subvolumes/a/deep/er/one/in`)
  createSubvolume(`${home}/subvolumes/a/deep/er/one/in/two`)
  fs.writeFileSync(`${home}/subvolumes/a/deep/er/one/in/two/f`, 'x')
  await driver.create(id('b'), { parent: id('a') })
  // Their changes are in trees of their own: two whole trees are compared.
  assert.is(await driver.changedPaths?.(id('b')), undefined)
  for (const layer of ['a', 'b']) await driver.remove(id(layer))
  assert.equal([fs.readdirSync(`${home}/subvolumes`), fs.readdirSync(`${home}/layerstack/gone`)], [[], []])
})

test('a limit counts what the layer alone has, stops its writer with EDQUOT, and no other', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home, ['btrfs.min_space=1M'])
  await driver.create(id('image'))
  fs.writeFileSync(`${home}/subvolumes/image/base`, Buffer.alloc(60 << 20, 1))
  assert.match((await failure(driver.create(id('small'), { parent: id('image'), writable: true, storageOptions: { size: '4k' } }), 'INVALID_ARGUMENT')).message, /min_space/)
  await driver.create(id('limited'), { parent: id('image'), writable: true, storageOptions: { size: '50M' } })
  await driver.create(id('free'), { parent: id('image'), writable: true })
  assert.is(fs.readFileSync(`${home}/quotas/limited`, 'latin1'), String(50 << 20))
  // The image's 60 MB are not counted: the limit means the same for every driver.
  fs.writeFileSync(`${home}/subvolumes/limited/first`, Buffer.alloc(25 << 20, 2))
  assert.throws(() => fs.writeFileSync(`${home}/subvolumes/limited/second`, Buffer.alloc(50 << 20, 3)), (e: unknown) => isErrno(e, 'EDQUOT'))
  fs.writeFileSync(`${home}/subvolumes/free/big`, Buffer.alloc(80 << 20, 4))
  assert.is((await driver.status()).find(([key]) => key === 'Quota')?.[1], 'qgroups')
  await driver.remove(id('limited'))
  assert.equal(fs.readdirSync(`${home}/quotas`), [])
})

test('usage counts the files that the layer touched', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('image'))
  fs.writeFileSync(`${home}/subvolumes/image/base`, Buffer.alloc(10 << 20, 1))
  fs.writeFileSync(`${home}/subvolumes/image/other`, Buffer.alloc(1 << 20, 1))
  await driver.create(id('c'), { parent: id('image'), writable: true })
  assert.equal(await driver.usage(id('c')), { sizeBytes: 0, inodes: 0 })
  fs.chmodSync(`${home}/subvolumes/c/other`, 0o600)
  fs.writeFileSync(`${home}/subvolumes/c/new`, Buffer.alloc(2 << 20, 1))
  const usage = await driver.usage(id('c'))
  assert.equal([usage.inodes, Math.round(usage.sizeBytes / 2 ** 20)], [3, 3]) // the root, too
})

async function changes(upper: string, lower: string, only?: readonly Buffer[]): Promise<string[]> {
  const lines: string[] = []
  for await (const change of listChanges(upper, lower, { whiteouts: 'none', only })) lines.push(`${change.kind} ${change.path.toString('latin1')}`)
  return lines
}

async function tarDigest(upper: string, lower: string, only?: readonly Buffer[]): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of writeLayer(upper, lower, { whiteouts: 'none', only })) hash.update(chunk)
  return hash.digest('hex')
}

let clock = 1_600_000_000_000_000_000n
/** What a container may do to a tree, at random: every way in which names, inodes and directories can come apart. */
function mutate(root: string, next: (below: number) => number, times: number): void {
  const all = (wanted: (st: fs.Stats) => boolean): string[] => fs.readdirSync(root, { recursive: true, encoding: 'utf8' }).sort().filter(name => wanted(fs.lstatSync(`${root}/${name}`)))
  const pick = (names: readonly string[]): string | undefined => names[next(Math.max(1, names.length))]
  const stamp = (name: string): void => { clock += 1_000_001n; setTimes(`${root}/${name}`, clock, clock) }
  for (let i = 0; i < times; i++) {
    const dirs = ['.', ...all(st => st.isDirectory())], files = all(st => st.isFile())
    const fresh = `${pick(dirs)}/n${next(12)}`, dir = pick(dirs.slice(1)), file = pick(files)
    const attempt = (work: () => void): void => {
      try { work() } catch (error) { if (!isErrno(error, 'EEXIST', 'ENOTDIR', 'EISDIR', 'ENOTEMPTY', 'EINVAL', 'ENOENT') && (error as { code?: string }).code !== 'ERR_FS_EISDIR') throw error }
    }
    attempt([
      () => { fs.writeFileSync(`${root}/${fresh}`, `${next(1000)}`.repeat(next(4000) + 1)); stamp(fresh) },
      () => fs.mkdirSync(`${root}/${fresh}`),
      () => { if (file !== undefined) { fs.appendFileSync(`${root}/${file}`, 'more'); stamp(file) } },
      () => { if (file !== undefined) fs.chmodSync(`${root}/${file}`, 0o600 + next(8)) },
      () => { if (file !== undefined) fs.linkSync(`${root}/${file}`, `${root}/${fresh}`) },
      () => { if (file !== undefined) fs.linkSync(`${root}/${file}`, `${root}/${fresh}`) },
      () => { if (file !== undefined) fs.unlinkSync(`${root}/${file}`) },
      () => { if (file !== undefined) fs.renameSync(`${root}/${file}`, `${root}/${fresh}`) },
      () => { if (dir !== undefined) fs.renameSync(`${root}/${dir}`, `${root}/${fresh}`) },
      () => { if (dir !== undefined) fs.rmSync(`${root}/${dir}`, { recursive: true }) },
      () => { if (dir !== undefined) fs.chmodSync(`${root}/${dir}`, 0o700 + next(8)) },
      () => { if (file !== undefined) fs.lchownSync(`${root}/${file}`, next(3), next(3)) },
      () => { if (file !== undefined) fs.readFileSync(`${root}/${file}`) },
      () => { fs.symlinkSync(`t${next(100)}`, `${root}/${fresh}`); stamp(fresh) },
      // A directory in the place of another, by exchange of names.
      () => {
        const other = pick(dirs.slice(1))
        if (dir === undefined || other === undefined || other.startsWith(dir) || dir.startsWith(other)) return
        fs.renameSync(`${root}/${dir}`, `${root}/.swap`)
        fs.renameSync(`${root}/${other}`, `${root}/${dir}`)
        fs.renameSync(`${root}/.swap`, `${root}/${other}`)
      },
    ][next(15)] as () => void)
  }
}

test('changed paths give the same changes and the same layer as two whole trees', { skip, timeoutMs: 120_000 }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  let restricted = 0
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed)
    const [base, top] = [id(`base-${seed}`), id(`top-${seed}`)]
    await driver.create(base)
    mutate(`${home}/subvolumes/${base}`, next, 120)
    await driver.create(top, { parent: base, writable: true })
    const [upper, lower] = [`${home}/subvolumes/${top}`, `${home}/subvolumes/${base}`]
    for (const round of [3, 30]) {
      mutate(upper, next, round)
      const only = await driver.changedPaths?.(top)
      assert.ok(only !== undefined)
      const whole = await changes(upper, lower)
      assert.equal(await changes(upper, lower, only), whole, `seed ${seed}, round ${round}`)
      assert.is(await tarDigest(upper, lower, only), await tarDigest(upper, lower), `the layer, seed ${seed}, round ${round}`)
      restricted += only.length
    }
  }
  assert.ok(restricted > 500, 'hardly anything was changed')
})

test('a directory that moves takes its files\' other names into the layer, so that links stay together', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('base'))
  const base = `${home}/subvolumes/base`, top = `${home}/subvolumes/top`
  fs.mkdirSync(`${base}/d/e`, { recursive: true })
  fs.mkdirSync(`${base}/other`)
  fs.writeFileSync(`${base}/d/e/f`, 'linked')
  fs.linkSync(`${base}/d/e/f`, `${base}/other/g`)
  await driver.create(id('top'), { parent: id('base'), writable: true })
  fs.renameSync(`${top}/d`, `${top}/moved`)
  const only = await driver.changedPaths?.(id('top'))
  assert.ok(only?.some(name => name.toString() === 'other/g'))
  assert.is(await tarDigest(top, base, only), await tarDigest(top, base))
})

test('a file rewritten with its size and time is seen; one that was only read costs nothing', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('base'))
  for (const name of ['same', 'read']) { fs.writeFileSync(`${home}/subvolumes/base/${name}`, 'before'); setTimes(`${home}/subvolumes/base/${name}`, 1n, 10n ** 18n) }
  await driver.create(id('top'), { parent: id('base'), writable: true })
  const top = `${home}/subvolumes/top`
  fs.writeFileSync(`${top}/same`, 'after.')
  setTimes(`${top}/same`, 1n, 10n ** 18n)
  fs.readFileSync(`${top}/read`)
  const only = await driver.changedPaths?.(id('top'))
  assert.equal(only?.map(String).filter(name => name !== ''), ['same'])
  assert.equal(await changes(top, `${home}/subvolumes/base`, only), ['C /same'])
  assert.equal(await changes(top, `${home}/subvolumes/base`), [], 'two whole trees are not read')
})

test('a parent that was written to afterwards is compared as a whole', { skip }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('base'))
  await driver.create(id('top'), { parent: id('base'), writable: true })
  fs.writeFileSync(`${home}/subvolumes/base/late`, 'x')
  fs.writeFileSync(`${home}/subvolumes/top/late`, 'y')
  assert.is(await driver.changedPaths?.(id('top')), undefined)
})

test('killed between any two steps: nothing half-made shows, and removal or opening clears it', { skip, timeoutMs: 60_000 }, async t => {
  const home = `${mounted(t).dir}/btrfs`
  const driver = await open(home)
  await driver.create(id('big'))
  for (let i = 0; i < 300; i++) fs.writeFileSync(`${home}/subvolumes/big/f${i}`, 'x')
  const code = `
    const { default: btrfs } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)})
    const driver = await btrfs.open({ home: ${JSON.stringify(home)}, options: {} })
    console.log('ready')
    for (let i = 0;; i++) { await driver.create('k' + process.pid + '-' + i, { parent: 'big' }); await driver.remove('k' + process.pid + '-' + i) }`
  for (let round = 0; round < 6; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    await sleep(20 + round * 7)
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    const again = await open(home)
    for await (const layer of again.list()) assert.is(fs.readdirSync(`${home}/subvolumes/${layer}`).length, 300, 'a layer that shows is whole')
    assert.equal(fs.readdirSync(`${home}/layerstack/gone`), [])
    for (const begun of fs.readdirSync(`${home}/layerstack/new`)) await again.remove(id(begun))
    for await (const layer of again.list()) if (layer !== 'big') await again.remove(layer)
    assert.equal([fs.readdirSync(`${home}/subvolumes`), fs.readdirSync(`${home}/layerstack/new`)], [['big'], []])
  }
})

test('ioctls say what is wrong in the kernel\'s words', { skip }, t => {
  const { dir } = mounted(t)
  createSubvolume(`${dir}/a`)
  assert.throws(() => createSubvolume(`${dir}/a`), (e: unknown) => isErrno(e, 'EEXIST'))
  assert.throws(() => snapshotSubvolume(`${dir}/a`, `${dir}/a`), (e: unknown) => isErrno(e, 'EEXIST', 'EINVAL'))
  fs.mkdirSync(`${dir}/plain`)
  assert.is(subvolumeInfo(`${dir}/plain`), undefined)
  assert.is(subvolumeInfo(`${dir}/none`), undefined)
  assert.throws(() => destroySubvolume(`${dir}/plain`), (e: unknown) => isErrno(e, 'EINVAL'))
  assert.throws(() => createSubvolume(`${dir}/${'n'.repeat(5000)}`), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
})
