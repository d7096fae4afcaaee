// The volume plugin with a real dockerd: creates, mounts, uses, shares and removes volumes; and the protocol itself over the socket.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { needsDockerd, startDockerd } from '../../../fixtures/dockerd.ts'
import { assert, needsRoot, suite } from '../../../fixtures/harness/index.ts'
import { writeHostRootfs } from '../../../fixtures/host-image.ts'
import { open, StorageError } from '../../index.ts'
import { isMountpoint } from '../../sys/mount.ts'
import { serveVolumes } from './index.ts'

const test = suite('volume plugin')

function post(socket: string, method: string, body: unknown): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath: socket, path: method, method: 'POST' }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('end', () => resolve(JSON.parse(text) as Record<string, unknown>))
    })
    request.on('error', reject)
    request.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
}

test('the protocol', async t => {
  await using storage = await open({ root: path.join(t.dir, 'root'), driver: 'vfs', durability: 'none' })
  const socket = path.join(t.dir, 'p.sock')
  const server = await serveVolumes(storage.volumes, { address: `unix://${socket}` })
  t.defer(() => server.close())
  assert.is(fs.statSync(socket).mode & 0o777, 0o600)
  const call = (method: string, body: unknown = {}): Promise<Record<string, unknown>> => post(socket, method, body)
  const data = path.join(storage.root, 'volumes', 'one', '_data')
  assert.equal(await call('/Plugin.Activate'), { Implements: ['VolumeDriver'] })
  assert.equal(await call('/VolumeDriver.Capabilities'), { Err: '', Capabilities: { Scope: 'local' } })
  assert.equal(await call('/VolumeDriver.Create', { Name: 'one', Opts: null }), { Err: '' })
  assert.equal(await call('/VolumeDriver.Create', { Name: 'one' }), { Err: '' })
  assert.is((await call('/VolumeDriver.Create', { Name: 'one', Opts: { bogus: '1' } }))['Err'] === '', false)
  assert.match(String((await call('/VolumeDriver.Create', { Name: 'x' }))['Err']), /too short/)
  assert.equal(await call('/VolumeDriver.Mount', { Name: 'one', ID: 'a' }), { Err: '', Mountpoint: data })
  assert.equal(await call('/VolumeDriver.Mount', { Name: 'one', ID: 'b' }), { Err: '', Mountpoint: data })
  assert.equal(await call('/VolumeDriver.Mount', { Name: 'one', ID: 'b' }), { Err: '', Mountpoint: data })
  assert.is(storage.volumes.mountCount('one'), 2)
  assert.match(String((await call('/VolumeDriver.Remove', { Name: 'one' }))['Err']), /volume is in use - \[plugin:a, plugin:b\]/)
  assert.equal(await call('/VolumeDriver.Path', { Name: 'one' }), { Err: '', Mountpoint: data })
  assert.is(((await call('/VolumeDriver.Get', { Name: 'one' }))['Volume'] as { Name: string }).Name, 'one')
  assert.is(((await call('/VolumeDriver.List'))['Volumes'] as object[]).length, 1)

  // A server that is started anew knows its mounts.
  await server.close()
  assert.not(fs.existsSync(socket))
  await using again = await serveVolumes(storage.volumes, { address: socket })
  await serveVolumes(storage.volumes, { address: again.path }).then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'ALREADY_EXISTS')))
  assert.equal(await call('/VolumeDriver.Unmount', { Name: 'one', ID: 'a' }), { Err: '' })
  assert.equal(await call('/VolumeDriver.Unmount', { Name: 'one', ID: 'a' }), { Err: '' })
  assert.is(storage.volumes.mountCount('one'), 1)
  assert.equal(await call('/VolumeDriver.Unmount', { Name: 'one', ID: 'b' }), { Err: '' })
  assert.equal(await call('/VolumeDriver.Remove', { Name: 'one' }), { Err: '' })
  assert.equal(await call('/VolumeDriver.Get', { Name: 'one' }), { Err: 'get one: no such volume' })

  for (const [method, body] of [['/VolumeDriver.Nothing', {}], ['/VolumeDriver.Create', 'not json'], ['/VolumeDriver.Create', '[]'], ['/VolumeDriver.Create', {}], ['/constructor', {}], ['/VolumeDriver.Create', `"${'x'.repeat(2 << 20)}"`]] as const) {
    assert.is.not((await call(method, body))['Err'], '', method)
  }
})

test('a mounted volume with a device', { skip: needsRoot }, async t => {
  await using storage = await open({ root: path.join(t.dir, 'root'), driver: 'vfs', durability: 'none' })
  await using server = await serveVolumes(storage.volumes, { address: path.join(t.dir, 'p.sock') })
  const call = (method: string, body: unknown): Promise<Record<string, unknown>> => post(server.path, method, body)
  await call('/VolumeDriver.Create', { Name: 'mem', Opts: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' } })
  assert.is((await call('/VolumeDriver.Path', { Name: 'mem' }))['Mountpoint'], '')
  const { Mountpoint: where } = await call('/VolumeDriver.Mount', { Name: 'mem', ID: 'a' })
  assert.ok(isMountpoint(String(where)))
  await call('/VolumeDriver.Unmount', { Name: 'mem', ID: 'a' })
  assert.not(isMountpoint(String(where)))
})

test('a dockerd uses layerstack\'s volumes', { skip: needsDockerd, timeoutMs: 240_000 }, async t => {
  // dockerd looks for plugins in this folder alone; the name is the test's own.
  const driver = `layerstack-${randomBytes(4).toString('hex')}`
  const socket = `/run/docker/plugins/${driver}.sock`
  fs.mkdirSync(path.dirname(socket), { recursive: true })
  await using storage = await open({ root: path.join(t.dir, 'root'), driver: 'vfs', durability: 'none' })
  let server = await serveVolumes(storage.volumes, { address: socket })
  t.defer(() => server.close())
  const daemon = await startDockerd({ dataRoot: path.join(t.dir, 'docker'), execRoot: path.join(t.dir, 'x'), driver: 'vfs' })
  t.defer(() => daemon.stop())
  const { docker } = daemon
  const tar = path.join(t.dir, 'rootfs.tar')
  await writeHostRootfs(tar, { 'data/seed': 'from the image\n' })
  await docker(['import', tar, 'host:1'])
  const run = (...args: readonly string[]): Promise<string> => docker(['run', '--rm', '--network', 'none', ...args])

  await docker(['volume', 'create', '-d', driver, 'shared'])
  assert.is(storage.volumes.get('shared').name, 'shared')
  assert.match(await docker(['volume', 'ls']), new RegExp(`${driver}\\s+shared`))
  // Filled from the image by dockerd, written by one container, read by another.
  assert.is(await run('-v', 'shared:/data', 'host:1', '/bin/sh', '-c', 'cat /data/seed; echo written > /data/file'), 'from the image\n')
  assert.is(await run('-v', 'shared:/other:ro', 'host:1', '/bin/sh', '-c', 'cat /other/file; echo no > /other/file || echo refused'), 'written\nrefused\n')
  assert.is(fs.readFileSync(path.join(storage.volumes.get('shared').mountpoint, 'file'), 'utf8'), 'written\n')
  assert.is(storage.volumes.mountCount('shared'), 0)
  assert.equal(storage.volumes.references('shared'), [])

  // One with a device is mounted while a container runs, also when the server is started anew meanwhile.
  await docker(['volume', 'create', '-d', driver, '-o', 'type=tmpfs', '-o', 'device=tmpfs', '-o', 'o=size=1m', 'memory'])
  const id = (await docker(['run', '-d', '--network', 'none', '-v', 'memory:/mem', 'host:1', '/bin/sleep', '60'])).trim()
  const { mountpoint } = storage.volumes.get('memory')
  assert.ok(isMountpoint(mountpoint))
  await storage.volumes.remove('memory').then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'IN_USE')))
  await docker(['volume', 'rm', 'memory']).then(() => assert.unreachable(), (error: Error) => assert.match(error.message, /volume is in use/))
  await server.close()
  server = await serveVolumes(storage.volumes, { address: socket })
  assert.match(await docker(['exec', id, '/bin/stat', '-f', '-c', '%T', '/mem']), /tmpfs/)
  await docker(['rm', '-f', id])
  assert.not(isMountpoint(mountpoint))
  assert.is(storage.volumes.mountCount('memory'), 0)

  // Errors of ours are dockerd's answer.
  await docker(['volume', 'create', '-d', driver, '-o', 'bogus=1', 'wrong']).then(() => assert.unreachable(), (error: Error) => assert.match(error.message, /invalid option: "bogus"/))
  await docker(['volume', 'rm', 'shared', 'memory'])
  assert.equal(storage.volumes.list(), [])
})
