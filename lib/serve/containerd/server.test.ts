import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { Client } from '../../../fixtures/containerd/client.ts'
import { startServer } from '../../../fixtures/containerd/harness.ts'
import { StorageError } from '../../errors.ts'
import { open } from '../../index.ts'
import type { Storage } from '../../index.ts'
import { serveContainerd } from './index.ts'

const test = suite('containerd service')
const driver = needsRoot === false ? 'overlay2' : 'vfs'

async function served(t: Context): Promise<{ storage: Storage; client: Client; address: string }> {
  const storage = await open({ root: path.join(t.dir, 'root'), driver })
  t.defer(() => storage.close())
  const address = path.join(t.dir, 'run', 's.sock')
  const server = await serveContainerd({ snapshots: storage.snapshots, address: `unix://${address}` })
  t.defer(() => server.close())
  const client = new Client(address)
  t.defer(() => client.close())
  return { storage, client, address }
}

async function status(work: Promise<unknown>): Promise<{ code: number; details: string }> {
  try {
    await work
  } catch (error) {
    const { code, details } = error as { code: number; details: string }
    return { code, details }
  }
  return { code: 0, details: '' }
}

test('every method, and the words of the model', async t => {
  const { client, storage } = await served(t)
  const mounts = await client.make('Prepare', { key: 'default/1/a', parent: '', labels: { x: 'y' } })
  assert.equal(mounts, await storage.snapshots.mounts('default/1/a'))
  assert.equal(await client.mounts('default/1/a'), mounts)
  assert.equal(await client.stat('default/1/a'), await storage.snapshots.stat('default/1/a'))
  await client.commit({ name: 'base', key: 'default/1/a', labels: { 'containerd.io/gc.root': 'now' } })
  assert.equal(await client.make('View', { key: 'v', parent: 'base', labels: {} }), await storage.snapshots.mounts('v'))
  assert.equal(await client.usage('base'), await storage.snapshots.usage('base'))
  const updated = await client.update('base', { a: 'b' }, ['labels.a'])
  assert.equal(updated.labels, { 'containerd.io/gc.root': 'now', a: 'b' })
  assert.equal((await client.list([])).map(info => info.name).sort(), ['base', 'v'])
  assert.equal((await client.list(['kind==view'])).map(info => info.name), ['v'])
  await client.remove('v')
  await client.remove('base')
  await client.cleanup()
  assert.equal(storage.snapshots.driverIds(), [])
})

test('errors arrive as gRPC statuses with their text', async t => {
  const { client } = await served(t)
  await client.make('Prepare', { key: 'a', parent: '', labels: {} })
  await client.commit({ name: 'A', key: 'a' })
  await client.make('Prepare', { key: 'b', parent: 'A', labels: {} })
  assert.is((await status(client.stat('none'))).code, 5)
  assert.is((await status(client.make('Prepare', { key: 'b', parent: 'A', labels: {} }))).code, 6)
  assert.is((await status(client.make('View', { key: 'c', parent: 'b', labels: {} }))).code, 3)
  assert.is((await status(client.mounts('A'))).code, 9)
  const refused = await status(client.remove('A'))
  assert.is(refused.code, 9)
  assert.match(refused.details, /remove/)
  assert.is((await status(client.list(['=']))).code, 3)
  assert.is((await status(client.raw('Stat', Buffer.from([0xff])))).code, 3)
  assert.is((await status(client.raw('NoSuchMethod', Buffer.alloc(0)))).code, 12)
  assert.is((await status(client.commit({ name: 'R', key: 'b', parent: 'other' }))).code, 3)
  const umlaut = await status(client.stat('gr\u00fc\u00dfe 100%\n'))
  assert.match(umlaut.details, /gr\u00fc\u00dfe 100%/)
})

test('a list of thousands, and messages of a megabyte', { timeoutMs: 60_000 }, async t => {
  const { client, storage } = await served(t)
  await storage.snapshots.prepare('x')
  await storage.snapshots.commit('base', 'x')
  const long = 'l'.repeat(3000)
  for (let i = 0; i < 3000; i++) await storage.snapshots.view(`v${i}`, 'base', { labels: i % 5 === 0 ? { long } : {} })
  const lists = await Promise.all([client.list([]), client.list(['kind==view']), client.list(['kind==committed'])])
  assert.equal(lists.map(list => list.length), [3001, 3000, 1])
  const key = 'k'.repeat(1_000_000)
  await client.make('Prepare', { key, parent: '', labels: {} })
  assert.is((await client.stat(key)).name, key)
  assert.is((await status(client.stat('k'.repeat(17_000_000)))).code, 8)
  assert.is((await client.stat('base')).name, 'base', 'the connection lives')
})

test('many calls at once on one connection', async t => {
  const { client } = await served(t)
  await Promise.all(Array.from({ length: 200 }, (_, i) => client.make('Prepare', { key: `k${i}`, parent: '', labels: {} })))
  const infos = await Promise.all(Array.from({ length: 200 }, (_, i) => client.stat(`k${i}`)))
  assert.equal(infos.map(info => info.name), Array.from({ length: 200 }, (_, i) => `k${i}`))
})

test('the socket: mode 0600 from the start, stale ones replaced, live ones and other files refused, gone at the end', async t => {
  const storage = await open({ root: path.join(t.dir, 'root'), driver: 'vfs' })
  t.defer(() => storage.close())
  const serve = (address: string): Promise<{ close(): Promise<void> }> => serveContainerd({ snapshots: storage.snapshots, address })
  const refused = async (address: string, code: string): Promise<void> => {
    try {
      await (await serve(address)).close()
    } catch (error) {
      assert.ok(StorageError.is(error), String(error))
      assert.is(error.code, code)
      return
    }
    assert.unreachable(`${address} was served`)
  }
  const file = path.join(t.dir, 's.sock')
  const first = await serve(file)
  assert.is(fs.statSync(file).mode & 0o7777, 0o600)
  await refused(file, 'ALREADY_EXISTS')
  await first.close()
  await first.close()
  assert.equal(fs.readdirSync(t.dir), ['root'], 'socket, lock and private folder are gone')

  // A socket that nobody listens on any more, as kill -9 leaves it.
  const dead = spawnSync(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 'SIGKILL'))`])
  assert.is(dead.signal, 'SIGKILL')
  assert.ok(fs.lstatSync(file).isSocket())
  await (await serve(file)).close()

  // Somebody else's server, which knows nothing of our lock.
  const other = net.createServer()
  await new Promise<void>(resolve => other.listen(file, resolve))
  await refused(file, 'ALREADY_EXISTS')
  await new Promise(resolve => other.close(resolve))
  fs.writeFileSync(file, 'mine')
  await refused(file, 'FAILED_PRECONDITION')
  assert.is(fs.readFileSync(file, 'utf8'), 'mine')
  await refused('relative.sock', 'INVALID_ARGUMENT')
  await refused(`/${'x'.repeat(200)}`, 'INVALID_ARGUMENT')
})

test('SIGTERM and SIGINT finish what runs and exit 0; what was there is there after a restart, on the same connection', { timeoutMs: 60_000 }, async t => {
  const root = path.join(t.dir, 'root'), socket = path.join(t.dir, 's.sock')
  let server = await startServer(driver, root, socket)
  t.defer(() => server.child.kill('SIGKILL'))
  const client = new Client(socket)
  t.defer(() => client.close())
  const mounts = await client.make('Prepare', { key: 'a', parent: '', labels: {} })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const running = Array.from({ length: 20 }, (_, i) => status(client.make('Prepare', { key: `${signal}${i}`, parent: '', labels: {} })))
    await new Promise(resolve => setTimeout(resolve, 5))
    assert.is(await server.end(signal), 0, server.stderr())
    const outcomes = await Promise.all(running)
    server = await startServer(driver, root, socket)
    assert.equal(await client.mounts('a'), mounts)
    const names = (await client.list([])).map(info => info.name)
    // Either answered and there, or turned away and not there.
    for (const [i, { code, details }] of outcomes.entries()) assert.is(names.includes(`${signal}${i}`), code === 0, `${code} ${details}`)
  }
})
