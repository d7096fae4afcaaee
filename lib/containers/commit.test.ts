import fs from 'node:fs'
import path from 'node:path'
import { spawnSync } from 'node:child_process'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { TestFunction } from '../../fixtures/harness/index.ts'
import { addImage, all, bytesOf, driversHere, failure, file, openIn } from '../../fixtures/storage.ts'
import { listingOf } from '../../fixtures/image-store.ts'
import { dumpTree, makeTree, overlayMarksAndOwnerNotes } from '../../fixtures/tree.ts'
import type { Storage } from '../index.ts'
import { mergeConfig } from './merge-config.ts'

const test = suite('commit')
const layers = [[file('base', 'one'), { path: 'etc/', type: 'dir' }, file('etc/motd', 'hello')]]
const created = '2025-01-02T03:04:05.678901234Z'

interface Config { readonly config: Record<string, unknown>; readonly history: Record<string, unknown>[]; readonly [key: string]: unknown }
async function configOf(storage: Storage, id: string): Promise<Config> {
  return (await storage.images.get(id)).config.raw as unknown as Config
}

for (const driver of driversHere) {
  const it = (name: string, run: TestFunction): void => test(`${driver}: ${name}`, { timeoutMs: 60_000 }, run)

  it('the changes become a layer, the config is the container\'s, the history gets an entry', async t => {
    const storage = await openIn(t, driver), { containers, images } = storage
    const base = await addImage(storage, 'app:1', layers, { Cmd: ['/run', '-x'], Env: ['A=1'], Labels: { a: '1' } })
    const { id } = await containers.create({ image: 'app:1', config: { Env: ['B=2'] } })
    const tree = await containers.withMount(id, dir => {
      makeTree(dir, { 'etc/motd': 'changed', 'new/x': 'y', base: { type: 'absent' } })
      return dumpTree(dir, { root: false, times: false, ignoreXattrs: overlayMarksAndOwnerNotes, filter: name => !/^(dev|proc|sys|\.dockerenv)$|^etc\/(hosts|hostname|resolv.conf|mtab)$/.test(name) })
    })
    const result = await containers.commit(id, {
      reference: 'app:2', author: 'Ann', message: 'why', created, changes: ['ENV C=3', 'CMD ["/other"]', 'LABEL b=2'],
    })
    const image = await images.get('app:2')
    assert.is(image.id, result.imageId)
    assert.is(image.layers.at(-1), result.chainId)
    assert.is(image.parent, base)
    const { config, history, ...rest } = await configOf(storage, 'app:2')
    assert.equal([config['Env'], config['Cmd'], config['Labels'], config['Image']], [['B=2', 'A=1', 'C=3'], ['/other'], { a: '1', b: '2' }, 'app:1'])
    assert.equal(history.at(-1), { created, author: 'Ann', created_by: '/run -x', comment: 'why' })
    assert.equal([rest['author'], rest['comment'], rest['created'], rest['container'], rest['os']], ['Ann', 'why', created, id, 'linux'])
    assert.equal((await images.history('app:2')).map(item => item.CreatedBy), ['/run -x', 'step 0'])
    // A container of the new image shows what the old one showed.
    const next = await containers.create({ image: 'app:2' })
    assert.equal(await containers.withMount(next.id, dir => dumpTree(dir, { root: false, times: false, ignoreXattrs: overlayMarksAndOwnerNotes, filter: name => !/^(dev|proc|sys|\.dockerenv)$|^etc\/(hosts|hostname|resolv.conf|mtab)$/.test(name) })), tree)
    for (const one of [id, next.id]) await containers.remove(one)
  })

  it('without changes: an empty layer in the history, and no layer', async t => {
    const storage = await openIn(t, driver), { containers } = storage
    await addImage(storage, 'app:1', layers)
    const { id } = await containers.create({ image: 'app:1' })
    const before = (await all(storage.driver.list())).length
    const result = await containers.commit(id, { changes: ['USER me'] })
    assert.is(result.chainId, undefined)
    const { history, config } = await configOf(storage, result.imageId)
    assert.is(history.at(-1)?.['empty_layer'], true)
    assert.is(config['User'], 'me')
    assert.equal((await storage.images.get(result.imageId)).layers, (await storage.images.get('app:1')).layers)
    assert.is((await all(storage.driver.list())).length, before)
    await containers.remove(id)
  })

  it('twice with the same time gives the same image; also both at once, and while it is mounted', async t => {
    const storage = await openIn(t, driver), other = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    await storage.containers.withMount(id, async dir => {
      makeTree(dir, { big: { content: Buffer.alloc(2_500_000, 'b') } })
      const once = await storage.containers.commit(id, { created })
      const [two, three] = await Promise.all([storage.containers.commit(id, { created }), other.containers.commit(id, { created })])
      assert.equal([two.imageId, three.imageId], [once.imageId, once.imageId])
      assert.not.equal((await storage.containers.commit(id)).imageId, once.imageId)
      // The same bytes under the same parent are one layer.
      assert.is((await all(storage.layers.list())).length, 2)
    })
    await storage.containers.remove(id)
  })

  it('of a container without an image, and a second commit on the first', async t => {
    const storage = await openIn(t, driver), { containers } = storage
    const { id } = await containers.create({ config: { Cmd: ['/init'] } })
    await containers.withMount(id, dir => fs.writeFileSync(path.join(dir, 'a'), 'a'))
    const { imageId } = await containers.commit(id)
    const image = await storage.images.get(imageId)
    assert.is(image.layers.length, 1)
    assert.is(image.config.os, 'linux')
    assert.match(image.config.architecture, /^(amd64|arm64|[a-z0-9]+)$/)
    const next = await containers.create({ image: imageId })
    await containers.withMount(next.id, dir => fs.writeFileSync(path.join(dir, 'b'), 'b'))
    assert.is((await storage.images.get((await containers.commit(next.id)).imageId)).layers.length, 2)
    for (const one of [id, next.id]) await containers.remove(one)
  })

  it('a wrong change, and an abort in the middle, leave nothing', async t => {
    const storage = await openIn(t, driver), { containers } = storage
    await addImage(storage, 'app:1', layers)
    const { id } = await containers.create({ image: 'app:1' })
    await containers.withMount(id, dir => { for (let i = 0; i < 8; i++) fs.writeFileSync(path.join(dir, `f${i}`), Buffer.alloc(2_000_000, i)) })
    const before = listingOf(storage.root)
    assert.is((await failure(containers.commit(id, { changes: ['FROM x'] }))).code, 'INVALID_ARGUMENT')
    assert.is((await failure(containers.commit(id, { reference: 'Not A Name' }))).code, 'INVALID_ARGUMENT')
    const stop = new AbortController()
    assert.is((await failure(containers.commit(id, { signal: stop.signal, onProgress: () => stop.abort() }))).code, 'ABORTED')
    assert.is((await failure(containers.commit(id, { onProgress: () => { throw new Error('mine') } }))).message, 'mine')
    assert.equal(listingOf(storage.root), before)
    await containers.remove(id)
  })

  it('one thread is enough: commit pipes one job into another', async t => {
    const root = path.join(t.dir, 'root')
    const script = `import fs from 'node:fs'; import { open } from ${JSON.stringify(new URL('../index.js', import.meta.url).href)}
      const storage = await open({ root: ${JSON.stringify(root)}, driver: '${driver}', durability: 'none' })
      const { id } = await storage.containers.create()
      await storage.containers.withMount(id, dir => { for (let i = 0; i < 5; i++) fs.writeFileSync(dir + '/f' + i, Buffer.alloc(3000000, i)) })
      await Promise.all([1, 2, 3].map(n => storage.containers.commit(id, { created: '2025-01-0' + n + 'T00:00:00Z' })))
      const tars = (await Promise.all((await storage.images.ids()).map(async id => { let n = 0; for await (const chunk of storage.images.save([id])) n += chunk.length; return n })))
      let first = 0
      for await (const chunk of storage.containers.export(id)) { for await (const change of storage.containers.diff(id)) first++; break }
      await storage.containers.remove(id)
      console.log(tars.length, tars.every(n => n > 15000000), first)`
    const { stdout, status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', env: { ...process.env, LAYERSTACK_THREADS: '1' }, timeout: 40_000 })
    assert.is(stdout.trim(), '3 true 5', `${status} ${stderr}`)
  })
}

test('an error before the first byte of a layer is read lets the writer go: the process ends', async t => {
  const script = `import fs from 'node:fs'; import { open } from ${JSON.stringify(new URL('../index.js', import.meta.url).href)}
    const storage = await open({ root: ${JSON.stringify(path.join(t.dir, 'root'))}, driver: 'vfs', durability: 'none' })
    const { id } = await storage.containers.create()
    await storage.containers.withMount(id, dir => fs.writeFileSync(dir + '/f', Buffer.alloc(20000000)))
    fs.rmSync(storage.root + '/image/vfs/layerdb/tmp', { recursive: true })
    try { await storage.containers.commit(id) } catch (error) { console.log(error.message) }`
  const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 20_000 })
  assert.is(signal, null, 'it hung')
  assert.match(stdout, 'ENOENT')
})

test('a saved commit loads elsewhere', async t => {
  const storage = await openIn(t, 'vfs')
  await addImage(storage, 'app:1', layers)
  const { id } = await storage.containers.create({ image: 'app:1' })
  await storage.containers.withMount(id, dir => fs.writeFileSync(path.join(dir, 'x'), 'y'))
  const { imageId } = await storage.containers.commit(id, { reference: 'app:2' })
  const archive = path.join(t.dir, 'a.tar')
  fs.writeFileSync(archive, await bytesOf(storage.images.save(['app:2'])))
  const second = await openIn(t, 'vfs', { root: path.join(t.dir, 'second') })
  assert.is((await second.images.load(archive))[0]?.imageId, imageId)
})

test('the merge of configs is Docker\'s', () => {
  const base = { User: 'u', Env: ['A=1', 'B=2'], Cmd: ['c'], Entrypoint: ['e'], Labels: { l: '1' }, Volumes: { '/v': {} }, ExposedPorts: { '80/tcp': {} }, StopSignal: 'TERM', WorkingDir: '/w', Hostname: 'h' }
  assert.equal(mergeConfig({}, base), { User: 'u', Env: ['A=1', 'B=2'], Cmd: ['c'], Entrypoint: ['e'], Labels: { l: '1' }, Volumes: { '/v': {} }, ExposedPorts: { '80/tcp': {} }, StopSignal: 'TERM', WorkingDir: '/w' })
  assert.equal(mergeConfig({ Entrypoint: ['x'] }, base).Cmd, undefined, 'who brings an entrypoint brings the command')
  assert.equal(mergeConfig({ Cmd: ['x'] }, base).Entrypoint, ['e'])
  assert.equal(mergeConfig({ Entrypoint: [] }, base).Entrypoint, [], 'an empty list means none')
  assert.equal(mergeConfig({ Env: ['B=3'], Labels: { l: '2', m: '3' }, Volumes: { '/x': {} } }, base).Env, ['B=3', 'A=1'])
  assert.equal(mergeConfig({ Labels: { l: '2', m: '3' } }, base).Labels, { l: '2', m: '3' })
  assert.equal(mergeConfig({ Env: null, Labels: null, Volumes: { '/x': {} } }, { Env: null, Labels: null, Volumes: null }), { Env: null, Labels: null, Volumes: { '/x': {} } })
})
