import { assert, suite } from '../../../fixtures/harness/index.ts'
import { fc } from '../../../fixtures/property.ts'
import { StorageError } from '../../errors.ts'
import { cleanupRequest, commitRequest, infoCodec, infosResponse, keyRequest, listRequest, makeRequest, mountCodec, mountsResponse, updateRequest, usageResponse } from './codec.ts'
import { Reader, readMessage, Writer } from '../../snapshots/index.ts'

const test = suite('containerd codec')

const text = fc.string({ unit: 'grapheme', maxLength: 40 })
const record: typeof fc.record = ((fields: object) => fc.record(fields as never, { noNullPrototype: true })) as never
const labels = fc.dictionary(text, text, { maxKeys: 5, noNullPrototype: true })
const ns = fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n })
const info = record({ name: text, parent: text, kind: fc.constantFrom('active' as const, 'view' as const, 'committed' as const), labels, createdNs: ns, updatedNs: ns })
  .map(({ parent, ...rest }) => ({ ...rest, ...(parent === '' ? {} : { parent }) }))
const mount = record({ type: text, source: text, target: text, options: fc.array(text) }).map(({ target, ...rest }) => ({ ...rest, ...(target === '' ? {} : { target }) }))

function roundTrip<T>(codec: { encode(message: T): Buffer; decode(bytes: Uint8Array): T }, arbitrary: fc.Arbitrary<T>): void {
  // Fields of other numbers in front and behind: a newer client's.
  const unknown = fc.array(fc.tuple(fc.integer({ min: 16, max: 2 ** 29 - 1 }), fc.uint8Array({ maxLength: 20 })), { maxLength: 3 })
  const noise = (fields: readonly (readonly [number, Uint8Array])[]): Buffer => {
    const writer = new Writer()
    for (const [number, value] of fields) writer.item(number & 0xfffffff, value)
    return writer.finish()
  }
  fc.assert(fc.property(arbitrary, unknown, unknown, (message, before, after) => {
    assert.equal(codec.decode(Buffer.concat([noise(before), codec.encode(message), noise(after)])), message)
  }), { numRuns: 150 })
}

test('every message survives a round trip, with unknown fields around it', () => {
  const make = record({ snapshotter: text, key: text, parent: text, labels })
  roundTrip(infoCodec, info)
  roundTrip(mountCodec, mount)
  roundTrip(makeRequest, make)
  roundTrip(keyRequest, record({ snapshotter: text, key: text }))
  roundTrip(commitRequest, record({ snapshotter: text, name: text, key: text, labels, parent: text }))
  roundTrip(updateRequest, record({ snapshotter: text, name: text, labels, fieldPaths: fc.array(text) }))
  roundTrip(listRequest, record({ snapshotter: text, filters: fc.array(text) }))
  roundTrip(cleanupRequest, record({ snapshotter: text }))
  roundTrip(mountsResponse, fc.array(mount))
  roundTrip(infosResponse, fc.array(info))
  roundTrip(usageResponse, record({ sizeBytes: fc.maxSafeNat(), inodes: fc.maxSafeNat() }))
})

test('integers as protobuf writes them', () => {
  const all: [bigint, string][] = [
    [1n, '0801'], [127n, '087f'], [128n, '088001'], [300n, '08ac02'], [-1n, '08ffffffffffffffffff01'], [2n ** 63n - 1n, '08ffffffffffffffff7f'], [-(2n ** 63n), '0880808080808080808001'],
    [2n ** 49n, '088080808080808001'],
  ]
  for (const [value, hex] of all) {
    assert.is(new Writer().varint(1, value).finish().toString('hex'), hex)
    readMessage(Buffer.from(hex, 'hex'), { 1: { type: 0, read: reader => assert.is(reader.int64(), value) } })
  }
})

test('the bytes of containerd\'s own code', () => {
  // Printed by TestGolden of fixtures/containerd/harness_test.go (containerd 1.6.20's gogo-generated messages).
  const info = {
    name: 'default/1/c', parent: 'default/2/p', kind: 'committed' as const, createdNs: 1_795_304_863_783_528_407n, updatedNs: -999_999_995n,
    labels: { 'containerd.io/gc.root': 'now' },
  }
  const view = { name: 'v', kind: 'view' as const, labels: {}, createdNs: info.createdNs, updatedNs: info.createdNs }
  const snapshotter = 'layerstack'
  const hex = (bytes: Buffer): string => bytes.toString('hex')
  const same = <T>(codec: { encode(message: T): Buffer; decode(bytes: Uint8Array): T }, message: T, golden: string): void => {
    assert.is(hex(codec.encode(message)), golden)
    assert.equal(codec.decode(Buffer.from(golden, 'hex')), message)
  }
  same(makeRequest, { snapshotter, key: 'k', parent: 'p', labels: { a: 'b' } }, '0a0a6c61796572737461636b12016b1a017022060a0161120162')
  same(keyRequest, { snapshotter, key: 'default/1/k' }, '0a0a6c61796572737461636b120b64656661756c742f312f6b')
  same(listRequest, { snapshotter, filters: ['kind==active', ''] }, '0a0a6c61796572737461636b120c6b696e643d3d6163746976651200')
  same(usageResponse, { sizeBytes: 2 ** 40, inodes: 300 }, '0880808080802010ac02')
  same(mountsResponse, [{ type: 'overlay', source: 'overlay', options: ['index=off', 'lowerdir=/a:/b'] }, { type: 'bind', source: '/x', options: ['rbind', 'ro'] }],
    '0a2d0a076f7665726c617912076f7665726c61792209696e6465783d6f6666220e6c6f7765726469723d2f613a2f620a150a0462696e6412022f7822057262696e642202726f')
  const one = '0a570a0b64656661756c742f312f63120b64656661756c742f322f701803220c089fdb88d80610d7e3cef5022a0d08ffffffffffffffffff011005321c0a15636f6e7461696e6572642e696f2f67632e726f6f7412036e6f77'
  same(infosResponse, [info], one)
  same(infosResponse, [info, view], `${one}0a210a01761801220c089fdb88d80610d7e3cef5022a0c089fdb88d80610d7e3cef502`)
  // Go writes a map's empty value and all of the info; both read the same.
  assert.equal(commitRequest.decode(Buffer.from('0a0a6c61796572737461636b12016e1a016b22090a05656d7074791200', 'hex')), { snapshotter, name: 'n', key: 'k', labels: { empty: '' }, parent: '' })
  assert.equal(updateRequest.decode(Buffer.from('0a0a6c61796572737461636b1257' + one.slice(4) + '1a120a086c6162656c732e780a066c6162656c73', 'hex')),
    { snapshotter, name: info.name, labels: info.labels, fieldPaths: ['labels.x', 'labels'] })
})

test('hostile bytes are refused, never followed', () => {
  const refused = (hex: string): void => {
    assert.throws(() => keyRequest.decode(Buffer.from(hex, 'hex')), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT'), hex)
  }
  for (const hex of [
    '12ffffffff0f', '12ffffffffffffffffff01', '1205616263', '12', '08', 'ff', 'ffffffffffffffffffff01', '0b', '0c', '0e', '02', '1202c328', '1203eda080', '09000000', '0d0000', '80808080800801',
  ]) refused(hex)
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
    for (const codec of [keyRequest, makeRequest, commitRequest, updateRequest, listRequest, infoCodec, mountsResponse, usageResponse]) {
      try {
        codec.decode(bytes)
      } catch (error) {
        assert.ok(StorageError.is(error, 'INVALID_ARGUMENT'), String(error))
      }
    }
  }), { numRuns: 2000 })
  assert.is(new Reader(Buffer.alloc(0)).tag(), 0)
  const decoded = makeRequest.decode(makeRequest.encode({ snapshotter: '', key: 'k', parent: '', labels: JSON.parse('{"__proto__":"x"}') as Record<string, string> }))
  assert.equal(Object.keys(decoded.labels), ['__proto__'])
})
