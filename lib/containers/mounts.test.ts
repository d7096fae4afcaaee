// Containers with volumes, binds and tmpfs: what is recorded, described, prepared and performed; and runc starts the bundle.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { writeHostRootfs } from '../../fixtures/host-image.ts'
import { addImage, driversHere, file, openIn } from '../../fixtures/storage.ts'
import { parseMountFlag, StorageError } from '../index.ts'
import type { Code, Storage } from '../index.ts'
import { isMountpoint, mountTable, performMount, unmount } from '../sys/mount.ts'

const test = suite('container mounts')

async function fails(work: Promise<unknown>, code: Code, message?: string | RegExp): Promise<void> {
  await work.then(() => assert.unreachable(`${code} was expected`), (error: unknown) => {
    assert.ok(StorageError.is(error, code), `${code} was expected, not ${String(error)}`)
    if (typeof message === 'string') assert.is(error.message, message)
    else if (message !== undefined) assert.match(error.message, message)
  })
}

async function withImage(t: Context, driver: string): Promise<Storage> {
  const storage = await openIn(t, driver)
  await addImage(storage, 'app:1', [[
    { path: 'data/', type: 'dir', mode: 0o750 }, file('data/seed', 'from the image'), { path: 'link', type: 'symlink', linkname: '/data' }, file('etc/passwd', 'root:x:0:0::/:/bin/sh\napp:x:12:34::/:/bin/sh\n'),
    file('etc/group', 'root:x:0:\napp:x:34:\nmore:x:56:app\n'), file('plain', 'a file'),
  ]], { Cmd: ['/bin/sh'], Volumes: { '/data': {} } })
  return storage
}

for (const driver of driversHere) {
  test(`${driver}: an image's VOLUME becomes an anonymous volume, filled from it`, async t => {
    const { containers, volumes } = await withImage(t, driver)
    const box = await containers.create({ image: 'app:1', name: 'box' })
    const [volume] = volumes.list()
    assert.ok(volume !== undefined && volume.anonymous)
    assert.is(fs.readFileSync(path.join(volume.mountpoint, 'seed'), 'utf8'), 'from the image')
    assert.is(fs.statSync(volume.mountpoint).mode & 0o777, 0o750)
    assert.equal(volumes.references(volume.name), [box.id])
    assert.equal((await volumes.prune()).deleted, [])
    await containers.remove('box', { volumes: true })
    assert.equal(volumes.list(), [])
    // Without -v it stays, for prune.
    await containers.create({ image: 'app:1', name: 'box' })
    await containers.remove('box')
    assert.is((await volumes.prune()).deleted.length, 1)
  })
}

test('what is recorded, as dockerd records it', async t => {
  const { containers, root, volumes } = await withImage(t, 'vfs')
  const host = path.join(t.dir, 'host')
  fs.mkdirSync(host)
  const box = await containers.create({ image: 'app:1', mounts: {
    binds: ['named:/data:ro,z', `${host}:/a/b:rslave`], mounts: [parseMountFlag('type=tmpfs,dst=/tmp,tmpfs-size=1m'), parseMountFlag('type=volume,src=named,dst=/x,volume-nocopy')], tmpfs: { '/run': 'size=1m' },
  } })
  const dir = path.join(root, 'containers', box.id)
  const config = JSON.parse(fs.readFileSync(path.join(dir, 'config.v2.json'), 'utf8')) as { MountPoints: unknown }
  const data = volumes.get('named').mountpoint
  assert.equal(config.MountPoints, {
    '/data': { Source: data, Destination: '/data', RW: false, Name: 'named', Driver: 'local', Type: 'volume', Relabel: 'ro,z', Spec: { Type: 'volume', Source: 'named', Target: '/data', ReadOnly: true }, SkipMountpointCreation: false },
    '/a/b': { Source: host, Destination: '/a/b', RW: true, Name: '', Driver: '', Type: 'bind', Relabel: 'rslave', Propagation: 'rslave', Spec: { Type: 'bind', Source: host, Target: '/a/b', BindOptions: { Propagation: 'rslave' } }, SkipMountpointCreation: false },
    '/tmp': { Source: '', Destination: '/tmp', RW: true, Name: '', Driver: '', Type: 'tmpfs', Spec: { Type: 'tmpfs', Target: '/tmp', TmpfsOptions: { SizeBytes: 1048576 } }, SkipMountpointCreation: true },
    '/x': { Source: data, Destination: '/x', RW: true, Name: 'named', Driver: 'local', Type: 'volume', Spec: { Type: 'volume', Source: 'named', Target: '/x', VolumeOptions: { NoCopy: true, DriverConfig: {} } }, SkipMountpointCreation: false },
  })
  const hostConfig = JSON.parse(fs.readFileSync(path.join(dir, 'hostconfig.json'), 'utf8')) as Record<string, unknown>
  assert.equal([hostConfig['Binds'], hostConfig['Tmpfs']], [['named:/data:ro,z', `${host}:/a/b:rslave`], { '/run': 'size=1m' }])
  const described = (await containers.mounts(box.id)).slice(1)
  assert.equal(described.map(mount => mount.target), ['/data', '/run', '/tmp', '/x', '/a/b'])
  assert.equal(described[1], { type: 'tmpfs', source: 'tmpfs', target: '/run', options: ['noexec', 'nosuid', 'nodev', 'rprivate', 'size=1m'] })
  assert.equal(described[4], { type: 'bind', source: host, target: '/a/b', options: ['rbind', 'rslave'] })
})

test('volumes-from: the same volumes, read-only where asked', async t => {
  const { containers, volumes } = await withImage(t, 'vfs')
  await containers.create({ image: 'app:1', name: 'first', mounts: { binds: ['one:/data', `${t.dir}:/host`, 'two:/two'] } })
  const second = await containers.create({ name: 'second', mounts: { volumesFrom: ['first:ro'], binds: ['three:/two'] } })
  const points = containers.mountPoints('second').points
  assert.equal(Object.fromEntries(Object.values(points).map(point => [point.Destination, [point.Name, point.RW]])), { '/data': ['one', false], '/host': ['', false], '/two': ['three', true] })
  await containers.remove('first')
  assert.equal(volumes.references('one'), [second.id])
  await fails(containers.create({ mounts: { volumesFrom: ['nobody'] } }), 'NOT_FOUND', 'No such container: nobody')
})

test('what cannot be leaves neither container nor volume', async t => {
  const { containers, volumes, root } = await withImage(t, 'vfs')
  const missing = path.join(t.dir, 'missing')
  await fails(containers.create({ image: 'app:1', mounts: { binds: ['/x', `${t.dir}:/x`] } }), 'INVALID_ARGUMENT', 'Duplicate mount point: /x')
  await fails(containers.create({ mounts: { binds: ['a1:/x'], tmpfs: { '/x': '' } } }), 'INVALID_ARGUMENT', 'Duplicate mount point: /x')
  await fails(containers.create({ mounts: { mounts: [{ Type: 'bind', Source: missing, Target: '/x' }] } }), 'INVALID_ARGUMENT', `invalid mount config for type "bind": bind source path does not exist: ${missing}`)
  await fails(containers.create({ mounts: { mounts: [{ Type: 'image', Source: 'app:1', Target: '/x' }] } }), 'NOT_SUPPORTED')
  await fails(containers.create({ image: 'app:1', mounts: { binds: ['vol:/plain'] } }), 'INVALID_ARGUMENT', 'cannot mount volume over existing file, file exists /plain')
  await fails(containers.create({ mounts: { tmpfs: { '/': '' } } }), 'INVALID_ARGUMENT', /destination can't be '\/'/)
  assert.equal(containers.list(), [])
  assert.equal(volumes.list().filter(volume => volume.anonymous), [])
  for (const { name } of volumes.list()) assert.equal(volumes.references(name), [])
  assert.equal(fs.readdirSync(path.join(root, 'containers')), [])
})

test('a path of the image that is a link is followed inside the image', async t => {
  const { containers, volumes } = await withImage(t, 'vfs')
  await containers.create({ image: 'app:1', mounts: { binds: ['vol:/link'] } })
  assert.not(fs.existsSync(path.join(volumes.get('vol').mountpoint, 'passwd')))
  await fails(containers.create({ image: 'app:1', mounts: { binds: ['vol2:/etc/passwd/x/..'] } }), 'INVALID_ARGUMENT')
})

test('the root with all mounts in place', { skip: needsRoot }, async t => {
  const { containers, volumes } = await withImage(t, driversHere.at(-1) ?? 'vfs')
  const host = path.join(t.dir, 'host'), below = path.join(host, 'below')
  fs.mkdirSync(below, { recursive: true })
  performMount({ type: 'tmpfs', source: 'tmpfs', options: [] }, below)
  t.defer(() => unmount(below))
  const made = path.join(t.dir, 'made', 'by', 'v')
  await containers.create({ image: 'app:1', name: 'one', mounts: { binds: ['vol:/data', `${host}:/host:ro`, `${made}:/made`], tmpfs: { '/data/tmp': 'size=64k,mode=700' } } })
  const mine = (): number => mountTable().filter(mount => mount.target.startsWith(t.dir)).length
  const before = mine()
  await containers.withMounts('one', root => {
    assert.is(fs.readFileSync(path.join(root, 'data', 'seed'), 'utf8'), 'from the image')
    fs.writeFileSync(path.join(root, 'data', 'written'), 'by one')
    fs.writeFileSync(path.join(root, 'data', 'tmp', 'gone'), '')
    assert.throws(() => fs.writeFileSync(path.join(root, 'host', 'x'), ''), /EROFS/)
    // Recursive, as dockerd 25 and later mount it where the kernel can.
    assert.throws(() => fs.writeFileSync(path.join(root, 'host', 'below', 'x'), ''), /EROFS/)
    fs.writeFileSync(path.join(root, 'made', 'file'), 'x')
  })
  assert.is(mine(), before)
  assert.ok(fs.existsSync(path.join(made, 'file')))
  await containers.create({ image: 'app:1', name: 'two', mounts: { binds: ['vol:/elsewhere'] } })
  await containers.remove('one')
  await containers.withMounts('two', root => {
    assert.is(fs.readFileSync(path.join(root, 'elsewhere', 'written'), 'utf8'), 'by one')
    assert.equal(fs.readdirSync(path.join(root, 'elsewhere', 'tmp')), [])
  })
  await containers.remove('two')
  assert.is(fs.readFileSync(path.join(volumes.get('vol').mountpoint, 'written'), 'utf8'), 'by one')
})

test('preparations that last, and their end', { skip: needsRoot }, async t => {
  const { containers, volumes } = await withImage(t, 'vfs')
  await volumes.create('mem', { options: { type: 'tmpfs', device: 'tmpfs' } })
  const { mountpoint } = await volumes.create('sub')
  fs.mkdirSync(path.join(mountpoint, 'inner'))
  await containers.create({ image: 'app:1', name: 'box', mounts: { binds: ['mem:/mem'], mounts: [parseMountFlag('type=volume,src=sub,dst=/sub,volume-subpath=inner')] } })
  const prepared = await containers.prepareMounts('box', { persistent: true })
  const pin = prepared.mounts.find(mount => mount.target === '/sub')?.source ?? ''
  assert.ok(isMountpoint(volumes.get('mem').mountpoint))
  assert.ok(isMountpoint(pin))
  // The pin shows what was there, whatever takes its name.
  fs.writeFileSync(path.join(mountpoint, 'inner', 'f'), 'pinned')
  fs.renameSync(path.join(mountpoint, 'inner'), path.join(mountpoint, 'was-inner'))
  fs.symlinkSync('/etc', path.join(mountpoint, 'inner'))
  assert.is(fs.readFileSync(path.join(pin, 'f'), 'utf8'), 'pinned')
  assert.equal((await containers.prepareMounts('box', { persistent: true })).mounts, prepared.mounts)
  assert.is(volumes.mountCount('mem'), 1)
  await containers.releaseMounts('box')
  assert.not(isMountpoint(volumes.get('mem').mountpoint))
  assert.not(fs.existsSync(pin))
  await fails(containers.prepareMounts('box'), 'FAILED_PRECONDITION', /escapes/)
  assert.is(volumes.mountCount('mem'), 0)
  fs.unlinkSync(path.join(mountpoint, 'inner'))
  await fails(containers.prepareMounts('box'), 'NOT_FOUND', /^cannot access path/)
  fs.renameSync(path.join(mountpoint, 'was-inner'), path.join(mountpoint, 'inner'))
  await containers.prepareMounts('box', { persistent: true })
  await containers.remove('box', { force: true })
  assert.is(volumes.mountCount('mem'), 0)
  await volumes.remove('mem')
  await volumes.remove('sub')
})

test('propagation', { skip: needsRoot }, async t => {
  const { containers } = await withImage(t, 'vfs')
  const host = path.join(t.dir, 'host'), plain = path.join(t.dir, 'plain')
  for (const dir of [host, plain]) fs.mkdirSync(dir)
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['shared'] }, host)
  t.defer(() => unmount(host))
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['private'] }, plain)
  t.defer(() => unmount(plain))
  const prepare = async (mode: string, source: string): Promise<unknown> => {
    const box = await containers.create({ image: 'app:1', config: { Cmd: ['/bin/sh'] }, mounts: { binds: [`${source}:/s:${mode}`] } })
    try {
      return (await containers.spec(box.id)).config['linux']
    } finally {
      await containers.remove(box.id, { force: true, volumes: true })
    }
  }
  assert.is((await prepare('rshared', host) as Record<string, unknown>)['rootfsPropagation'], 'shared')
  assert.is((await prepare('slave', host) as Record<string, unknown>)['rootfsPropagation'], 'rslave')
  await fails(prepare('shared', plain), 'FAILED_PRECONDITION', `path ${plain} is mounted on ${plain} but it is not a shared mount`)
  await fails(prepare('rslave', plain), 'FAILED_PRECONDITION', /is not a shared or slave mount/)

  // A slave sees what the host mounts later; rprivate, the default, does not.
  for (const [mode, wanted] of [['rslave', true], ['', false]] as const) {
    const box = await containers.create({ image: 'app:1', mounts: { binds: [`${host}:/s${mode === '' ? '' : `:${mode}`}`] } })
    await containers.withMounts(box.id, root => {
      const late = path.join(host, 'late')
      fs.mkdirSync(late, { recursive: true })
      performMount({ type: 'tmpfs', source: 'tmpfs', options: [] }, late)
      try {
        assert.is(isMountpoint(path.join(root, 's', 'late')), wanted, mode)
      } finally {
        unmount(late)
      }
    })
  }
})

test('the OCI bundle: user, environment, defaults', async t => {
  const { containers } = await withImage(t, 'vfs')
  const specOf = async (config: Record<string, unknown>): Promise<{ process: Record<string, unknown>; mounts: { destination: string }[]; linux: Record<string, unknown>; root: unknown }> => {
    const box = await containers.create({ image: 'app:1', config, mounts: { tmpfs: { '/dev/shm': 'size=1m' }, binds: [`${t.dir}:/s`] } })
    const { config: spec } = await containers.spec(box.id)
    await containers.remove(box.id, { force: true, volumes: true })
    return spec as Awaited<ReturnType<typeof specOf>>
  }
  const plain = await specOf({ Entrypoint: ['/bin/sh', '-c'], Cmd: ['true'], WorkingDir: '/data', Env: ['A=1'], Hostname: 'me' })
  assert.equal([plain.process['args'], plain.process['cwd'], plain.process['user']], [['/bin/sh', '-c', 'true'], '/data', { uid: 0, gid: 0 }])
  assert.equal(plain.process['env'], ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'A=1', 'HOSTNAME=me'])
  assert.is(plain.mounts.filter(mount => mount.destination === '/dev/shm').length, 1)
  for (const [user, wanted] of [['app', { uid: 12, gid: 34, additionalGids: [56] }], ['12', { uid: 12, gid: 34, additionalGids: [56] }], ['99', { uid: 99, gid: 0 }], ['app:more', { uid: 12, gid: 56 }], ['99:98', { uid: 99, gid: 98 }]] as const) {
    assert.equal((await specOf({ User: user })).process['user'], wanted, user)
  }
  await fails(specOf({ User: 'nobody-here' }), 'INVALID_ARGUMENT', 'unable to find user nobody-here: no matching entries in passwd file')
})

const needsRunc = needsRoot !== false ? needsRoot : spawnSync('runc', ['--version']).status !== 0 ? 'needs runc' : false

test('runc starts the bundle, and each mount behaves', { skip: needsRunc, timeoutMs: 60_000 }, async t => {
  const storage = await openIn(t, 'overlay2')
  const { containers, volumes } = storage
  const tar = path.join(t.dir, 'rootfs.tar'), host = path.join(t.dir, 'host'), bundle = path.join(t.dir, 'bundle')
  await writeHostRootfs(tar, { 'data/seed': 'from the image\n', 'etc/passwd': 'root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n' })
  await storage.images.import(tar, { reference: 'host:1' })
  fs.mkdirSync(path.join(host, 'below'), { recursive: true })
  performMount({ type: 'tmpfs', source: 'tmpfs', options: [] }, path.join(host, 'below'))
  t.defer(() => unmount(path.join(host, 'below')))
  fs.writeFileSync(path.join(host, 'file'), 'of the host\n')
  const { mountpoint } = await volumes.create('parts')
  fs.mkdirSync(path.join(mountpoint, 'inner'))
  fs.writeFileSync(path.join(mountpoint, 'inner', 'part'), 'inner\n')
  await volumes.create('mem', { options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' } })

  const run = async (name: string, script: string, mounts: Parameters<typeof containers.create>[0] & object): Promise<string> => {
    await containers.create({ image: 'host:1', name, config: { Cmd: ['/bin/sh', '-c', script] }, ...mounts })
    const { config } = await containers.spec(name)
    const dir = `${bundle}-${name}`
    fs.mkdirSync(dir)
    fs.writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config))
    const result = spawnSync('runc', ['--root', path.join(t.dir, 'runc'), 'run', '--bundle', dir, `layerstack-${name}-${process.pid}`], { encoding: 'utf8' })
    assert.is(result.status, 0, result.stderr)
    await containers.unmount(name, { persistent: true })
    await containers.releaseMounts(name)
    return result.stdout
  }
  const out = await run('one', [
    'cat /data/seed', 'echo one > /data/new', 'cat /host/file', 'echo x > /host/y || echo host-read-only', 'echo x > /host/below/y || echo below-read-only',
    'echo x > /scratch/file && cat /scratch/file', 'stat -f -c %T /scratch', 'stat -c %a /scratch', 'cat /sub/part', 'stat -f -c %T /mem', 'ls /sub/..  > /dev/null && echo x > /mem/x && echo mem-written',
  ].join('; '), { mounts: {
    binds: ['vol:/data', `${host}:/host:ro`, 'mem:/mem'], tmpfs: { '/scratch': 'size=1m,mode=1750' }, mounts: [parseMountFlag('type=volume,src=parts,dst=/sub,volume-subpath=inner,readonly')],
  } })
  assert.equal(out.trim().split('\n'), ['from the image', 'of the host', 'host-read-only', 'below-read-only', 'x', 'tmpfs', '1750', 'inner', 'tmpfs', 'mem-written'])
  assert.is(fs.readFileSync(path.join(volumes.get('vol').mountpoint, 'new'), 'utf8'), 'one\n')
  assert.is(await run('two', 'cat /d/new; id -u', { config: { Cmd: ['/bin/sh', '-c', 'cat /d/new; id -u'], User: 'app' }, mounts: { binds: ['vol:/d:ro'] } }), 'one\n1000\n')
  await containers.remove('one', { volumes: true })
  await containers.remove('two', { volumes: true })
  assert.is(fs.readFileSync(path.join(volumes.get('vol').mountpoint, 'new'), 'utf8'), 'one\n')
  assert.not(isMountpoint(volumes.get('mem').mountpoint))
})
