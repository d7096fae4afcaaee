// Hostile image archives and layouts, as `load` meets them: JSON of any shape, blobs that are links, names that climb, limits. Each is refused with a code and a sentence, nothing outside
// the archive is read, and the root is as it was.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { digestOf, hex, listingOf, makeImage, ociFiles, oldDockerArchive, tarOf, write, writeFiles } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { failure, openIn } from '../../fixtures/storage.ts'
import { StorageError } from '../errors.ts'
import type { Storage } from '../storage.ts'
import type { ArchiveLimits } from '../tar/types.ts'

const test = suite('hostile images')
const secret = 'the secret of the host'

async function refused(t: Context, storage: Storage, source: string, what: string, codes = /^(INVALID_ARCHIVE|LIMIT_EXCEEDED|DIGEST_MISMATCH|NOT_FOUND)$/): Promise<StorageError> {
  const before = listingOf(storage.root)
  const error = await failure(storage.images.load(source))
  assert.ok(StorageError.is(error), `${what}: ${String(error)}`)
  assert.match(error.code, codes, `${what}: ${error.message}`)
  assert.match(error.message, /^[^A-Z]|^No /, what)
  assert.ok(error.message.length <= 4001, `${what}: a message of ${error.message.length} characters`)
  assert.not.match(error.message, secret)
  assert.equal(listingOf(storage.root), before, what)
  return error
}

const archiveOf = (manifest: string, extra: readonly TarEntrySpec[] = []): Buffer => makeTar([...extra, { path: 'manifest.json', type: 'file', content: manifest }])
const deep = (n: number): string => `${'['.repeat(n)}${']'.repeat(n)}`

test('manifest.json of any shape', async t => {
  const storage = await openIn(t, 'vfs')
  const config = `{"rootfs":{"type":"layers","diff_ids":[]}}`
  const shapes = [
    'null', 'true', '1', '""', '{}', '{"0":{}}', '[null]', '[1]', '[[]]', '[{}]', '[{"Config":null}]', '[{"Config":1}]', '[{"Config":[]}]', '[{"Config":"c","Layers":"x"}]', '[{"Config":"c","Layers":[1]}]',
    '[{"Config":"c","Layers":{"length":1}}]', '[{"Config":"c","RepoTags":[1]}]', '[{"Config":"c","RepoTags":"a:b"}]', '[{"Config":"c","RepoTags":["../../x:y"]}]', '[{"Config":"c","RepoTags":["a"]}]',
    '[{"Config":"c","RepoTags":["a:b@sha256:c"]}]', '[{"Config":"c","Layers":["x"]}]', '[{"__proto__":{"Config":"c"}}]', '[{"constructor":1,"hasOwnProperty":2}]', '[{"Config":"nope"}]', '[', '', '\ufeff[]', `[${'{},'.repeat(1000)}{}]`, deep(999), deep(1001), deep(500_000),
    `{"a":${'{"a":'.repeat(200_000)}1${'}'.repeat(200_001)}`, `[{"Config":${JSON.stringify('x'.repeat(100_000))}}]`,
  ]
  for (const shape of shapes) await refused(t, storage, write(t.dir, 'a.tar', archiveOf(shape, [{ path: 'c', type: 'file', content: config }])), shape.slice(0, 60))
  // Of two equal keys the last counts, as for Go, and what nobody knows is no matter.
  const good = archiveOf('[{"Config":"nope","Config":"c","__proto__":{"Layers":["x"]},"Layers":[]}]', [{ path: 'c', type: 'file', content: config }])
  assert.is((await storage.images.load(write(t.dir, 'a.tar', good))).length, 1)
})

test('configs of any shape', async t => {
  const storage = await openIn(t, 'vfs')
  const id = `sha256:${'0'.repeat(64)}`
  const shapes = [
    'null', '[]', '{}', '"x"', '{"rootfs":null}', '{"rootfs":[]}', '{"rootfs":{"diff_ids":{}}}', '{"rootfs":{"diff_ids":["x"]}}', `{"rootfs":{"diff_ids":["${id}"]}}`, `{"rootfs":{"diff_ids":["sha256:../../../../etc/passwd"]}}`,
    '{"rootfs":{"diff_ids":[]},"history":{}}', '{"rootfs":{"diff_ids":[]},"history":[1]}', '{"rootfs":{"diff_ids":[]},"history":[{"empty_layer":"no"}]}', '{"rootfs":{"diff_ids":[]},"history":[{}]}', '{"rootfs":{"diff_ids":[]},"os":1}',
    '{"rootfs":{"diff_ids":[]},"os":"windows"}', '{"rootfs":{"diff_ids":[]},"config":[]}', '{"rootfs":{"diff_ids":[]},"created":1}', '{"__proto__":{"rootfs":{"diff_ids":[]}}}', `{"rootfs":{"diff_ids":[]},"config":${deep(2000)}}`,
  ]
  for (const shape of shapes) await refused(t, storage, write(t.dir, 'a.tar', archiveOf('[{"Config":"c","Layers":[]}]', [{ path: 'c', type: 'file', content: shape }])), shape.slice(0, 80))
  assert.is(({} as { rootfs?: unknown }).rootfs, undefined)
})

test('a config whose parts are of any shape loads, is shown, run and saved', async t => {
  const storage = await openIn(t, 'vfs')
  const odd = ['1', '"x"', '{"__proto__":{"x":1}}', '{"Env":1,"Cmd":"x","Labels":[1],"Volumes":[[]],"ExposedPorts":"p"}', '{"Env":{"a":1},"Cmd":{},"Entrypoint":[1],"User":[],"WorkingDir":{}}', '{"Volumes":{"../../etc":{},"\\\\a/../../../etc":{}}}', '{"Volumes":"/x"}', deep(900)]
  for (const [i, config] of odd.entries()) {
    const file = write(t.dir, 'a.tar', archiveOf(`[{"Config":"c","RepoTags":["odd:${i}"],"Layers":[]}]`, [{ path: 'c', type: 'file', content: `{"rootfs":{"diff_ids":[]},"config":${config}}` }]))
    const work = [
      () => storage.images.load(file), () => storage.images.inspect(`odd:${i}`), () => storage.images.history(`odd:${i}`), () => storage.images.list(),
      async () => { const { id } = await storage.containers.create({ image: `odd:${i}` }); await storage.containers.commit(id, { reference: `odd-made:${i}`, changes: ['LABEL a=b', 'ENV A=b'] }); await storage.containers.remove(id, { volumes: true }) },
      async () => { for await (const _ of storage.images.save([`odd:${i}`])) continue },
    ]
    for (const each of work) {
      try {
        await each()
      } catch (error) {
        assert.ok(StorageError.is(error), `${config}: ${(error as Error).stack}`)
      }
    }
  }
})

test('names in manifest.json lead nowhere but into the archive', async t => {
  const storage = await openIn(t, 'vfs')
  const outside = write(t.dir, 'secret', Buffer.from(secret))
  const names = ['../secret', outside, `../../../../../../../..${outside}`, './../secret', 'link', 'dir/secret', 'hard', 'fifo', 'a\0b', '', '.', '..', '/']
  const extra: TarEntrySpec[] = [
    { path: 'link', type: 'symlink', linkname: outside }, { path: 'dir', type: 'symlink', linkname: t.dir }, { path: 'hard', type: 'hardlink', linkname: outside }, { path: 'fifo', type: 'fifo' },
    { path: 'c', type: 'file', content: `{"rootfs":{"diff_ids":["${digestOf(Buffer.from(secret))}"]}}` },
  ]
  for (const name of names) {
    await refused(t, storage, write(t.dir, 'a.tar', archiveOf(JSON.stringify([{ Config: name, Layers: [] }]), extra)), `config ${name}`)
    await refused(t, storage, write(t.dir, 'a.tar', archiveOf(JSON.stringify([{ Config: 'c', Layers: [name] }]), extra)), `layer ${name}`)
  }
})

test('nothing in a layout is followed out of it: links, directories of links, fifos, devices, climbing digests', async t => {
  const storage = await openIn(t, 'vfs')
  const image = makeImage(), files = ociFiles([image])
  const layer = image.layers[1] as Buffer, blob = `blobs/sha256/${hex(digestOf(layer))}`
  const outside = write(t.dir, 'outside', layer)
  const changes: Readonly<Record<string, (dir: string) => void>> = {
    'a blob that is a link to the right bytes': dir => { fs.rmSync(path.join(dir, blob)); fs.symlinkSync(outside, path.join(dir, blob)) },
    'a blob that is a link inside': dir => { fs.renameSync(path.join(dir, blob), path.join(dir, 'here')); fs.symlinkSync('../../here', path.join(dir, blob)) },
    'blobs/ is a link': dir => { fs.renameSync(path.join(dir, 'blobs'), path.join(t.dir, 'elsewhere')); fs.symlinkSync(path.join(t.dir, 'elsewhere'), path.join(dir, 'blobs')) },
    'index.json is a link': dir => { fs.renameSync(path.join(dir, 'index.json'), path.join(t.dir, 'index')); fs.symlinkSync(path.join(t.dir, 'index'), path.join(dir, 'index.json')) },
    'a blob that is a fifo': dir => { fs.rmSync(path.join(dir, blob)); execFileSync('mkfifo', [path.join(dir, blob)]) },
    'a blob that is a directory': dir => { fs.rmSync(path.join(dir, blob)); fs.mkdirSync(path.join(dir, blob)) },
    'index.json is a fifo': dir => { fs.rmSync(path.join(dir, 'index.json')); execFileSync('mkfifo', [path.join(dir, 'index.json')]) },
  }
  for (const [what, change] of Object.entries(changes)) {
    const dir = fs.mkdtempSync(path.join(t.dir, 'layout-'))
    writeFiles(dir, files)
    change(dir)
    await refused(t, storage, dir, what)
    fs.rmSync(path.join(t.dir, 'elsewhere'), { recursive: true, force: true })
  }
  for (const digest of ['sha256:../../../../outside', `sha256:${'0'.repeat(63)}/`, 'sha512:x', '../outside', `sha256:${'A'.repeat(64)}`, '', 'sha256:']) {
    const dir = fs.mkdtempSync(path.join(t.dir, 'layout-'))
    writeFiles(dir, ociFiles([image], { index: index => ({ ...index, manifests: index.manifests.map(one => ({ ...one, digest })) }) }))
    await refused(t, storage, dir, digest)
    writeFiles(dir, ociFiles([image], { manifest: manifest => ({ ...manifest, layers: (manifest['layers'] as object[]).map(one => ({ ...one, digest })) }) }))
    await refused(t, storage, dir, `layer ${digest}`)
  }
})

test('indexes that lie about sizes, nest for ever, or are also manifests', async t => {
  const storage = await openIn(t, 'vfs')
  const image = makeImage()
  const layouts: Readonly<Record<string, Map<string, Buffer>>> = {
    'a size that is not the blob\'s': ociFiles([image], { index: index => ({ ...index, manifests: index.manifests.map(one => ({ ...one, size: 1 })) }) }),
    'a negative size': ociFiles([image], { index: index => ({ ...index, manifests: index.manifests.map(one => ({ ...one, size: -1 })) }) }),
    'a size that is text': ociFiles([image], { index: index => ({ ...index, manifests: index.manifests.map(one => ({ ...one, size: '1' })) }) }),
    'an index that is a manifest too (CVE-2021-41190)': ociFiles([image], { index: index => ({ ...index, config: index.manifests[0], layers: [] }) }),
    'a manifest that is an index too': ociFiles([image], { manifest: manifest => ({ ...manifest, manifests: [] }) }),
    'a media type that lies': ociFiles([image], { index: index => ({ ...index, manifests: index.manifests.map(one => ({ ...one, mediaType: 'application/vnd.oci.image.index.v1+json' })) }) }),
  }
  let inner = ociFiles([image]), at = inner.get('index.json') as Buffer
  for (let i = 0; i < 6; i++) {
    inner = new Map([...inner, [`blobs/sha256/${hex(digestOf(at))}`, at]])
    at = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: digestOf(at), size: at.length }] }))
    inner.set('index.json', at)
  }
  for (const [what, files] of [...Object.entries(layouts), ['six indexes in each other', inner] as const]) await refused(t, storage, write(t.dir, 'a.tar', tarOf(files)), what)
})

test('limits given to open() and to load(), each by its name', async t => {
  const tar = makeTar(oldDockerArchive([makeImage()])), file = write(t.dir, 'a.tar', tar), zipped = write(t.dir, 'a.tar.gz', gzipSync(tar))
  const small: readonly (readonly [name: string, limits: ArchiveLimits, source: string])[] = [
    ['jsonBytes', { jsonBytes: 10 }, file], ['entries', { entries: 2 }, file], ['indexBytes', { indexBytes: 30 }, file], ['spoolBytes', { spoolBytes: 1000 }, zipped],
    ['entries', { layer: { entries: 1 } }, file], ['contentBytes', { layer: { contentBytes: 3 } }, file], ['nameBytes', { layer: { nameBytes: 2 } }, file],
  ]
  for (const [name, limits, source] of small) {
    const strict = await openIn(t, 'vfs', { limits })
    const error = await refused(t, strict, source, name, /^LIMIT_EXCEEDED$/)
    assert.match(error.info.hint ?? '', new RegExp(`\\b${name}\\b`))
    await strict.close()
    // What one call says comes before what open() said.
    const open = await openIn(t, 'vfs')
    assert.is((await failure(open.images.load(source, { limits }))).code, 'LIMIT_EXCEEDED')
    await open.close()
    const generous = await openIn(t, 'vfs', { limits })
    await generous.images.load(source, { limits: { jsonBytes: 1e6, entries: 1e3, indexBytes: 1e6, spoolBytes: 1e7, layer: {} } })
    await generous.images.remove('app:1')
    await generous.close()
  }
  const storage = await openIn(t, 'vfs', { limits: { layer: { entries: 1 } } })
  const rootFs = write(t.dir, 'fs.tar', makeTar([{ path: 'a', type: 'file' }, { path: 'b', type: 'file' }]))
  assert.is((await failure(storage.images.import(rootFs))).code, 'LIMIT_EXCEEDED')
  assert.is((await failure(storage.volumes.import('vol', fs.createReadStream(rootFs)))).code, 'LIMIT_EXCEEDED')
  await storage.images.import(rootFs, { limits: { entries: 2 } })
})
