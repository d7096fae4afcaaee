// Records round trip as bytes; times in every odd form; malformed ones are refused.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { decodeHeader, encodeHeader } from './header.ts'
import { applyPax, encodePax, formatPaxTime, parsePax, parsePaxTime, xattrRecord } from './pax.ts'
import type { TarHeader } from './types.ts'

const test = suite('tar/pax')
const invalid = (error: unknown): boolean => StorageError.is(error, 'INVALID_ARCHIVE')
const record = (text: string): Buffer => encodePax(new Map([[text.slice(0, text.indexOf('=')), Buffer.from(text.slice(text.indexOf('=') + 1))]]))

function applied(records: Record<string, string | Buffer>, typeflag = 0x30): TarHeader {
  const header = decodeHeader(encodeHeader({ typeflag, name: Buffer.from('old'), linkname: Buffer.from('target'), uid: 7 }), 0)
  applyPax(header, parsePax(encodePax(new Map(Object.entries(records).map(([key, value]) => [key, Buffer.from(value as string)])))))
  return header
}

test('parse turns encode around', () => {
  const key = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).map(text => `K${text.replace(/[=\0]/g, '_')}`)
  fc.assert(fc.property(fc.array(fc.tuple(key, fc.uint8Array({ maxLength: 1100 }))), list => {
    const records = new Map(list.map(([k, v]) => [k, Buffer.from(v)]))
    const parsed = parsePax(encodePax(records))
    assert.is(parsed.size, records.size)
    for (const [k, v] of records) assert.ok(parsed.get(k)?.equals(v), k)
  }))
})

test('a length that counts its own digits', () => {
  for (let size = 0; size < 1100; size++) {
    const body = encodePax(new Map([['a', Buffer.alloc(size, 'x')]]))
    assert.is(Number(body.toString('latin1', 0, body.indexOf(' '))), body.length)
  }
})

test('times', () => {
  const cases: [string, bigint][] = [
    ['0', 0n], ['1.5', 1_500_000_000n], ['-1.5', -1_500_000_000n], ['-0.5', -500_000_000n], ['1.', 1_000_000_000n], ['2208988800.123456789999', 2208988800123456789n],
    ['1.000000001', 1_000_000_001n], ['9223372036854775807', 9223372036854775807000000000n],
  ]
  for (const [text, ns] of cases) assert.is(parsePaxTime(Buffer.from(text)), ns, text)
  for (const text of ['', '.', '.5', '1e5', '1.2.3', '0x1', '1,5', 'x', '1.-5', '99999999999999999999']) {
    assert.throws(() => parsePaxTime(Buffer.from(text)), invalid, text)
  }
  fc.assert(fc.property(fc.bigInt({ min: -(2n ** 90n), max: 2n ** 90n }), ns => assert.is(parsePaxTime(Buffer.from(formatPaxTime(ns))), ns)))
})

test('records override the header, empty ones do not', () => {
  const header = applied({ path: Buffer.from([0x61, 0xff]), uid: '3000000', mtime: '-0.5', uname: 'jörg', size: '99', gid: '', linkpath: 'not for files' })
  assert.equal([...header.name], [0x61, 0xff])
  assert.equal([header.uid, header.gid, header.mtimeNs, header.uname, header.sizeBytes], [3000000, 0, -500_000_000n, 'jörg', 99])
  assert.is(header.linkname.length, 0)
  assert.is(applied({ size: '99' }, 0x31).sizeBytes, 0)
})

test('extended attributes keep their bytes', () => {
  const value = Buffer.from([0, 1, 0xff, 0x0a, 0x3d, 0x00])
  const header = applied({
    'SCHILY.xattr.security.capability': value, 'SCHILY.xattr.user.empty': '', 'LIBARCHIVE.xattr.user.a%3Db': value.toString('base64').replace(/=+$/, ''),
    'LIBARCHIVE.xattr.security.capability': 'AAAA',
  })
  assert.ok(header.xattrs?.get('security.capability')?.equals(value))
  assert.ok(header.xattrs?.get('user.a=b')?.equals(value))
  assert.is(header.xattrs?.get('user.empty')?.length, 0)
  for (const name of ['user.plain', 'user.a=b', 'user.100%=', 'user.ü=']) {
    assert.ok(applied(Object.fromEntries([xattrRecord(name, value)])).xattrs?.get(name)?.equals(value), name)
  }
})

test('malformed records are INVALID_ARCHIVE', () => {
  for (const text of ['5 a=\n6', '6 a=b', '99 a=b\n', '6 a b\n', 'a=b\n', ' 6 a=b\n', '-6 a=b\n', '06a=b\n', '4 =\n', '12345678901 a=b\n', '5 a=\n\0\0\0']) {
    assert.throws(() => parsePax(Buffer.from(text)), invalid, JSON.stringify(text))
  }
  for (const text of ['path=a\0b', 'linkpath=\0', 'uname=\0', 'k\0=v']) assert.throws(() => parsePax(record(text)), invalid, JSON.stringify(text))
  for (const text of ['uid=-1', 'uid=4294967296', 'gid=x', 'size=-5', 'size=1e3', 'size=99999999999999999999', 'mtime=soon', 'LIBARCHIVE.xattr.user.a=**']) {
    assert.throws(() => applied({ [text.slice(0, text.indexOf('='))]: text.slice(text.indexOf('=') + 1) }), invalid, text)
  }
})
