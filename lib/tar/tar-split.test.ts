// The goldens are what dockerd's own tar-split wrote; the rest is ours: round trips, hostile lines, content that is kept in segments.

import fs from 'node:fs'
import path from 'node:path'
import { assert, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { TarParser } from './parser.ts'
import { assembleTar, parseTarSplit, TarSplitPacker, TarSplitReader } from './tar-split.ts'
import type { TarSplitEntry } from './tar-split.ts'
import { TarWriter } from './writer.ts'
import type { TarHeader, TarSink } from './types.ts'

const test = suite('tar/tar-split')
const goldens = path.join(projectRoot, 'fixtures/tar-split')
interface Golden { readonly Error?: string }
const index = JSON.parse(fs.readFileSync(path.join(goldens, 'index.json'), 'utf8')) as { cases: Record<string, Golden> }

/** Keeps the content of each file on disk, as a layer would. */
class Keep implements TarSink {
  readonly dir: string
  files = 0
  readonly byName = new Map<string, string>()
  #parts: Buffer[] = []
  #header: TarHeader | undefined
  constructor(dir: string) {
    this.dir = dir
  }
  entry(header: TarHeader): void {
    this.#header = header
    this.#parts = []
  }
  data(bytes: Buffer): void {
    this.#parts.push(Buffer.from(bytes))
  }
  end(): void {
    const file = path.join(this.dir, String(this.files++))
    fs.writeFileSync(file, Buffer.concat(this.#parts))
    this.byName.set(this.#header!.name.toString('latin1'), file)
  }
}

function pack(tar: Buffer, inner?: TarSink, chunkSize = tar.length || 1): Buffer {
  const lines: Buffer[] = []
  const packer = new TarSplitPacker(bytes => lines.push(bytes), inner)
  const parser = new TarParser(packer)
  for (let at = 0; at < tar.length; at += chunkSize) parser.write(tar.subarray(at, at + chunkSize))
  parser.finish()
  packer.finish()
  return Buffer.concat(lines)
}

function assemble(lines: Buffer, kept: Keep): Buffer {
  const out: Buffer[] = []
  const open = (name: Buffer): number => fs.openSync(kept.byName.get(name.toString('latin1')) ?? '/nonexistent', 'r')
  assembleTar(parseTarSplit([lines]), open, bytes => out.push(Buffer.from(bytes)))
  return Buffer.concat(out)
}

function fails(run: () => unknown, code: string, message: string): void {
  try {
    run()
  } catch (error) {
    if (!StorageError.is(error)) throw error
    assert.is(error.code, code)
    assert.ok(error.message.includes(message), error.message)
    return
  }
  assert.unreachable(`expected ${code} ${message}`)
}

for (const [name, golden] of Object.entries(index.cases)) {
  test(`golden ${name}`, t => {
    const tar = fs.readFileSync(path.join(goldens, `${name}.tar`))
    if (golden.Error !== undefined) return fails(() => pack(tar), 'INVALID_ARCHIVE', golden.Error)
    const expected = fs.readFileSync(path.join(goldens, `${name}.tarsplit.jsonl`))
    const kept = new Keep(t.dir)
    assert.is(pack(tar, kept).toString(), expected.toString())
    for (const size of [1, 7, 511, 512, 513, 1024, 1500]) assert.ok(pack(tar, undefined, size).equals(expected), `chunks of ${size}`)
    assert.ok(assemble(expected, kept).equals(tar))
  })
}

function header(name: string | Buffer, sizeBytes: number, more: Partial<TarHeader> = {}): TarHeader {
  return {
    name: Buffer.from(name as string), type: 'file', mode: 0o644, uid: 0, gid: 0, sizeBytes, mtimeNs: 0n,
    linkname: Buffer.alloc(0), uname: '', gname: '', devMajor: 0, devMinor: 0, ...more,
  }
}

function archive(entries: readonly (readonly [TarHeader, Buffer?])[]): Buffer {
  const out: Buffer[] = []
  const writer = new TarWriter(bytes => out.push(Buffer.from(bytes)))
  for (const [entry, content] of entries) {
    writer.entry(entry)
    if (content !== undefined) writer.data(content)
    writer.end()
  }
  writer.finish()
  return Buffer.concat(out)
}

test('names are escaped as Go does', () => {
  const lines = pack(archive([[header('<a>&"b\\\n\u0001\b\u2028é', 0)], [header(Buffer.from([0x66, 0xff]), 0)]])).toString().split('\n')
  assert.ok(lines[1]!.startsWith('{"type":1,"name":"\\u003ca\\u003e\\u0026\\"b\\\\\\n\\u0001\\b\\u2028é","payload":null,"position":1}'), lines[1])
  assert.is(lines[3], '{"type":1,"name_raw":"Zv8=","payload":null,"position":3}')
})

test('names are compared as Go cleans them', () => {
  fails(() => pack(archive([[header('a/b', 0)], [header('./a//c/../b', 0)]])), 'INVALID_ARCHIVE', 'duplicates of file paths not supported')
  // For Go, and so for Docker, /a and a are two names.
  pack(archive([[header('a', 0)], [header('/a', 0)], [header('../a', 0)]]))
})

test('sparse files and whiteouts with content are kept in segments and rebuilt', t => {
  const size = 3 * 1024 * 1024
  const tar = archive([
    [header('sparse', 2 ** 33, { sparse: [{ offset: 4096, length: size }] }), Buffer.alloc(size, 'x')],
    [header('d/.wh.gone', 5), Buffer.from('bytes')], [header('plain', 5), Buffer.from('bytes')],
  ])
  const kept = new Keep(t.dir)
  const lines = pack(tar, kept)
  for (const name of [...kept.byName.keys()]) if (name !== 'plain') kept.byName.delete(name)
  assert.ok(assemble(lines, kept).equals(tar))
  const entries = [...parseTarSplit([lines])]
  assert.is(entries.filter(entry => entry.type === 'file' && entry.sizeBytes > 0).length, 1)
  assert.ok(entries.every(entry => entry.type === 'file' || entry.bytes.length <= 1024 * 1024))
})

test('changed content is found: other bytes, shorter, longer, missing', t => {
  const content = Buffer.alloc(1024 * 1024, 'c')
  const kept = new Keep(t.dir)
  const lines = pack(archive([[header('the file', content.length), content]]), kept)
  const file = kept.byName.get('the file')!
  assemble(lines, kept)
  const changed = Buffer.from(content)
  changed[500_000]! ^= 1
  for (const bytes of [changed, content.subarray(1), Buffer.concat([content, Buffer.from('+')]), Buffer.alloc(0)]) {
    fs.writeFileSync(file, bytes)
    fails(() => assemble(lines, kept), 'CORRUPT', 'file integrity checksum failed for "the file"')
  }
  fs.rmSync(file)
  fails(() => assemble(lines, kept), 'CORRUPT', 'file integrity checksum failed for "the file"')
})

test('hostile lines are CORRUPT', () => {
  const bad = [
    '[]', '7', 'null', '{', '{"type":3}', '{"type":"1"}', '{"type":2,"payload":"*"}', '{"type":2,"payload":"QQ"}', '{"type":2,"payload":"QUJ*"}',
    '{"type":2,"payload":5}', '{"type":1,"name":5}', '{"type":1,"name":"a","size":-1}', '{"type":1,"name":"a","size":1.5,"payload":"AAAAAAAAAAA="}',
    '{"type":1,"name":"a","size":1e300,"payload":"AAAAAAAAAAA="}', '{"type":1,"name":"a","size":"1","payload":"AAAAAAAAAAA="}',
    '{"type":1,"name":"a","size":1,"payload":null}', '{"type":1,"name":"a","size":1,"payload":"AAAA"}', '{"type":1,"name_raw":"***","size":0}', '',
  ]
  for (const line of bad) {
    fails(() => [...parseTarSplit([Buffer.from(`${line}\n`)])], 'CORRUPT', 'line 1')
    if (line !== '') fails(() => [...parseTarSplit([Buffer.from(line)])], 'CORRUPT', 'line 1')
  }
})

test('a file line as tar-split writes it says what JSON says, and one that is nearly so is read as JSON', () => {
  const sum = 'ABCDEFGHIJE='
  const read = (line: string): TarSplitEntry | undefined => new TarSplitReader().push(Buffer.from(`${line}\n`))[0]
  const line = (name: string, size: string, payload = `"${sum}"`, position = '3'): string => `{"type":1,"name":"${name}","size":${size},"payload":${payload},"position":${position}}`
  const entry = (name: string, sizeBytes: number): TarSplitEntry => ({ type: 'file', name: Buffer.from(name), sizeBytes, sum: Buffer.from(sum, 'base64') })
  for (const size of [1, 512, 4_294_967_296, 999_999_999_999_999, Number.MAX_SAFE_INTEGER]) assert.equal(read(line('usr/bin/a b', String(size))), entry('usr/bin/a b', size))
  assert.equal(read(line('\\u0061\\\\', '7')), entry('a\\', 7))
  assert.equal(read(line('\u00e4', '7')), entry('\u00e4', 7))
  assert.equal(read(line('a', '7').replace('}', ' }')), entry('a', 7))
  assert.equal(read(line('a', '7').replace('"position":3', '"position":3,"name":"b"')), entry('b', 7))
  assert.equal(read(line('a', '0')), { type: 'file', name: Buffer.from('a'), sizeBytes: 0 })
  for (const bad of [
    line('a', '07'), line('a', ''), line('a', '-7'), line('a', '7', `"${sum}"`, '03'), line('a', '7', `"${sum}"`, ''), line('a', '7', `"${sum}"`, '3x'), line('a', '7', '"ABCDEFGHIJ?="'),
    line('a', '7', '"ABCDEFGHIJ=="'), line('a', '7', '"ABCDEFGHIJEA"'), line('a', '7', 'null'), line('a\n', '7'), line('a', '9007199254740993'), `${line('a', '7')}}`, line('a', '7').slice(0, -1),
  ]) fails(() => { read(bad) }, 'CORRUPT', 'line 1')
})

test('any archive is rebuilt from any cut of its lines', t => {
  const name = fc.uint8Array({ minLength: 1, maxLength: 120 }).map(bytes => Buffer.from(bytes.map(byte => byte === 0 ? 0x61 : byte)))
  const entries = fc.uniqueArray(fc.tuple(name, fc.uint8Array({ maxLength: 2000 })), { maxLength: 8, selector: ([n]) => n.toString('latin1') })
  let run = 0
  fc.assert(fc.property(entries, fc.uint8Array({ maxLength: 3000 }), fc.integer({ min: 1, max: 4000 }), (list, trailer, cut) => {
    const tar = Buffer.concat([archive(list.map(([n, c]) => [header(n, c.length), Buffer.from(c)] as const)), trailer])
    const dir = path.join(t.dir, String(run++))
    fs.mkdirSync(dir)
    const kept = new Keep(dir)
    let lines: Buffer
    try {
      lines = pack(tar, kept, cut)
    } catch (error) {
      if (StorageError.is(error, 'INVALID_ARCHIVE') && error.message.startsWith('duplicates')) return
      throw error
    }
    assert.ok(lines.equals(pack(tar)))
    const pieces: Buffer[] = []
    for (let at = 0; at < lines.length; at += cut) pieces.push(lines.subarray(at, at + cut))
    const out: Buffer[] = []
    assembleTar(parseTarSplit(pieces), n => fs.openSync(kept.byName.get(n.toString('latin1'))!, 'r'), bytes => out.push(Buffer.from(bytes)))
    assert.ok(Buffer.concat(out).equals(tar))
    fs.rmSync(dir, { recursive: true })
  }), { numRuns: 60 })
})
test('a reader that measures finds the sizes that one that decodes finds', () => {
  const payloads = ['', 'YQ==', 'YWI=', 'YWJj', 'YWJjZA==', 'YQ\\u003d\\u003d', '\\/\\/8=']
  const lines = Buffer.from(payloads.map((payload, i) => `{"type":2,"payload":"${payload}","position":${i}}\n`).join('')
    + '{"type":2,"position":7}\n{"payload":"YWI=","type":2,"position":8}\n{"type":1,"name":"f","size":3,"payload":"AAAAAAAAAAA=","position":9}\n')
  const decoded = new TarSplitReader().push(lines)
  assert.equal(decoded.map(entry => entry.sizeBytes), [0, 1, 2, 3, 4, 1, 2, 0, 2, 3])
  assert.equal(decoded.flatMap(entry => entry.type === 'segment' ? [entry.bytes.length] : []), [0, 1, 2, 3, 4, 1, 2, 0, 2])
  assert.equal(new TarSplitReader({ measuring: true }).push(lines).map(entry => entry.sizeBytes), decoded.map(entry => entry.sizeBytes))
  for (const damaged of ['YQ=', 'Y?==', 'YQ==","position":01']) {
    fails(() => { new TarSplitReader().push(Buffer.from(`{"type":2,"payload":"${damaged}","position":0}\n`)) }, 'CORRUPT', 'line 1')
  }
})

