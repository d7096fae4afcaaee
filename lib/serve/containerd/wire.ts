// Protocol buffers by hand: the wire types that the snapshot service needs, read and written. Refuses what is not well formed; owns no message.

import { StorageError } from '../../errors.ts'

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

  /** The next field's number and type, or undefined at the end. @throws INVALID_ARGUMENT */
  field(): { readonly number: number; readonly type: WireType } | undefined {
    if (this.#at >= this.#bytes.length) return undefined
    const tag = this.uint64()
    const number = Number(tag >> 3n), type = Number(tag & 7n)
    if (tag > 0xffffffffn || number === 0) throw malformed(`field tag ${tag}`)
    if (type !== 0 && type !== 1 && type !== 2 && type !== 5) throw malformed(`wire type ${type} of field ${number}`)
    return { number, type }
  }

  /** A varint of up to ten bytes; bits beyond 64 are dropped, as the specification says. */
  uint64(): bigint {
    // Seven bytes are 49 bits, exact in a number: nearly all that come are that short.
    let low = 0
    for (let i = 0, scale = 1; i < 7; i++, scale *= 128) {
      const byte = this.#byte()
      low += (byte & 0x7f) * scale
      if (byte < 0x80) return BigInt(low)
    }
    let value = BigInt(low)
    for (let shift = 49n; shift < 70n; shift += 7n) {
      const byte = this.#byte()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asUintN(64, value)
    }
    throw malformed('a varint of more than ten bytes')
  }

  int64(): bigint { return BigInt.asIntN(64, this.uint64()) }

  int32(): number { return Number(BigInt.asIntN(32, this.uint64())) }

  bytes(): Buffer {
    const length = this.uint64()
    if (length > BigInt(this.#bytes.length - this.#at)) throw malformed(`a length of ${length} where ${this.#bytes.length - this.#at} bytes are left`)
    return this.#bytes.subarray(this.#at, this.#at += Number(length))
  }

  /** @throws INVALID_ARGUMENT for bytes that are not UTF-8 (proto3) */
  string(): string {
    const bytes = this.bytes()
    try {
      return utf8.decode(bytes)
    } catch {
      throw malformed('a string that is not UTF-8')
    }
  }

  /** Pass over a field that nobody here knows. */
  skip(type: WireType): void {
    if (type === 0) this.uint64()
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

/** Read a message: `fields[number]` is called with the reader for each field of the given wire type, others are passed over. */
export function readMessage(bytes: Uint8Array, fields: Readonly<Record<number, { readonly type: WireType; readonly read: (reader: Reader) => void }>>): void {
  const reader = new Reader(bytes)
  for (let field = reader.field(); field !== undefined; field = reader.field()) {
    const known = fields[field.number]
    // A known number with another wire type is an unknown field (protobuf encoding.md).
    if (known?.type === field.type) known.read(reader)
    else reader.skip(field.type)
  }
}

/** Collects a message's bytes. Fields that have proto3's default value are left out. */
export class Writer {
  readonly #parts: Buffer[] = []
  #length = 0

  varint(number: number, value: bigint | number): this {
    if (value === 0 || value === 0n) return this
    return this.#add(Buffer.concat([varintBytes(number << 3), varintBytes(value)]))
  }

  string(number: number, value: string): this {
    return value === '' ? this : this.item(number, Buffer.from(value))
  }

  /** A length-delimited field, written even when it is empty: one of a repeated field, or a message that is there. */
  item(number: number, value: Uint8Array): this {
    this.#add(varintBytes(number << 3 | 2))
    this.#add(varintBytes(value.byteLength))
    return this.#add(value as Buffer)
  }

  finish(): Buffer { return Buffer.concat(this.#parts, this.#length) }

  #add(part: Buffer): this {
    this.#parts.push(part)
    this.#length += part.length
    return this
  }
}

function varintBytes(value: bigint | number): Buffer {
  if (typeof value === 'number' && value >= 0 && value < 0x80) return oneByte[value] as Buffer
  // Negative numbers are ten bytes of their two's complement.
  let rest = BigInt.asUintN(64, BigInt(value))
  const bytes: number[] = []
  while (rest > 0x7fn) { bytes.push(Number(rest & 0x7fn) | 0x80); rest >>= 7n }
  bytes.push(Number(rest))
  return Buffer.from(bytes)
}
const oneByte = Array.from({ length: 128 }, (_, i) => Buffer.from([i]))
