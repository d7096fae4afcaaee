// Loading: every form of archive, what is refused and in whose words, and that a failure leaves the root as it was.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import {
  baseLayer, collect, digestOf, hex, makeImage, ociFiles, oldDockerArchive, openTestImages, tarOf, write, writeFiles,
} from '../../fixtures/image-store.ts'
import type { OciOptions, TestImage } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import type { Code } from '../errors.ts'
import type { Digest } from '../ids.ts'
import type { LoadOptions } from './index.ts'

const test = suite('images/load')
const arch = process.arch === 'arm64' ? 'arm64' : 'amd64'

const dockerTar = (...images: TestImage[]): Buffer => makeTar(oldDockerArchive(images))
const ociTar = (images: TestImage[], options: OciOptions = {}): Buffer => tarOf(ociFiles(images, options))
async function* stream(bytes: Buffer, chunk = 700): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk)
}

test('an old docker-archive from a file, used in place', async t => {
  const { images, layers, root, driver } = await openTestImages(t.dir)
  const image = makeImage({ tags: ['app:1', 'ghcr.io/x/app:2'] })
  const [loaded, ...rest] = await images.load(write(t.dir, 'a.tar', dockerTar(image)))
  assert.is(rest.length, 0)
  assert.is(loaded?.imageId, image.id)
  assert.equal(loaded?.references, ['app:1', 'ghcr.io/x/app:2'])
  assert.equal(loaded?.renamed, [])
  assert.equal(loaded?.layers.map(layer => [layer.diffId, layer.fresh, layer.tarBytes]), image.layers.map((layer, i) => [image.diffIds[i], true, layer.length]))
  assert.is(loaded?.skippedCount, 0)
  const record = await images.get('app:1')
  assert.equal(record.configBytes, image.config)
  assert.equal(await collect(layers.tar(record.layers[1] as never)), image.layers[1])
  const top = await layers.get(record.layers[1] as never)
  const content = await driver.content(top.cacheId)
  assert.is(fs.readFileSync(path.join(content.path, 'etc/hostname'), 'utf8'), 'base\n')
  assert.is(fs.readFileSync(path.join(root.path, 'image/vfs/imagedb/content/sha256', hex(image.id)), 'utf8'), image.config.toString())
  assert.equal(fs.readdirSync(path.join(root.path, 'layerstack/tmp')), [])
})

test('Docker\'s files lie where and as dockerd has them', async t => {
  const { images, root } = await openTestImages(t.dir)
  const image = makeImage({ tags: ['app:1'] })
  await images.load(write(t.dir, 'a.tar', dockerTar(image)))
  const dir = path.join(root.path, 'image/vfs')
  const mode = (name: string): number => fs.statSync(path.join(dir, name)).mode & 0o777
  assert.is(fs.readFileSync(path.join(dir, 'repositories.json'), 'utf8'), `{"Repositories":{"app":{"app:1":"${image.id}"}}}`)
  assert.is(mode('repositories.json'), 0o600)
  assert.is(mode(`imagedb/content/sha256/${hex(image.id)}`), 0o600)
  for (const name of ['imagedb', 'imagedb/content', 'imagedb/content/sha256', 'imagedb/metadata', 'imagedb/metadata/sha256']) assert.is(mode(name), 0o700, name)
  assert.match(fs.readFileSync(path.join(dir, `imagedb/metadata/sha256/${hex(image.id)}/lastUpdated`), 'utf8'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
})

test('a layer that is there is not read, nor need it be in the archive', async t => {
  const { images } = await openTestImages(t.dir)
  const one = makeImage({ tags: ['a:1'] })
  const two = makeImage({ tags: ['a:2'], layers: [baseLayer, [{ path: 'other', type: 'file', content: 'x' }]] })
  await images.load(write(t.dir, '1.tar', dockerTar(one)))
  const files = ociFiles([two])
  files.delete(`blobs/sha256/${hex(two.diffIds[0] as string)}`)
  const [loaded] = await images.load(write(t.dir, '2.tar', tarOf(files)))
  assert.equal(loaded?.layers.map(layer => layer.fresh), [false, true])
})

test('two images in one archive share layers; a repeated layer is a symlink', async t => {
  const { images } = await openTestImages(t.dir)
  const one = makeImage({ tags: ['a:1'] })
  const two = makeImage({ tags: [], layers: [baseLayer, [{ path: 'other', type: 'file', content: 'x' }], baseLayer] })
  const entries = oldDockerArchive([one, two])
  assert.is(entries.filter(entry => entry.type === 'symlink').length, 2)
  const loaded = await images.load(write(t.dir, 'a.tar', makeTar(entries)))
  assert.equal(loaded.map(image => image.imageId), [one.id, two.id])
  assert.equal(loaded[1]?.layers.map(layer => layer.fresh), [false, true, true])
})

test('an OCI layout, as a tar and as a directory', async t => {
  for (const form of ['tar', 'directory'] as const) {
    const dir = fs.mkdtempSync(path.join(t.dir, form))
    const { images } = await openTestImages(dir)
    const image = makeImage({ tags: ['localhost:5000/app:1'] })
    const files = ociFiles([image])
    const source = form === 'tar' ? write(dir, 'a.tar', tarOf(files)) : path.join(dir, 'layout')
    if (form === 'directory') writeFiles(source, files)
    const [loaded] = await images.load(source)
    assert.is(loaded?.imageId, image.id)
    assert.equal(loaded?.references, ['localhost:5000/app:1'])
  }
})

test('gzipped layers are found by their blobs afterwards, as dockerd looks them up', async t => {
  const { images, root } = await openTestImages(t.dir)
  const image = makeImage()
  const compress = (tar: Buffer): Buffer => gzipSync(tar)
  const [loaded] = await images.load(write(t.dir, 'a.tar', ociTar([image], { compress, layerType: 'application/vnd.docker.image.rootfs.diff.tar.gzip' })))
  const blob = digestOf(compress(image.layers[0] as Buffer))
  assert.is(loaded?.layers[0]?.blobDigest, blob)
  const dir = path.join(root.path, 'image/vfs/distribution')
  assert.is(fs.readFileSync(path.join(dir, 'diffid-by-digest/sha256', hex(blob)), 'utf8'), image.diffIds[0])
  assert.equal(JSON.parse(fs.readFileSync(path.join(dir, 'v2metadata-by-diffid/sha256', hex(image.diffIds[0] as string)), 'utf8')), [{ Digest: blob, SourceRepository: '', HMAC: '' }])
})

for (const program of ['gzip', 'zstd', 'xz', 'bzip2']) {
  const works = program === 'gzip' || spawnSync(program, ['--version']).status === 0
  test(`an archive compressed with ${program} is spooled and leaves no spool`, { skip: works ? false : `${program} is absent` }, async t => {
    const { images, root } = await openTestImages(t.dir)
    const image = makeImage()
    const plain = dockerTar(image)
    const packed = program === 'gzip' ? gzipSync(plain) : spawnSync(program, ['-c'], { input: plain, maxBuffer: 1 << 26 }).stdout
    let spooled = 0
    const [loaded] = await images.load(write(t.dir, 'a.tar.x', packed), { onProgress: event => { if (event.phase === 'spool') spooled = event.bytes } })
    assert.is(loaded?.imageId, image.id)
    assert.is(spooled, plain.length)
    assert.equal(fs.readdirSync(path.join(root.path, 'layerstack/tmp')), [])
  })
}

test('a stream, compressed or not', async t => {
  const { images } = await openTestImages(t.dir)
  const image = makeImage()
  assert.is((await images.load(stream(dockerTar(image))))[0]?.imageId, image.id)
  assert.is((await images.load(stream(gzipSync(dockerTar(image)), 11)))[0]?.imageId, image.id)
})

test('a descriptor of a regular file is used from its start and stays open', async t => {
  const { images } = await openTestImages(t.dir)
  const image = makeImage()
  const fd = fs.openSync(write(t.dir, 'a.tar', dockerTar(image)), 'r')
  t.defer(() => fs.closeSync(fd))
  assert.is((await images.load(fd))[0]?.imageId, image.id)
  assert.ok(fs.fstatSync(fd).size > 0)
})

test('progress tells of layers and images, and quiet is quiet', async t => {
  const { images } = await openTestImages(t.dir)
  const image = makeImage()
  const file = write(t.dir, 'a.tar', dockerTar(image))
  const events: string[] = []
  const onProgress: LoadOptions['onProgress'] = event => events.push(event.phase)
  await images.load(file, { onProgress, quiet: true })
  assert.equal(events, [])
  await images.load(file, { onProgress })
  assert.ok(events.includes('image'))
})

test('a tag that moves is reported in Docker\'s words, and the old image stays', async t => {
  const { images } = await openTestImages(t.dir)
  const one = makeImage({ tags: ['app:1'] }), two = makeImage({ tags: ['app:1'], layers: [baseLayer] })
  await images.load(write(t.dir, '1.tar', dockerTar(one)))
  const [loaded] = await images.load(write(t.dir, '2.tar', dockerTar(two)))
  assert.equal(loaded?.renamed, [{
    reference: 'app:1', imageId: one.id, message: `The image app:1 already exists, renaming the old one with ID ${one.id} to empty string`,
  }])
  assert.is(await images.resolve('app:1'), two.id)
  assert.equal((await images.get(one.id)).references, [])
  // The same again moves nothing.
  assert.equal((await images.load(write(t.dir, '2.tar', dockerTar(two))))[0]?.renamed, [])
})

test('names of OCI images: containerd\'s annotation first, a bare tag only with a repository', async t => {
  const { images } = await openTestImages(t.dir)
  const image = makeImage({ tags: ['x'] })
  const load = async (annotations: Record<string, string>, options: LoadOptions = {}): Promise<readonly string[] | undefined> =>
    (await images.load(write(t.dir, 'a.tar', ociTar([image], { annotate: () => annotations })), options))[0]?.references
  assert.equal(await load({ 'io.containerd.image.name': 'docker.io/library/a:7', 'org.opencontainers.image.ref.name': '7' }), ['a:7'])
  assert.equal(await load({ 'org.opencontainers.image.ref.name': '7' }), [])
  assert.equal(await load({ 'org.opencontainers.image.ref.name': '7' }, { name: 'quay.io/b' }), ['quay.io/b:7'])
  assert.equal(await load({ 'org.opencontainers.image.ref.name': 'quay.io/b' }), ['quay.io/b:latest'])
})

test('of several platforms the wanted one is taken, through nested indexes', async t => {
  const { images } = await openTestImages(t.dir)
  const of = (architecture: string): TestImage => makeImage({ tags: ['multi:1'], config: { architecture } })
  const mine = of(arch), other = of('s390x')
  const platform = (image: TestImage): object => ({ os: 'linux', architecture: (JSON.parse(image.config.toString()) as { architecture: string }).architecture })
  const files = ociFiles([other, mine], { platform })
  const inner = files.get('index.json') as Buffer
  files.set(`blobs/sha256/${hex(digestOf(inner))}`, inner)
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{
    mediaType: 'application/vnd.oci.image.index.v1+json', digest: digestOf(inner), size: inner.length, annotations: { 'io.containerd.image.name': 'docker.io/library/multi:1' },
  }] })))
  const nested = write(t.dir, 'nested.tar', tarOf(files)), flat = write(t.dir, 'flat.tar', ociTar([other, mine], { platform }))
  for (const file of [nested, flat]) {
    assert.equal((await images.load(file)).map(image => image.imageId), [mine.id])
    assert.equal((await images.load(file, { platform: 'linux/s390x' })).map(image => image.imageId), [other.id])
    await failsWith(images.load(file, { platform: 'linux/riscv64' }), 'NOT_FOUND', /^no image for platform linux\/riscv64 in .*: it has linux\/s390x, linux\//)
  }
})

async function failsWith(promise: Promise<unknown>, code: Code, message: RegExp): Promise<void> {
  try {
    await promise
  } catch (error) {
    assert.ok(StorageError.is(error), String(error))
    assert.match(error.message, message)
    assert.is(error.code, code, error.message)
    return
  }
  assert.unreachable(`expected ${code} ${message}`)
}

const image = makeImage({ tags: ['app:1'] })
const second = makeImage({ tags: ['app:2'], layers: [baseLayer, [{ path: 'b', type: 'file', content: 'b' }]] })
const manifestOf = (change: (manifest: Record<string, unknown>[]) => unknown): Buffer => makeTar(oldDockerArchive([image], change))
const without = (name: string): Buffer => {
  const files = ociFiles([image])
  files.delete(name)
  return tarOf(files)
}
const replaced = (name: string, bytes: Buffer): Buffer => tarOf(ociFiles([image]).set(name, bytes))
const blob = (digest: string): string => `blobs/sha256/${hex(digest)}`

/** A good image goes first, so that there is something to take back. */
const refused: readonly (readonly [what: string, archive: () => Buffer, code: Code, message: RegExp, options?: LoadOptions])[] = [
  ['a null manifest', () => manifestOf(() => null), 'INVALID_ARCHIVE', /^invalid manifest, manifest cannot be null \(but can be \[\]\)$/],
  ['a manifest that is an object', () => manifestOf(() => ({})), 'INVALID_ARCHIVE', /^invalid manifest: expected an array$/],
  ['a manifest of numbers', () => manifestOf(() => [1]), 'INVALID_ARCHIVE', /^invalid manifest, image 0: expected an object$/],
  ['a layer too many', () => manifestOf(m => [{ ...m[0], Layers: [...m[0]?.['Layers'] as string[], 'x'] }]), 'INVALID_ARCHIVE', /^invalid manifest, layers length mismatch: expected 3, got 2$/],
  ['a layer that is no string', () => manifestOf(m => [{ ...m[0], Layers: [1, 2] }]), 'INVALID_ARCHIVE', /Layers is not an array of strings$/],
  ['a missing layer', () => manifestOf(m => [{ ...m[0], Layers: ['gone/a.tar', 'gone/b.tar'] }]), 'INVALID_ARCHIVE', /^layer 0 \(sha256:.*\) is missing in .*: there is no gone\/a\.tar$/],
  ['a missing config', () => manifestOf(m => [{ ...m[0], Config: 'gone.json' }]), 'INVALID_ARCHIVE', /^config gone\.json is missing/],
  ['no config at all', () => manifestOf(m => [{ ...m[0], Config: null }]), 'INVALID_ARCHIVE', /Config is missing$/],
  ['a path that leads out', () => manifestOf(m => [{ ...m[0], Config: '../../../../etc/passwd' }]), 'INVALID_ARCHIVE', /^config .* is missing/],
  ['a bad tag', () => manifestOf(m => [{ ...m[0], RepoTags: ['Bad Tag'] }]), 'INVALID_ARCHIVE', /^invalid tag "Bad Tag"/],
  ['a tag without a tag', () => manifestOf(m => [{ ...m[0], RepoTags: ['name'] }]), 'INVALID_ARCHIVE', /^invalid tag "name"$/],
  ['layers in the wrong order', () => manifestOf(m => [{ ...m[0], Layers: [...m[0]?.['Layers'] as string[]].reverse() }]), 'DIGEST_MISMATCH', /^invalid diffID for layer 0: expected "sha256:.*", got "sha256:.*"$/],
  ['a second image that is bad', () => makeTar(oldDockerArchive([image, second], m => [m[0], { ...m[1], Layers: m[0]?.['Layers'] }])), 'DIGEST_MISMATCH', /^invalid diffID for layer 1/],
  ['a config without rootfs', () => dockerTar(makeImage({ config: { rootfs: undefined } })), 'INVALID_ARCHIVE', /^invalid image JSON, no RootFS key$/],
  ['a diffID that is none', () => dockerTar(makeImage({ config: { rootfs: { type: 'layers', diff_ids: ['a', 'b'] } } })), 'INVALID_ARCHIVE', /diff ID "a" is not a sha256 digest/],
  ['too much history', () => dockerTar(makeImage({ config: { history: [{}, {}, {}] } })), 'INVALID_ARCHIVE', /^too many non-empty layers in History section$/],
  ['Windows', () => dockerTar(makeImage({ config: { os: 'windows' } })), 'INVALID_ARCHIVE', /^cannot load windows image on linux$/],
  ['a config that is no JSON', () => dockerTar({ ...image, config: Buffer.from('{') }), 'INVALID_ARCHIVE', /^invalid image JSON: not JSON/],
  ['a manifest over the limit', () => dockerTar(image), 'LIMIT_EXCEEDED', /^manifest\.json in .* has \d+ bytes, and 10 are allowed$/, { limits: { jsonBytes: 10 } }],
  ['entries over the limit', () => dockerTar(image), 'LIMIT_EXCEEDED', /more than 3 entries/, { limits: { entries: 3 } }],
  ['a spool over the limit', () => gzipSync(dockerTar(image)), 'LIMIT_EXCEEDED', /larger than 4096 bytes/, { limits: { spoolBytes: 4096 } }],
  ['an archive cut inside a layer', () => dockerTar(image).subarray(0, 3 * 512 + 700), 'INVALID_ARCHIVE', /^unexpected end of archive/],
  ['a cut gzip', () => gzipSync(dockerTar(image)).subarray(0, 300), 'INVALID_ARCHIVE', /unexpected end of data/],
  ['a layer that is cut', () => dockerTar(makeCut()), 'INVALID_ARCHIVE', /unexpected end of archive/],
  ['no image at all', () => makeTar([{ path: 'etc/passwd', type: 'file', content: 'root' }]), 'INVALID_ARCHIVE', /holds no image: neither manifest\.json nor index\.json/],
  ['no tar at all', () => Buffer.from('hello '.repeat(200)), 'INVALID_ARCHIVE', /^invalid tar header/],
  ['an empty file', () => Buffer.alloc(0), 'INVALID_ARCHIVE', /holds no image/],
  ['links in a circle', () => makeTar([{ path: 'manifest.json', type: 'symlink', linkname: 'x' }, { path: 'x', type: 'symlink', linkname: 'manifest.json' }]), 'INVALID_ARCHIVE', /too many levels of symbolic links/],
  ['a missing manifest blob', () => without(blob(manifestDigest())), 'INVALID_ARCHIVE', /^blob sha256:.* is missing in/],
  ['a missing config blob', () => without(blob(image.id)), 'INVALID_ARCHIVE', /^blob sha256:.* is missing in/],
  ['a missing layer blob', () => without(blob(image.diffIds[1] as string)), 'INVALID_ARCHIVE', /^layer 1 \(sha256:.*\) is missing/],
  ['a config of another digest', () => replaced(blob(image.id), Buffer.from(image.config.toString().replace('step 0', 'step 9'))), 'DIGEST_MISMATCH', /^invalid blob: expected sha256:.*, got sha256:/],
  ['a config of another size', () => replaced(blob(image.id), Buffer.from(`${image.config.toString()} `)), 'INVALID_ARCHIVE', /bytes, and its descriptor says/],
  ['a layer of another size', () => replaced(blob(image.diffIds[0] as string), Buffer.alloc(10)), 'INVALID_ARCHIVE', /has 10 bytes, and its descriptor says/],
  ['a layer of another digest', () => replaced(blob(image.diffIds[1] as string), sameLength(image.layers[1] as Buffer)), 'DIGEST_MISMATCH', /./],
  ['an index and manifest in one', () => ociTar([image], { manifest: m => ({ ...m, manifests: [] }) }), 'INVALID_ARCHIVE', /it is both an index and a manifest$/],
  ['a manifest that calls itself an index', () => ociTar([image], { manifest: m => ({ ...m, mediaType: 'application/vnd.oci.image.index.v1+json' }) }), 'INVALID_ARCHIVE', /it is a manifest, and its media type is application\/vnd\.oci\.image\.index/],
  ['an encrypted layer', () => ociTar([image], { layerType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted' }), 'INVALID_ARCHIVE', /which is not a tar$/],
  ['layers fewer than diffIDs', () => ociTar([image], { manifest: m => ({ ...m, layers: (m['layers'] as unknown[]).slice(1) }) }), 'INVALID_ARCHIVE', /^invalid manifest, layers length mismatch: expected 1, got 2$/],
  ['a sha512 digest', () => ociTar([image], { index: i => ({ ...i, manifests: [{ ...i.manifests[0], digest: `sha512:${'a'.repeat(128)}` }] }) }), 'INVALID_ARCHIVE', /unsupported digest/],
  ['a digest that is a path', () => ociTar([image], { index: i => ({ ...i, manifests: [{ ...i.manifests[0], digest: 'sha256:../../../x' }] }) }), 'INVALID_ARCHIVE', /unsupported digest/],
  ['a size that is none', () => ociTar([image], { index: i => ({ ...i, manifests: [{ ...i.manifests[0], size: -1 }] }) }), 'INVALID_ARCHIVE', /size is not a size/],
  ['an index that is a list', () => ociTar([image], { index: () => [] }), 'INVALID_ARCHIVE', /expected an object/],
]

function manifestDigest(): string {
  return (JSON.parse((ociFiles([image]).get('index.json') as Buffer).toString()) as { manifests: { digest: string }[] }).manifests[0]?.digest as string
}
function sameLength(tar: Buffer): Buffer {
  const changed = Buffer.from(tar)
  changed.write('X', tar.indexOf('#!/bin/sh'))
  return changed
}
function makeCut(): TestImage {
  const whole = makeImage()
  const layers = [whole.layers[0] as Buffer, (whole.layers[1] as Buffer).subarray(0, 1024 + 5)]
  const config = Buffer.from(whole.config.toString().replace(whole.diffIds[1] as string, digestOf(layers[1] as Buffer)))
  return { ...whole, layers, config, id: digestOf(config), diffIds: layers.map(digestOf) }
}

for (const [what, archive, code, message, options] of refused) {
  test(`refuses ${what} and leaves nothing`, async t => {
    const { images, listing } = await openTestImages(t.dir)
    const other = makeImage({ tags: ['keep:1'], layers: [[{ path: 'kept', type: 'file', content: 'kept' }]] })
    await images.load(write(t.dir, 'keep.tar', dockerTar(other)))
    const before = listing()
    await failsWith(images.load(write(t.dir, 'bad.tar', archive()), options), code, message)
    assert.equal(listing(), before)
  })
}

test('a stream that fails, and a signal, leave nothing', async t => {
  const { images, listing } = await openTestImages(t.dir)
  const before = listing()
  async function* breaks(): AsyncGenerator<Buffer> {
    yield dockerTar(image).subarray(0, 2000)
    throw new Error('the line went dead')
  }
  await failsWith(images.load(breaks()), 'IO', /the line went dead/)
  await failsWith(images.load(stream(dockerTar(image)), { signal: AbortSignal.abort() }), 'ABORTED', /aborted/)
  await failsWith(images.load(path.join(t.dir, 'nowhere.tar')), 'NOT_FOUND', /nowhere\.tar/)
  assert.equal(listing(), before)
})

test('names that cannot be written take the images with them', async t => {
  const { images, listing, root } = await openTestImages(t.dir)
  fs.writeFileSync(path.join(root.path, 'image/vfs/repositories.json'), '{broken')
  const before = listing()
  await failsWith(images.load(write(t.dir, 'a.tar', dockerTar(image))), 'CORRUPT', /repositories\.json/)
  assert.equal(listing(), before)
})

test('a layout directory is read without following links', async t => {
  const { images, listing } = await openTestImages(t.dir)
  const before = listing()
  const attack = async (name: string, change: (dir: string, t: Context) => void, message: RegExp): Promise<void> => {
    const dir = path.join(t.dir, name)
    writeFiles(dir, ociFiles([image]))
    change(dir, t)
    await failsWith(images.load(dir), 'INVALID_ARCHIVE', message)
    assert.equal(listing(), before)
  }
  const layer = blob(image.diffIds[0] as string)
  await attack('link', dir => { fs.renameSync(path.join(dir, layer), path.join(t.dir, 'away')); fs.symlinkSync(path.join(t.dir, 'away'), path.join(dir, layer)) }, /is not a regular file$/)
  await attack('blobs', dir => { fs.renameSync(path.join(dir, 'blobs'), path.join(t.dir, 'elsewhere')); fs.symlinkSync('../elsewhere', path.join(dir, 'blobs')) }, /blobs is not a regular file$/)
  await attack('fifo', dir => { fs.rmSync(path.join(dir, layer)); assert.is(spawnSync('mkfifo', [path.join(dir, layer)]).status, 0) }, /is not a regular file$/)
  await attack('dir', dir => { fs.rmSync(path.join(dir, layer)); fs.mkdirSync(path.join(dir, layer)) }, /is not a regular file$/)
})

test('parents that the archive names are kept when they can be parents', async t => {
  const { images } = await openTestImages(t.dir)
  const history = [{ created_by: 'one' }]
  const parent = makeImage({ tags: [], layers: [baseLayer], config: { history } })
  const child = makeImage({ tags: ['c:1'], layers: [baseLayer, [{ path: 'b', type: 'file', content: 'b' }]], config: { history: [...history, { created_by: 'two' }] } })
  const archive = (...wanted: readonly [TestImage, TestImage | undefined][]): string => write(t.dir, 'p.tar', makeTar(oldDockerArchive(wanted.map(([it]) => it),
    manifest => manifest.map((item, i) => ({ ...item, ...(wanted[i]?.[1] === undefined ? {} : { Parent: wanted[i]?.[1]?.id }) })))))
  await images.load(archive([parent, undefined], [child, parent]))
  assert.is((await images.get('c:1')).parent, parent.id as Digest)
  assert.equal((await images.history('c:1')).map(item => item.Id), [child.id, parent.id])
  const sameHistory = makeImage({ tags: [], layers: [[{ path: 'other', type: 'file', content: 'o' }]], config: { history } })
  const bare = (layers: Parameters<typeof makeImage>[0]): TestImage => makeImage({ tags: [], ...layers, config: { history: [] } })
  const twin = makeImage({ tags: [], layers: [baseLayer], config: { history: [], author: 'twin' } })
  for (const [wrong, of] of [[child, parent], [sameHistory, child], [bare({}), bare({ layers: [baseLayer] })], [twin, bare({ layers: [baseLayer] })]] as const) {
    await failsWith(images.load(archive([wrong, undefined], [of, wrong])), 'INVALID_ARCHIVE', /is not a valid parent for/)
  }
  await images.load(archive([bare({ layers: [baseLayer] }), undefined], [bare({}), bare({ layers: [baseLayer] })]))
})

test('a read-only root refuses and is not touched', async t => {
  await openTestImages(t.dir)
  const { images, listing } = await openTestImages(t.dir, { readOnly: true })
  const before = listing()
  await failsWith(images.load(write(t.dir, 'a.tar', dockerTar(image))), 'READ_ONLY', /read-only/)
  assert.equal(listing(), before)
})
