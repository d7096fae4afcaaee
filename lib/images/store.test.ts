// Names, views and removal: Docker's rules and wording; two stores on one root; damaged files.

import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { baseLayer, hex, makeImage, oldDockerArchive, openTestImages, write } from '../../fixtures/image-store.ts'
import type { TestImage, TestImages } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import type { Code } from '../errors.ts'
import type { Digest } from '../ids.ts'
import { layerDb } from '../layers/index.ts'
import type { ImageUser } from './index.ts'

const test = suite('images/store')

const one = makeImage({ tags: ['app:1'] })
const two = makeImage({ tags: ['app:2'], layers: [baseLayer, [{ path: 'b', type: 'file', content: 'bb' }]], config: { created: '2025-01-01T00:00:00Z', config: { Labels: { stage: 'prod' } } } })
/** A symlink counts with its target's length, as lstat(2) has it. */
const baseSize = 'base\n'.length + 'usr/bin'.length
const history = [{ created_by: 'one' }]
const parent = makeImage({ tags: [], layers: [baseLayer], config: { history } })
const child = makeImage({ tags: ['child:1'], layers: [baseLayer, [{ path: 'c', type: 'file', content: 'c' }]], config: { history: [...history, { created_by: 'two' }] } })

async function loaded(dir: string, ...images: TestImage[]): Promise<TestImages> {
  const stores = await openTestImages(dir)
  const parents = new Map([[child.id, parent.id]])
  await stores.images.load(write(dir, 'in.tar', makeTar(oldDockerArchive(images, manifest => manifest.map((item, i) => {
    const above = parents.get(images[i]?.id as string)
    return above === undefined ? item : { ...item, Parent: above }
  })))))
  return stores
}

async function failsWith(promise: Promise<unknown>, code: Code, message: RegExp): Promise<void> {
  try {
    await promise
  } catch (error) {
    assert.ok(StorageError.is(error), String(error))
    assert.match(error.message, message)
    assert.is(error.code, code)
    return
  }
  assert.unreachable(`expected ${code} ${message}`)
}

const chainsOf = async ({ layers }: TestImages): Promise<string[]> => {
  const found: string[] = []
  for await (const layer of layers.list()) found.push(layer.chainId)
  return found
}

test('an image is found by name, id and unique beginnings', async t => {
  const { images, root } = await loaded(t.dir, one, two)
  for (const text of ['app:1', 'docker.io/library/app:1', one.id, hex(one.id), hex(one.id).slice(0, 12), one.id.slice(0, 20)]) assert.is(await images.resolve(text), one.id, text)
  await failsWith(images.resolve('app'), 'NOT_FOUND', /^No such image: app:latest$/)
  await failsWith(images.resolve('0'.repeat(64)), 'NOT_FOUND', /^No such image: 0+$/)
  await failsWith(images.resolve('UPPER'), 'INVALID_ARGUMENT', /must be lowercase$/)
  // A third id that begins like the first.
  const twin = `${hex(one.id).slice(0, 10)}${'0'.repeat(54)}`
  fs.writeFileSync(path.join(root.path, 'image/vfs/imagedb/content/sha256', twin), 'x')
  await failsWith(images.resolve(hex(one.id).slice(0, 8)), 'INVALID_ARGUMENT', /^multiple IDs found with provided prefix: /)
})

test('a name wins over an id that begins the same', async t => {
  const { images } = await loaded(t.dir, one, two)
  const name = hex(one.id).slice(0, 8)
  await images.tag('app:2', `${name}:latest`)
  assert.is(await images.resolve(name), two.id)
})

test('tagging moves names, notes the time, and refuses what Docker refuses', async t => {
  const { images, root } = await loaded(t.dir, one, two)
  assert.is(await images.tag('app:1', 'ghcr.io/x/y'), 'ghcr.io/x/y:latest')
  assert.is(await images.tag('app:2', 'ghcr.io/x/y:latest'), 'ghcr.io/x/y:latest')
  assert.equal((await images.get('app:2')).references, ['app:2', 'ghcr.io/x/y:latest'])
  const file = JSON.parse(fs.readFileSync(path.join(root.path, 'image/vfs/repositories.json'), 'utf8')) as object
  assert.equal(file, { Repositories: { app: { 'app:1': one.id, 'app:2': two.id }, 'ghcr.io/x/y': { 'ghcr.io/x/y:latest': two.id } } })
  await failsWith(images.tag('app:1', `x@${one.id}`), 'INVALID_ARGUMENT', /^refusing to create a tag with a digest reference$/)
  await failsWith(images.tag('app:1', 'sha256:abc'), 'INVALID_ARGUMENT', /^refusing to create an ambiguous tag using digest algorithm as name$/)
  await failsWith(images.tag('nobody:1', 'x:1'), 'NOT_FOUND', /^No such image: nobody:1$/)
  await images.untag('ghcr.io/x/y')
  await failsWith(images.untag('ghcr.io/x/y'), 'NOT_FOUND', /^No such image: ghcr\.io\/x\/y:latest$/)
})

test('fields that others put into repositories.json stay; a broken file is neither believed nor replaced', async t => {
  const { images, root } = await loaded(t.dir, one)
  const file = path.join(root.path, 'image/vfs/repositories.json')
  fs.writeFileSync(file, JSON.stringify({ Version: 7, Repositories: { app: { 'app:1': one.id, [`app@${two.id}`]: one.id } } }))
  await images.tag('app:1', 'new:1')
  assert.equal(JSON.parse(fs.readFileSync(file, 'utf8')), { Version: 7, Repositories: { app: { 'app:1': one.id, [`app@${two.id}`]: one.id }, new: { 'new:1': one.id } } })
  for (const broken of ['', '{"Repositories":', '[]', '{"Repositories":{"app":{"app:1":"nonsense"}}}', '{"Repositories":{"app":7}}', `{"Repositories":{"app":{"A B":"${one.id}"}}}`]) {
    fs.writeFileSync(file, broken)
    await failsWith(images.tag(one.id, 'new:2'), 'CORRUPT', /^cannot read .*repositories\.json: /)
    await failsWith(images.load(path.join(t.dir, 'in.tar')), 'CORRUPT', /^cannot read /)
    assert.is(fs.readFileSync(file, 'utf8'), broken)
  }
  fs.writeFileSync(file, '{"Repositories":null}')
  assert.equal((await images.get(one.id)).references, [])
})

test('two stores on one root see each other\'s names', async t => {
  const a = await loaded(t.dir, one), b = await openTestImages(t.dir)
  await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? a : b).images.tag('app:1', `n:${i}`)))
  assert.is((await a.images.get('app:1')).references.length, 21)
})

test('a config that was changed on disk is not believed', async t => {
  const { images, root } = await loaded(t.dir, one, two)
  const file = path.join(root.path, 'image/vfs/imagedb/content/sha256', hex(one.id))
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('step 0', 'step X'))
  await failsWith(images.get('app:1'), 'CORRUPT', new RegExp(`^failed to verify: ${one.id}$`))
  await failsWith(images.list(), 'CORRUPT', /^failed to verify/)
  const damaged: string[] = []
  assert.equal((await images.list({ onDamaged: error => damaged.push(error.message) })).map(item => item.Id), [two.id as Digest])
  assert.equal(damaged, [`failed to verify: ${one.id}`])
  // Loading it again repairs it.
  await images.load(path.join(t.dir, 'in.tar'))
  assert.equal((await images.get('app:1')).configBytes, one.config)
})

test('a damaged image can be removed', async t => {
  const stores = await loaded(t.dir, one)
  fs.writeFileSync(path.join(stores.root.path, 'image/vfs/imagedb/content/sha256', hex(one.id)), 'x')
  assert.equal(await stores.images.remove('app:1'), [{ untagged: 'app:1' }, { deleted: one.id }])
})

test('an image whose layer is gone says so', async t => {
  const { images, root } = await loaded(t.dir, one)
  const { layers } = await images.get('app:1')
  fs.rmSync(layerDb.layer(root, layers[1] as never), { recursive: true })
  await failsWith(images.get('app:1'), 'CORRUPT', /failed to get layer sha256:.*: layer does not exist$/)
})

test('list: newest first, names, sizes and filters', async t => {
  const { images } = await loaded(t.dir, one, two, parent, child)
  const list = await images.list()
  assert.equal(list[0], {
    Id: two.id, ParentId: '', RepoTags: ['app:2'], RepoDigests: [], Created: Date.parse('2025-01-01T00:00:00Z') / 1000,
    Size: baseSize + 'bb'.length, SharedSize: -1, Labels: { stage: 'prod' }, Containers: -1,
  })
  const ids = async (options: Parameters<typeof images.list>[0]): Promise<string[]> => (await images.list(options)).map(item => item.Id).sort()
  assert.equal(await ids({}), [one.id, two.id, child.id].sort())
  assert.equal(await ids({ all: true }), [one.id, two.id, child.id, parent.id].sort())
  assert.equal(await ids({ filter: { reference: ['app:*'] } }), [one.id, two.id].sort())
  assert.equal(await ids({ filter: { label: ['stage=prod'] } }), [two.id])
  assert.equal(await ids({ filter: { label: ['stage'] } }), [one.id, two.id, child.id].sort())
  assert.equal(await ids({ filter: { since: 'app:1' } }), [two.id])
  assert.equal(await ids({ filter: { before: 'app:2' } }), [one.id, child.id].sort())
  assert.equal(await ids({ filter: { until: new Date('2024-12-01') } }), [one.id, child.id].sort())
  await images.untag('app:1')
  assert.equal(await ids({ filter: { dangling: true } }), [one.id])
  assert.equal(await ids({ filter: { dangling: false } }), [two.id, child.id].sort())
})

test('inspect and history are Docker\'s', async t => {
  const { images } = await loaded(t.dir, one)
  const inspect = await images.inspect('app:1')
  assert.is(inspect.Id, one.id)
  assert.equal(inspect.RepoTags, ['app:1'])
  assert.is(inspect.Created, '2024-05-06T07:08:09.123456789Z')
  assert.equal(inspect.Config, { Env: ['PATH=/usr/bin:/bin'], Cmd: ['/app/run'], Labels: { stage: 'test' } })
  assert.is(inspect.Size, baseSize + '#!/bin/sh\n'.length)
  assert.is(inspect.GraphDriver.Name, 'vfs')
  assert.equal(inspect.RootFS, { Type: 'layers', Layers: one.diffIds })
  assert.match(inspect.Metadata.LastTagTime, /^20\d\d-/)
  const created = Math.floor(Date.parse('2024-05-06T07:08:09Z') / 1000)
  assert.equal(await images.history('app:1'), [
    { Id: one.id, Created: created, CreatedBy: 'CMD', Tags: ['app:1'], Size: 0, Comment: 'last' },
    { Id: '<missing>', Created: created, CreatedBy: 'step 1', Tags: null, Size: 10, Comment: '' },
    { Id: '<missing>', Created: created, CreatedBy: 'step 0', Tags: null, Size: baseSize, Comment: '' },
  ])
})

test('removing the last name removes the image and what only it had, topmost first', async t => {
  const stores = await loaded(t.dir, one, two)
  const chain = (await stores.images.get('app:1')).layers
  await stores.images.tag('app:1', 'other:1')
  assert.equal(await stores.images.remove('app:1'), [{ untagged: 'app:1' }])
  assert.equal(await stores.images.remove('other:1'), [{ untagged: 'other:1' }, { deleted: one.id }, { deleted: chain[1] as string }])
  const last = (await stores.images.get('app:2')).layers
  assert.equal(await stores.images.remove(hex(two.id).slice(0, 12)), [{ untagged: 'app:2' }, { deleted: two.id }, { deleted: last[1] as string }, { deleted: last[0] as string }])
  assert.equal(await chainsOf(stores), [])
  assert.equal(fs.readdirSync(path.join(stores.root.path, 'vfs/dir')), [])
  await failsWith(stores.images.remove('app:2'), 'NOT_FOUND', /^No such image: app:2$/)
})

test('by id, several names need force', async t => {
  const { images } = await loaded(t.dir, one)
  await images.tag('app:1', 'other:1')
  await failsWith(images.remove(one.id), 'IN_USE', new RegExp(`^conflict: unable to delete ${hex(one.id).slice(0, 12)} \\(must be forced\\) - image is referenced in multiple repositories$`))
  assert.equal((await images.remove(one.id, { force: true })).slice(0, 3), [{ untagged: 'app:1' }, { untagged: 'other:1' }, { deleted: one.id }])
})

test('digests of a repository go with its last tag', async t => {
  const { images, root } = await loaded(t.dir, one)
  const digest = `app@${two.id}`
  fs.writeFileSync(path.join(root.path, 'image/vfs/repositories.json'), JSON.stringify({ Repositories: { app: { 'app:1': one.id, [digest]: one.id } } }))
  assert.equal((await images.inspect('app:1')).RepoDigests, [digest])
  assert.is(await images.resolve(`app:7@${two.id}`), one.id)
  assert.equal((await images.remove('app:1')).slice(0, 3), [{ untagged: 'app:1' }, { untagged: digest }, { deleted: one.id }])
})

test('children and containers keep an image; parents that nobody needs go with the last child', async t => {
  const stores = await loaded(t.dir, parent, child, one)
  const { images } = stores
  const users: ImageUser[] = []
  images.addUsers(async () => users)
  await failsWith(images.remove(parent.id, { force: true }), 'IN_USE', /\(cannot be forced\) - image has dependent child images$/)
  users.push({ containerId: 'c'.repeat(64), running: true, imageId: child.id })
  await failsWith(images.remove('child:1'), 'IN_USE', new RegExp(`^conflict: unable to remove repository reference "child:1" \\(must force\\) - container c{12} is using its referenced image ${hex(child.id).slice(0, 12)}$`))
  await failsWith(images.remove(child.id, { force: true }), 'IN_USE', /\(cannot be forced\) - image is being used by running container c{12}$/)
  users[0] = { ...users[0] as ImageUser, running: false }
  await failsWith(images.remove(child.id), 'IN_USE', /\(must be forced\) - image is being used by stopped container c{12}$/)
  assert.equal((await images.get('child:1')).references, ['child:1'])
  // By name and with force the name goes; the image with it, as the container is stopped.
  const layers = (await images.get('child:1')).layers
  assert.equal(await images.remove('child:1', { force: true }), [{ untagged: 'child:1' }, { deleted: child.id }, { deleted: layers[1] as string }, { deleted: parent.id }])
  assert.equal(await chainsOf(stores).then(chains => chains.length), 2)
})

test('a running container keeps an image whose name goes by force', async t => {
  const { images } = await loaded(t.dir, one)
  images.addUsers(async () => [{ containerId: 'd'.repeat(64), running: true, imageId: one.id }])
  assert.equal(await images.remove('app:1', { force: true }), [{ untagged: 'app:1' }])
  assert.equal((await images.list()).map(item => [item.Id, item.RepoTags]), [[one.id, []]])
})

test('noPrune keeps the parent', async t => {
  const { images } = await loaded(t.dir, parent, child)
  await images.remove('child:1', { noPrune: true })
  assert.equal(await images.ids(), [parent.id as Digest])
})

test('create needs its layers, checks the config, and is idempotent', async t => {
  const { images, layers } = await loaded(t.dir, one)
  const create = (config: Buffer, options: { parent?: Digest; reference?: string } = {}): Promise<Digest> => layers.operation('test', operation => images.create(config, { operation, ...options }))
  assert.is(await create(one.config), one.id)
  const more = Buffer.from(one.config.toString().replace('"last"', '"more"'))
  const id = await create(more, { parent: one.id as Digest, reference: 'more' })
  assert.equal([(await images.get('more:latest')).parent, (await images.get(id)).configBytes], [one.id, more])
  await failsWith(create(two.config), 'NOT_FOUND', /^failed to get layer sha256:/)
  await failsWith(create(Buffer.from('{}')), 'INVALID_ARGUMENT', /no RootFS key/)
  await failsWith(create(Buffer.from(more.toString().replace('"more"', '"other"')), { parent: two.id as Digest }), 'NOT_FOUND', /^No such image: sha256:/)
  assert.is((await images.ids()).length, 2)
})
