// Moving between drivers: from each to each that this machine has, aufs without mounts; what must be kept, what a kill may leave, and what stays refused.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openUnprobed } from '../../drivers/aufs/index.ts'
import { supportsHere } from '../../drivers/aufs/probe.ts'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { applyLayer, writeLayer } from '../diff/index.ts'
import type { DriverModule } from '../driver.ts'
import { StorageError } from '../errors.ts'
import type { LayerId } from '../ids.ts'
import { drivers, open } from '../index.ts'
import type { Storage } from '../index.ts'
import type { MigrateProgress } from './migrate.ts'

const test = suite('check/migrate')

// A kernel without aufs can still lay it out, apply to it and read it.
const aufs: DriverModule = {
  ...drivers.aufs, async probe() { return { ok: true, supports: supportsHere } },
  open: options => options.readOnly === true ? drivers.aufs.open(options) : openUnprobed(options.home, true),
}
const openWith = (root: string, driver: string, readOnly = false): Promise<Storage> => open({ root, driver, drivers: [aufs], durability: 'none', readOnly })

const base = makeImage({
  tags: ['app:1', 'ghcr.io/x/app:2'],
  layers: [
    [
      { path: 'etc/', type: 'dir' }, { path: 'etc/hostname', type: 'file', content: 'base\n' }, { path: 'etc/gone', type: 'file', content: 'x' }, { path: 'bin', type: 'symlink', linkname: 'usr/bin' },
      { path: 'usr/', type: 'dir', mode: 0o711 }, { path: 'usr/a', type: 'file', content: 'linked', uid: 1, gid: 2, mode: 0o4755 }, { path: 'usr/b', type: 'hardlink', linkname: 'usr/a' },
      { path: 'old/', type: 'dir' }, { path: 'old/f', type: 'file', content: 'hidden' }, { path: 'dev/', type: 'dir' }, { path: 'dev/null', type: 'char', devmajor: 1, devminor: 3 },
    ],
    [{ path: 'etc/.wh.gone', type: 'file' }, { path: 'old/', type: 'dir' }, { path: 'old/.wh..wh..opq', type: 'file' }, { path: 'old/new', type: 'file', content: 'n', xattrs: { 'user.k': 'v' } }],
    [{ path: 'usr/c', type: 'file', content: 'third', mtimeNs: 1_500_000_000_123_456_789n }],
  ],
})
const other = makeImage({ tags: [], config: { config: { Cmd: ['other'] } } })

/** Two images, one without a name; a third that was committed; a container with changes of every kind. */
async function fill(storage: Storage, dir: string): Promise<void> {
  await storage.images.load(write(dir, 'a.tar', makeTar(oldDockerArchive([base, other]))))
  const { id } = await storage.containers.create({ image: 'app:1', name: 'box' })
  await storage.containers.withMount(id, at => {
    fs.writeFileSync(`${at}/etc/hostname`, 'changed\n')
    fs.rmSync(`${at}/old`, { recursive: true })
    fs.mkdirSync(`${at}/old`)
    fs.writeFileSync(`${at}/old/mine`, 'm')
    fs.linkSync(`${at}/old/mine`, `${at}/old/same`)
    fs.rmSync(`${at}/usr/c`)
    fs.chownSync(`${at}/usr/a`, 7, 8)
    fs.symlinkSync('nowhere', `${at}/link`)
  })
  await storage.containers.commit(id, { reference: 'made:1', created: '2025-01-01T00:00:00Z' })
}

/** All that must be the same wherever it lies. */
async function contents(storage: Storage): Promise<Record<string, unknown>> {
  const digest = async (bytes: AsyncIterable<Uint8Array>): Promise<string> => {
    const hash = createHash('sha256')
    for await (const chunk of bytes) hash.update(chunk)
    return hash.digest('hex')
  }
  const ids = await storage.images.ids()
  const images = await Promise.all(ids.map(async id => {
    const { configBytes, references, layers, sizeBytes } = await storage.images.get(id)
    return { id, config: configBytes.toString(), references, layers, sizeBytes, history: (await storage.images.history(id)).map(({ Id, CreatedBy, Size }) => [Id, CreatedBy, Size]) }
  }))
  const layers: string[] = []
  for await (const layer of storage.layers.list()) layers.push(`${layer.chainId} ${layer.sizeBytes} ${await digest(storage.layers.tar(layer.chainId))}`)
  const containers = await Promise.all(storage.containers.list().map(async ({ id, name, imageId, config }) => {
    const changes: string[] = []
    for await (const change of storage.containers.diff(id)) changes.push(`${change.kind} ${change.path}`)
    return { id, name, imageId, config, changes: changes.sort(), all: await digest(storage.containers.export(id)) }
  }))
  return { images, layers: layers.sort(), containers, archive: await digest(storage.images.save(['app:1', 'made:1'])) }
}

/** Nothing of the driver is left in the root but empty folders of ours. */
function assertGone(root: string, driver: string): void {
  assert.equal([fs.existsSync(`${root}/${driver}`), fs.existsSync(`${root}/image/${driver}`)], [false, false])
}

const onBtrfs = skipWithoutImage('btrfs')
const names: readonly (keyof typeof drivers)[] = ['overlay2', 'vfs', 'fuse-overlayfs', ...(onBtrfs === false ? ['btrfs' as const] : []), 'aufs']

for (const from of names) {
  for (const to of names) {
    if (from === to) continue
    test(`${from} → ${to}`, { skip: needsRoot, timeoutMs: 60_000 }, async t => {
      let place = t.dir
      if (from === 'btrfs' || to === 'btrfs') {
        const image = mountImage('btrfs')
        t.defer(() => image.close())
        place = image.dir
      }
      for (const driver of [from, to]) {
        const probe = driver === 'aufs' ? undefined : await drivers[driver].probe(`${place}/probe`)
        if (probe?.ok === false) t.skip(probe.reason)
      }
      const root = `${place}/root`
      // Nobody can write to a container of aufs here: it is filled elsewhere and moved.
      const first = from === 'aufs' ? 'overlay2' : from
      let storage = await openWith(root, first)
      await fill(storage, t.dir)
      if (from === 'aufs') {
        await storage.migrate({ to: 'aufs' })
        storage = await openWith(root, 'aufs')
      }
      const before = await contents(storage)
      assert.is((before['containers'] as unknown[]).length, 1)
      const seen = new Set<string>()
      const result = await storage.migrate({ to, onProgress: (progress: MigrateProgress) => seen.add(progress.phase) })
      assert.equal(result, { layers: 6, images: 3, containers: 1, layersBefore: 0, notKept: 0, dropped: true })
      assert.equal([...seen].sort(), ['container', 'drop', 'image', 'layer', 'verify'])
      const moved = await openWith(root, to)
      assert.equal(await contents(moved), before)
      assertGone(root, from)
      await moved.images.remove('made:1')
      await moved.containers.remove('box')
      await moved.close()
    })
  }
}

test('to another root: containers\' files go along, and the old root keeps nothing of the driver', { skip: needsRoot }, async t => {
  const storage = await openWith(`${t.dir}/one`, 'vfs')
  await fill(storage, t.dir)
  const before = await contents(storage)
  await storage.migrate({ to: 'vfs', rootTo: `${t.dir}/two` })
  assertGone(`${t.dir}/one`, 'vfs')
  assert.equal(fs.readdirSync(`${t.dir}/one/containers`), [])
  const moved = await openWith(`${t.dir}/two`, 'vfs')
  assert.equal(await contents(moved), before)
  await moved.close()
})

test('what it refuses: itself, a mounted container, snapshots, a damaged layer; and the old side stays whole', { skip: needsRoot }, async t => {
  const storage = await openWith(`${t.dir}/root`, 'overlay2')
  await fill(storage, t.dir)
  const before = await contents(storage)
  const refused = async (code: string, text: RegExp): Promise<void> => {
    try { await storage.migrate({ to: code === 'INVALID_ARGUMENT' ? 'overlay2' : 'vfs' }) } catch (error) {
      assert.ok(StorageError.is(error) && error.code === code && text.test(error.message), String(error))
      return
    }
    assert.unreachable(`should have failed with ${code}`)
  }
  await refused('INVALID_ARGUMENT', /itself/)
  const mounted = await storage.containers.mount('box')
  await refused('IN_USE', /box is mounted/)
  await mounted.unmount()
  await storage.snapshots.prepare('work')
  await refused('FAILED_PRECONDITION', /snapshots, such as work/)
  await storage.snapshots.remove('work')
  assert.equal(await contents(storage), before)
  // The second layer's file, changed behind the store's back: its digest no longer is what the chain id stands for.
  for await (const layer of storage.layers.list()) {
    const { path: dir } = await storage.driver.content(layer.cacheId)
    if (fs.lstatSync(`${dir}/old/new`, { throwIfNoEntry: false })?.isFile() === true) fs.writeFileSync(`${dir}/old/new`, 'N')
  }
  await refused('CORRUPT', /integrity|verify/)
  assert.is((await storage.images.ids()).length, 3)
  await storage.close()
})

test('killed again and again, it comes to its end, and at no moment is anything lost', { skip: needsRoot, timeoutMs: 120_000 }, async t => {
  const root = `${t.dir}/root`
  const storage = await openWith(root, 'overlay2')
  await fill(storage, t.dir)
  const before = await contents(storage)
  await storage.close()
  const index = new URL('../index.js', import.meta.url).href
  const code = `
    const { open } = await import(${JSON.stringify(index)})
    const storage = await open({ root: ${JSON.stringify(root)}, driver: 'overlay2', durability: 'none' })
    console.log('ready')
    const result = await storage.migrate({ to: 'vfs' })
    console.log(JSON.stringify(result))`
  let finished = false
  for (let round = 0; round < 40 && !finished; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.on('data', chunk => { output += String(chunk) })
    const ended = once(child, 'exit')
    await Promise.race([once(child.stdout, 'data'), ended])
    // The last rounds are long enough for the busiest machine.
    await Promise.race([sleep(10 * 1.25 ** round), ended])
    child.kill('SIGKILL')
    await ended
    finished = output.includes('"dropped":true')
    if (finished) break
    // Each thing is whole on at least one side: images on the old one until it is dropped, containers on exactly one.
    const old = await openWith(root, 'overlay2'), made = await openWith(root, 'vfs')
    const ids = new Set([...await old.images.ids(), ...await made.images.ids()])
    assert.is(ids.size, 3, `round ${round}`)
    assert.is(old.containers.list().length + made.containers.list().length, 1, `round ${round}`)
    await old.close()
    await made.close()
  }
  assert.ok(finished, 'it never came to its end')
  const moved = await openWith(root, 'vfs')
  assert.equal(await contents(moved), before)
  assertGone(root, 'overlay2')
  await moved.close()
})

test('a store of the first overlay driver opens read-only, and migrates', { skip: needsRoot }, async t => {
  const root = `${t.dir}/root`
  const storage = await openWith(root, 'vfs')
  await fill(storage, t.dir)
  const before = await contents(storage)
  await toLegacyOverlay(storage, root)
  await storage.close()
  const old = await openWith(root, 'overlay', true)
  const info = await old.info()
  assert.equal([info.driver, info.readOnly], ['overlay', true])
  assert.equal(await contents(old), before)
  try { await openWith(root, 'overlay'); assert.unreachable() } catch (error) { assert.ok(StorageError.is(error, 'NOT_SUPPORTED') && /migrate/.test(error.info.hint ?? '')) }
  const result = await old.migrate({ to: 'overlay2' })
  assert.is(result.dropped, true)
  assertGone(root, 'overlay')
  const moved = await openWith(root, 'overlay2')
  assert.equal(await contents(moved), before)
  await moved.close()
})

/** Rewrite a vfs root as dockerd 20.10 laid out overlay: `root` for image layers, `upper` and `lower-id` for a container's two. */
async function toLegacyOverlay(storage: Storage, root: string): Promise<void> {
  const home = `${root}/overlay`
  const container = storage.containers.list()[0]?.id ?? assert.unreachable()
  const entry = `${root}/image/vfs/layerdb/mounts/${container}`
  const read = (name: string): string => fs.readFileSync(`${entry}/${name}`, 'latin1')
  const [mountId, initId] = [read('mount-id'), read('init-id')]
  for await (const layer of storage.layers.list()) {
    fs.mkdirSync(`${home}/${layer.cacheId}`, { recursive: true })
    fs.renameSync(`${root}/vfs/dir/${layer.cacheId}`, `${home}/${layer.cacheId}/root`)
  }
  const image = (await storage.layers.get(read('parent') as never)).cacheId
  const { path: initTree } = await storage.driver.content(initId as LayerId), { path: mountTree } = await storage.driver.content(mountId as LayerId)
  for (const [id, tree] of [[initId, initTree], [mountId, mountTree]] as const) {
    for (const name of ['upper', 'work', 'merged']) fs.mkdirSync(`${home}/${id}/${name}`, { recursive: true })
    fs.writeFileSync(`${home}/${id}/lower-id`, image)
    await applyLayer(writeLayer(tree, `${home}/${image}/root`, { whiteouts: 'none' }), `${home}/${id}/upper`, { whiteouts: 'overlay' })
  }
  fs.rmSync(`${root}/vfs`, { recursive: true })
  fs.renameSync(`${root}/image/vfs`, `${root}/image/overlay`)
  const config = `${root}/containers/${container}/config.v2.json`
  fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace('"Driver":"vfs"', '"Driver":"overlay"'))
}
