// Against the textbook definition, bit by bit, at lengths around every boundary of the fast paths.

import crypto from 'node:crypto'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { Crc64 } from './crc64.ts'

const test = suite('tar/crc64')

function textbook(bytes: Buffer): string {
  let crc = 0xffff_ffff_ffff_ffffn
  for (const byte of bytes) {
    crc ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800_0000_0000_0000n : crc >> 1n
  }
  return (crc ^ 0xffff_ffff_ffff_ffffn).toString(16).padStart(16, '0')
}

function sum(...parts: Buffer[]): string {
  const crc = new Crc64()
  for (const part of parts) crc.update(part)
  return crc.digest().toString('hex')
}

test('the check value', () => {
  assert.is(sum(Buffer.from('123456789')), 'b90956c775a41001')
  assert.is(sum(), '0000000000000000')
})

test('any length, in one piece and in two', () => {
  for (const size of [1, 7, 8, 9, 31, 32, 33, 255, 256, 257, 287, 288, 1000, 65535, 65536, 65537, 65568, 70001]) {
    const bytes = crypto.randomBytes(size)
    const expected = textbook(bytes)
    assert.is(sum(bytes), expected, String(size))
    const cut = crypto.randomInt(size)
    assert.is(sum(bytes.subarray(0, cut), bytes.subarray(cut)), expected, `${cut} of ${size}`)
  }
})

test('sums that run at the same time do not meet; reset begins anew', () => {
  const [a, b] = [new Crc64(), new Crc64()]
  const bytes = crypto.randomBytes(3000)
  for (let at = 0; at < bytes.length; at += 500) {
    a.update(bytes.subarray(at, at + 500))
    b.update(bytes.subarray(at, at + 250))
  }
  assert.is(a.digest().toString('hex'), textbook(bytes))
  b.reset()
  b.update(bytes)
  assert.ok(b.digest().equals(a.digest()))
})
