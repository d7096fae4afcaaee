// Volumes in a data root: names, options, references, removal and pruning, mounts, filling from an image, subpaths, backups.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, projectRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { open, StorageError } from '../index.ts'
import type { Code, Storage } from '../index.ts'
import { isMountpoint, performMount, unmount } from '../sys/mount.ts'
import { whyNoProjectQuota } from '../sys/quota.ts'
import { setXattr, getXattr } from '../sys/xattr.ts'
import { fillVolume, finishFill } from './fill.ts'
import { anonymousLabel } from './name.ts'
import { withSubpath } from './subpath.ts'

const test = suite('volumes')

async function openIn(t: Context): Promise<Storage> {
  const storage = await open({ root: path.join(t.dir, 'root'), driver: 'vfs', durability: 'none' })
  t.defer(() => storage.close())
  return storage
}

async function fails(work: Promise<unknown> | (() => unknown), code: Code, message?: string | RegExp): Promise<void> {
  try {
    await (typeof work === 'function' ? work() : work)
  } catch (error) {
    assert.ok(StorageError.is(error, code), `${code} was expected, not ${String(error)}`)
    if (typeof message === 'string') assert.is(error.message, message)
    else if (message !== undefined) assert.match(error.message, message)
    return
  }
  assert.unreachable(`${code} was expected`)
}

// ---- names, labels, options ------------------------------------------------------------------------------------------------------

test('a volume in Docker\'s layout', async t => {
  const { volumes, root } = await openIn(t)
  const volume = await volumes.create('data', { labels: { b: '2', a: '1' } })
  const dir = path.join(root, 'volumes', 'data')
  assert.is(volume.mountpoint, path.join(dir, '_data'))
  assert.is(fs.statSync(dir).mode & 0o7777, 0o701)
  assert.is(fs.statSync(volume.mountpoint).mode & 0o7777, 0o755)
  assert.is(fs.statSync(path.join(root, 'volumes', 'metadata.db')).mode & 0o7777, 0o600)
  assert.equal(fs.readdirSync(dir), ['_data'])
  const { CreatedAt: created, ...rest } = volumes.inspect('data')
  assert.match(created ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/)
  assert.equal(rest, { Driver: 'local', Labels: { a: '1', b: '2' }, Mountpoint: volume.mountpoint, Name: 'data', Options: null, Scope: 'local' })
})

test('the mode does not depend on the umask', async t => {
  const { volumes } = await openIn(t)
  const before = process.umask(0o077)
  try {
    assert.is(fs.statSync((await volumes.create('data')).mountpoint).mode & 0o7777, 0o755)
  } finally {
    process.umask(before)
  }
})

test('an anonymous volume', async t => {
  const { volumes } = await openIn(t)
  const volume = await volumes.create(undefined)
  assert.match(volume.name, /^[a-f0-9]{64}$/)
  assert.ok(volume.anonymous)
  assert.equal(volume.labels, { [anonymousLabel]: '' })
})

test('options are kept in opts.json and in the database', async t => {
  const { volumes, root } = await openIn(t)
  const options = { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,uid=1000' }
  await volumes.create('memory', { options })
  const file = path.join(root, 'volumes', 'memory', 'opts.json')
  assert.is(fs.readFileSync(file, 'utf8'), '{"MountType":"tmpfs","MountOpts":"size=1m,uid=1000","MountDevice":"tmpfs","Quota":{"Size":0}}')
  assert.is(fs.statSync(file).mode & 0o777, 0o600)
  assert.equal(volumes.inspect('memory').Options, options)
})

test('the same again is the same volume, another is an error', async t => {
  const { volumes } = await openIn(t)
  await volumes.create('data', { labels: { a: '1' } })
  assert.is((await volumes.create('data')).name, 'data')
  await volumes.create('data', { labels: { a: '1' } })
  await fails(volumes.create('data', { labels: { a: '2' } }), 'ALREADY_EXISTS', /exists with other labels/)
  await fails(volumes.create('data', { options: { type: 'tmpfs', device: 'tmpfs' } }), 'ALREADY_EXISTS', /exists with other options/)
})

test('what is refused leaves nothing', async t => {
  const { volumes, root } = await openIn(t)
  await fails(volumes.create('x'), 'INVALID_ARGUMENT', 'create x: volume name is too short, names should be at least two alphanumeric characters')
  await fails(volumes.create('a/b'), 'INVALID_ARGUMENT', /^create a\/b: "a\/b" includes invalid characters for a local volume name/)
  await fails(volumes.create('../../etc'), 'INVALID_ARGUMENT')
  await fails(volumes.create('data', { options: { size: '1g' } }), 'INVALID_ARGUMENT', 'create data: quota size requested but no quota support')
  await fails(volumes.create('data', { driver: 'none' }), 'NOT_FOUND', /plugin "none" not found/)
  await fails(() => volumes.get('data'), 'NOT_FOUND', 'get data: no such volume')
  await fails(volumes.remove('data'), 'NOT_FOUND')
  await volumes.remove('data', { force: true })
  assert.equal(fs.readdirSync(path.join(root, 'volumes')).filter(name => name !== 'metadata.db'), [])
})

test('names that JavaScript or our own files use', async t => {
  const { volumes } = await openIn(t)
  for (const name of ['constructor', 'a.lock', 'aa', 'aa.lock', 'metadata.db2']) {
    await volumes.create(name)
    await using held = await volumes.mount(name)
    assert.is(volumes.mountCount(name), 1)
    fs.writeFileSync(path.join(held.path, 'f'), name)
  }
  assert.is(volumes.list().length, 5)
  for (const { name } of volumes.list()) await volumes.remove(name)
  assert.equal(volumes.list(), [])
})

test('list filters', async t => {
  const { volumes } = await openIn(t)
  await volumes.create('web', { labels: { role: 'front', x: '1' } })
  await volumes.create('db', { labels: { role: 'back' } })
  await volumes.create(undefined)
  await volumes.use('db', 'somebody')
  const names = (filters: Record<string, string[]>): string[] => volumes.list(filters).map(({ name }) => name.slice(0, 8))
  assert.equal(names({ label: ['role'] }), ['db', 'web'])
  assert.equal(names({ label: ['role=front', 'x'] }), ['web'])
  assert.equal(names({ name: ['we', 'nothing'] }), ['web'])
  assert.is(names({ dangling: ['true'] }).length, 2)
  assert.equal(names({ dangling: ['false'] }), ['db'])
  assert.equal(names({ driver: ['other'] }), [])
  await fails(() => volumes.list({ bogus: ['1'] }), 'INVALID_ARGUMENT', 'invalid filter \'bogus\'')
})

// ---- references and removal ------------------------------------------------------------------------------------------------------

test('a volume in use is not removed, whichever process asks', async t => {
  const storage = await openIn(t)
  const { volumes, containers } = storage
  await volumes.create('data')
  assert.is(await volumes.use('data', 'engine'), true)
  assert.is(await volumes.use('data', 'engine'), false)
  const box = await containers.create({ name: 'box', mounts: { binds: ['data:/data'] } })
  const other = await open({ root: storage.root, driver: 'vfs', durability: 'none' })
  t.defer(() => other.close())
  assert.equal(other.volumes.references('data'), [box.id, 'engine'].sort())
  await fails(other.volumes.remove('data'), 'IN_USE', `remove data: volume is in use - [${[box.id, 'engine'].sort().join(', ')}]`)
  assert.is(await other.volumes.release('data', 'engine'), true)
  await fails(other.volumes.remove('data', { force: true }), 'IN_USE')
  await containers.remove('box')
  const held = await volumes.mount('data')
  await fails(other.volumes.remove('data'), 'IN_USE', 'remove data: volume has active mounts')
  await held.unmount()
  await other.volumes.remove('data')
  assert.equal(volumes.list(), [])
})

test('a transient reference and a mount end with their process', { skip: needsNative }, async t => {
  const storage = await openIn(t)
  await storage.volumes.create('data')
  const script = `import { open } from ${JSON.stringify(path.join(projectRoot, 'dist/lib/index.js'))}
    const storage = await open({ root: ${JSON.stringify(storage.root)}, driver: 'vfs', durability: 'none' })
    await storage.volumes.use('data', 'child', { transient: true })
    await storage.volumes.mount('data')
    const { volume } = await storage.volumes.createForUse('${'f'.repeat(64)}', { labels: { '${anonymousLabel}': '' }, reference: 'child', transient: true })
    console.log(storage.volumes.references('data').join(), storage.volumes.mountCount('data'), volume.anonymous)
    process.kill(process.pid, 'SIGKILL')`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.is(child.stdout, 'child 1 true\n', child.stderr)
  assert.equal(storage.volumes.references('data'), [])
  assert.is(storage.volumes.mountCount('data'), 0)
  assert.is(storage.volumes.list().length, 2)
  await storage.volumes.recover()
  // The anonymous volume was made for something that never came to be.
  assert.equal(storage.volumes.list().map(({ name }) => name), ['data'])
  await storage.volumes.remove('data')
})

test('prune: anonymous ones that nobody uses', async t => {
  const { volumes } = await openIn(t)
  await volumes.create('named', { labels: { keep: 'no' } })
  await volumes.create('kept', { labels: { keep: 'yes' } })
  await volumes.create('memory', { options: { type: 'tmpfs', device: 'tmpfs' } })
  const used = await volumes.create(undefined), mounted = await volumes.create(undefined), free = await volumes.create(undefined)
  await volumes.use(used.name, 'somebody')
  await using held = await volumes.mount(mounted.name)
  fs.writeFileSync(path.join(free.mountpoint, 'f'), Buffer.alloc(100_000, 1))
  const first = await volumes.prune()
  assert.equal(first.deleted, [free.name])
  assert.ok(first.reclaimedBytes >= 100_000)
  assert.equal((await volumes.prune({ all: true, filters: { 'label!': ['keep=yes'] } })).deleted, ['named'])
  assert.equal((await volumes.prune({ filters: { all: ['1'] } })).deleted, ['kept'])
  assert.equal(volumes.list().map(({ name }) => name).sort(), ['memory', mounted.name, used.name].sort())
  assert.ok(fs.existsSync(held.path))
  await fails(volumes.prune({ filters: { dangling: ['true'] } }), 'INVALID_ARGUMENT')
})

test('a _data that leads elsewhere is not removed', async t => {
  const { volumes } = await openIn(t)
  const { mountpoint } = await volumes.create('data')
  const outside = path.join(t.dir, 'outside')
  fs.mkdirSync(outside)
  fs.writeFileSync(path.join(outside, 'file'), 'precious')
  fs.rmdirSync(mountpoint)
  fs.symlinkSync(outside, mountpoint)
  await fails(volumes.remove('data'), 'FAILED_PRECONDITION', /outside of the local volume root/)
  assert.is(fs.readFileSync(path.join(outside, 'file'), 'utf8'), 'precious')
})

// ---- mounts ----------------------------------------------------------------------------------------------------------------------

test('a volume with a device is mounted by the first and unmounted by the last', { skip: needsRoot }, async t => {
  const storage = await openIn(t)
  const { volumes } = storage
  const { mountpoint } = await volumes.create('memory', { options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' } })
  assert.not(isMountpoint(mountpoint))
  const first = await volumes.mount('memory')
  assert.ok(isMountpoint(mountpoint))
  fs.writeFileSync(path.join(first.path, 'f'), 'x')
  const other = await open({ root: storage.root, driver: 'vfs', durability: 'none' })
  t.defer(() => other.close())
  const second = await other.volumes.mount('memory')
  await first.unmount()
  await first.unmount()
  assert.is(fs.readFileSync(path.join(second.path, 'f'), 'utf8'), 'x')
  assert.is(volumes.mountCount('memory'), 1)
  await second.unmount()
  assert.not(isMountpoint(mountpoint))
  await fails(volumes.unmount('memory'), 'FAILED_PRECONDITION', 'volume memory is not mounted')
  // Persistent: it outlives the process.
  await volumes.mount('memory', { persistent: true })
  await other.volumes.unmount('memory', { persistent: true })
  assert.not(isMountpoint(mountpoint))
})

test('what a killed process left mounted is found and ended', { skip: needsRoot }, async t => {
  const storage = await openIn(t)
  const { mountpoint } = await storage.volumes.create('memory', { options: { type: 'tmpfs', device: 'tmpfs' } })
  const script = `import { open } from ${JSON.stringify(path.join(projectRoot, 'dist/lib/index.js'))}
    const storage = await open({ root: ${JSON.stringify(storage.root)}, driver: 'vfs', durability: 'none' })
    await storage.volumes.mount('memory')
    process.kill(process.pid, 'SIGKILL')`
  spawnSync(process.execPath, ['--input-type=module', '-e', script])
  assert.ok(isMountpoint(mountpoint))
  assert.is(storage.volumes.mountCount('memory'), 0)
  await using again = await open({ root: storage.root, driver: 'vfs', durability: 'none' })
  assert.not(isMountpoint(mountpoint))
  await again.volumes.remove('memory')
})

test('a failed mount says why, counts nothing, and hides the password', { skip: needsRoot }, async t => {
  const { volumes } = await openIn(t)
  await volumes.create('broken', { options: { type: 'nosuchfs', device: '/nowhere', o: 'username=me,password=secret,x=1' } })
  await fails(volumes.mount('broken'), 'NOT_SUPPORTED', /^failed to mount local volume: mount \/nowhere:.*password=\*{8},x=1/)
  assert.is(volumes.mountCount('broken'), 0)
})

test('the device of a bind outlives the volume', { skip: needsRoot }, async t => {
  const { volumes } = await openIn(t)
  const device = path.join(t.dir, 'device')
  fs.mkdirSync(device)
  fs.writeFileSync(path.join(device, 'precious'), 'data')
  const { mountpoint } = await volumes.create('bound', { options: { type: 'none', device, o: 'bind' } })
  const held = await volumes.mount('bound')
  assert.is(fs.readFileSync(path.join(held.path, 'precious'), 'utf8'), 'data')
  await fails(volumes.remove('bound'), 'IN_USE')
  await held.unmount()
  // Mounted by somebody who is not counted: removing the volume would remove what is mounted.
  performMount({ type: 'bind', source: device, options: ['bind'] }, mountpoint)
  t.defer(() => unmount(mountpoint))
  await fails(volumes.remove('bound'), 'BUSY')
  unmount(mountpoint)
  await volumes.remove('bound')
  assert.is(fs.readFileSync(path.join(device, 'precious'), 'utf8'), 'data')
})

function withProjectQuota(): ReturnType<typeof mountImage> | undefined {
  let image: ReturnType<typeof mountImage>
  try {
    image = mountImage('ext4', { mkfs: ['-O', 'quota,project', '-E', 'quotatype=prjquota'], mountOptions: ['prjquota'], sizeBytes: 128 << 20 })
  } catch (error) {
    if (/^mount /.test((error as Error).message)) return undefined
    throw error
  }
  if (whyNoProjectQuota(image.dir) === undefined) return image
  image.close()
  return undefined
}

test('a size limit by project quota', { skip: skipWithoutImage('ext4') }, async t => {
  const image = withProjectQuota()
  if (image === undefined) return t.skip('needs a kernel with project quota (QFMT_V2)')
  t.defer(() => image.close())
  await using storage = await open({ root: path.join(image.dir, 'root'), driver: 'vfs', durability: 'none' })
  const { volumes } = storage
  const source = path.join(t.dir, 'source')
  fs.mkdirSync(source)
  fs.writeFileSync(path.join(source, 'seed'), Buffer.alloc(500_000, 1))
  const { mountpoint } = await volumes.create('small', { options: { size: '1m' } })
  await volumes.fill('small', source, { reference: 'me' })
  assert.is(fs.statSync(path.join(mountpoint, 'seed')).size, 500_000)
  assert.throws(() => fs.writeFileSync(path.join(mountpoint, 'big'), Buffer.alloc(2 << 20, 1)), /EDQUOT|ENOSPC/)
  const free = await volumes.create('free')
  fs.writeFileSync(path.join(free.mountpoint, 'big'), Buffer.alloc(2 << 20, 1))
  await fails(volumes.clone('free', 'too-small', { options: { size: '1m' } }), 'QUOTA_EXCEEDED')
  assert.is(volumes.find('too-small'), undefined)
  await volumes.remove('small')
})

// ---- filling ---------------------------------------------------------------------------------------------------------------------

function imageTree(t: Context): string {
  const source = path.join(t.dir, 'image')
  fs.mkdirSync(path.join(source, 'sub'), { recursive: true })
  fs.writeFileSync(path.join(source, 'sub', 'file'), 'from the image')
  fs.linkSync(path.join(source, 'sub', 'file'), path.join(source, 'link'))
  fs.symlinkSync('sub/file', path.join(source, 'symlink'))
  fs.chmodSync(path.join(source, 'sub'), 0o1750)
  if (needsRoot === false) {
    fs.chownSync(path.join(source, 'sub'), 1000, 1001)
    fs.chownSync(source, 33, 34)
    setXattr(path.join(source, 'sub', 'file'), 'user.mine', Buffer.from('value'))
  }
  fs.utimesSync(path.join(source, 'sub'), 1000, 1000)
  fs.chmodSync(source, 0o775)
  fs.utimesSync(source, 2000, 2000)
  return source
}

function checkFilled(data: string): void {
  const sub = fs.statSync(path.join(data, 'sub')), root = fs.statSync(data)
  assert.is(fs.readFileSync(path.join(data, 'link'), 'utf8'), 'from the image')
  assert.is(fs.statSync(path.join(data, 'link')).ino, fs.statSync(path.join(data, 'sub', 'file')).ino)
  assert.is(fs.readlinkSync(path.join(data, 'symlink')), 'sub/file')
  assert.equal([sub.mode & 0o7777, sub.mtimeMs, root.mode & 0o7777], [0o1750, 1_000_000, 0o775])
  if (needsRoot !== false) return
  assert.equal([sub.uid, sub.gid, root.uid, root.gid], [1000, 1001, 33, 34])
  assert.is(getXattr(path.join(data, 'sub', 'file'), 'user.mine')?.toString(), 'value')
}

test('an empty volume is filled, one with anything in it is not', async t => {
  const { volumes } = await openIn(t)
  const source = imageTree(t)
  const { mountpoint } = await volumes.create('data')
  assert.is(await volumes.fill('data', source, { reference: 'me' }), true)
  checkFilled(mountpoint)
  fs.writeFileSync(path.join(source, 'new'), 'x')
  assert.is(await volumes.fill('data', source, { reference: 'me' }), false)
  assert.not(fs.existsSync(path.join(mountpoint, 'new')))
})

test('a volume that others hold is filled in place', async t => {
  const { volumes } = await openIn(t)
  await volumes.create('data')
  await using held = await volumes.mount('data')
  const inode = fs.statSync(held.path).ino
  assert.is(await volumes.fill('data', imageTree(t), { reference: 'me' }), true)
  checkFilled(held.path)
  assert.is(fs.statSync(held.path).ino, inode)
  assert.equal(fs.readdirSync(held.path).sort(), ['link', 'sub', 'symlink'])
})

test('a kill leaves the volume empty or full', async t => {
  const { volumes } = await openIn(t)
  const source = imageTree(t)
  const { mountpoint } = await volumes.create('data')
  // Killed while the copy was made aside.
  fs.cpSync(source, path.join(path.dirname(mountpoint), '_fill-0123'), { recursive: true })
  await volumes.recover()
  assert.equal(fs.readdirSync(path.dirname(mountpoint)), ['_data'])
  assert.equal(fs.readdirSync(mountpoint), [])
  // The same, in a volume that is a mount.
  fs.mkdirSync(path.join(mountpoint, '.layerstack-filling'))
  await (await volumes.mount('data')).unmount()
  assert.equal(fs.readdirSync(mountpoint), [])
  // Killed while the copy moved in, at every step.
  for (let steps = 0; steps <= 3; steps++) {
    const data = path.join(t.dir, `v${steps}`, '_data')
    fs.mkdirSync(data, { recursive: true })
    const real = fs.renameSync
    let left = steps + 1
    fs.renameSync = (from, to) => {
      if (left-- <= 0) throw new Error('killed')
      real(from, to)
    }
    try {
      await fillVolume(data, async target => { fs.cpSync(source, target, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true }) }, { sync: false, inUse: true }).catch((error: Error) => assert.is(error.message, 'killed'))
    } finally {
      fs.renameSync = real
    }
    await finishFill(data)
    assert.equal(fs.readdirSync(data).sort(), ['link', 'sub', 'symlink'])
    assert.is(fs.statSync(data).mode & 0o7777, 0o775)
  }
})

// ---- subpaths --------------------------------------------------------------------------------------------------------------------

test('subpaths: links inside are followed, nothing leads out', { skip: needsNative }, async t => {
  const base = path.join(t.dir, 'base')
  fs.mkdirSync(path.join(base, 'dir', 'deep'), { recursive: true })
  fs.writeFileSync(path.join(base, 'dir', 'deep', 'file'), 'inside')
  fs.mkdirSync(path.join(t.dir, 'outside'))
  fs.symlinkSync('dir/deep', path.join(base, 'inner'))
  fs.symlinkSync('../outside', path.join(base, 'escape'))
  fs.symlinkSync('/', path.join(base, 'absolute'))
  const read = (subpath: string): string => withSubpath(base, subpath, pinned => fs.readFileSync(path.join(pinned, 'file'), 'utf8'))
  assert.is(read('dir/deep'), 'inside')
  assert.is(read('inner'), 'inside')
  assert.is(withSubpath(base, 'dir/..', (_, isDirectory) => isDirectory), true)
  assert.is(withSubpath(base, 'dir/deep/file', (_, isDirectory) => isDirectory), false)
  await fails(() => read('escape'), 'FAILED_PRECONDITION', /outside of the volume: path escapes from parent/)
  await fails(() => read('absolute/etc'), 'FAILED_PRECONDITION')
  await fails(() => read('missing'), 'NOT_FOUND', /^cannot access path .*missing/)
  for (const bad of ['..', '/etc', 'a/../../b', '']) await fails(() => read(bad), 'INVALID_ARGUMENT')
})

test('a subpath that is exchanged for a link while it is opened does not lead out', { skip: needsNative }, async t => {
  const base = path.join(t.dir, 'base')
  fs.mkdirSync(path.join(base, 'a'), { recursive: true })
  fs.mkdirSync(path.join(t.dir, 'outside'))
  fs.writeFileSync(path.join(t.dir, 'outside', 'secret'), 'secret')
  // Between the resolution and the opening: what a race would do at the worst moment.
  const real = fs.openSync
  fs.openSync = ((...args: Parameters<typeof fs.openSync>) => {
    if (args[0] === base) {
      fs.renameSync(path.join(base, 'a'), path.join(base, 'b'))
      fs.symlinkSync('../outside', path.join(base, 'a'))
    }
    return real(...args)
  }) as typeof fs.openSync
  try {
    await fails(() => withSubpath(base, 'a', pinned => fs.readdirSync(pinned)), 'FAILED_PRECONDITION', /escapes/)
  } finally {
    fs.openSync = real
  }
})

// ---- backup ----------------------------------------------------------------------------------------------------------------------

test('export, import, clone', async t => {
  const { volumes } = await openIn(t)
  const { mountpoint } = await volumes.create('data')
  await volumes.fill('data', imageTree(t), { reference: 'me' })
  const chunks: Buffer[] = []
  for await (const chunk of volumes.export('data')) chunks.push(Buffer.from(chunk))
  async function* tar(): AsyncGenerator<Buffer> { yield* chunks }
  const restored = await volumes.import('restored', tar(), { labels: { from: 'backup' } })
  checkFilled(restored.mountpoint)
  assert.equal(restored.labels, { from: 'backup' })
  const cloned = await volumes.clone('data', 'cloned')
  checkFilled(cloned.mountpoint)
  fs.writeFileSync(path.join(cloned.mountpoint, 'sub', 'file'), 'changed')
  assert.is(fs.readFileSync(path.join(mountpoint, 'sub', 'file'), 'utf8'), 'from the image')
  await fails(volumes.clone('data', 'cloned'), 'FAILED_PRECONDITION', 'clone cloned: the volume is not empty')
  await fails(volumes.clone('missing', 'other'), 'NOT_FOUND')
  async function* broken(): AsyncGenerator<Buffer> { yield Buffer.from('no archive at all'.repeat(100)) }
  await fails(volumes.import('broken', broken()), 'INVALID_ARCHIVE')
  assert.is(volumes.find('broken'), undefined)
  assert.is(volumes.find('other'), undefined)
})
