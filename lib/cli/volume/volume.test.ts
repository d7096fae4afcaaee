// The volume commands, and those of containers that deal with mounts, as a shell sees them.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, projectRoot, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { writeHostRootfs } from '../../../fixtures/host-image.ts'

const test = suite('volume commands')
const main = path.join(projectRoot, 'dist/lib/cli/main.js')

interface Result { readonly status: number | null; readonly out: string; readonly err: string }

function shell(t: Context, driver = 'vfs'): (...args: string[]) => Result {
  const root = path.join(t.dir, 'root')
  return (...args) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, '--root', root, '--driver', driver, '--durability', 'none', ...args], { encoding: 'utf8', cwd: t.dir })
    return { status, out: stdout, err: stderr }
  }
}

test('create, ls, inspect, rm', t => {
  const run = shell(t)
  assert.equal(run('volume', 'create', '--label', 'a=1', 'data'), { status: 0, out: 'data\n', err: '' })
  assert.is(run('volume', 'ls').out, 'DRIVER    VOLUME NAME\nlocal     data\n')
  assert.is(run('volume', 'ls', '-q', '-f', 'label=a=2').out, '')
  const [inspected] = JSON.parse(run('volume', 'inspect', '--references', 'data').out) as [Record<string, unknown>]
  assert.equal([inspected['Name'], inspected['Labels'], inspected['References']], ['data', { a: '1' }, []])
  assert.match(run('volume', 'inspect', 'data').out, /^\[\n {4}\{\n {8}"CreatedAt"/)
  const anonymous = run('volume', 'create').out.trim()
  assert.match(anonymous, /^[a-f0-9]{64}$/)
  const failed = run('volume', 'rm', 'missing', 'data')
  assert.equal([failed.status, failed.out], [1, 'data\n'])
  assert.match(failed.err, /get missing: no such volume/)
  assert.is(run('volume', 'rm', '-f', 'missing').status, 0)
  assert.match(run('volume', 'ls', '-f', 'bogus=1').err, /invalid filter 'bogus'/)
  assert.match(run('volume', 'prune').err, /Are you sure you want to continue\? \[y\/N\]/)
  assert.match(run('volume', 'prune', '-f').out, new RegExp(`^Deleted Volumes:\n${anonymous}\n\nTotal reclaimed space: `))
  assert.is(run('volume', 'prune', '-f').out, 'Total reclaimed space: 0B\n')
})

test('export, import and clone', t => {
  const run = shell(t)
  run('volume', 'create', 'data')
  const { Mountpoint: mountpoint } = JSON.parse(run('volume', 'inspect', '--json', 'data').out)[0] as { Mountpoint: string }
  fs.writeFileSync(path.join(mountpoint, 'file'), 'content')
  fs.chmodSync(mountpoint, 0o700)
  const tar = path.join(t.dir, 'data.tar')
  assert.equal(run('volume', 'export', '-o', tar, 'data'), { status: 0, out: '', err: '' })
  assert.is(run('volume', 'import', 'restored', tar).out, 'restored\n')
  assert.is(run('volume', 'clone', 'data', 'copy').out, 'copy\n')
  for (const name of ['restored', 'copy']) {
    const data = path.join(t.dir, 'root', 'volumes', name, '_data')
    assert.is(fs.readFileSync(path.join(data, 'file'), 'utf8'), 'content')
    assert.is(fs.statSync(data).mode & 0o777, 0o700)
  }
  assert.match(run('volume', 'import', 'copy', tar).err, /the volume is not empty/)
})

test('a container\'s mounts', async t => {
  const run = shell(t)
  const tar = path.join(t.dir, 'rootfs.tar')
  await writeHostRootfs(tar, { 'data/seed': 'from the image\n' })
  run('image', 'import', tar, 'host:1')
  fs.mkdirSync(path.join(t.dir, 'conf'))
  const created = run('container', 'create', '--name', 'box', '-v', 'data:/data', '-v', './conf:/conf:ro', '-v', '/anonymous', '--tmpfs', '/run:size=1m', '--mount', 'type=tmpfs,dst=/deep/er', 'host:1', '/bin/true')
  assert.is(created.status, 0, created.err)
  const mounts = JSON.parse(run('container', 'mounts', 'box').out) as { target?: string; source: string }[]
  assert.equal(mounts.slice(1).map(mount => mount.target), ['/anonymous', '/conf', '/data', '/run', '/deep/er'])
  assert.is(mounts[2]?.source, path.join(t.dir, 'conf'))
  assert.match(run('volume', 'rm', 'data').err, /volume is in use/)
  run('container', 'create', '--name', 'other', '--volumes-from', 'box:ro', 'host:1')
  assert.is(run('volume', 'ls', '-q').out.trim().split('\n').length, 2)
  assert.is(run('container', 'rm', '-v', 'box', 'other').status, 0)
  assert.is(run('volume', 'ls', '-q').out, 'data\n')
  for (const [flag, text, message] of [['-v', 'a:b:c:d', /invalid volume specification: 'a:b:c:d'/], ['-v', '/x::ro', /empty section between colons/], ['--mount', 'type=bind,src=/x', /target is required/], ['--volumes-from', 'nobody', /No such container: nobody/]] as const) {
    const failed = run('container', 'create', flag, text, 'host:1')
    assert.is(failed.status, 1)
    assert.match(failed.err, message)
  }
})

const needsRunc = needsRoot !== false ? needsRoot : spawnSync('runc', ['--version']).status !== 0 ? 'needs runc' : false

test('container spec, and runc', { skip: needsRunc }, async t => {
  const run = shell(t, 'overlay2')
  const tar = path.join(t.dir, 'rootfs.tar'), bundle = path.join(t.dir, 'bundle')
  await writeHostRootfs(tar, { 'data/seed': 'from the image\n' })
  run('image', 'import', tar, 'host:1')
  run('container', 'create', '--name', 'box', '-v', 'data:/data:z', 'host:1', '/bin/cat', '/data/seed')
  const spec = run('container', 'spec', '-b', bundle, 'box')
  assert.equal([spec.status, spec.out], [0, `${bundle}/config.json\n`])
  assert.match(spec.err, /relabelling \(z\) was not done/)
  const id = `layerstack-cli-${process.pid}`
  const started = spawnSync('runc', ['--root', path.join(t.dir, 'runc'), 'run', '-b', bundle, id], { encoding: 'utf8' })
  assert.equal([started.status, started.stdout], [0, 'from the image\n'])
  assert.match(run('container', 'spec', '-b', bundle, 'box').err, /config.json exists/)
  assert.match(run('container', 'rm', 'box').err, /mounted/)
  assert.is(run('container', 'umount', 'box').status, 0)
  assert.is(run('container', 'rm', 'box').status, 0)
  assert.is(run('volume', 'rm', 'data').status, 0)
})

test('serve volumes until it is told to stop', async t => {
  const socket = path.join(t.dir, 'p.sock')
  const child = spawn(process.execPath, [main, '--root', path.join(t.dir, 'root'), '--driver', 'vfs', 'serve', 'volumes', '--address', socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.defer(() => child.kill('SIGKILL'))
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').once('data', (text: string) => text.startsWith('serving volumes of ') ? resolve() : reject(new Error(text)))
    child.once('exit', () => reject(new Error('it ended')))
  })
  assert.ok(fs.existsSync(socket))
  child.kill('SIGTERM')
  await new Promise(resolve => child.once('exit', resolve))
  assert.not(fs.existsSync(socket))
})
