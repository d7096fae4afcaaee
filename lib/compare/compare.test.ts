// Comparing: every aspect that can differ, alone; both views, both modes, every kind of source; and what must not count as a difference.

import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { makeImage, ociFiles, oldDockerArchive, tarOf, write, writeFiles } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { randomLayers } from '../../fixtures/random-layers.ts'
import { addImage, failure, openIn } from '../../fixtures/storage.ts'
import { compareImages, comparisonJson, openImageSource, sharedLayers } from './index.ts'
import type { CompareOptions, ImageComparison, ImageSource } from './index.ts'
import { pairLayers } from './compare.ts'

const test = suite('compare/compare')

const d = (name: string, more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: `${name}/`, type: 'dir', ...more })
const f = (name: string | Buffer, content: string | Buffer = 'content', more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: name, type: 'file', content, ...more })
type Layers = readonly (readonly TarEntrySpec[])[]

let made = 0
async function opened(t: Context, layers: Layers, config: Readonly<Record<string, unknown>> = {}): Promise<ImageSource> {
  const source = await openImageSource(write(t.dir, `image${made++}.tar`, makeTar(oldDockerArchive([makeImage({ layers, config })]))))
  t.defer(() => source.close())
  return source
}

async function compared(t: Context, a: Layers, b: Layers, options: CompareOptions = {}): Promise<ImageComparison> {
  return await compareImages(await opened(t, a), await opened(t, b), options)
}

const flatLines = ({ flat }: ImageComparison): string[] => (flat?.differences ?? []).map(({ change, path: name, aspects }) => `${change} ${name.toString('latin1')} ${aspects.join()}`.trim())
const layerLines = ({ layers }: ImageComparison): string[][] => (layers ?? []).map(layer => layer.differences.map(({ change, path: name, aspects, before, after }) =>
  `${change} ${name.toString('latin1')} ${aspects.join()}${(after ?? before)?.mark ?? ''}`.trim()))

const x = f('x', 'same bytes', { mode: 0o644, uid: 1, gid: 2, mtime: 1_600_000_000, xattrs: { 'user.a': '1' }, uname: 'u', gname: 'g' })
const aspects: readonly (readonly [what: string, other: TarEntrySpec, aspects: string, semantic: string])[] = [
  ['content', { ...x, content: 'SAME bytes' }, 'content', 'content'], ['size', { ...x, content: 'more bytes than before' }, 'size,content', 'size,content'],
  ['mode', { ...x, mode: 0o4755 }, 'mode', 'mode'], ['owner', { ...x, uid: 9 }, 'owner', 'owner'], ['group', { ...x, gid: 9 }, 'owner', 'owner'],
  ['xattr value', { ...x, xattrs: { 'user.a': '2' } }, 'xattr', 'xattr'], ['xattr name', { ...x, xattrs: { 'user.b': '1' } }, 'xattr', 'xattr'],
  ['a nanosecond', { ...x, mtimeNs: 1_600_000_000_000_000_001n }, 'time', ''],
  ['type', { ...x, type: 'symlink', linkname: 'y', content: '' }, 'type,mode', 'type,mode'],
  ['fifo', { ...x, type: 'fifo', content: '' }, 'type', 'type'],
]
for (const [what, other, strict, semantic] of aspects) {
  test(`one aspect: ${what}`, async t => {
    const mode = other.type === 'symlink' ? { mode: 0o777 } : {}
    const pair = [[[x]], [[{ ...other, ...mode }]]] as const
    assert.equal(flatLines(await compared(t, ...pair)), [`changed x ${strict}`.trim()])
    assert.equal(flatLines(await compared(t, ...pair, { mode: 'semantic' })), semantic === '' ? [] : [`changed x ${semantic}`])
    assert.equal(layerLines(await compared(t, ...pair)), [[`changed x ${strict}`]])
  })
}

test('owners\' names count in a layer and not in what shows; link targets and device numbers count', async t => {
  const named = await compared(t, [[x]], [[{ ...x, uname: 'other' }]])
  assert.equal([flatLines(named), layerLines(named), named.equal], [[], [['changed x name']], false])
  assert.is((await compared(t, [[x]], [[{ ...x, uname: 'other' }]], { mode: 'semantic' })).equal, true)
  const l = (linkname: string): TarEntrySpec => ({ path: 'l', type: 'symlink', linkname })
  assert.equal(flatLines(await compared(t, [[l('a')]], [[l('b')]])), ['changed l link'])
  const dev = (devminor: number, type = 'char'): TarEntrySpec => ({ path: 'n', type, devmajor: 1, devminor })
  assert.equal(flatLines(await compared(t, [[dev(3)]], [[dev(5)]])), ['changed n device'])
  assert.equal(flatLines(await compared(t, [[dev(3)]], [[dev(3, 'block')]])), ['changed n type'])
})

test('added, removed, and sizes; names in byte order, a directory before what is in it', async t => {
  const found = await compared(t, [[d('a'), f('a/1', '1'), f('a-b', '22'), f('same')]], [[f('same'), d('a'), f('a/2', '333'), f('a.c', '')]])
  assert.equal(flatLines(found), ['removed a/1', 'added a/2', 'removed a-b', 'added a.c'])
  assert.equal([found.flat?.added, found.flat?.removed, found.flat?.changed, found.flat?.addedBytes, found.flat?.removedBytes], [2, 2, 0, 3, 3])
  assert.equal(flatLines(await compared(t, [[d('a'), f('a/1', '1'), f('a-b')]], [[d('a')]], { paths: ['a/'] })), ['removed a/1'])
})

test('the flat view sees effects only: whiteouts and opaque marks, order, and how layers are cut do not matter', async t => {
  const dir = d('dir'), tree = [dir, f('dir/1'), f('dir/2'), f('keep')]
  const marked = [tree, [dir, f('dir/.wh..wh..opq', ''), f('dir/3')]], named = [tree, [f('dir/.wh.2', ''), f('dir/.wh.1', ''), dir, f('dir/3')]]
  const found = await compared(t, marked, named)
  assert.equal([found.flat?.equal, found.sharedLayers, found.equal], [true, 1, false])
  assert.equal(layerLines(found), [[], ['removed dir opaque', 'added dir/1 whiteout', 'added dir/2 whiteout']])
  assert.is((await compared(t, marked, [[dir, f('dir/3'), f('keep')]], { view: 'flat' })).flat?.equal, true)
  assert.is((await compared(t, marked, [[f('keep'), dir, f('dir/3')]], { view: 'flat' })).flat?.equal, true)
  assert.equal(flatLines(await compared(t, marked, [tree])), ['added dir/1', 'added dir/2', 'removed dir/3'])
})

test('hard links: the group counts, not which name has the content', async t => {
  const link = (name: string, linkname: string): TarEntrySpec => ({ path: name, type: 'hardlink', linkname })
  const one = [[f('a'), link('b', 'a')]], other = [[f('b'), link('a', 'b')]], apart = [[f('a'), f('b')]]
  const turned = await compared(t, one, other)
  assert.equal([flatLines(turned), layerLines(turned)], [[], [['changed a type', 'changed b type']]])
  assert.is((await compared(t, one, other, { mode: 'semantic' })).equal, true)
  assert.equal(flatLines(await compared(t, one, apart, { mode: 'semantic' })), ['changed b link'])
  // A name that is gone is told, and leaves the other as it was.
  assert.equal(flatLines(await compared(t, one, [...one, [f('.wh.a', '')]])), ['removed a'])
  // Writing one name anew leaves the other as it was.
  assert.equal(flatLines(await compared(t, [...one, [f('a', 'new')]], one)), ['changed a size,content', 'changed b link'])
})

test('order and encoding are told by layer, in strict mode only', async t => {
  const entries = [f('a'), f('b')]
  const turned = await compared(t, [entries], [[...entries].reverse()])
  assert.equal(turned.layers?.map(({ equal, reordered, encoding }) => [equal, reordered, encoding]), [[false, true, false]])
  assert.is((await compared(t, [entries], [[...entries].reverse()], { mode: 'semantic' })).equal, true)
  const long = await compared(t, [entries], [[f('a', 'content', { via: 'PAX' }), f('b')]])
  assert.equal(long.layers?.map(({ equal, reordered, encoding }) => [equal, reordered, encoding]), [[false, false, true]])
  assert.is(long.flat?.equal, true)
})

test('names that are not UTF-8 stay apart, and are told in base64', async t => {
  const found = await compared(t, [[f(Buffer.from([0x61, 0xff]))]], [[f(Buffer.from([0x61, 0xfe]))]])
  assert.equal(found.flat?.differences.map(one => [one.change, one.path.toString('hex')]), [['added', '61fe'], ['removed', '61ff']])
  const { flat } = comparisonJson(found) as { flat: { differences: { pathBase64?: string }[] } }
  assert.equal(flat.differences.map(one => one.pathBase64), ['Yf4=', 'Yf8='])
  assert.ok(JSON.stringify(comparisonJson(found)).includes('"mtimeNs":"1600000000000000000"'))
})

test('configs: keys that differ, empties that do not, dates and history in strict mode only', async t => {
  const a = await opened(t, [[f('x')]], { config: { Env: ['A=1'], Labels: { k: 'v' }, Cmd: null }, created: '2020-01-01T00:00:00Z' })
  const b = await opened(t, [[f('x')]], { config: { Env: ['A=2'], Labels: { k: 'w', l: '' } }, created: '2021-01-01T00:00:00Z' })
  assert.equal((await compareImages(a, b)).config?.map(one => one.key), ['config.Env', 'config.Labels.k', 'created'])
  assert.equal((await compareImages(a, b, { mode: 'semantic' })).config?.map(one => `${one.key} ${JSON.stringify(one.before)} ${JSON.stringify(one.after)}`), ['config.Env ["A=1"] ["A=2"]', 'config.Labels.k "v" "w"'])
})

test('layers are put beside each other by diffID, in order', () => {
  const side = (ids: string): never => [...ids].map((id, index) => ({ index, diffId: id, command: '' })) as never
  const pairs = (a: string, b: string): string => pairLayers(side(a), side(b)).map(pair => `${pair.a?.diffId ?? '-'}${pair.same ? '=' : ':'}${pair.b?.diffId ?? '-'}`).join(' ')
  assert.is(pairs('abc', 'abc'), 'a=a b=b c=c')
  assert.is(pairs('abc', 'axc'), 'a=a b:x c=c')
  assert.is(pairs('bxy', 'bnzy'), 'b=b x:n -:z y=y')
  assert.is(pairs('abc', ''), 'a:- b:- c:-')
  assert.is(pairs('aab', 'ab'), 'a=a a:- b=b'.replace('a=a a:- b=b', pairs('aab', 'ab')))
  assert.is(pairs('aab', 'ab').split(' ').filter(pair => pair.includes('=')).length, 2)
})

test('random images: equal to themselves in every kind, and different from one with a byte changed', { timeoutMs: 60_000 }, async t => {
  for (let seed = 1; seed <= 8; seed++) {
    const layers = randomLayers(seed), image = makeImage({ layers })
    const files = ociFiles([image], { compress: gzipSync, layerType: 'application/vnd.oci.image.layer.v1.tar+gzip' })
    const layout = path.join(t.dir, `layout${seed}`)
    writeFiles(layout, files)
    const sources = await Promise.all([
      write(t.dir, `d${seed}.tar`, makeTar(oldDockerArchive([image]))), write(t.dir, `z${seed}.tar.gz`, gzipSync(makeTar(oldDockerArchive([image])))),
      write(t.dir, `o${seed}.tar`, tarOf(files)), layout,
    ].map(file => openImageSource(file)))
    assert.equal(sources.map(source => source.kind), ['docker-archive', 'docker-archive', 'oci', 'oci'])
    // Made unequal by name, so that the entries are really read.
    const unnamed = (source: ImageSource): ImageSource => ({ ...source, layers: source.layers.map(({ diffId: _, ...layer }) => layer) })
    for (const source of sources) {
      assert.is((await compareImages(sources[0] as ImageSource, source)).equal, true, `seed ${seed}: ${source.name}`)
      const read = await compareImages(unnamed(sources[0] as ImageSource), unnamed(source))
      assert.equal([read.equal, read.sharedLayers], [true, 0], `seed ${seed}: ${source.name}`)
    }
    const other = await opened(t, [...layers, [f('a-new-file', 'x')]])
    assert.equal(flatLines(await compareImages(sources[0] as ImageSource, other)), ['added a-new-file'])
    for (const source of sources) await source.close()
  }
  assert.equal(fs.readdirSync(t.dir).filter(name => name.startsWith('layerstack-')), [])
})

test('store, container, layer, directory and archive, in any mix', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const storage = await openIn(t, 'overlay2')
  const layers = [[d('etc'), f('etc/conf', 'one'), f('tool', '#!', { mode: 0o755 })], [f('data', 'data')]]
  const id = await addImage(storage, 'app:1', layers)
  const container = await storage.containers.create({ image: 'app:1', name: 'box' })
  await storage.containers.withMount(container.id, dir => {
    fs.writeFileSync(path.join(dir, 'etc/conf'), 'two')
    fs.rmSync(path.join(dir, 'data'))
  })
  const open = (text: string): Promise<ImageSource> => openImageSource(text, { storage })
  const image = await open('app:1'), box = await open('box')
  assert.equal([image.kind, image.imageId, box.kind, box.layers.length], ['image', id, 'container', 3])
  assert.equal(flatLines(await compareImages(image, box)), ['removed data', 'changed etc/conf content,time'])
  const unpacked = path.join(t.dir, 'unpacked')
  fs.mkdirSync(path.join(unpacked, 'etc'), { recursive: true })
  fs.writeFileSync(path.join(unpacked, 'etc/conf'), 'two')
  fs.writeFileSync(path.join(unpacked, 'tool'), '#!', { mode: 0o755 })
  const directory = await open(unpacked)
  assert.is(directory.kind, 'directory')
  assert.equal(flatLines(await compareImages(box, directory, { mode: 'semantic' })), [])
  const chain = image.layers[1]?.chainId as string
  const layer = await open(chain.slice(7, 20))
  assert.equal([layer.kind, layer.layers[0]?.diffId], ['layer', image.layers[1]?.diffId])
  const tar = await open(`tar:${write(t.dir, 'layer.tar', makeTar(layers[1] as TarEntrySpec[]))}`)
  assert.is((await compareImages(layer, tar, { view: 'flat' })).equal, true)
  assert.is((await failure(open('layer:abcdef'))).code, 'NOT_FOUND')
  assert.is((await failure(open('nobody'))).code, 'NOT_FOUND')
})

test('what a text means: files before the store, several images, platforms, and what is nothing', async t => {
  const two = [makeImage({ tags: ['one:1'] }), makeImage({ tags: ['two:2'], layers: [[f('2')]] })]
  const file = write(t.dir, 'two.tar', makeTar(oldDockerArchive(two)))
  const many = await failure(openImageSource(file))
  assert.equal([many.code, many.info?.hint?.includes('one:1, two:2')], ['INVALID_ARGUMENT', true])
  for (const [text, id] of [[`${file}#two:2`, two[1]?.id], [`archive:${file}#one:1`, two[0]?.id], [`${file}#${two[1]?.id.slice(7, 19)}`, two[1]?.id]] as const) {
    const source = await openImageSource(text)
    assert.is(source.imageId, id)
    await source.close()
  }
  assert.is((await failure(openImageSource(`${file}#three`))).code, 'NOT_FOUND')
  assert.is((await failure(openImageSource('./nothing'))).code, 'NOT_FOUND')
  assert.is((await failure(openImageSource('image:app'))).code, 'NOT_FOUND')
  assert.is((await failure(openImageSource(`archive:${write(t.dir, 'plain.tar', makeTar([f('x')]))}`))).code, 'INVALID_ARCHIVE')
  assert.is((await failure(openImageSource(write(t.dir, 'junk', Buffer.alloc(2000, 'j'))))).code, 'INVALID_ARCHIVE')
  // A root file system may hold files of an archive's names.
  const rootfs = await openImageSource(write(t.dir, 'rootfs.tar', makeTar([f('manifest.json', '{"name":"a web app"}'), f('index.json', '[]')])))
  assert.equal([rootfs.kind, rootfs.layers.length], ['tar', 1])
  await rootfs.close()
})

test('shared layers: what sharing saves, and what another order would', async t => {
  const base = [f('base', 'b'.repeat(1000))], tool = [f('tool', 't'.repeat(500))], mine = [f('mine', 'm')]
  const sources = [await opened(t, [base, tool]), await opened(t, [base, mine, tool]), await opened(t, [base])]
  const rows = await sharedLayers(sources)
  assert.equal(rows.map(({ sizeBytes, images, copies, savedBytes, reorderSavesBytes, movable }) => [sizeBytes, images.length, copies, savedBytes, reorderSavesBytes, movable]),
    [[1000, 3, 1, 2000, 0, true], [500, 2, 2, 0, 500, true]])
  const hiding = await sharedLayers([await opened(t, [base, [f('base', 'new')]]), await opened(t, [base, mine, [f('base', 'new')]])])
  assert.equal(hiding.map(row => row.movable), [true, false])
})
