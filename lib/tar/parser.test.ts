// The parser against goldens, tar-stream's writer, hand-made attacks, arbitrary chunk boundaries and junk.

import tarStream from 'tar-stream'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { encodeHeader } from './header.ts'
import { encodePax } from './pax.ts'
import { TarParser } from './parser.ts'
import { TarWriter } from './writer.ts'
import type { SparseRegion, TarHeader, TarLimits } from './types.ts'

const test = suite('tar/parser')

interface Parsed { header: TarHeader; content: Buffer; offsets: number[] }

/** Parses in chunks of the given size, and checks what every sink relies on: calls in order, and no byte lost. */
function parse(tar: Buffer, chunkSize = Math.max(1, tar.length), limits?: TarLimits): Parsed[] {
  const entries: Parsed[] = []
  const all: Buffer[] = []
  let open: Parsed | undefined
  const parser = new TarParser({
    raw(bytes) { all.push(Buffer.from(bytes)) },
    entry(header) {
      assert.is(open, undefined)
      open = { header, content: Buffer.alloc(0), offsets: [] }
      entries.push(open)
    },
    data(bytes, offset) {
      all.push(Buffer.from(bytes))
      open!.offsets.push(offset)
      open!.content = Buffer.concat([open!.content, bytes])
    },
    end() { open = undefined },
  }, limits)
  for (let at = 0; at < tar.length; at += chunkSize) {
    // A chunk of its own that is wiped afterwards: nothing of it may be kept.
    const chunk = Buffer.from(tar.subarray(at, at + chunkSize))
    parser.write(chunk)
    chunk.fill(0xaa)
  }
  parser.finish()
  assert.ok(Buffer.concat(all).equals(tar), 'every byte is handed out once, in order')
  return entries
}

const names = (tar: Buffer): string[] => parse(tar).map(entry => entry.header.name.toString('latin1'))
const invalid = (message: string) => (error: unknown): boolean => StorageError.is(error, 'INVALID_ARCHIVE') && error.message.includes(message)
const block = (name: string, typeflag: string, sizeBytes = 0, more: object = {}): Buffer =>
  encodeHeader({ name: Buffer.from(name), typeflag: typeflag.charCodeAt(0), sizeBytes, ...more })
const body = (content: Buffer | string): Buffer => {
  const bytes = Buffer.from(content as string)
  return Buffer.concat([bytes, Buffer.alloc((512 - bytes.length % 512) % 512)])
}
const meta = (typeflag: string, content: Buffer): Buffer => Buffer.concat([block('meta', typeflag, content.length), body(content)])
const pax = (records: Record<string, string>): Buffer =>
  meta('x', encodePax(new Map(Object.entries(records).map(([key, value]) => [key, Buffer.from(value)]))))
const end = Buffer.alloc(1024)

test('what tar-stream writes', async () => {
  const pack = tarStream.pack()
  const long = `${'d/'.repeat(80)}file`
  pack.entry({ name: 'dir/', type: 'directory', mode: 0o1777 })
  pack.entry({ name: 'dir/file', mode: 0o644, uid: 5, gid: 6, uname: 'me', gname: 'us', mtime: new Date(1234567890_000) }, 'content')
  pack.entry({ name: long }, 'x'.repeat(1000))
  pack.entry({ name: 'dir/ü', type: 'symlink', linkname: 'file' })
  pack.entry({ name: 'hard', type: 'link', linkname: 'dir/file' })
  pack.entry({ name: 'dev', type: 'block-device', devmajor: 8, devminor: 1 })
  pack.entry({ name: 'fifo', type: 'fifo' })
  pack.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of pack) chunks.push(chunk as Buffer)
  const tar = Buffer.concat(chunks)
  const entries = parse(tar)
  assert.equal(entries.map(({ header }) => header.name.toString()), ['dir/', 'dir/file', long, 'dir/ü', 'hard', 'dev', 'fifo'])
  assert.equal(entries.map(({ header }) => header.type), ['directory', 'file', 'file', 'symlink', 'link', 'block', 'fifo'])
  const { header, content } = entries[1]!
  assert.equal([header.mode, header.uid, header.gid, header.uname, header.gname, header.mtimeNs, header.sizeBytes, content.toString()],
    [0o644, 5, 6, 'me', 'us', 1234567890_000_000_000n, 7, 'content'])
  assert.equal([entries[5]!.header.devMajor, entries[5]!.header.devMinor, entries[3]!.header.linkname.toString()], [8, 1, 'file'])
  for (const size of [1, 13, 512, 700]) assert.equal(parse(tar, size).map(e => e.content.toString()), entries.map(e => e.content.toString()))
})

test('nothing hides behind a link, a directory or a device that claims a size', () => {
  for (const typeflag of ['1', '2', '3', '4', '5', '6']) {
    assert.equal(names(Buffer.concat([block('one', typeflag, 512), block('evil', '0'), end])), ['one', 'evil'], typeflag)
    assert.equal(names(Buffer.concat([pax({ size: '512' }), block('one', typeflag), block('evil', '0'), end])), ['one', 'evil'], typeflag)
  }
})

test('the end: two zero blocks, one, none, and what follows them', () => {
  const one = block('one', '0')
  assert.equal(names(Buffer.concat([one, end, block('two', '0'), end])), ['one'])
  assert.equal(names(Buffer.concat([one, end, Buffer.from('junk')])), ['one'])
  assert.equal(names(Buffer.concat([one, Buffer.alloc(512)])), ['one'])
  assert.equal(names(one), ['one'])
  assert.equal(names(Buffer.alloc(0)), [])
  assert.equal(names(Buffer.concat([block('one', '0', 3), Buffer.from('abc')])), ['one'])
  assert.throws(() => parse(Buffer.concat([one, Buffer.alloc(512), block('two', '0')])), invalid('invalid tar header'))
})

test('truncated archives and junk', () => {
  const one = Buffer.concat([block('one', '0', 600), body('x'.repeat(600)), end])
  for (const length of [1, 511, 513, 1111]) assert.throws(() => parse(one.subarray(0, length)), invalid('unexpected end of archive'), String(length))
  const long = Buffer.concat([pax({ path: 'p' }), block('one', '0')])
  for (const length of [512, 515, 1024, 1030]) assert.throws(() => parse(long.subarray(0, length)), invalid('unexpected end of archive'), String(length))
  assert.throws(() => parse(Buffer.alloc(1024, 'junk')), invalid('invalid tar header'))
  assert.throws(() => parse(block('a', 'Q')), invalid('unknown type flag'))
  assert.throws(() => parse(Buffer.concat([pax({ uid: '4294967296' }), block('a', '0')])), invalid('uid'))
})

test('names: GNU, PAX, prefix, directories of v7, bytes that are not UTF-8', () => {
  const raw = Buffer.from([0x66, 0xff, 0xfe])
  assert.equal(names(Buffer.concat([meta('L', Buffer.concat([raw, Buffer.from('\0')])), block('x', '0'), end])), [raw.toString('latin1')])
  assert.equal(names(Buffer.concat([meta('L', Buffer.from('gnu\0rest')), pax({ path: 'pax' }), block('x', '0'), end])), ['gnu'])
  assert.equal(names(Buffer.concat([pax({ path: 'first' }), pax({ path: 'second' }), block('x', '0'), end])), ['second'])
  assert.equal(names(Buffer.concat([block('x', '0', 0, { prefix: Buffer.from('a/b') }), end])), ['a/b/x'])
  assert.equal(names(Buffer.concat([meta('g', encodePax(new Map([['path', Buffer.from('evil')]]))), block('x', '0'), end])), ['x'])
  const [entry] = parse(Buffer.concat([block('old/', '\0', 512), block('next', '0'), end]))
  assert.is(entry!.header.type, 'directory')
  assert.throws(() => parse(Buffer.concat([meta('g', Buffer.from('not pax')), block('x', '0'), end])), invalid('PAX'))
})

test('limits', () => {
  const limit = (tar: Buffer, limits: TarLimits): void => {
    assert.throws(() => parse(tar, 512, limits), (error: unknown) => StorageError.is(error, 'LIMIT_EXCEEDED'))
  }
  limit(Buffer.concat([block('a', '0'), block('b', '0')]), { entries: 1 })
  limit(Buffer.concat([block('a', '0', 100), body('x'.repeat(100)), block('b', '0', 100), body('x'.repeat(100))]), { contentBytes: 150 })
  limit(block('a', 'x', 2 ** 21), {})
  limit(block('a', 'L', 2 ** 30), {})
})

/** A GNU old sparse header with up to four regions, then blocks of 21. */
function oldSparse(map: readonly SparseRegion[], sizeBytes: number, storedBytes: number): Buffer {
  const header = encodeHeader({ name: Buffer.from('s'), typeflag: 0x53, sizeBytes: storedBytes, format: 'gnu' })
  const put = (target: Buffer, at: number, { offset, length }: SparseRegion): void => {
    target.write(`${offset.toString(8).padStart(11, '0')}\0${length.toString(8).padStart(11, '0')}\0`, at, 'latin1')
  }
  map.slice(0, 4).forEach((region, i) => put(header, 386 + i * 24, region))
  header[482] = map.length > 4 ? 1 : 0
  header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 483, 'latin1')
  header.fill(' ', 148, 156)
  header.write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  const blocks = [header]
  for (let from = 4; from < map.length; from += 21) {
    const extension = Buffer.alloc(512)
    map.slice(from, from + 21).forEach((region, i) => put(extension, i * 24, region))
    extension[504] = map.length > from + 21 ? 1 : 0
    blocks.push(extension)
  }
  return Buffer.concat(blocks)
}

test('sparse files in all four formats, at any chunk size', () => {
  const maps: SparseRegion[][] = [[], [{ offset: 512, length: 512 }], Array.from({ length: 60 }, (_, i) => ({ offset: i * 2048 + 512, length: 512 }))]
  for (const map of maps) {
    const content = Buffer.alloc(map.length * 512, 'sparse data ')
    const text = map.map(({ offset, length }) => `${offset},${length}`).join(',')
    const common = { 'GNU.sparse.numblocks': String(map.length), 'GNU.sparse.size': '200000' }
    const v00 = Buffer.concat([
      encodePax(new Map(Object.entries({ 'GNU.sparse.major': '0', 'GNU.sparse.minor': '0', ...common }).map(([k, v]) => [k, Buffer.from(v)]))),
      ...map.flatMap(({ offset, length }) => [['offset', offset], ['numbytes', length]] as const)
        .map(([key, value]) => encodePax(new Map([[`GNU.sparse.${key}`, Buffer.from(String(value))]]))),
    ])
    const lines = body(`${map.length}\n${map.map(({ offset, length }) => `${offset}\n${length}\n`).join('')}`)
    const variants: Record<string, Buffer> = {
      old: Buffer.concat([oldSparse(map, 200000, content.length), content]),
      '0.0': Buffer.concat([meta('x', v00), block('s', '0', content.length), content]),
      '0.1': Buffer.concat([pax({ 'GNU.sparse.major': '0', 'GNU.sparse.minor': '1', 'GNU.sparse.name': 's', 'GNU.sparse.map': text, ...common }), block('x', '0', content.length), content]),
      '1.0': Buffer.concat([
        pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 's', 'GNU.sparse.realsize': '200000' }),
        block('GNUSparseFile.0/s', '0', lines.length + content.length), lines, content,
      ]),
    }
    for (const [format, tar] of Object.entries(variants)) {
      for (const size of [tar.length + 1024, 1, 100, 512, 1000]) {
        const [entry, next] = parse(Buffer.concat([tar, block('next', '0'), end]), size)
        assert.is(entry!.header.name.toString(), 's', format)
        assert.is(entry!.header.sizeBytes, 200000, format)
        assert.equal(entry!.header.sparse, map, format)
        assert.ok(entry!.content.equals(content), format)
        if (size > tar.length) assert.equal(entry!.offsets, map.map(region => region.offset), format)
        assert.is(next?.header.name.toString(), 'next', format)
      }
    }
  }
})

test('sparse maps that lie', () => {
  const v01 = (map: string, count: number, stored = 512, size = '10000'): Buffer => Buffer.concat([
    pax({ 'GNU.sparse.major': '0', 'GNU.sparse.minor': '1', 'GNU.sparse.map': map, 'GNU.sparse.numblocks': String(count), 'GNU.sparse.size': size }),
    block('s', '0', stored), Buffer.alloc(stored), end,
  ])
  parse(v01('0,512', 1))
  for (const tar of [
    v01('0,512', 2), v01('0,511', 1), v01('0,513', 1), v01('9999,512', 1), v01('512,256,0,256', 2), v01('0,256,255,256', 2), v01('-1,512', 1), v01('a,b', 1),
    v01('0,512', 1, 512, '-1'), v01('9007199254740991,512', 1), v01('9223372036854775807,512', 1), v01('0,512', 1, 512, '99999999999999999999'),
    oldSparse([{ offset: 0, length: 512 }], 100, 512), oldSparse([{ offset: 0, length: 100 }], 512, 512),
    Buffer.concat([pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), block('s', '0', 512), body('9\n1\n')]),
    Buffer.concat([pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), block('s', '0', 10), body('0\n')]),
    Buffer.concat([pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), block('s', '5'), end]),
    block('s', 'S', 512),
  ]) assert.throws(() => parse(tar), invalid('invalid tar header'))
  const endless = Buffer.concat([pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), block('s', '0', 2 ** 40), body(`${10 ** 9}\n${'0\n'.repeat(3 * 2 ** 19)}`)])
  assert.throws(() => parse(endless), (error: unknown) => StorageError.is(error, 'LIMIT_EXCEEDED'))
})

test('junk never gets more than a StorageError out of it', () => {
  const good: Buffer[] = []
  const writer = new TarWriter(bytes => good.push(Buffer.from(bytes)))
  for (let i = 0; i < 4; i++) {
    writer.entry({
      name: Buffer.from(`name ${'ü'.repeat(i * 60)}`), type: 'file', mode: 0, uid: 2 ** (i * 9), gid: 0, sizeBytes: 10_000, mtimeNs: BigInt(i), linkname: Buffer.alloc(0),
      uname: '', gname: '', devMajor: 0, devMinor: 0, xattrs: new Map([['user.x', Buffer.from([i, 0])]]), sparse: [{ offset: 512 * i, length: 512 }],
    })
    writer.data(Buffer.alloc(512, i))
    writer.end()
  }
  const tar = Buffer.concat(good)
  const change = fc.tuple(fc.nat(tar.length - 1), fc.nat(255), fc.boolean())
  fc.assert(fc.property(fc.array(change, { minLength: 1, maxLength: 5 }), fc.nat(tar.length), fc.integer({ min: 1, max: 2000 }), (changes, length, size) => {
    const copy = Buffer.from(tar)
    for (const [at, value, mend] of changes) {
      copy[at] = value
      // Half of the time with a checksum that is right again, so that the change gets further in.
      const header = copy.subarray(at - at % 512, at - at % 512 + 512)
      if (mend && header.length === 512) {
        header.fill(' ', 148, 156)
        header.write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
      }
    }
    try {
      parse(copy.subarray(0, length), size)
    } catch (error) {
      if (!StorageError.is(error)) throw error
    }
  }), { numRuns: 1500 })
})
