import fc from 'fast-check'
import { assert, suite } from '../../../fixtures/harness/index.ts'
import { StorageError } from '../../errors.ts'
import { encodeHeaders, HeaderDecoder, huffmanDecode } from './hpack.ts'

const test = suite('hpack')
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

test('the requests of RFC 7541, appendices C.3 and C.4: one table over three blocks, without and with Huffman', () => {
  for (const blocks of [
    ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', '8286 84be 5808 6e6f 2d63 6163 6865', '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65'],
    ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', '8286 84be 5886 a8eb 1064 9cbf', '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf'],
  ]) {
    const decoder = new HeaderDecoder()
    const [first, second, third] = blocks.map(block => Object.fromEntries(decoder.decode(hex(block))))
    assert.equal(first, { ':method': 'GET', ':scheme': 'http', ':path': '/', ':authority': 'www.example.com' })
    assert.equal(second, { ':method': 'GET', ':scheme': 'http', ':path': '/', ':authority': 'www.example.com', 'cache-control': 'no-cache' })
    assert.equal(third, { ':method': 'GET', ':scheme': 'https', ':path': '/index.html', ':authority': 'www.example.com', 'custom-key': 'custom-value' })
  }
})

test('entries leave the table when it is full (appendix C.5 with the default size), and when it is made smaller', () => {
  const decoder = new HeaderDecoder()
  decoder.decode(hex('4001 6101 31'))
  assert.equal([...decoder.decode(hex('be'))], [['a', '1']])
  // Size 0, then 4096 again: all entries are gone.
  decoder.decode(hex('20 3fe11f'))
  assert.throws(() => decoder.decode(hex('be')), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT'))
  // 40 entries of 32 + 101 bytes do not fit into 4096.
  for (let i = 0; i < 40; i++) decoder.decode(Buffer.concat([hex('40 01 62 64'), Buffer.alloc(100, 0x30 + i % 10)]))
  assert.equal([...decoder.decode(hex('be'))], [['b', '9'.repeat(100)]])
  assert.throws(() => decoder.decode(Buffer.from([0x80 | 61 + 31])), (error: unknown) => StorageError.is(error))
})

test('what we encode we decode', () => {
  const name = fc.stringMatching(/^[a-z-]{1,20}$/), value = fc.string({ maxLength: 300 }).filter(text => /^[\x20-\x7e]*$/.test(text))
  fc.assert(fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), fields => {
    assert.equal([...new HeaderDecoder().decode(encodeHeaders(fields))], [...new Map(fields)])
  }))
  assert.is(encodeHeaders([[':status', '200']]).toString('hex'), '88')
})

test('hostile blocks are refused', () => {
  for (const block of ['80', 'ff ffff ffff 7f', 'c0', '40 05 61', '00', '3f e2 1f', '41 ff ffff ff0f', '0f', '40 01 61 82 ff ff ff', '40 01 61 84 ff ff ff fc']) {
    assert.throws(() => new HeaderDecoder().decode(hex(block)), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT'), block)
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
    try { new HeaderDecoder().decode(bytes) } catch (error) { assert.ok(StorageError.is(error, 'INVALID_ARGUMENT'), String(error)) }
    try { huffmanDecode(bytes) } catch (error) { assert.ok(StorageError.is(error, 'INVALID_ARGUMENT'), String(error)) }
  }), { numRuns: 2000 })
})
