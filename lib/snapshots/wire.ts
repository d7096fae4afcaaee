// Protocol buffers by hand: the wire types that the catalogue and the snapshot service need, read and written. Refuses what is not well formed;
// owns no message.

import { StorageError } from '../errors.ts'

/** Varint, 64-bit, length-delimited, 32-bit (protobuf encoding.md). Groups (3, 4) are long gone and refused. */
export type WireType = 0 | 1 | 2 | 5

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function malformed(what: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `malformed message: ${what}`, { op: 'decode' })
}

/** Reads one message's fields, in whatever order they come. A length that reaches beyond the message is refused before anything is allocated. */
export class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Uint8Array) { this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) }

  /** The next field's number times 8 plus its type, or 0 at the end. @throws INVALID_ARGUMENT */
  tag(): number {
    if (this.#at >= this.#bytes.length) return 0
    const tag = Number(this.#uint())
    const type = tag & 7
    if (tag > 0xffffffff || tag < 8) throw malformed(`field tag ${tag}`)
    if (type !== 0 && type !== 1 && type !== 2 && type !== 5) throw malformed(`wire type ${type} of field ${Math.floor(tag / 8)}`)
    return tag
  }

  /** A varint of up to ten bytes; bits beyond 64 are dropped, as the specification says. A number where it is exact. */
  #uint(): number | bigint {
    // Seven bytes are 49 bits: nearly all that come are that short.
    let low = 0
    for (let i = 0, scale = 1; i < 7; i++, scale *= 128) {
      const byte = this.#byte()
      low += (byte & 0x7f) * scale
      if (byte < 0x80) return low
    }
    let value = BigInt(low)
    for (let shift = 49n; shift < 70n; shift += 7n) {
      const byte = this.#byte()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asUintN(64, value)
    }
    throw malformed('a varint of more than ten bytes')
  }

  int64(): bigint { return BigInt.asIntN(64, BigInt(this.#uint())) }

  int32(): number { return Number(BigInt.asIntN(32, BigInt(this.#uint()))) }

  bytes(): Buffer {
    const length = this.#uint()
    if (length > this.#bytes.length - this.#at) throw malformed(`a length of ${length} where ${this.#bytes.length - this.#at} bytes are left`)
    return this.#bytes.subarray(this.#at, this.#at += Number(length))
  }

  /** @throws INVALID_ARGUMENT for bytes that are not UTF-8 (proto3) */
  string(): string {
    const bytes = this.bytes()
    // A quarter of the decoder's time for the short ASCII names that nearly all are.
    if (bytes.length <= 64) {
      let text = ''
      for (let i = 0; i < bytes.length; i++) {
        const byte = bytes[i] as number
        if (byte > 0x7f) return decode(bytes)
        text += String.fromCharCode(byte)
      }
      return text
    }
    return decode(bytes)
  }

  /** Pass over a field that nobody here knows. */
  skip(type: WireType): void {
    if (type === 0) this.#uint()
    else if (type === 2) this.bytes()
    else {
      this.#at += type === 1 ? 8 : 4
      if (this.#at > this.#bytes.length) throw malformed('it ends within a field')
    }
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw malformed('it ends within a varint')
    return byte
  }
}

function decode(bytes: Buffer): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw malformed('a string that is not UTF-8')
  }
}

export interface FieldReader {
  readonly type: WireType
  read(reader: Reader): void
}

/** Read a message: `fields[number]` is called with the reader for each field of the given wire type, others are passed over. */
export function readMessage(bytes: Uint8Array, fields: Readonly<Record<number, FieldReader>>): void {
  const reader = new Reader(bytes)
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    const type = (tag & 7) as WireType
    const known = fields[Math.floor(tag / 8)]
    // A known number with another wire type is an unknown field (protobuf encoding.md).
    if (known?.type === type) known.read(reader)
    else reader.skip(type)
  }
}

/**
 * Collects a message's bytes in one growing buffer; embedded messages are written in place and their lengths afterwards. Fields that have
 * proto3's default value are left out.
 */
export class Writer {
  #bytes = Buffer.allocUnsafe(512)
  #at = 0

  varint(number: number, value: bigint | number): this {
    if (value !== 0 && value !== 0n) {
      this.#uint(number * 8)
      this.#uint(value)
    }
    return this
  }

  string(number: number, value: string): this {
    return value === '' ? this : this.text(number, value)
  }

  /** A string that is written even when it is empty: one of a repeated field. */
  text(number: number, value: string): this {
    this.#uint(number * 8 + 2)
    const length = Buffer.byteLength(value)
    this.#uint(length)
    this.#room(length)
    this.#bytes.write(value, this.#at)
    this.#at += length
    return this
  }

  /** Bytes of a message that is encoded already. */
  item(number: number, value: Uint8Array): this {
    this.#uint(number * 8 + 2)
    this.#uint(value.byteLength)
    return this.raw(value)
  }

  /** An embedded message, written even when it is empty. */
  message(number: number, write: (writer: this) => void): this {
    this.#uint(number * 8 + 2)
    this.#room(10)
    const start = ++this.#at
    write(this)
    const length = this.#at - start
    if (length < 0x80) this.#bytes[start - 1] = length
    else {
      // The length needs more than the one byte that was left for it.
      const size = varintSize(length)
      this.#room(size)
      this.#bytes.copyWithin(start + size - 1, start, this.#at)
      this.#at = start - 1
      this.#uint(length)
      this.#at += length
    }
    return this
  }

  /** Bytes as they are. */
  raw(value: Uint8Array): this {
    this.#room(value.byteLength)
    this.#bytes.set(value, this.#at)
    this.#at += value.byteLength
    return this
  }

  get length(): number { return this.#at }

  finish(): Buffer { return this.#bytes.subarray(0, this.#at) }

  #uint(value: bigint | number): void {
    this.#room(10)
    if (typeof value === 'number' && value >= 0 && value <= 0x7fffffff) {
      let rest = value
      for (; rest > 0x7f; rest >>>= 7) this.#bytes[this.#at++] = rest & 0x7f | 0x80
      this.#bytes[this.#at++] = rest
      return
    }
    // Negative numbers are ten bytes of their two's complement.
    let rest = BigInt.asUintN(64, BigInt(value))
    for (; rest > 0x7fn; rest >>= 7n) this.#bytes[this.#at++] = Number(rest & 0x7fn) | 0x80
    this.#bytes[this.#at++] = Number(rest)
  }

  #room(more: number): void {
    if (this.#at + more <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + more))
    larger.set(this.#bytes.subarray(0, this.#at))
    this.#bytes = larger
  }
}

function varintSize(value: number): number {
  let size = 1
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 128)) size++
  return size
}
