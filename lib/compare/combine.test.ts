// Flattening and squashing: the result is the tree that applying the layers one after the other gives, on random images and on what they leave out.

import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { collect, digestOf, makeImage, ociFiles, oldDockerArchive, write, writeFiles } from '../../fixtures/image-store.ts'
import { applyBy, entriesOf } from '../../fixtures/layers.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { randomLayers } from '../../fixtures/random-layers.ts'
import { addImage, failure, openIn } from '../../fixtures/storage.ts'
import { dumpTree } from '../../fixtures/tree.ts'
import { compareImages, flattenImage, openImageSource, squashImage, storeImage, writeImageArchive } from './index.ts'
import type { ImageSource, SourceLayer } from './index.ts'

const test = suite('compare/combine')

async function archiveOf(t: Context, layers: readonly (readonly TarEntrySpec[])[], name = 'image.tar'): Promise<ImageSource> {
  const source = await openImageSource(write(t.dir, name, makeTar(oldDockerArchive([makeImage({ layers })]))))
  t.defer(() => source.close())
  return source
}

async function applied(dir: string, tars: readonly Buffer[]): Promise<string[]> {
  fs.mkdirSync(dir)
  for (const tar of tars) await applyBy('thread', tar, dir)
  // The root's own time is nobody's, and a directory's changes when what is in it is replaced.
  return dumpTree(dir, { root: false, times: false })
}

async function topOf(source: ImageSource): Promise<Buffer> {
  const top = source.layers.at(-1)
  assert.ok(top !== undefined)
  return await collect((top as SourceLayer).tar())
}

/** Overlayfs counts names that a layer above has deleted: a file with one name is no hard link. */
function groupsOnly(lines: readonly string[]): string[] {
  const group = (line: string): string | undefined => / linked=(.*?) (?=mtime=|user\.|$)/.exec(line)?.[1]
  return lines.map(line => lines.filter(other => group(other) === group(line)).length > 1 ? line : line.replace(/ linked=.*?(?= mtime=)/, ''))
}

/** Names, types and times of all but directories. */
const timesOf = (dir: string): string[] => dumpTree(dir, { root: false }).filter(line => !/ directory | dir /.test(line))

test('random images: flattened as applied, and the same bytes from every kind of source', { timeoutMs: 120_000 }, async t => {
  for (let seed = 1; seed <= 25; seed++) {
    const layers = randomLayers(seed), image = makeImage({ layers })
    const source = await archiveOf(t, layers)
    const flat = await collect(flattenImage(source))
    writeFiles(path.join(t.dir, `oci${seed}`), ociFiles([image], { compress: gzipSync, layerType: 'application/vnd.oci.image.layer.v1.tar+gzip' }))
    const oci = await openImageSource(path.join(t.dir, `oci${seed}`))
    assert.is(digestOf(await collect(flattenImage(oci))), digestOf(flat), `seed ${seed}`)
    await oci.close()
    const names = (await entriesOf(flat)).map(({ header }) => header.name.toString('latin1'))
    assert.is(new Set(names).size, names.length, 'a name comes twice')
    const one = await applied(path.join(t.dir, `flat${seed}`), [flat]), other = await applied(path.join(t.dir, `all${seed}`), image.layers)
    assert.equal(one, other, `seed ${seed}`)
    assert.equal(timesOf(path.join(t.dir, `flat${seed}`)).filter(line => line.includes('size=')), timesOf(path.join(t.dir, `all${seed}`)).filter(line => line.includes('size=')), `seed ${seed}`)
    // Squashed from somewhere up, on what is below: the same tree again, and no more whiteouts than needed.
    const from = seed % layers.length
    const squashed = await squashImage(source, { from })
    assert.is(squashed.layers.length, from + 1)
    const top = await topOf(squashed)
    assert.equal(await applied(path.join(t.dir, `squashed${seed}`), [...image.layers.slice(0, from), top]), other, `seed ${seed}, squashed from ${from}`)
    assert.ok(from > 0 || !(await entriesOf(top)).some(({ header }) => header.name.includes('.wh.')), 'there is nothing below to be hidden')
    const { flat: difference, equal } = await compareImages(source, squashed, { mode: 'strict', view: 'flat' })
    assert.equal(difference?.differences.map(({ path: name }) => name.toString()), [])
    assert.is(equal, false, 'the history says that it was squashed')
    await squashed.close()
    await source.close()
  }
})

test('the tree that is mounted is the tree of the flat tar, and of its image', { skip: needsRoot, timeoutMs: 120_000 }, async t => {
  const storage = await openIn(t, 'overlay2')
  for (const seed of [101, 102, 103]) {
    const layers = randomLayers(seed)
    await addImage(storage, `random:${seed}`, layers)
    const source = await openImageSource(`random:${seed}`, { storage })
    assert.is(source.kind, 'image')
    const { id } = await storage.containers.create({ image: `random:${seed}` })
    const flat = await collect(flattenImage(source))
    await storage.containers.withMount(id, async mounted => {
      const directory = await openImageSource(`dir:${mounted}`)
      const { flat: difference } = await compareImages(source, directory, { view: 'flat', mode: 'semantic' })
      // The engine's mount points are in every container.
      const engine = /^(dev|proc|sys|etc|\.dockerenv)(\/|$)/
      assert.equal(difference?.differences.map(one => `${one.change} ${one.path.toString()} ${one.aspects.join()}`).filter(line => !engine.test(line.split(' ')[1] ?? '')), [])
      const ignore = (name: string): boolean => !engine.test(name)
      fs.mkdirSync(path.join(t.dir, `flat${seed}`))
      await applyBy('thread', flat, path.join(t.dir, `flat${seed}`))
      assert.equal(dumpTree(path.join(t.dir, `flat${seed}`), { root: false, filter: ignore }), groupsOnly(dumpTree(mounted, { root: false, filter: ignore })), `seed ${seed}`)
    })
  }
})

const d = (name: string, more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: `${name}/`, type: 'dir', ...more })
const f = (name: string, content = name, more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: name, type: 'file', content, ...more })
const listed = async (tar: Buffer): Promise<string[]> => (await entriesOf(tar)).map(({ header, content }) =>
  `${header.name.toString('latin1')} ${header.type} ${header.mode.toString(8)}${header.linkname.length === 0 ? '' : ` → ${header.linkname.toString('latin1')}`}${content.length === 0 ? '' : ` ${content.toString()}`}`)

const byHand: readonly (readonly [what: string, layers: readonly (readonly TarEntrySpec[])[], tree: readonly string[]])[] = [
  ['an opaque mark alone empties a directory that stays as it is', [[d('a', { mode: 0o700 }), f('a/x'), d('a/in'), f('a/in/x')], [{ path: 'a/.wh..wh..opq', type: 'file' }, f('a/y')]], ['a 0700', 'a/y']],
  ['an opaque root', [[f('x'), d('dir'), f('dir/x')], [f('y'), { path: '.wh..wh..opq', type: 'file' }]], ['y']],
  ['links of the same layer are followed, inside the root', [[d('real'), { path: 'l', type: 'symlink', linkname: 'real' }, f('l/x'), { path: 'out', type: 'symlink', linkname: '../../real' }, f('out/y'),
    { path: 'abs', type: 'symlink', linkname: '/l' }, f('abs/z')]], ['abs', 'l', 'out', 'real', 'real/x', 'real/y', 'real/z']],
  ['a file in place of a directory, and back', [[d('p'), f('p/x')], [f('p')], [d('p'), f('p/y')]], ['p', 'p/y']],
  ['marks count whatever their place', [[f('a', '1'), f('b', '1')], [f('a', '2'), { path: '.wh.a', type: 'file' }, { path: '.wh.b', type: 'file' }]], ['a']],
  ['a name that comes twice: the last', [[f('x', 'first'), f('x', 'second', { mode: 0o600 })]], ['x 0600']],
  ['names are cleaned', [[f('./a/../b'), f('/c'), f('../../d')]], ['b', 'c', 'd']],
]
for (const [what, layers, tree] of byHand) {
  test(`as applied: ${what}`, async t => {
    const source = await archiveOf(t, layers)
    const one = await applied(path.join(t.dir, 'flat'), [await collect(flattenImage(source))]), other = await applied(path.join(t.dir, 'all'), layers.map(entries => makeTar(entries)))
    assert.equal(one, other)
    assert.equal(one.map(line => line.split(' ')[0]), tree.map(line => line.split(' ')[0]))
    for (const line of tree) if (line.includes(' ')) assert.ok(one.some(found => found.startsWith(line.split(' ')[0] as string) && found.includes(` ${line.split(' ')[1]} `)), line)
  })
}

test('a directory that changes between the two readings is found out', async t => {
  const dir = path.join(t.dir, 'live')
  fs.mkdirSync(dir)
  for (const name of ['a', 'b']) fs.writeFileSync(path.join(dir, name), name)
  const source = await openImageSource(`dir:${dir}`)
  t.defer(() => source.close())
  assert.equal((await listed(await collect(flattenImage(source)))).map(line => line.split(' ')[0]), ['a', 'b'])
  let readings = 0
  const [layer] = source.layers as [SourceLayer]
  const live = { ...source, layers: [{ ...layer, tar: () => {
    readings++
    fs.rmSync(path.join(dir, 'a'), { force: true })
    return layer.tar()
  } }] }
  assert.is((await failure(collect(flattenImage(live)))).code, 'FAILED_PRECONDITION')
  assert.is(readings, 1)
})

test('a circle of links is refused', async t => {
  const source = await archiveOf(t, [[{ path: 'a', type: 'symlink', linkname: 'b' }, { path: 'b', type: 'symlink', linkname: 'a' }, f('a/x')]])
  assert.is((await failure(collect(flattenImage(source)))).code, 'INVALID_ARCHIVE')
})

test('what comes in which order, by hand', async t => {
  const source = await archiveOf(t, [
    [f('z', 'last'), d('a', { mode: 0o700 }), f('a/old'), { path: 'a/one', type: 'file', content: '1' }, { path: 'b/two', type: 'hardlink', linkname: 'a/one' }, f('no/entry', 'n')],
    [{ path: 'a/.wh.old', type: 'file' }, { path: 'a/s', type: 'symlink', linkname: '../z' }, f('m', 'new', { mode: 0o4755 })],
  ])
  assert.equal(await listed(await collect(flattenImage(source))), [
    'a/ directory 700', 'a/s symlink 777 → ../z', 'b/ directory 755', 'no/ directory 755', 'z file 644 last', 'a/one file 644 1', 'no/entry file 644 n', 'm file 4755 new',
    'b/two link 644 → a/one',
  ])
})

test('a squashed layer: parents as they are below, one whiteout for a directory, links brought along', async t => {
  const source = await archiveOf(t, [
    [d('less', { mode: 0o711 }), f('less/x'), d('keep', { mode: 0o711, uid: 7 }), f('keep/x'), f('keep/y', 'linked'), d('gone'), f('gone/1'), f('gone/2'), d('swap'), f('swap/old'), f('type', 'was a file')],
    [{ path: '.wh.gone', type: 'file' }, { path: 'swap/.wh..wh..opq', type: 'file' }, d('swap'), f('swap/new'), f('brief')],
    [{ path: '.wh.brief', type: 'file' }, { path: 'less/.wh.x', type: 'file' }, { path: 'keep/.wh.x', type: 'file' }, { path: 'type/', type: 'dir' }, f('type/in', 'in'), { path: 'elsewhere', type: 'hardlink', linkname: 'keep/y' }],
  ])
  const squashed = await squashImage(source, { from: 1 })
  t.defer(() => squashed.close())
  assert.equal(await listed(await topOf(squashed)), [
    '.wh.gone file 600', 'keep/ directory 711', 'keep/.wh.x file 600', 'less/ directory 711', 'less/.wh.x file 600', 'swap/ directory 755', 'swap/.wh.old file 600', 'type/ directory 755',
    'elsewhere file 644 linked', 'swap/new file 644 swap/new', 'type/in file 644 in', 'keep/y link 644 → elsewhere',
  ])
})

test('an old sparse file and a modern one keep their holes, and times their nanoseconds', async t => {
  const mebibyte = 1024 * 1024
  // PAX 1.0: the map, then the runs.
  const map = Buffer.concat([Buffer.from(`1\n${4 * mebibyte}\n4096\n`), Buffer.alloc(512)]).subarray(0, 512)
  const sparse: TarEntrySpec = {
    path: 'GNUSparseFile.0/s', type: 'file', content: Buffer.concat([map, Buffer.alloc(4096, 's')]), mtimeNs: 1_700_000_000_123_456_789n,
    records: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 's', 'GNU.sparse.realsize': String(8 * mebibyte) },
  }
  const dense = f('s', Buffer.concat([Buffer.alloc(4 * mebibyte), Buffer.alloc(4096, 's'), Buffer.alloc(4 * mebibyte - 4096)]).toString('latin1'), { mtimeNs: 1_700_000_000_123_456_789n })
  const one = await archiveOf(t, [[sparse]], 'sparse.tar'), other = await archiveOf(t, [[dense]], 'dense.tar')
  const flat = await collect(flattenImage(one))
  assert.ok(flat.length < 16_384, `${flat.length} bytes`)
  const [entry] = await entriesOf(flat)
  assert.equal([entry?.header.sizeBytes, entry?.header.mtimeNs, entry?.header.sparse], [8 * mebibyte, 1_700_000_000_123_456_789n, [{ offset: 4 * mebibyte, length: 4096 }]])
  assert.is((await compareImages(one, other, { view: 'flat' })).flat?.equal, true, 'zeros are zeros')
})

test('a layer that is not what its config promises is found out', async t => {
  const image = makeImage({ layers: [[f('x', 'right')]] })
  const files = oldDockerArchive([image]).map(entry => (entry.path as string).endsWith('layer.tar') ? { ...entry, content: makeTar([f('x', 'wrong')]) } : entry)
  const source = await openImageSource(write(t.dir, 'bad.tar', makeTar(files)))
  t.defer(() => source.close())
  const honest = await archiveOf(t, [[f('x', 'right')]])
  assert.is((await compareImages(source, honest)).equal, true, 'taken at its word')
  for (const work of [() => collect(flattenImage(source)), () => squashImage(source), () => collect(writeImageArchive(source)), () => compareImages(source, honest, { verify: true })]) {
    assert.is((await failure(work())).code, 'DIGEST_MISMATCH')
  }
})

test('a hard link to nothing is refused, and names that are longer than Linux takes', async t => {
  const link = await archiveOf(t, [[{ path: 'l', type: 'hardlink', linkname: 'nothing' }]], 'link.tar')
  assert.is((await failure(collect(flattenImage(link)))).code, 'INVALID_ARCHIVE')
  const long = await archiveOf(t, [[f('d/'.repeat(3000) + 'x', 'x')]], 'long.tar')
  assert.is((await failure(collect(flattenImage(long)))).code, 'LIMIT_EXCEEDED')
})

test('squash: what the config and the history say, and that the same image comes out each time', async t => {
  const source = await archiveOf(t, [[f('a')], [f('b')], [f('c')]])
  const one = await squashImage(source, { from: 1, references: ['small:1'] }), two = await squashImage(source, { from: 1 })
  t.defer(() => one.close())
  t.defer(() => two.close())
  assert.is(one.imageId, two.imageId)
  assert.equal(one.config?.diffIds.slice(0, 1), source.config?.diffIds.slice(0, 1))
  assert.is(one.config?.diffIds.length, 2)
  assert.equal(one.config?.config, source.config?.config)
  assert.equal(one.config?.history.map(step => `${step.emptyLayer} ${step.createdBy ?? ''} ${step.comment ?? ''}`.trim()), [
    'false step 0', 'true step 1', 'true step 2', 'true CMD last', `false  merge ${source.imageId} to ${source.layers[0]?.chainId}`,
  ])
  const all = await squashImage(source, { created: '2030-01-01T00:00:00Z' })
  t.defer(() => all.close())
  assert.equal([all.config?.created, all.config?.diffIds.length, all.config?.history.at(-1)?.comment], ['2030-01-01T00:00:00Z', 1, `create new from ${source.imageId}`])
  assert.is((await failure(squashImage(source, { from: 3 }))).code, 'INVALID_ARGUMENT')
})

test('an archive that is written is the image that was read, and a store takes it with what it lacks', async t => {
  const layers = [[f('a', 'a'.repeat(200_000))], [f('b')], [f('c')]]
  const source = await archiveOf(t, layers)
  const squashed = await squashImage(source, { from: 2, references: ['app:squashed'] })
  t.defer(() => squashed.close())
  for (const format of ['docker', 'oci'] as const) {
    const bytes = await collect(writeImageArchive(squashed, { format }))
    assert.is(digestOf(bytes), digestOf(await collect(writeImageArchive(squashed, { format }))))
    const again = await openImageSource(write(t.dir, `${format}.tar`, bytes))
    assert.equal([again.kind, again.imageId, again.references], [format === 'docker' ? 'docker-archive' : 'oci', squashed.imageId, ['app:squashed']])
    const comparison = await compareImages(squashed, again)
    assert.equal([comparison.equal, comparison.sharedLayers], [true, 3])
    await again.close()
  }
  const storage = await openIn(t, 'vfs')
  await storage.images.load(write(t.dir, 'whole.tar', makeTar(oldDockerArchive([makeImage({ layers })]))))
  let bytes = 0
  const stored = await storeImage(storage, squashed, { onProgress: written => { bytes = written } })
  assert.equal([stored.imageId, stored.references, stored.layers.map(layer => layer.fresh)], [squashed.imageId, ['app:squashed'], [false, false, true]])
  assert.ok(bytes > 0 && bytes < 100_000, `${bytes} bytes were written for a layer of a few`)
  assert.is((await storage.images.get('app:squashed')).id, squashed.imageId)
})
