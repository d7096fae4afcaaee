// Saving: the same bytes every time, the same image when loaded again, and archives that the field's own tools read.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import tar from 'tar-stream'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import {
  baseLayer, collect, digestOf, hex, listingOf, makeImage, ociFiles, oldDockerArchive, openTestImages, tarOf, write,
} from '../../fixtures/image-store.ts'
import type { TestImage, TestImages } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import { layerDb } from '../layers/index.ts'
import { TarSplitPacker } from '../tar/tar-split.ts'
import { TarParser } from '../tar/parser.ts'
import { layerTarLength, tarLength } from './tar-length.ts'
import type { SaveToFileOptions } from './types.ts'

const test = suite('images/save')
const absent = (program: string): string | false => spawnSync(program, ['--version']).status === 0 ? false : `${program} is absent`

interface SavedEntry { readonly header: tar.Header; readonly content: Buffer }

/** tar-stream reads it, apart from our own parser. */
async function entriesOf(archive: Buffer): Promise<Map<string, SavedEntry>> {
  const extract = tar.extract(), found = new Map<string, SavedEntry>()
  extract.end(archive)
  for await (const entry of extract) {
    assert.not(found.has(entry.header.name), `${entry.header.name} is there twice`)
    found.set(entry.header.name, { header: entry.header, content: await collect(entry as AsyncIterable<Buffer>) })
  }
  return found
}

async function loaded(dir: string, ...images: TestImage[]): Promise<TestImages> {
  const stores = await openTestImages(dir)
  await stores.images.load(write(dir, 'in.tar', makeTar(oldDockerArchive(images))))
  return stores
}

const one = makeImage({ tags: ['app:1', 'app:latest', 'ghcr.io/x/y:2'] })
// Every layer of it is odd: empty, unpadded at the end, with more behind the end, with a name that is not UTF-8.
const odd: TestImage = (() => {
  const layers = [
    makeTar([]), makeTar(baseLayer, { end: false }), makeTar([{ path: Buffer.from([0x61, 0xff, 0x62]), type: 'file', content: 'x'.repeat(1000) }], { trailing: 4096 }),
    makeTar([{ path: 'long/'.repeat(60), type: 'dir' }, { path: '.wh.etc', type: 'file' }]),
  ]
  const diffIds = layers.map(digestOf)
  const config = Buffer.from(JSON.stringify({ os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } }))
  return { id: digestOf(config), config, layers, diffIds, tags: ['odd:1'] }
})()

for (const format of ['docker', 'oci'] as const) {
  for (const compression of ['none', 'gzip'] as const) {
    test(`load, save, load, save: the same image and the same bytes (${format}, ${compression})`, async t => {
      const first = path.join(t.dir, '1'), second = path.join(t.dir, '2')
      fs.mkdirSync(first)
      fs.mkdirSync(second)
      const a = await loaded(first, one, odd), b = await openTestImages(second)
      const saved = await collect(a.images.save(['app:1', 'odd', 'ghcr.io/x/y:2'], { format, compression }))
      const names = (await b.images.load(write(second, 'saved.tar', saved))).map(image => [image.imageId, [...image.references].sort()])
      assert.equal(names.sort(), [[one.id, ['app:1', 'ghcr.io/x/y:2']], [odd.id, ['odd:1']]].sort())
      assert.equal(await collect(b.images.save(['odd:1', 'ghcr.io/x/y:2', 'app:1'], { format, compression })), saved)
      assert.equal((await b.images.get(odd.id)).configBytes, odd.config)
      assert.equal(fs.readdirSync(path.join(first, 'root/layerstack/tmp')), [])
    })
  }
}

test('zstd layers, where Node can write them', async t => {
  const { images, listing } = await loaded(t.dir, one)
  const before = listing()
  const canWrite = 'createZstdCompress' in (await import('node:zlib'))
  if (!canWrite) {
    await throws(collect(images.save(['app:1'], { compression: 'zstd' })), 'NOT_SUPPORTED', /zstd/)
    assert.equal(listing(), before)
    return
  }
  const archive = await collect(images.save(['app:1'], { compression: 'zstd' }))
  const again = await openTestImages(path.join(t.dir, 'again'))
  assert.is((await again.images.load(write(t.dir, 'z.tar', archive)))[0]?.imageId, one.id)
})

test('the archive is what Docker 25 and later write', async t => {
  const { images } = await loaded(t.dir, one)
  const entries = await entriesOf(await collect(images.save(['app'])))
  const names = [...entries.keys()]
  assert.equal(names.slice(0, 2), ['blobs/', 'blobs/sha256/'])
  assert.equal(names.slice(-4), ['index.json', 'manifest.json', 'oci-layout', 'repositories'])
  const json = (name: string): unknown => JSON.parse(entries.get(name)?.content.toString() as string)
  const paths = one.diffIds.map(id => `blobs/sha256/${hex(id)}`)
  assert.equal(json('manifest.json'), [{ Config: `blobs/sha256/${hex(one.id)}`, RepoTags: ['app:1', 'app:latest'], Layers: paths }])
  assert.equal(json('repositories'), { app: { 1: hex(one.diffIds[1] as string), latest: hex(one.diffIds[1] as string) } })
  assert.equal(json('oci-layout'), { imageLayoutVersion: '1.0.0' })
  const { manifests } = json('index.json') as { manifests: { digest: string; size: number; annotations: Record<string, string> }[] }
  assert.equal(manifests.map(item => item.annotations), ['1', 'latest'].map(tag => ({ 'io.containerd.image.name': `docker.io/library/app:${tag}`, 'org.opencontainers.image.ref.name': tag })))
  const manifest = entries.get(`blobs/sha256/${hex(manifests[0]?.digest as string)}`)?.content as Buffer
  assert.is(digestOf(manifest), manifests[0]?.digest)
  assert.is(manifest.length, manifests[0]?.size)
  for (const [i, name] of paths.entries()) assert.equal(entries.get(name)?.content, one.layers[i])
  for (const [name, { header }] of entries) {
    assert.is(header.mode, name.endsWith('/') ? 0o755 : 0o644)
    assert.is(header.uid, 0)
    const time = name.startsWith('blobs/sha256/') && name.length > 20 ? Math.floor(Date.parse('2024-05-06T07:08:09.123456789Z') / 1000) : 0
    assert.is((header.mtime as Date).getTime() / 1000, time, name)
  }
})

test('an image saved by id has no names, and shared layers are written once', async t => {
  const two = makeImage({ tags: ['other:1'], layers: [baseLayer, [{ path: 'z', type: 'file', content: 'z' }]] })
  const { images } = await loaded(t.dir, one, two)
  const archive = await collect(images.save([one.id, hex(two.id).slice(0, 12)]))
  const entries = await entriesOf(archive)
  assert.is([...entries.keys()].filter(name => /^blobs\/sha256\/./.test(name)).length, 3 + 2 + 2)
  const again = await openTestImages(path.join(t.dir, 'again'))
  assert.equal((await again.images.load(write(t.dir, 'x.tar', archive))).map(image => image.references), [[], []])
})

test('gzipped layers are gzip, and lie under their own digest', async t => {
  const { images } = await loaded(t.dir, one)
  const entries = await entriesOf(await collect(images.save(['app:1'], { format: 'oci', compression: 'gzip' })))
  const { manifests } = JSON.parse(entries.get('index.json')?.content.toString() as string) as { manifests: { digest: string }[] }
  const { layers } = JSON.parse(entries.get(`blobs/sha256/${hex(manifests[0]?.digest as string)}`)?.content.toString() as string) as { layers: { digest: string; mediaType: string; size: number }[] }
  for (const [i, { digest, mediaType, size }] of layers.entries()) {
    const blob = entries.get(`blobs/sha256/${hex(digest)}`)?.content as Buffer
    assert.is(mediaType, 'application/vnd.oci.image.layer.v1.tar+gzip')
    assert.is(digestOf(blob), digest)
    assert.is(blob.length, size)
    assert.equal(gunzipSync(blob), one.layers[i])
  }
  assert.not(entries.has('manifest.json'))
})

test('one compressed layer at a time lies on disk, and none when layers are not compressed', async t => {
  const { images, root } = await loaded(t.dir, one)
  for (const [compression, most] of [['gzip', 1], ['none', 0]] as const) {
    let seen = 0
    for await (const chunk of images.save(['app:1'], { compression })) if (chunk.length > 0) seen = Math.max(seen, fs.readdirSync(path.join(root.path, 'layerstack/tmp')).length)
    assert.is(seen, most)
  }
})

test('a directory layout loads, must be new or empty, and vanishes when saving fails', async t => {
  const { images, root } = await loaded(t.dir, one)
  const dir = path.join(t.dir, 'layout')
  await images.saveToDirectory(['app:1'], dir, { format: 'oci' })
  assert.equal(fs.readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
  const again = await openTestImages(path.join(t.dir, 'again'))
  assert.is((await again.images.load(dir))[0]?.imageId, one.id)
  await throws(images.saveToDirectory(['app:1'], dir), 'ALREADY_EXISTS', /is not empty/)
  damage(root.path, one)
  await throws(images.saveToDirectory(['app:1'], path.join(t.dir, 'new')), 'CORRUPT', damaged)
  assert.not(fs.existsSync(path.join(t.dir, 'new')))
  const empty = path.join(t.dir, 'empty')
  fs.mkdirSync(empty)
  await throws(images.saveToDirectory(['app:1'], empty), 'CORRUPT', damaged)
  assert.equal(fs.readdirSync(empty), [])
})

/** What is said of it. */
const damaged = /^file integrity checksum failed for "app\/run"$/

/** Change a file of the image's top layer behind the store's back, but not its length. Returns its path. */
function damage(root: string, image: TestImage): string {
  const name = listingOf(root).map(line => line.split(' ')[0] as string).find(line => line.endsWith('app/run'))
  assert.ok(name !== undefined && image.layers.length > 0)
  fs.writeFileSync(path.join(root, name as string), '#!/bin/xx\n')
  return path.join(root, name as string)
}

async function throws(promise: Promise<unknown>, code: StorageError['code'], message: RegExp): Promise<void> {
  try {
    await promise
  } catch (error) {
    assert.ok(StorageError.is(error, code), String(error))
    assert.match((error as Error).message, message)
    return
  }
  assert.unreachable(`expected ${code}`)
}

test('what cannot be saved is said before the first byte, and nothing is left of a save that was stopped', async t => {
  const { images, listing, root } = await loaded(t.dir, one)
  const before = listing()
  await throws(collect(images.save(['nothing:1'])), 'NOT_FOUND', /^No such image: nothing:1$/)
  await throws(collect(images.save(['app:2'])), 'NOT_FOUND', /^No such image: app:2$/)
  await throws(collect(images.save(['app:1'], { signal: AbortSignal.abort() })), 'ABORTED', /./)
  assert.throws(() => images.save([]), (error: unknown) => error instanceof TypeError)
  for await (const chunk of images.save(['app:1'], { compression: 'gzip' })) if (chunk.length > 0) break
  assert.equal(listing(), before)
  damage(root.path, one)
  await throws(collect(images.save(['app:1'])), 'CORRUPT', damaged)
})

/** Save to a file; its bytes, and nothing left open. */
async function savedFile(images: TestImages['images'], file: string, references: readonly string[], options?: SaveToFileOptions): Promise<Buffer> {
  const fd = fs.openSync(file, 'w')
  try {
    await images.saveToFile(references, fd, options)
  } finally {
    fs.closeSync(fd)
  }
  return fs.readFileSync(file)
}

/** What an operation could leave. */
function ownNames(root: string): string[] {
  return fs.readdirSync(path.join(root, 'layerstack'), { recursive: true, encoding: 'utf8' }).sort()
}

test('a file gets the bytes that the stream has, also from a read-only root', async t => {
  // One layer is in both images; the largest lies between others, so that some are written before and some behind it at once.
  const wide = makeImage({ tags: ['wide:1'], layers: [baseLayer, [{ path: 'big', type: 'file', content: 'layers upon layers '.repeat(200_000) }], [{ path: 'z', type: 'file', content: 'z' }]] })
  const { images, root } = await loaded(t.dir, one, odd, wide)
  const file = path.join(t.dir, 'out.tar'), names = ['app:1', 'odd:1', 'ghcr.io/x/y:2', 'wide']
  for (const options of [{}, { format: 'oci' }, { compression: 'gzip' }] as const) {
    const seen: number[] = []
    const bytes = await savedFile(images, file, names, { ...options, onProgress: sizeBytes => { seen.push(sizeBytes) } })
    assert.ok(bytes.equals(await collect(images.save(names, options))), JSON.stringify(options))
    assert.ok(seen.length > 0 && seen.every((sizeBytes, i) => sizeBytes >= (seen[i - 1] ?? 0) && sizeBytes <= bytes.length))
  }
  const before = ownNames(root.path)
  const { images: reader } = await openTestImages(t.dir, { readOnly: true })
  assert.ok((await savedFile(reader, file, names)).equals(await collect(images.save(names))))
  assert.equal(ownNames(root.path), before)
})

test('a save to a file that fails says why, holds nothing and leaves no descriptor open', async t => {
  const other = makeImage({ tags: ['other:1'], layers: [[{ path: 'other', type: 'file', content: 'o'.repeat(3_000_000) }], [{ path: 'z', type: 'file', content: 'z' }]] })
  const { images, root } = await loaded(t.dir, one, other)
  const file = path.join(t.dir, 'out.tar'), before = ownNames(root.path)
  const open = (): string[] => fs.readdirSync('/proc/self/fd').flatMap(fd => { try { return [fs.readlinkSync(`/proc/self/fd/${fd}`)] } catch { return [] } }).filter(name => name.startsWith(t.dir))
  await throws(savedFile(images, file, ['nothing:1']), 'NOT_FOUND', /^No such image: nothing:1$/)
  await throws(savedFile(images, file, ['app:1'], { signal: AbortSignal.abort() }), 'ABORTED', /./)
  const stop = new AbortController()
  await throws(savedFile(images, file, ['app:1', 'other'], { signal: stop.signal, onProgress: () => stop.abort() }), 'ABORTED', /./)
  const full = fs.openSync('/dev/full', 'w')
  try {
    await throws(images.saveToFile(['app:1'], full), 'NO_SPACE', /./)
  } finally {
    fs.closeSync(full)
  }
  assert.equal(ownNames(root.path), before)
  damage(root.path, one)
  await throws(savedFile(images, file, ['app:1', 'other']), 'CORRUPT', damaged)
  assert.equal(open(), [])
})

test('a file that is missing or has another length is told by its name, and a tar-split that is another by the layer', async t => {
  const { images, root } = await loaded(t.dir, one)
  const { layers } = await images.get(one.id)
  const run = damage(root.path, one), file = path.join(t.dir, 'out.tar')
  const ways = { stream: () => collect(images.save(['app:1'])), file: () => savedFile(images, file, ['app:1']), directory: () => images.saveToDirectory(['app:1'], path.join(t.dir, 'new')) }
  for (const content of ['#!/bin/sh', '#!/bin/sh\n\n', undefined]) {
    if (content === undefined) fs.rmSync(run)
    else fs.writeFileSync(run, content)
    for (const save of Object.values(ways)) await throws(save(), 'CORRUPT', content === undefined ? /^file integrity checksum failed for "app\/run": it is missing$/ : damaged)
  }
  const split = path.join(layerDb.layer(root, layers[1] as never), 'tar-split.json.gz')
  const lines = gunzipSync(fs.readFileSync(split)).toString().split('\n')
  // The files are right again, and a header says another mode.
  fs.writeFileSync(run, '#!/bin/sh\n')
  const header = JSON.parse(lines[0] as string) as { payload: string }
  const bytes = Buffer.from(header.payload, 'base64')
  bytes[104] = (bytes[104] as number) ^ 1
  fs.writeFileSync(split, gzipSync([JSON.stringify({ ...header, payload: bytes.toString('base64') }), ...lines.slice(1)].join('\n')))
  for (const save of Object.values(ways)) await throws(save(), 'CORRUPT', /^could not verify layer data for: sha256:/)
  fs.rmSync(split)
  for (const save of Object.values(ways)) await throws(save(), 'CORRUPT', /tar-split.json.gz is missing/)
})

test('while an image is being saved its layers stay', async t => {
  const { images, layers } = await loaded(t.dir, one)
  const running = images.save(['app:1'])
  const first = await running.next()
  await images.remove(one.id, { force: true })
  const rest = await collect(running)
  const archive = Buffer.concat([first.value as Buffer, rest])
  assert.equal((await entriesOf(archive)).get(`blobs/sha256/${hex(one.diffIds[1] as string)}`)?.content, one.layers[1])
  // Afterwards nobody needs them.
  for await (const layer of layers.list()) assert.unreachable(`${layer.chainId} is left`)
})

test('a read-only root saves', async t => {
  await loaded(t.dir, one)
  const { images, listing } = await openTestImages(t.dir, { readOnly: true })
  const before = listing()
  assert.ok((await collect(images.save(['app:1']))).length > 0)
  assert.equal(listing(), before)
})

test('the length of a tar is known from its tar-split', async t => {
  const { images, root, layers } = await loaded(t.dir, one, odd)
  for (const image of [one, odd]) {
    const { layers: chain } = await images.get(image.id)
    for (const [i, chainId] of chain.entries()) {
      assert.is(await layerTarLength(root, chainId), image.layers[i]?.length)
      const lines: Buffer[] = []
      const packer = new TarSplitPacker(json => lines.push(json))
      const parser = new TarParser(packer)
      parser.write(image.layers[i] as Buffer)
      parser.finish()
      packer.finish()
      assert.is(tarLength(lines), image.layers[i]?.length)
    }
  }
  const top = (await images.get(one.id)).layers[1]
  assert.ok(top !== undefined && (await layers.find(top)) !== undefined)
  fs.writeFileSync(path.join(layerDb.layer(root, top as never), 'tar-split.json.gz'), 'no gzip')
  await throws(layerTarLength(root, top as never), 'CORRUPT', /is damaged/)
})

for (const [format, transport] of [['docker', 'docker-archive'], ['docker', 'oci-archive'], ['oci', 'oci-archive']] as const) {
  for (const compression of ['none', 'gzip'] as const) {
    test(`skopeo reads it: ${format} as ${transport}, ${compression}`, { skip: absent('skopeo') }, async t => {
      const { images } = await loaded(t.dir, one)
      const file = write(t.dir, 'out.tar', await collect(images.save(['app:1'], { format, compression })))
      const policy = write(t.dir, 'policy.json', Buffer.from('{"default":[{"type":"insecureAcceptAnything"}]}'))
      const run = (...args: string[]): string => {
        const { status, stdout, stderr } = spawnSync('skopeo', ['--policy', policy, ...args], { encoding: 'utf8', env: { ...process.env, TMPDIR: t.dir } })
        assert.is(status, 0, stderr)
        return stdout
      }
      assert.is(run('inspect', '--config', '--raw', `${transport}:${file}`), one.config.toString())
      run('copy', `${transport}:${file}`, `dir:${path.join(t.dir, 'dir')}`)
      assert.equal(fs.readFileSync(path.join(t.dir, 'dir', hex(one.id))), one.config)
      // And back: what skopeo writes, we load.
      const again = await openTestImages(path.join(t.dir, 'again'))
      run('copy', `${transport}:${file}`, `docker-archive:${path.join(t.dir, 'theirs.tar')}:app:9`)
      assert.equal((await again.images.load(path.join(t.dir, 'theirs.tar'))).map(image => [image.imageId, ...image.references]), [[one.id, 'app:9']])
    })
  }
}

test('umoci unpacks it to the same tree', { skip: absent('umoci') || needsRoot }, async t => {
  const { images } = await loaded(t.dir, one)
  const layout = path.join(t.dir, 'layout'), bundle = path.join(t.dir, 'bundle')
  await images.saveToDirectory(['app:1'], layout, { format: 'oci', compression: 'gzip' })
  const { status, stderr } = spawnSync('umoci', ['unpack', '--image', `${layout}:1`, bundle], { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  assert.is(fs.readFileSync(path.join(bundle, 'rootfs/etc/hostname'), 'utf8'), 'base\n')
  assert.is(fs.statSync(path.join(bundle, 'rootfs/app/run')).mode & 0o777, 0o755)
})

test('a layout with zstd layers loads', async t => {
  if (spawnSync('zstd', ['--version']).status !== 0) t.skip('zstd is absent')
  const { images } = await openTestImages(t.dir)
  const compress = (bytes: Buffer): Buffer => spawnSync('zstd', ['-c'], { input: bytes }).stdout
  const archive = tarOf(ociFiles([one], { compress, layerType: 'application/vnd.oci.image.layer.v1.tar+zstd' }))
  assert.is((await images.load(write(t.dir, 'z.tar', archive)))[0]?.imageId, one.id)
})
