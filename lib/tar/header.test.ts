// Blocks by hand for the odd forms, properties for the round trip.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { checksumMatches, decodeHeader, encodeHeader, isZeroBlock, parseNumber } from './header.ts'

const test = suite('tar/header')
const view = (block: Buffer): DataView => new DataView(block.buffer, block.byteOffset, block.length)

function field(text: string | number[], length = 12): Buffer {
  const bytes = Buffer.alloc(length)
  Buffer.from(text as string, 'latin1').copy(bytes)
  return bytes
}

test('octal fields as they occur', () => {
  const cases: [string, number | undefined][] = [
    ['00000000017\0', 15], ['         17 ', 15], ['17 \0', 15], ['17\0 ', 15], ['\0 17', 15], ['17', 15], ['', 0], ['            ', 0],
    ['777777777777', 0o777777777777], ['8', undefined], ['-1', undefined], ['1 7', undefined], ['0x1', undefined], ['17\0garbage', 15],
  ]
  for (const [text, value] of cases) assert.is(parseNumber(field(text), 0, 12), value, JSON.stringify(text))
})

test('base-256 fields, negative ones too', () => {
  const cases: [number[], number | bigint | undefined][] = [
    [[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 1],
    [[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], 2 ** 33],
    [[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], -1],
    [[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0x7fff_ffff_ffff_ffffn],
    [[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], undefined],
    [[0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], -0x8000_0000_0000_0000n],
    [[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0], undefined],
  ]
  for (const [bytes, value] of cases) assert.is(parseNumber(field(bytes), 0, 12), value, String(bytes))
})

test('decode turns encode around', () => {
  const ascii = (maxLength: number): fc.Arbitrary<string> => fc.string({ unit: fc.integer({ min: 1, max: 126 }).map(c => String.fromCharCode(c)), maxLength })
  const name = (maxLength: number): fc.Arbitrary<Buffer> =>
    fc.uint8Array({ maxLength }).map(bytes => Buffer.from(bytes.map(byte => byte === 0 ? 1 : byte)))
  fc.assert(fc.property(fc.record({
    name: name(100), prefix: name(155), linkname: name(100), mode: fc.nat(0o7777), uid: fc.nat(0xffffffff), gid: fc.nat(0xffffffff),
    mtimeSeconds: fc.maxSafeInteger(), uname: ascii(32), gname: ascii(32), devMajor: fc.nat(0xffffffff), devMinor: fc.nat(0xffffffff),
  }), fc.constantFrom(['file', 0x30], ['link', 0x31], ['symlink', 0x32], ['char', 0x33], ['block', 0x34], ['directory', 0x35], ['fifo', 0x36]),
  fc.nat(Number.MAX_SAFE_INTEGER), fc.nat(7), (fields, [type, typeflag], sizeBytes, shift) => {
    const encoded = encodeHeader({ ...fields, typeflag: typeflag as number, sizeBytes })
    // At any alignment: chunks come as they come.
    const block = Buffer.concat([Buffer.alloc(shift), encoded])
    assert.ok(checksumMatches(block, view(block), shift))
    const header = decodeHeader(block, shift)
    const link = type === 'link' || type === 'symlink'
    const device = type === 'char' || type === 'block'
    assert.equal({ ...header, name: header.name.toString('latin1'), linkname: header.linkname.toString('latin1') }, {
      name: (fields.prefix.length > 0 ? Buffer.concat([fields.prefix, Buffer.from('/'), fields.name]) : fields.name).toString('latin1'),
      linkname: link ? fields.linkname.toString('latin1') : '', type, mode: fields.mode, uid: fields.uid, gid: fields.gid,
      sizeBytes: type === 'file' ? sizeBytes : 0, mtimeNs: BigInt(fields.mtimeSeconds) * 1_000_000_000n, uname: fields.uname, gname: fields.gname,
      devMajor: device ? fields.devMajor : 0, devMinor: device ? fields.devMinor : 0,
    })
  }))
})

test('a checksum over signed bytes is accepted, a wrong one is not', () => {
  const block = encodeHeader({ typeflag: 0x30, name: Buffer.from([0xe4, 0xf6, 0x61]) })
  let signed = 256
  for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) signed += block.readInt8(i)
  block.write(`${signed.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  assert.ok(checksumMatches(block, view(block), 0))
  block[0]! ^= 1
  assert.not.ok(checksumMatches(block, view(block), 0))
  assert.ok(isZeroBlock(view(Buffer.alloc(512)), 0))
})

test('what cannot be meant is INVALID_ARCHIVE', () => {
  const good = { typeflag: 0x30, name: Buffer.from('a') }
  const refused = (change: (block: Buffer) => void, fields = good): void => {
    const block = encodeHeader(fields)
    change(block)
    assert.throws(() => decodeHeader(block, 0), (error: unknown) => StorageError.is(error, 'INVALID_ARCHIVE'))
  }
  refused(block => { block[156] = 0x51 })
  refused(block => block.write('99999999999', 124))
  refused(block => Buffer.alloc(12, 0xff).copy(block, 124))
  refused(block => Buffer.alloc(8, 0xff).copy(block, 329), { ...good, typeflag: 0x33 })
  refused(block => Buffer.from([0x80, 0, 0, 1, 0, 0, 0, 0]).copy(block, 337), { ...good, typeflag: 0x34 })
})

test('GNU times are read, and the prefix that old Go wrote in their place', () => {
  const block = encodeHeader({ typeflag: 0x30, name: Buffer.from('a'), format: 'gnu' })
  block.write('00000000007\0', 345)
  block.write('00000000011\0', 357)
  assert.equal([decodeHeader(block, 0).atimeNs, decodeHeader(block, 0).ctimeNs], [7_000_000_000n, 9_000_000_000n])
  block.write('some/prefix/that/is/no/number', 345)
  assert.is(decodeHeader(block, 0).name.toString(), 'some/prefix/that/is/no/number/a')
})
