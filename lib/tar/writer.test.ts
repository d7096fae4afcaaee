// What the writer writes, read back by our parser, by tar-stream, and by GNU tar and bsdtar where they are.

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import tarStream from 'tar-stream'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { TarParser } from './parser.ts'
import { TarWriter } from './writer.ts'
import type { SparseRegion, TarHeader } from './types.ts'

const test = suite('tar/writer')
const needs = (program: string): string | false => spawnSync(program, ['--version']).status === 0 ? false : `needs ${program}`
const needsTar = needs('tar')
const needsBsdtar = needs('bsdtar')
const needsGetfattr = needs('getfattr')

function header(name: string | Buffer, more: Partial<TarHeader> = {}): TarHeader {
  return {
    name: Buffer.from(name as string), type: 'file', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, mtimeNs: 0n,
    linkname: Buffer.alloc(0), uname: '', gname: '', devMajor: 0, devMinor: 0, ...more,
  }
}

function write(entries: readonly (readonly [TarHeader, Buffer?])[], cut = 1000): Buffer {
  const out: Buffer[] = []
  const writer = new TarWriter(bytes => out.push(Buffer.from(bytes)))
  for (const [entry, content = Buffer.alloc(0)] of entries) {
    writer.entry(entry)
    for (let at = 0; at < content.length; at += cut) writer.data(content.subarray(at, at + cut))
    writer.end()
  }
  writer.finish()
  const tar = Buffer.concat(out)
  assert.is(tar.length % 512, 0)
  return tar
}

function read(tar: Buffer): { header: TarHeader; content: Map<number, Buffer> }[] {
  const entries: { header: TarHeader; content: Map<number, Buffer> }[] = []
  const parser = new TarParser({
    entry(h) { entries.push({ header: h, content: new Map() }) },
    data(bytes, offset) { entries.at(-1)!.content.set(offset, Buffer.from(bytes)) },
    end() {},
  })
  parser.write(tar)
  parser.finish()
  return entries
}

const RAW_SHORT = Buffer.from([0x72, 0x61, 0x77, 0xff, 0xfe])
const RAW_LONG = Buffer.concat([RAW_SHORT, Buffer.alloc(150, 0xe4)])
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex')
const MTIME_2040 = 2208988800_123456789n

test('a plain entry is one ustar block', () => {
  const tar = write([[header('dir/file', { sizeBytes: 3, uid: 0o7777777, mtimeNs: 1_000_000_000n, uname: 'root' }), Buffer.from('abc')]])
  assert.is(tar.length, 512 + 512 + 1024)
  assert.is(tar.toString('latin1', 257, 265), 'ustar\x0000')
  const long = write([[header(`${'p'.repeat(150)}/${'n'.repeat(90)}`)]])
  assert.is(long.length, 512 + 1024)
})

test('parse turns write around', () => {
  const name = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 300 }).map(bytes => Buffer.from(bytes.map(byte => byte === 0 ? 1 : byte))),
    fc.string({ unit: fc.constantFrom('a', '/', 'ü', '.', '\u{1f600}'), minLength: 1, maxLength: 300 }).map(text => Buffer.from(text)))
  const text = fc.string({ unit: 'grapheme', maxLength: 40 }).map(value => value.replace(/\0/g, ''))
  const time = fc.bigInt({ min: -(2n ** 66n), max: 2n ** 66n })
  const xattrs = fc.dictionary(fc.constantFrom('user.a', 'user.b=c', 'security.capability', 'user.ü%'), fc.uint8Array({ maxLength: 50 }))
  fc.assert(fc.property(name, name, fc.nat(0o7777), fc.nat(0xffffffff), fc.nat(0xffffffff), time, fc.option(time), text, text, xattrs,
    fc.constantFrom('file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo'),
    (n, linkname, mode, uid, gid, mtimeNs, atimeNs, uname, gname, attributes, type) => {
      const isLink = type === 'link' || type === 'symlink'
      const isDevice = type === 'char' || type === 'block'
      const entry = header(n, {
        type, mode, uid, gid, mtimeNs, uname, gname, linkname: isLink ? linkname : Buffer.alloc(0), ...(atimeNs === null ? {} : { atimeNs }),
        ...(isDevice ? { devMajor: uid, devMinor: gid } : {}),
        ...(Object.keys(attributes).length > 0 ? { xattrs: new Map(Object.entries(attributes).map(([k, v]) => [k, Buffer.from(v)])) } : {}),
      })
      const [got] = read(write([[entry]]))
      const plain = (h: TarHeader): object => ({
        ...h, name: h.name.toString('latin1'), linkname: h.linkname.toString('latin1'),
        xattrs: [...h.xattrs ?? []].map(([k, v]) => [k, v.toString('hex')]).sort(),
      })
      assert.equal(plain(got!.header), plain(entry))
      assert.ok(write([[entry]]).equals(write([[entry]])))
    }), { numRuns: 400 })
})

test('any sparse map: the same bytes at the same places', () => {
  const gaps = fc.array(fc.tuple(fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 1, max: 3000 })), { maxLength: 12 })
  fc.assert(fc.property(gaps, fc.nat(3000), fc.integer({ min: 1, max: 2000 }), (list, tail, cut) => {
    const map: SparseRegion[] = []
    let at = 0
    for (const [hole, length] of list) {
      map.push({ offset: at + hole, length })
      at += hole + length
    }
    const sizeBytes = at + tail
    const full = Buffer.alloc(sizeBytes)
    const stored = Buffer.alloc(map.reduce((sum, region) => sum + region.length, 0))
    stored.forEach((_, i) => { stored[i] = 1 + i % 255 })
    let from = 0
    for (const { offset, length } of map) {
      stored.copy(full, offset, from, from + length)
      from += length
    }
    const [got, next] = read(write([[header('sparse', { sizeBytes, sparse: map }), stored], [header('next')]], cut))
    assert.is(got!.header.sizeBytes, sizeBytes)
    assert.is(next!.header.name.toString(), 'next')
    const back = Buffer.alloc(sizeBytes)
    for (const [offset, bytes] of got!.content) bytes.copy(back, offset)
    assert.ok(back.equals(full))
    assert.ok(got!.header.sparse!.every(({ offset, length }) => offset % 512 === 0 && (length % 512 === 0 || offset + length === sizeBytes)))
  }))
})

test('tar-stream reads it', async () => {
  const tar = write([
    [header('dir/', { type: 'directory', mode: 0o755 })], [header(`dir/${'ü'.repeat(60)}`, { sizeBytes: 5, uid: 77 }), Buffer.from('hello')],
    [header('link', { type: 'symlink', linkname: Buffer.from('t'.repeat(150)) })],
  ])
  const extract = tarStream.extract()
  extract.end(tar)
  const seen: string[] = []
  for await (const entry of extract) {
    let content = ''
    for await (const chunk of entry) content += (chunk as Buffer).toString()
    seen.push(`${entry.header.type} ${entry.header.name} ${entry.header.linkname ?? ''} ${content}`)
  }
  assert.equal(seen, ['directory dir/  ', `file dir/${'ü'.repeat(60)}  hello`, `symlink link ${'t'.repeat(150)} `])
})

test('what tar cannot hold is refused, and so are calls out of order', () => {
  const refused = (entry: TarHeader): void => {
    assert.throws(() => new TarWriter(() => {}).entry(entry), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT'))
  }
  refused(header('a\0b'))
  refused(header('a', { uid: -1 }))
  refused(header('a', { mode: 0o10000 }))
  refused(header('a', { sizeBytes: 1.5 }))
  refused(header('a', { sizeBytes: 10, sparse: [{ offset: 5, length: 6 }] }))
  const writer = new TarWriter(() => {})
  assert.throws(() => writer.data(Buffer.from('x')), TypeError)
  writer.entry(header('a', { sizeBytes: 2 }))
  assert.throws(() => writer.data(Buffer.from('xyz')), TypeError)
  assert.throws(() => writer.end(), TypeError)
  assert.throws(() => writer.finish(), TypeError)
})

/** Everything that older code got wrong (large ids, times, bytes, holes), in one archive. */
const odd: readonly (readonly [TarHeader, Buffer?])[] = [
  [header('large-ids', { uid: 3_000_000, gid: 4_000_000, mtimeNs: MTIME_2040, sizeBytes: 2 }), Buffer.from('ab')],
  [header('old', { mtimeNs: -315619200_500000000n })],
  [header(RAW_SHORT, { mtimeNs: MTIME_2040, sizeBytes: 3 }), Buffer.from('raw')],
  [header(RAW_LONG, { mtimeNs: MTIME_2040 })],
  [header('link-to-raw', { type: 'symlink', linkname: RAW_LONG })],
  [header(`ü/${'ö'.repeat(100)}`)],
  [header('capability', { xattrs: new Map([['security.capability', CAPABILITY], ['user.bytes', Buffer.from([0, 255, 10, 61])]]) })],
  [header('sparse', { sizeBytes: 8 * 2 ** 30, sparse: [{ offset: 4096, length: 5 }, { offset: 2 ** 33 - 10, length: 5 }] }), Buffer.from('startfinal')],
  [header(Buffer.concat([RAW_SHORT, Buffer.from('-sparse')]), { sizeBytes: 2 ** 20, sparse: [] })],
]

for (const [program, skip] of [['tar', needsTar], ['bsdtar', needsBsdtar]] as const) {
  test(`${program} unpacks it to the same tree`, { skip: needsRoot || skip || needsGetfattr }, t => {
    const archive = path.join(t.dir, 'odd.tar')
    const dir = path.join(t.dir, 'out')
    fs.mkdirSync(dir)
    fs.writeFileSync(archive, write(odd))
    const flags = program === 'tar' ? ['--numeric-owner', '--xattrs', '--xattrs-include=*'] : ['--numeric-owner', '--xattrs']
    execFileSync(program, [...flags, '-xpf', archive, '-C', dir], { env: { ...process.env, LC_ALL: 'C.UTF-8' } })
    const at = (name: Buffer): Buffer => Buffer.concat([Buffer.from(`${dir}/`), name])
    for (const [entry] of odd) {
      const stat = fs.lstatSync(at(entry.name), { bigint: true })
      assert.equal([stat.uid, stat.gid], [BigInt(entry.uid), BigInt(entry.gid)], entry.name.toString())
      if (entry.type === 'file') assert.is(stat.size, BigInt(entry.sizeBytes), entry.name.toString())
      // libarchive 3.6 takes the fraction of a negative time as positive.
      if (entry.type === 'file' && (program === 'tar' || entry.mtimeNs >= 0n)) assert.is(stat.mtimeNs, entry.mtimeNs, entry.name.toString())
      if (entry.type === 'symlink') assert.ok(fs.readlinkSync(at(entry.name), 'buffer').equals(entry.linkname))
    }
    assert.is(fs.readFileSync(at(RAW_SHORT), 'utf8'), 'raw')
    const descriptor = fs.openSync(path.join(dir, 'sparse'), 'r')
    t.defer(() => fs.closeSync(descriptor))
    const piece = (position: number): string => {
      const bytes = Buffer.alloc(7)
      return bytes.toString('latin1', 0, fs.readSync(descriptor, bytes, 0, 7, position))
    }
    assert.equal([piece(4095), piece(2 ** 33 - 11)], ['\0start\0', '\0final\0'])
    assert.ok(fs.fstatSync(descriptor).blocks < 2048, 'the holes are holes')
    const hex = execFileSync('getfattr', ['--absolute-names', '-d', '-m', '-', '-e', 'hex', path.join(dir, 'capability')], { encoding: 'utf8' })
    assert.ok(hex.includes(`security.capability=0x${CAPABILITY.toString('hex')}`), hex)
  })
}

test('we read what GNU tar writes: sparse files in every format, long names, times', { skip: needsRoot || needsTar }, t => {
  const dir = path.join(t.dir, 'in')
  fs.mkdirSync(dir)
  const long = `${'n'.repeat(120)}`
  fs.writeFileSync(path.join(dir, long), 'long')
  const descriptor = fs.openSync(path.join(dir, 'sparse'), 'w')
  const map = Array.from({ length: 30 }, (_, i) => ({ offset: (i * 4 + 1) * 65536, length: 65536 }))
  for (const { offset } of map) fs.writeSync(descriptor, Buffer.alloc(65536, 'data'), 0, 65536, offset)
  fs.ftruncateSync(descriptor, 2 ** 33)
  fs.closeSync(descriptor)
  for (const format of [['--format=gnu'], ['--format=pax', '--sparse-version=0.0'], ['--format=pax', '--sparse-version=0.1'], ['--format=pax', '--sparse-version=1.0']]) {
    const archive = path.join(t.dir, 'a.tar')
    execFileSync('tar', ['-S', ...format, '-cf', archive, '-C', dir, 'sparse', long])
    const [sparse, named] = read(fs.readFileSync(archive))
    assert.is(sparse!.header.name.toString(), 'sparse', format.join())
    assert.is(sparse!.header.sizeBytes, 2 ** 33, format.join())
    assert.equal(sparse!.header.sparse, map, format.join())
    assert.is(named!.header.name.toString(), long)
  }
})
