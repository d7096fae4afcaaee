// What the rounds of docker-root-turns do not reach: the notes that dockerd keeps of registries, and a root of aufs, a driver that current kernels have no more.

import fs from 'node:fs'
import path from 'node:path'
import { assertInOrder, assertSameView, placeFor, rootfs, skipOn, viewOfDocker, viewOfStorage } from '../fixtures/docker-root.ts'
import type { RootView } from '../fixtures/docker-root.ts'
import { startDockerd } from '../fixtures/dockerd.ts'
import { assert, suite } from '../fixtures/harness/index.ts'
import { digestOf } from '../fixtures/image-store.ts'
import { startRegistry } from '../fixtures/registry.ts'
import { bytesOf, failure } from '../fixtures/storage.ts'
import { dumpTree, makeTree } from '../fixtures/tree.ts'
import { getXattr } from './sys/xattr.ts'
import { open } from './index.ts'

const test = suite('docker root, more')

test('notes of registries are kept, and what we load needs no second download', { skip: skipOn('overlay2'), timeoutMs: 240_000 }, async t => {
  const registry = await startRegistry()
  t.defer(() => registry.close())
  const place = placeFor(t, 'overlay2')
  let daemon = await place.dockerd()
  const name = `${registry.host}/deep/app:1`
  makeTree(path.join(t.dir, 'context'), { Dockerfile: 'FROM host:1\nRUN echo pushed > /pushed\n' })
  await daemon.docker(['import', await rootfs(t), 'host:1'])
  await daemon.docker(['build', '--network', 'none', '-t', name, path.join(t.dir, 'context')])
  await daemon.docker(['push', name])
  // Another image of the same layers, for later.
  const next = `${registry.host}/deep/app:2`
  makeTree(path.join(t.dir, 'context'), { Dockerfile: `FROM ${name}\nENV NEXT=1\n` })
  await daemon.docker(['build', '--network', 'none', '-t', next, path.join(t.dir, 'context')])
  await daemon.docker(['push', next])
  const view = await viewOfDocker(daemon)
  await daemon.stop()

  const notes = path.join(place.root, 'image/overlay2/distribution')
  const before = dumpTree(notes)
  assert.ok(before.some(line => line.includes('v2metadata-by-diffid/sha256/')))
  {
    await using storage = await place.open()
    assertSameView(await viewOfStorage(storage), view, 'after dockerd')
    const { references } = await storage.images.get(name)
    assert.ok(references.some(reference => /deep\/app@sha256:/.test(reference)))
    // As dockerd does, which keeps them for the next pull or push of the same layers.
    await storage.images.remove(next)
    await storage.images.remove(name)
    await storage.images.tag('host:1', 'host:2')
    assert.equal(dumpTree(notes), before)
    await assertInOrder(storage, 'after us')
  }

  // The same image as an OCI layout with the registry's own blobs, loaded into an empty root; then dockerd pulls it there.
  const layout = path.join(t.dir, 'layout'), root = path.join(t.dir, 'other')
  const manifest = registry.manifests.get('deep/app 1')
  assert.ok(manifest)
  const digest = digestOf(manifest.bytes)
  const files = Object.fromEntries([...registry.blobs, [digest, manifest.bytes] as const].map(([key, bytes]) => [`blobs/${key.replace(':', '/')}`, { content: bytes }]))
  makeTree(layout, {
    ...files, 'oci-layout': '{"imageLayoutVersion":"1.0.0"}',
    'index.json': JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: manifest.type, digest, size: manifest.bytes.length, annotations: { 'io.containerd.image.name': name } }] }),
  })
  {
    await using storage = await open({ root, driver: 'overlay2', durability: 'none' })
    await storage.images.load(layout)
  }
  daemon = await startDockerd({ dataRoot: root, execRoot: path.join(t.dir, 'x'), driver: 'overlay2' })
  t.defer(() => daemon.stop())
  registry.fetched.length = 0
  assert.match(await daemon.docker(['pull', name]), /Image is up to date/)
  const said = await daemon.docker(['pull', next])
  assert.is(said.match(/Already exists/g)?.length, 2, said)
  const layers = (JSON.parse(manifest.bytes.toString()) as { layers: { digest: string }[] }).layers.map(layer => layer.digest)
  assert.equal(registry.fetched.filter(blob => layers.includes(blob)), [])
  await daemon.stop()
  await using storage = await open({ root, driver: 'overlay2', durability: 'none' })
  await assertInOrder(storage, 'after the pull')
})

test('aufs by layout: a root of dockerd\'s in aufs\' form is read, and moved to overlay2, where dockerd works with it', { skip: skipOn('overlay2'), timeoutMs: 240_000 }, async t => {
  const place = placeFor(t, 'overlay2')
  let daemon = await place.dockerd()
  await daemon.docker(['import', await rootfs(t), 'host:1'])
  makeTree(path.join(t.dir, 'context'), { Dockerfile: 'FROM host:1\nRUN mkdir /d && echo 1 > /d/old && rm /bin/id && ln /bin/cat /kitten\nRUN rm -r /d && mkdir /d && echo 2 > /d/new\n' })
  await daemon.docker(['build', '--network', 'none', '-t', 'app:1', path.join(t.dir, 'context')])
  await daemon.docker(['run', '--network', 'none', '--name', 'ran', '-v', 'vol:/v', 'app:1', '/bin/sh', '-c', 'rm -r /d /bin/ls; mkdir -p /d/e; echo x > /d/e/f; echo v > /v/f'])
  const view = await viewOfDocker(daemon)
  await daemon.stop()
  toAufs(place.root)

  const root = place.root
  const withoutDriver = (from: RootView): RootView => ({
    ...from, images: without(from.images, 'GraphDriver'), containers: without(from.containers, 'GraphDriver', 'Driver'),
  })
  {
    await using storage = await open({ root, driver: 'aufs', readOnly: true })
    assertSameView(withoutDriver(await viewOfStorage(storage)), withoutDriver(view), 'read as aufs')
    await assertInOrder(storage, 'as aufs')
    assert.ok((await bytesOf(storage.images.save(['app:1']))).length > 4_000_000)
    assert.is((await failure(storage.containers.remove('ran'))).code, 'READ_ONLY')
  }
  // Before it is moved, dockerd's own words for the container, but for the driver's name.
  const config = path.join(root, 'containers', fs.readdirSync(path.join(root, 'containers'))[0] ?? '', 'config.v2.json')
  const text = fs.readFileSync(config, 'utf8').replace('"Managed":false', '"Managed":false,"Unknown":12345678901234567890,"Escaped":"\\u003ca\\u003e","Nested":{"Driver":"aufs"}')
  fs.writeFileSync(config, text)
  {
    const storage = await open({ root, driver: 'aufs', readOnly: true })
    await storage.migrate({ to: 'overlay2' })
    await storage.close()
  }
  const moved = path.join(root, 'containers', path.basename(path.dirname(config)), 'config.v2.json')
  assert.is(fs.readFileSync(moved, 'utf8'), text.replace(/"Driver":"aufs","OS"/, '"Driver":"overlay2","OS"'))
  daemon = await place.dockerd()
  assertSameView(withoutDriver(await viewOfDocker(daemon)), withoutDriver(view), 'moved to overlay2')
  assert.is(await daemon.docker(['run', '--rm', '--network', 'none', 'app:1', '/bin/ls', '/d']), 'new\n')
  await daemon.stop()
})

function without(items: RootView['images'], ...keys: readonly string[]): RootView['images'] {
  return Object.fromEntries(Object.entries(items).map(([id, item]) => [id, Object.fromEntries(Object.entries(item).filter(([key]) => !keys.includes(key)))]))
}

/** What dockerd 20.10 would have written with aufs (daemon/graphdriver/aufs): the same branches, other whiteouts, ancestors as lists of ids. */
function toAufs(root: string): void {
  const old = path.join(root, 'overlay2'), home = path.join(root, 'aufs')
  const ids = fs.readdirSync(old).filter(name => name !== 'l' && fs.existsSync(path.join(old, name, 'diff')))
  const byLink = new Map(ids.map(id => [fs.readFileSync(path.join(old, id, 'link'), 'utf8'), id]))
  for (const name of ['diff', 'layers', 'mnt']) fs.mkdirSync(path.join(home, name), { recursive: true, mode: 0o710 })
  for (const id of ids) {
    const lower = path.join(old, id, 'lower')
    const lowers = fs.existsSync(lower) ? fs.readFileSync(lower, 'utf8').split(':').map(link => byLink.get(link.replace('l/', '')) ?? '') : []
    fs.writeFileSync(path.join(home, 'layers', id), lowers.map(name => `${name}\n`).join(''))
    fs.mkdirSync(path.join(home, 'mnt', id), { mode: 0o755 })
    fs.renameSync(path.join(old, id, 'diff'), path.join(home, 'diff', id))
    whiteoutsOf(path.join(home, 'diff', id))
  }
  fs.rmSync(old, { recursive: true })
  fs.renameSync(path.join(root, 'image/overlay2'), path.join(root, 'image/aufs'))
  for (const id of fs.readdirSync(path.join(root, 'containers'))) {
    const file = path.join(root, 'containers', id, 'config.v2.json')
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('"Driver":"overlay2"', '"Driver":"aufs"'))
  }
}

function whiteoutsOf(dir: string): void {
  for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
    const at = path.join(dir, entry.name)
    if (entry.isDirectory()) {
      const opaque = getXattr(at, 'trusted.overlay.opaque')?.toString() === 'y'
      const { atime, mtime } = fs.statSync(at)
      whiteoutsOf(at)
      if (opaque) fs.writeFileSync(path.join(at, '.wh..wh..opq'), '', { mode: 0o444 })
      fs.utimesSync(at, atime, mtime)
    } else if (entry.isCharacterDevice() && fs.lstatSync(at).rdev === 0) {
      fs.rmSync(at)
      fs.writeFileSync(path.join(dir, `.wh.${entry.name}`), '', { mode: 0o444 })
    }
  }
}
