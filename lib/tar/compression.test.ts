// Every format in pieces of every size, truncated at every place, followed by more of itself, by zeros and by junk.

import { execFileSync, spawnSync } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { setImmediate } from 'node:timers/promises'
import zlib from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { compress, decompress, detectCompression, type DecompressOptions } from './compression.ts'
import { gunzip } from './gunzip.ts'
import { readTar } from './read-tar.ts'
import { TarWriter } from './writer.ts'

const test = suite('tar/compression')
const needs = (program: string): string | false => spawnSync(program, ['--version']).status === 0 ? false : `needs ${program}`
const programs = { gzip: needs('gzip'), zstd: needs('zstd'), xz: needs('xz'), bzip2: needs('bzip2') }
type Format = keyof typeof programs

function* pieces(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** gzip both ways, by streams and on this thread: they must agree. */
async function all(bytes: Buffer, size = 64 * 1024, options?: DecompressOptions): Promise<Buffer> {
  const out: Buffer[] = []
  let failure: unknown
  try {
    for await (const chunk of decompress(pieces(bytes, size), options)) out.push(Buffer.from(chunk))
  } catch (error) {
    failure = error
  }
  if (detectCompression(bytes) === 'gzip') {
    const read = (): Buffer => Buffer.concat([...gunzip(pieces(bytes, size), options)])
    if (failure === undefined) assert.ok(read().equals(Buffer.concat(out)), 'inflated on this thread')
    else assert.throws(read, (error: unknown) => StorageError.is(error, (failure as StorageError).code) && error.message === (failure as StorageError).message)
  }
  if (failure !== undefined) throw failure
  return Buffer.concat(out)
}

async function fails(run: Promise<unknown>, code: string): Promise<void> {
  try {
    await run
  } catch (error) {
    if (!StorageError.is(error)) throw error
    assert.is(error.code, code, error.message)
    return
  }
  assert.unreachable(`expected ${code}`)
}

const pack = (format: Format, bytes: Buffer): Buffer => execFileSync(format, ['-c'], { input: bytes, maxBuffer: 2 ** 28 })
const small = Buffer.from('layers, '.repeat(500))
const mixed = Buffer.concat([Buffer.alloc(300_000), crypto.randomBytes(700_000), Buffer.from('abc'.repeat(100_000)), Buffer.alloc(1_000_000, 'z')])

for (const [format, skip] of Object.entries(programs) as [Format, string | false][]) {
  test(`${format}: whole, in pieces`, { skip }, async () => {
    for (const content of [Buffer.alloc(0), Buffer.from('x'), small, mixed]) {
      const packed = pack(format, content)
      assert.is(detectCompression(packed), format)
      for (const size of content === mixed ? [1000, 2 ** 30] : [1, 7, 2 ** 30]) assert.ok((await all(packed, size)).equals(content), `${content.length} in ${size}`)
    }
  })

  test(`${format}: truncated anywhere is INVALID_ARCHIVE`, { skip }, async () => {
    const packed = pack(format, small)
    for (let length = 12; length < packed.length; length++) await fails(all(packed.subarray(0, length)), 'INVALID_ARCHIVE')
  })

  test(`${format}: damaged is INVALID_ARCHIVE`, { skip }, async () => {
    const packed = pack(format, mixed)
    for (const at of [packed.length >> 1, packed.length - 6]) {
      const copy = Buffer.from(packed)
      copy.fill(0x55, at, at + 4)
      await fails(all(copy), 'INVALID_ARCHIVE')
    }
  })

  test(`${format}: members one after the other are one; junk behind them is an error`, { skip }, async () => {
    const packed = pack(format, small)
    const twice = Buffer.concat([packed, packed])
    for (const size of [1, packed.length, packed.length + 1, 2 ** 20]) assert.ok((await all(twice, size)).equals(Buffer.concat([small, small])), `in ${size}`)
    for (const size of [1, packed.length, 2 ** 20]) await fails(all(Buffer.concat([packed, Buffer.from('junk behind')]), size), 'INVALID_ARCHIVE')
    if (format === 'gzip' || format === 'bzip2') {
      for (const size of [1, packed.length, 2 ** 20]) assert.ok((await all(Buffer.concat([packed, Buffer.alloc(600)]), size)).equals(small))
    }
  })
}

test('plain data passes as it is', async () => {
  for (const text of ['', 'B', 'BZh9 is a file name', 'plain', '\x1f\x8b']) assert.is((await all(Buffer.from(text, 'latin1'), 1)).toString('latin1'), text)
})

test('skippable zstd frames', { skip: programs.zstd }, async () => {
  const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
  assert.ok((await all(Buffer.concat([skippable, pack('zstd', small), skippable]))).equals(small))
})

test('limits', async () => {
  const bomb = zlib.gzipSync(Buffer.alloc(50_000_000))
  await fails(all(bomb, 65536, { maxBytes: 1_000_000 }), 'LIMIT_EXCEEDED')
  await fails(all(bomb, 65536, { maxRatio: 200 }), 'LIMIT_EXCEEDED')
  assert.is((await all(bomb, 65536, { maxBytes: 50_000_000, maxRatio: 2000 })).length, 50_000_000)
})

test('the source is closed when the consumer leaves, and its errors pass through', async () => {
  const formats = (Object.keys(programs) as Format[]).filter(format => programs[format] === false)
  for (const packed of [mixed, ...formats.map(format => pack(format, mixed))]) {
    let closed = false
    async function* source(): AsyncGenerator<Buffer> {
      try {
        for (const piece of pieces(packed, 1000)) yield piece
      } finally {
        closed = true
      }
    }
    for await (const chunk of decompress(source())) if (chunk.length > 0) break
    for (let i = 0; i < 100 && !closed; i++) await setImmediate()
    assert.ok(closed, detectCompression(packed))
    const mine = new Error('mine')
    async function* broken(): AsyncGenerator<Buffer> {
      yield packed.subarray(0, 1000)
      throw mine
    }
    let seen: unknown
    try {
      for await (const chunk of decompress(broken())) assert.ok(chunk)
    } catch (error) {
      seen = error
    }
    assert.is(seen, mine, detectCompression(packed))
  }
})

test('gzip written here is deterministic and reads back', async () => {
  const write = async (): Promise<Buffer> => {
    const out: Buffer[] = []
    for await (const chunk of compress(pieces(mixed, 9999), 'gzip', { level: 1 })) out.push(chunk)
    return Buffer.concat(out)
  }
  const packed = await write()
  assert.ok(packed.equals(await write()))
  assert.ok(zlib.gunzipSync(packed).equals(mixed))
})

function archive(): Buffer {
  const out: Buffer[] = []
  const writer = new TarWriter(bytes => out.push(Buffer.from(bytes)))
  for (const [name, content] of [['first', mixed], ['second', small], ['empty', Buffer.alloc(0)], [`${'ü'.repeat(80)}`, small]] as const) {
    writer.entry({
      name: Buffer.from(name), type: 'file', mode: 0o644, uid: 0, gid: 0, sizeBytes: content.length, mtimeNs: 0n, linkname: Buffer.alloc(0), uname: '', gname: '',
      devMajor: 0, devMinor: 0,
    })
    if (content.length > 0) writer.data(content)
    writer.end()
  }
  writer.finish()
  return Buffer.concat(out)
}

test('readTar: entries, raw headers, bodies, from a path and from pieces', async t => {
  const file = path.join(t.dir, 'a.tar.gz')
  fs.writeFileSync(file, zlib.gzipSync(archive()))
  for (const source of [file, pieces(archive(), 777), fs.createReadStream(file)]) {
    const seen: [string, number, number][] = []
    for await (const { header, raw, body } of readTar(source)) {
      const parts: Buffer[] = []
      for await (const part of body) parts.push(Buffer.from(part))
      const content = Buffer.concat(parts)
      assert.ok(content.equals(header.sizeBytes === mixed.length ? mixed : header.sizeBytes === 0 ? Buffer.alloc(0) : small))
      seen.push([header.name.toString(), content.length, raw.length])
    }
    assert.equal(seen, [['first', mixed.length, 512], ['second', small.length, 512], ['empty', 0, 512], ['ü'.repeat(80), small.length, 1536]])
  }
})

test('readTar: bodies may be skipped, read in part, and not read late; the source closes on break', async () => {
  let closed = false
  async function* source(): AsyncGenerator<Buffer> {
    try {
      yield* pieces(archive(), 5000)
    } finally {
      closed = true
    }
  }
  const names: string[] = []
  let first: AsyncIterable<Buffer> | undefined
  for await (const { header, body } of readTar(source())) {
    names.push(header.name.toString())
    if (first === undefined) {
      first = body
      for await (const part of body) if (part.length > 0) break
    }
    if (names.length === 3) break
  }
  assert.equal(names, ['first', 'second', 'empty'])
  assert.ok(closed)
  let late: AsyncIterable<Buffer> | undefined
  let thrown: unknown
  for await (const { body } of readTar(pieces(archive(), 5000))) {
    if (late === undefined) late = body
    else {
      try {
        for await (const part of late) assert.unreachable(String(part.length))
      } catch (error) {
        thrown = error
      }
      break
    }
  }
  assert.instance(thrown, TypeError)
})

test('readTar: truncated, junk, missing', async t => {
  const drain = async (source: Iterable<Buffer> | string): Promise<void> => { for await (const entry of readTar(source)) assert.ok(entry.header) }
  await fails(drain(pieces(archive().subarray(0, 100_000), 1000)), 'INVALID_ARCHIVE')
  await fails(drain([Buffer.alloc(2048, 'junk')]), 'INVALID_ARCHIVE')
  await fails(drain(path.join(t.dir, 'missing')), 'NOT_FOUND')
})
