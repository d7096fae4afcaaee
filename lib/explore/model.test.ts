// What the page knows and how it gets there, without a browser: encoding, views, rows, search, text.

import fs from 'node:fs'
import path from 'node:path'
import { inflateRawSync } from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { entry, sourceOf, syntheticSource } from '../../fixtures/synthetic-source.ts'
import type { SyntheticEntry } from '../../fixtures/synthetic-source.ts'
import { analyzeImage } from '../compare/index.ts'
import { bundle } from './bundle.ts'
import { encodeImage, textOf } from './encode.ts'
import { exploreImage } from './index.ts'
import { html, shown } from './markup.ts'
import { ByteReader, ByteWriter } from './model/bytes.ts'
import { ADDED, changes, decodeModel, MODIFIED, nameOf, pathOf, REMOVED, UNMODIFIED, versionAt } from './model/model.ts'
import type { Model } from './model/model.ts'
import { findNodes, parseQuery } from './model/search.ts'
import { commandText, humanSize, modeText, moment, needsEscape, percent, plain, segments } from './model/text.ts'
import { rowsOf, UNTOUCHED, viewOf, withMarks } from './model/view.ts'
import type { Choice, View } from './model/view.ts'
import { MAX_HEIGHT_PX, scrollFor, viewportOf } from './model/viewport.ts'

const test = suite('explore: model')

async function modelOf(...layers: readonly (readonly SyntheticEntry[])[]): Promise<Model> {
  const analysis = await analyzeImage(sourceOf('test', layers.map((entries, i) => ({ command: `step ${i + 1}`, entries: entries.map(entry) }))))
  return decodeModel(inflateRawSync(encodeImage(analysis).bytes))
}

const layers: readonly (readonly SyntheticEntry[])[] = [
  [
    { path: 'etc', type: 'directory' }, { path: 'etc/conf', sizeBytes: 100 }, { path: 'etc/link', type: 'symlink', linkname: '../conf' },
    { path: 'opt', type: 'directory' }, { path: 'opt/a', sizeBytes: 1000 }, { path: 'opt/b', sizeBytes: 2000 }, { path: 'same', sizeBytes: 7 },
  ],
  [{ path: 'etc/conf', sizeBytes: 150, mode: 0o600 }, { path: 'new/deep/file', sizeBytes: 5 }, { path: 'same', sizeBytes: 7 }],
  [{ path: 'opt', mark: 'whiteout' }],
]

function node(model: Model, wanted: string): number {
  for (let i = 0; i < model.count; i++) if (pathOf(model, i) === wanted) return i
  throw new Error(`${wanted} is not in the model`)
}

function listed(model: Model, view: View): Record<string, string> {
  const words = [...changes, '']
  const all: Record<string, string> = {}
  for (let i = 1; i < model.count; i++) if (view.shown[i] === 1) all[pathOf(model, i)] = words[view.mark[i]!] ?? ''
  return all
}

test('numbers survive at every length', () => {
  const numbers = [0, 1, 127, 128, 16383, 16384, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 40, Number.MAX_SAFE_INTEGER]
  const signed = [0, -1, 1, -64, 64, -8_640_000_000_000, 8_640_000_000_000]
  const writer = new ByteWriter()
  writer.column(numbers)
  for (const value of signed) writer.signed(value)
  writer.strings([])
  writer.strings(['', 'a', '\ufeffb', 'ü'.repeat(100_000)])
  const reader = new ByteReader(writer.bytes)
  assert.equal([...reader.column(new Float64Array(numbers.length))], numbers)
  assert.equal(signed.map(() => reader.signed()), signed)
  assert.equal(reader.strings(), [])
  assert.equal(reader.strings(), ['', 'a', '\ufeffb', 'ü'.repeat(100_000)])
  assert.throws(() => reader.number(), /ends early/)
})

test('the tree, its versions and its waste come out as they went in', async () => {
  const model = await modelOf(...layers)
  assert.equal(Array.from({ length: model.count }, (_, i) => pathOf(model, i)),
    ['/', '/etc', '/etc/conf', '/etc/link', '/new', '/new/deep', '/new/deep/file', '/opt', '/opt/a', '/opt/b', '/same'])
  assert.equal([...model.depth], [0, 1, 2, 2, 1, 2, 3, 1, 2, 2, 1])
  assert.equal([...model.parent], [0, 0, 1, 1, 0, 4, 5, 0, 7, 7, 0])
  assert.equal([...model.end], [11, 4, 3, 4, 7, 7, 7, 10, 9, 10, 11])
  const conf = node(model, '/etc/conf'), { versions } = model
  const [first, second] = [model.firstVersion[conf]!, model.firstVersion[conf]! + 1]
  assert.equal([versions.layer[first], versions.change[first], versions.size[first], versions.mode[first]], [0, ADDED, 100, 0o644])
  assert.equal([versions.layer[second], versions.change[second], versions.size[second], versions.mode[second]], [1, MODIFIED, 150, 0o600])
  assert.is(versions.seconds[second], 1_760_000_000)
  assert.is(model.links[versions.link[model.firstVersion[node(model, '/etc/link')]!]! - 1], '../conf')
  assert.is(versions.implied[versionAt(model, node(model, '/opt/a'), 2)], 1)
  assert.is(versionAt(model, node(model, '/new/deep/file'), 0), -1)
  const wasted = model.wasted.map(row => [pathOf(model, row.node), row.count, row.sizeBytes, row.layers])
  assert.equal(wasted.find(([name]) => name === '/etc/conf'), ['/etc/conf', 2, 250, [0, 1]])
})

test('names of any bytes survive, and are told apart from those that look like them', async () => {
  const names = [Buffer.from([0x66, 0xff, 0x2e]), Buffer.from('f\\xff.'), Buffer.from('\u202egnp.exe'), Buffer.from('tab\there'), Buffer.from('\u{10ff41}'), Buffer.from('plain'), Buffer.from('é'), Buffer.from([0xc3])]
  const model = await modelOf(names.map(name => ({ path: name })))
  const shownNames = Array.from({ length: model.count - 1 }, (_, i) => plain(nameOf(model, i + 1)))
  assert.equal([...shownNames].sort(), ['f\\xff.', 'f\\xff.', '\\u{202e}gnp.exe', 'tab\\there', '\\xf4\\x8f\\xbd\\x81', 'plain', 'é', '\\xc3'].sort())
  const [really, looks] = [textOf(names[0] as Buffer), textOf(names[1] as Buffer)]
  assert.equal(segments(really).map(segment => segment.escaped), [false, true, false])
  assert.equal(segments(looks), [{ text: 'f\\xff.', escaped: false }])
  assert.is(plain('a\\b\n'), 'a\\\\b\\n')
  assert.is(model.names.slice(0, model.escapedFrom).some(needsEscape), false)
  assert.ok(model.names.slice(model.escapedFrom).every(needsEscape))
})

test('a name cannot make markup', () => {
  assert.is(html`<p title="${'"><script>'}">${shown('</p><b>\u0000')}</p>`.text,
    '<p title="&#34;&#62;&#60;script&#62;"><bdi>&#60;/p&#62;&#60;b&#62;<span class="escape">\\x00</span></bdi></p>')
})

test('the view after a layer marks what the layer did', async () => {
  const model = await modelOf(...layers)
  const view = (layer: number, scope: Choice['scope'] = 'merged'): View => viewOf(model, { layer, scope })
  assert.equal(listed(model, view(0)), {
    '/etc': 'added', '/etc/conf': 'added', '/etc/link': 'added', '/opt': 'added', '/opt/a': 'added', '/opt/b': 'added', '/same': 'added',
  })
  const second = view(1)
  assert.equal(listed(model, second), {
    '/etc': '', '/etc/conf': 'modified', '/etc/link': '', '/new': 'added', '/new/deep': 'added', '/new/deep/file': 'added', '/opt': '', '/opt/a': '', '/opt/b': '', '/same': 'unmodified',
  })
  assert.is(second.size[0], 150 + 5 + 3000 + 7)
  assert.is(second.size[node(model, '/etc')], 150)
  assert.equal(second.totals, [3, 1, 0, 1, 5])
  assert.is(second.present, 10)
  assert.is(second.marks[MODIFIED]![node(model, '/etc')], 1)
  const third = view(2)
  assert.equal(Object.entries(listed(model, third)).filter(([, mark]) => mark === 'removed').map(([name]) => name), ['/opt', '/opt/a', '/opt/b'])
  assert.is(third.size[node(model, '/opt')], 3000, 'what went with the directory')
  assert.is(third.size[0], 162, 'what is gone does not count above')
  assert.is(third.present, 7)
  assert.equal(listed(model, view(2, 'layer')), { '/opt': 'removed' }, 'the layer names the directory alone')
  assert.is(view(2, 'layer').size[node(model, '/opt')], 3000)
  assert.is(view(1, 'layer').mark[node(model, '/etc')], UNTOUCHED)
  assert.is(view(1, 'layer').shown[node(model, '/etc')], 1, 'what the layer holds hangs in its directories')
})

test('an opaque directory shows what it hid, and stays', async () => {
  const model = await modelOf([{ path: 'd', type: 'directory' }, { path: 'd/old', sizeBytes: 9 }], [{ path: 'd', type: 'directory' }, { path: 'd', mark: 'opaque' }, { path: 'd/new', sizeBytes: 4 }])
  for (const scope of ['merged', 'layer'] as const) {
    const view = viewOf(model, { layer: 1, scope })
    assert.is(view.mark[node(model, '/d/old')], REMOVED)
    assert.is(view.shown[node(model, '/d/old')], 1)
    assert.is(view.mark[node(model, '/d')], UNMODIFIED)
    assert.is(view.size[node(model, '/d')], 4)
  }
})

test('rows follow what is open, sorted, and wanted', async () => {
  const model = await modelOf(...layers)
  const view = viewOf(model, { layer: 1, scope: 'merged' })
  const open = new Uint8Array(model.count), closed = new Uint8Array(model.count)
  const paths = (options: Partial<Parameters<typeof rowsOf>[2]> = {}): string[] => [...rowsOf(model, view, { open, closed, sort: 'name', ...options }).nodes].map(row => pathOf(model, row))
  assert.equal(paths(), ['/etc', '/new', '/opt', '/same'])
  open[node(model, '/opt')] = 1
  assert.equal(paths(), ['/etc', '/new', '/opt', '/opt/a', '/opt/b', '/same'])
  assert.equal(paths({ sort: 'size' }), ['/opt', '/opt/b', '/opt/a', '/etc', '/same', '/new'])
  const wanted = withMarks(view, [MODIFIED])
  assert.equal(paths({ wanted }), ['/etc', '/etc/conf'])
  closed[node(model, '/etc')] = 1
  assert.equal(paths({ wanted }), ['/etc'])
  const found = findNodes(model, parseQuery('opt')!)
  open[node(model, '/opt')] = 0
  assert.equal(paths({ wanted: found }), ['/opt'])
  open[node(model, '/opt')] = 1
  assert.equal(paths({ wanted: found }), ['/opt', '/opt/a', '/opt/b'], 'what is found shows what it holds')
})

test('search takes parts of names, paths, and globs', async () => {
  const files = ['usr/lib/libssl.so.3', 'usr/lib/libssl.a', 'usr/share/SSL/readme.md', 'etc/ssl/openssl.cnf', 'etc/a[1].txt', 'top.so']
  const model = await modelOf(files.map(file => ({ path: file })))
  const find = (text: string): string[] => {
    const query = parseQuery(text)
    return query === undefined ? [] : [...findNodes(model, query)].flatMap((hit, i) => hit === 1 ? [pathOf(model, i)] : [])
  }
  assert.equal(find('  '), [])
  assert.equal(find('ssl'), ['/etc/ssl', '/etc/ssl/openssl.cnf', '/usr/lib/libssl.a', '/usr/lib/libssl.so.3', '/usr/share/SSL'])
  assert.equal(find('SSL'), ['/usr/share/SSL'], 'an upper-case letter makes case count')
  assert.equal(find('lib/libssl'), ['/usr/lib/libssl.a', '/usr/lib/libssl.so.3'])
  assert.equal(find('*.so'), ['/top.so'])
  assert.equal(find('*.so*'), ['/top.so', '/usr/lib/libssl.so.3'])
  assert.equal(find('*.{a,md}'), ['/usr/lib/libssl.a', '/usr/share/SSL/readme.md'])
  assert.equal(find('lib/*'), ['/usr/lib/libssl.a', '/usr/lib/libssl.so.3'])
  assert.equal(find('/usr/*'), ['/usr/lib', '/usr/share'])
  assert.equal(find('/usr/**'), ['/usr/lib', '/usr/lib/libssl.a', '/usr/lib/libssl.so.3', '/usr/share', '/usr/share/SSL', '/usr/share/SSL/readme.md'])
  assert.equal(find('**/*.cnf'), ['/etc/ssl/openssl.cnf'])
  assert.equal(find('a\\[[0-9]*'), ['/etc/a[1].txt'])
  assert.equal(find('[!a-z]*'), [])
  assert.equal(find('???.so'), ['/top.so'])
})

test('no query throws', async () => {
  const model = await modelOf(...layers)
  let seed = 7
  const alphabet = '*?[]{}!^-,\\/aZ.\u{1f600}()|$'
  for (let i = 0; i < 3000; i++) {
    const text = Array.from({ length: 1 + i % 9 }, () => [...alphabet][(seed = Math.imul(seed, 48271) >>> 1) % [...alphabet].length]).join('')
    const query = parseQuery(text)
    if (query !== undefined) findNodes(model, query)
  }
})

test('the window onto the rows covers it, also where a list is higher than browsers count', () => {
  assert.equal(viewportOf(1000, 20, 200, 400, 0), { heightPx: 20_000, from: 20, to: 30, offsetPx: 400 })
  assert.equal(viewportOf(3, 20, 200, 0), { heightPx: 60, from: 0, to: 3, offsetPx: 0 })
  assert.is(scrollFor(0, 1000, 20, 200, 400), 0)
  assert.is(scrollFor(30, 1000, 20, 200, 400), 420)
  assert.is(scrollFor(25, 1000, 20, 200, 400), 400)
  const rows = 5_000_000
  const end = viewportOf(rows, 20, 200, MAX_HEIGHT_PX - 200, 0)
  assert.equal([end.heightPx, end.from, end.to], [MAX_HEIGHT_PX, rows - 10, rows])
  for (const row of [0, 1, 777_777, 2_500_000, rows - 1]) {
    const scrollPx = scrollFor(row, rows, 20, 200, 5_000_000), { from, to, offsetPx } = viewportOf(rows, 20, 200, scrollPx, 0)
    assert.ok(row >= from && row < to, `row ${row} is in ${from}–${to}`)
    assert.ok(Math.abs(offsetPx - scrollPx) <= 20, 'the rows stand where the window is')
  }
})

test('nesting deeper than the stack is no trouble', async () => {
  const model = await modelOf([{ path: Array.from({ length: 3000 }, () => 'd').join('/'), sizeBytes: 3 }])
  const view = viewOf(model, { layer: 0, scope: 'merged' })
  assert.is(model.count, 3001)
  assert.is(view.size[0], 3)
  assert.is(rowsOf(model, view, { open: new Uint8Array(model.count).fill(1), sort: 'size' }).nodes.length, 3000)
})

test('texts for people', () => {
  assert.equal([0, 999, 1000, 999_999, 1_234_567_890].map(humanSize), ['0 B', '999 B', '1 kB', '1 MB', '1.23 GB'])
  assert.equal([1, 0.99999, 0.9984, 0.5, NaN].map(percent), ['100 %', '99.99 %', '99.8 %', '50 %', '–'])
  assert.is(modeText('d', 0o1777), 'drwxrwxrwt')
  assert.is(modeText('-', 0o6751), '-rwsr-s--x')
  assert.is(modeText('-', 0o4644), '-rwSr--r--')
  assert.is(moment(0), '1970-01-01 00:00')
  assert.is(moment(1.76e9, true, 1_500_000), '2025-10-09 08:53:20.0015 UTC')
  assert.is(moment(8.64e12, true), '+275760-09-13 00:00:00 UTC')
  assert.is(commandText('/bin/sh -c #(nop)  CMD ["bash"]'), 'CMD ["bash"]')
  assert.is(commandText('/bin/sh -c apt-get update'), 'RUN apt-get update')
  assert.is(commandText('RUN |1 A=b /bin/sh -c make # buildkit'), 'RUN make')
  assert.is(commandText('COPY . /app # buildkit'), 'COPY . /app')
})

test('the script is bundled after what it imports, and what cannot be bundled is said', () => {
  const files: Record<string, string> = {
    'p/main.js': `// a comment\nimport { a } from "./a.js";\nimport { b } from '../m/b.js';\nconsole.log(a, b);\n//# sourceMappingURL=x`,
    'p/a.js': `import { b } from "../m/b.js";\nexport const a = b;`, 'm/b.js': '/** doc\n * doc */\nexport function b() { }',
  }
  assert.is(bundle('p/main.js', file => files[file] as string), 'function b() { }\nconst a = b;\nconsole.log(a, b);\n')
  for (const line of ['import x from "./a.js";', 'import * as x from "./a.js";', 'export { x };', 'export default 1;', 'import("./a.js");']) {
    assert.throws(() => bundle('x.js', () => line), /cannot be bundled/)
  }
})

test('one page, from an analysis, a source or a file', async t => {
  const source = sourceOf('named', [{ command: 'FROM </script><b>scratch', entries: [entry({ path: 'file', sizeBytes: 3 })] }])
  const analysis = await analyzeImage(source)
  const page = await exploreImage(analysis)
  assert.is(await exploreImage(source), page)
  assert.match(page, /^<!doctype html>/)
  assert.match(page, /Content-Security-Policy" content="default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'/)
  assert.not.match(page, /<b>scratch/)
  assert.not.match(page, /https?:\/\//)
  assert.match(await exploreImage(analysis, { title: 'a & b' }), /<title>a &#38; b – layers<\/title>/)
  fs.mkdirSync(path.join(t.dir, 'tree'))
  fs.writeFileSync(path.join(t.dir, 'tree/file'), 'x')
  assert.match(await exploreImage(`dir:${t.dir}/tree`), /<dt>Files<\/dt><dd>1<\/dd>/)
})

test('the page of many entries is small', async () => {
  const page = await exploreImage(syntheticSource({ entries: 20_000 }))
  assert.ok(page.length < 20_000 * 20, `${page.length} bytes for 20,000 entries`)
})
