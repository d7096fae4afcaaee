// Names and ids that climb, given to every public method and command: nothing outside of the data root is made, read or removed, the root stays as it was, and the
// error is a StorageError with a sentence, or a TypeError for what is no text.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../fixtures/harness/index.ts'
import { listingOf } from '../fixtures/image-store.ts'
import { addImage, driversHere, file, once, openIn } from '../fixtures/storage.ts'
import { dumpTree, makeTar, makeTree } from '../fixtures/tree.ts'
import { StorageError } from './errors.ts'
import type { ChainId } from './ids.ts'
import type { Storage } from './storage.ts'

const test = suite('hostile callers')

/** What a path is made of, and what would be one: beside the root lie victim/ and victim.txt. */
const names: readonly string[] = [
  '..', '.', '', '/', '../victim', '../../victim', '/victim', 'a/../../victim', './../victim', '..\\victim', 'x/../../../victim', 'a\0b', '../victim\0', '\n', 'a\nb', '-rf', '--help', '~', '$(id)', '%2e%2e%2fvictim',
  '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'sha256:../../../victim', `sha256:${'../'.repeat(21)}x`, 'sha256:', 'a'.repeat(300), 'a'.repeat(70_000), '\ud800', '\u202e', 'ａ', '*', '.lock', 'metadata.db', '..data', '.gone-x',
]
const notTexts: readonly unknown[] = [undefined, null, 1, {}, [], ['..'], Symbol.iterator]

type Call = (storage: Storage, text: string) => unknown
const drain = async (items: AsyncIterable<unknown>): Promise<void> => { for await (const _ of items) continue }
const tar = makeTar([{ path: 'x', type: 'file' }])
const calls: Readonly<Record<string, Call>> = {
  'images.get': (s, x) => s.images.get(x), 'images.resolve': (s, x) => s.images.resolve(x), 'images.inspect': (s, x) => s.images.inspect(x), 'images.history': (s, x) => s.images.history(x),
  'images.tag from': (s, x) => s.images.tag(x, 'other:1'), 'images.tag to': (s, x) => s.images.tag('app:1', `${x}!`), 'images.untag': (s, x) => s.images.untag(x), 'images.remove': (s, x) => s.images.remove(x),
  'images.save': (s, x) => drain(s.images.save([x])), 'images.saveToDirectory': (s, x) => s.images.saveToDirectory([x], `${s.root}-saved`), 'images.saveToFile': (s, x) => s.images.saveToFile([x], -1),
  'images.load name': (s, x) => s.images.load(once(tar), { name: x }), 'images.load platform': (s, x) => s.images.load(once(tar), { platform: x }),
  'images.import reference': (s, x) => s.images.import(once(tar), { reference: `${x}!` }), 'images.import change': (s, x) => s.images.import(once(tar), { changes: [`WRONG ${x}`] }),
  'layers.get': (s, x) => s.layers.get(x as ChainId), 'layers.chain': (s, x) => s.layers.chain(x as ChainId), 'layers.tar': (s, x) => drain(s.layers.tar(x as ChainId)), 'layers.writeTar': (s, x) => s.layers.writeTar(x as ChainId, { fd: -1, offset: 0 }), 'layers.release': (s, x) => s.layers.release(x as ChainId),
  'containers.get': (s, x) => s.containers.get(x), 'containers.create image': (s, x) => s.containers.create({ image: `${x}!` }), 'containers.create name': (s, x) => s.containers.create({ name: `${x}!` }),
  'containers.remove': (s, x) => s.containers.remove(x), 'containers.mounts': (s, x) => s.containers.mounts(x), 'containers.mount': (s, x) => s.containers.mount(x), 'containers.unmount': (s, x) => s.containers.unmount(x),
  'containers.mountPoints': (s, x) => s.containers.mountPoints(x), 'containers.prepareMounts': (s, x) => s.containers.prepareMounts(x), 'containers.releaseMounts': (s, x) => s.containers.releaseMounts(x),
  'containers.spec': (s, x) => s.containers.spec(x), 'containers.diff': (s, x) => drain(s.containers.diff(x)), 'containers.export': (s, x) => drain(s.containers.export(x)), 'containers.layerTar': (s, x) => drain(s.containers.layerTar(x)),
  'containers.usage': (s, x) => s.containers.usage(x), 'containers.graphDriver': (s, x) => s.containers.graphDriver(x), 'containers.commit': (s, x) => s.containers.commit(x), 'containers.commit reference': (s, x) => s.containers.commit('c1', { reference: `${x}!` }),
  'containers.create volumesFrom': (s, x) => s.containers.create({ image: 'app:1', mounts: { volumesFrom: [`${x}!`] } }), 'containers.create -v': (s, x) => s.containers.create({ image: 'app:1', mounts: { binds: [`${x}:relative`] } }),
  'containers.create --mount subpath': (s, x) => s.containers.create({ image: 'app:1', mounts: { mounts: [{ Type: 'volume', Source: 'vol', Target: '/t', VolumeOptions: { Subpath: `../${x}` } }] } }),
  'volumes.get': (s, x) => s.volumes.get(x), 'volumes.inspect': (s, x) => s.volumes.inspect(x), 'volumes.create': (s, x) => s.volumes.create(`${x}/`), 'volumes.remove': (s, x) => s.volumes.remove(x),
  'volumes.sizeBytes': (s, x) => s.volumes.sizeBytes(x), 'volumes.mount': (s, x) => s.volumes.mount(x), 'volumes.unmount': (s, x) => s.volumes.unmount(x), 'volumes.use': (s, x) => s.volumes.use(x, 'r'),
  'volumes.clone from': (s, x) => s.volumes.clone(x, 'new'), 'volumes.clone to': (s, x) => s.volumes.clone('vol', `${x}/`), 'volumes.export': (s, x) => drain(s.volumes.export(x)), 'volumes.import': (s, x) => s.volumes.import(`${x}/`, once(tar)),
  'volumes.fill': (s, x) => s.volumes.fill(x, s.root, { reference: 'r' }), 'volumes.fill subpath': (s, x) => s.volumes.fill('empty', s.root, { reference: 'r', subpath: `../${x}` }),
  'volumes.pin': (s, x) => s.volumes.pin(x, 'd'), 'volumes.pin subpath': (s, x) => s.volumes.pin('vol', `../${x}`), 'volumes.list': (s, x) => s.volumes.list({ [`${x}!`]: [''] }),
  'snapshots.stat': (s, x) => s.snapshots.stat(x), 'snapshots.mounts': (s, x) => s.snapshots.mounts(x), 'snapshots.usage': (s, x) => s.snapshots.usage(x), 'snapshots.remove': (s, x) => s.snapshots.remove(x),
  'snapshots.prepare parent': (s, x) => s.snapshots.prepare('k', `${x}!`), 'snapshots.view parent': (s, x) => s.snapshots.view('k', `${x}!`), 'snapshots.commit': (s, x) => s.snapshots.commit('n', x),
  'snapshots.update': (s, x) => s.snapshots.update({ name: x, labels: {} }), 'snapshots.withMount': (s, x) => s.snapshots.withMount(x, () => undefined),
}

async function thrown(work: () => unknown): Promise<unknown> {
  try {
    await work()
    return undefined
  } catch (error) {
    return error
  }
}

for (const driver of driversHere) {
  test(`every method, every name (${driver})`, { timeoutMs: 120_000 }, async t => {
    makeTree(t.dir, { 'victim/f': 'v', 'victim.txt': 'v' })
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', [[file('etc/x', 'y')]])
    const { id } = await storage.containers.create({ image: 'app:1', name: 'c1' })
    await storage.volumes.create('vol')
    makeTree(storage.volumes.get('vol').mountpoint, { 'd/': {} })
    await storage.volumes.create('empty')
    const outside = (): string[] => dumpTree(t.dir, { filter: name => !name.startsWith('root'), root: false })
    // Locks and catalogues that are opened lazily are made by the first call; names and contents below that count.
    const inside = (): string[] => listingOf(storage.root).filter(line => !/layerstack\/(snapshots|volumes\/(locks|mounts)|intents|tmp)|\.db|mount-counts|link|prune/.test(line))
    const before = { outside: outside(), inside: inside() }
    const problems: string[] = []
    for (const [what, call] of Object.entries(calls)) {
      for (const name of names) {
        const error = await thrown(() => call(storage, name))
        const shown = `${what}(${JSON.stringify(name.slice(0, 60))})`
        if (error === undefined) problems.push(`${shown}: it was accepted`)
        else if (!StorageError.is(error)) problems.push(`${shown}: ${(error as Error).stack?.split('\n').slice(0, 3).join(' ')}`)
        else if (!/^(NOT_FOUND|INVALID_ARGUMENT|INVALID_ARCHIVE|FAILED_PRECONDITION|NOT_SUPPORTED)$/.test(error.code)) problems.push(`${shown}: ${error.code} ${error.message.slice(0, 200)}`)
      }
      for (const other of notTexts) {
        const error = await thrown(() => call(storage, other as string))
        // Some make a text of it first; what counts is that it ends in an error of these kinds.
        if (error !== undefined && !StorageError.is(error) && !(error instanceof TypeError)) problems.push(`${what}(${String(other)}): ${String(error)}`)
      }
      assert.equal(outside(), before.outside, what)
    }
    assert.equal(problems, [])
    assert.equal(inside().filter(line => !before.inside.includes(line)), [])
    assert.equal(before.inside.filter(line => !inside().includes(line)), [])
    assert.is(storage.containers.get(id).name, 'c1')
  })

  test(`keys of snapshots may be any text, and lead nowhere (${driver})`, async t => {
    makeTree(t.dir, { 'victim/f': 'v' })
    const storage = await openIn(t, driver)
    const outside = (): string[] => dumpTree(t.dir, { filter: name => !name.startsWith('root'), root: false })
    const before = outside()
    for (const key of names.filter(name => name !== '' && !/[\0\ud800]/.test(name) && name.length < 2000)) {
      await storage.snapshots.prepare(key)
      await storage.snapshots.withMount(key, dir => { assert.ok(dir.startsWith(storage.root)); fs.writeFileSync(path.join(dir, 'f'), key) })
      await storage.snapshots.commit(`committed ${key}`, key)
      assert.is((await storage.snapshots.stat(`committed ${key}`)).name, `committed ${key}`)
      assert.equal(outside(), before, key)
    }
    for (const key of names.filter(name => name !== '' && !/[\0\ud800]/.test(name) && name.length < 2000)) await storage.snapshots.remove(`committed ${key}`)
    await storage.snapshots.cleanup()
  })
}

test('commands of the command line', { timeoutMs: 120_000 }, async t => {
  makeTree(t.dir, { 'victim/f': 'v' })
  const root = path.join(t.dir, 'root'), bin = path.join(import.meta.dirname, 'cli/main.js')
  const run = (...args: string[]): ReturnType<typeof spawnSync> => spawnSync(process.execPath, [bin, '--root', root, '--driver', 'vfs', '--durability', 'none', ...args], { encoding: 'utf8', cwd: t.dir })
  const before = dumpTree(path.join(t.dir, 'victim'))
  const commands = [['image', 'rm'], ['image', 'save', '-o', 'out.tar'], ['container', 'create'], ['container', 'rm'], ['container', 'export'], ['container', 'mount'], ['volume', 'create'], ['volume', 'rm'], ['volume', 'export'], ['layer', 'inspect']]
  for (const [i, command] of commands.entries()) {
    const name = ['../victim', '../../victim', 'a/../../victim', '/victim'][i % 4] as string
    const { status, stderr, stdout } = run(...command, name)
    assert.ok(status === 1 || status === 2, `${command.join(' ')} ${name}: ${status} ${stderr}`)
    assert.not.match(`${stderr}${stdout}`, /\n {4}at |node:internal/, command.join(' '))
    assert.ok(String(stderr).trim() !== '', command.join(' '))
  }
  assert.equal(dumpTree(path.join(t.dir, 'victim')), before)
  assert.equal(fs.readdirSync(t.dir).sort(), ['root', 'victim'])
})
