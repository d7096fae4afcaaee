// A real containerd with us as its snapshotter: images imported, a container run, committed and removed, the server restarted in between, and
// after the garbage collection nothing left. Everything lies in the test's own folder; only our own processes are ended.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { debianImage, debianImageTag, skipWithoutDebianImage } from '../../../fixtures/debian-image.ts'
import { assert, needsRoot, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { startServer } from '../../../fixtures/containerd/harness.ts'
import type { Server } from '../../../fixtures/containerd/harness.ts'
import { buildSampleImage } from '../../../fixtures/sample-image.ts'
import { unmount } from '../../sys/mount.ts'

const test = suite('real containerd')
const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0
const skip = needsRoot || (has('containerd') && has('ctr') ? false : 'needs containerd (Debian: containerd)')

interface Node {
  ctr(...args: string[]): string
  snapshots(...args: string[]): string
  /** End the server and start it anew, containerd running all the while. */
  restart(): Promise<void>
  readonly root: string
  readonly log: () => string
}

async function node(t: Context, driver: string): Promise<Node> {
  const at = (name: string): string => path.join(t.dir, name)
  const root = at('layerstack'), socket = at('ls.sock'), address = at('c.sock')
  fs.writeFileSync(at('config.toml'), `version = 2
root = "${at('root')}"
state = "${at('state')}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "${address}"
[ttrpc]
  address = "${at('t.sock')}"
[proxy_plugins.layerstack]
  type = "snapshot"
  address = "${socket}"
`)
  let server: Server = await startServer(driver, root, socket)
  t.defer(() => server.end('SIGKILL'))
  const containerd = spawn('containerd', ['-c', at('config.toml')], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  for (const stream of [containerd.stdout, containerd.stderr]) stream.on('data', (chunk: Buffer) => { log += chunk.toString() })
  const ended = new Promise(resolve => containerd.once('close', resolve))
  t.defer(async () => {
    containerd.kill('SIGTERM')
    await ended
    // Where a test failed half-way.
    for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse()) {
      const point = line.split(' ')[4]
      if (point?.startsWith(`${t.dir}/`)) unmount(point)
    }
  })
  const run = (args: readonly string[]): string => {
    const call = (): ReturnType<typeof spawnSync> & { stdout: string; stderr: string } => spawnSync('ctr', ['-a', address, ...args], { encoding: 'utf8', timeout: 240_000, maxBuffer: 64 << 20 })
    let result = call()
    // containerd's client dials again after a pause of up to three seconds, and answers `unavailable` meanwhile.
    for (let i = 0; i < 20 && result.status !== 0 && result.stderr.includes('unavailable'); i++) {
      spawnSync('sleep', ['0.3'])
      result = call()
    }
    if (result.status !== 0) throw new Error(`ctr ${args.join(' ')}: ${result.stderr}${result.stdout}\n${log.slice(-3000)}\n${server.stderr()}`)
    return result.stdout
  }
  for (let i = 0; ; i++) {
    try { run(['version']); break } catch (error) {
      if (i === 50) throw error
      await sleep(100)
    }
  }
  return {
    root, log: () => log,
    ctr: (...args) => run(args),
    snapshots: (...args) => run(['snapshots', '--snapshotter', 'layerstack', ...args]),
    async restart() {
      assert.is(await server.end('SIGTERM'), 0, server.stderr())
      server = await startServer(driver, root, socket)
    },
  }
}

const keys = (listing: string): string[] => listing.trim().split('\n').slice(1).map(line => line.split(/\s+/)[0] ?? '').sort()

/** Until the garbage collector has run: it is started by the removal and takes a moment. */
async function becomesEmpty(n: Node, driver: string): Promise<void> {
  const home = path.join(n.root, driver)
  const left = (): string[] => [
    ...keys(n.snapshots('ls')),
    ...(driver === 'vfs' ? ['dir', 'layerstack/new', 'layerstack/gone', 'layerstack/parents'] : ['.', 'l'])
      .flatMap(folder => fs.readdirSync(path.join(home, folder))).filter(name => !['l', 'dir', 'layerstack'].includes(name)),
  ]
  for (let i = 0; i < 100 && left().length > 0; i++) await sleep(100)
  assert.equal(left(), [], n.log().slice(-3000))
}

for (const driver of ['overlay2', 'vfs']) {
  test(`${driver}: import, prepare, commit, remove, collect`, { skip, timeoutMs: 300_000 }, async t => {
    const n = await node(t, driver)
    const archive = path.join(t.dir, 'image.tar')
    const image = await buildSampleImage({ output: archive, tag: 'sample:1' })
    n.ctr('image', 'import', '--snapshotter', 'layerstack', archive)
    assert.is(keys(n.snapshots('ls')).length, image.layers.length)
    const top = keys(n.snapshots('ls')).find(key => !n.snapshots('ls').split('\n').some(line => line.split(/\s+/)[1] === key))
    assert.ok(top)
    n.snapshots('prepare', 'work', top)
    const mount = path.join(t.dir, 'mnt')
    fs.mkdirSync(mount)
    // ctr prints the mount commands for the shell.
    const script = n.snapshots('mounts', mount, 'work')
    const mounted = spawnSync('sh', ['-e', '-c', script], { encoding: 'utf8' })
    assert.is(mounted.status, 0, mounted.stderr)
    try {
      assert.is(fs.readFileSync(path.join(mount, 'etc/hostname'), 'utf8'), 'app\n')
      fs.writeFileSync(path.join(mount, 'made'), 'here')
      await n.restart()
      n.snapshots('commit', 'made', 'work')
    } finally {
      unmount(mount)
    }
    assert.match(n.snapshots('info', 'made'), /"Kind": "Committed"/)
    n.snapshots('label', 'made', 'colour=blue')
    assert.match(n.snapshots('usage', 'made'), /made +\S+/)
    n.snapshots('view', 'look', 'made')
    assert.throws(() => n.snapshots('rm', 'made'), /failed precondition|remove/i)
    for (const key of ['look', 'made']) n.snapshots('rm', key)
    n.ctr('image', 'rm', '--sync', 'docker.io/library/sample:1')
    await becomesEmpty(n, driver)
  })
}

test('overlay2: the Debian image runs with runc', { skip: skip || skipWithoutDebianImage() || (has('runc') ? false : 'needs runc (Debian: runc)'), timeoutMs: 600_000 }, async t => {
  const archive = await debianImage({ format: 'docker' }).catch((error: Error) => t.skip(error.message))
  const n = await node(t, 'overlay2')
  const image = `docker.io/library/${debianImageTag}`
  n.ctr('image', 'import', '--snapshotter', 'layerstack', archive)
  const output = n.ctr('run', '--rm', '--snapshotter', 'layerstack', image, 'first', 'sh', '-c', 'cat /etc/debian_version; python3 -c "import numpy; print(numpy.ones(3).sum())"; touch /x')
  assert.match(output, /^\d+\.\d+\n3\.0\n$/)
  n.ctr('run', '--snapshotter', 'layerstack', image, 'second', 'sh', '-c', 'echo data > /made; rm /etc/hostname; rm -rf /usr/share/doc')
  await n.restart()
  n.snapshots('commit', 'second-committed', 'second')
  n.snapshots('prepare', 'third', 'second-committed')
  assert.equal(n.ctr('run', '--rm', '--snapshotter', 'layerstack', image, 'fourth', 'ls', '/usr/share/doc').length > 0, true, 'the image itself is as it was')
  n.ctr('containers', 'rm', 'second')
  for (const key of ['third', 'second-committed']) n.snapshots('rm', key)
  n.ctr('image', 'rm', '--sync', image)
  await becomesEmpty(n, 'overlay2')
})
