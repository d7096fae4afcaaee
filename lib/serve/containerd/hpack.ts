// HPACK (RFC 7541) as a server of few headers needs it: a full decoder, for clients compress as they like, and an encoder that uses no table.

import { StorageError } from '../../errors.ts'

/** Appendix A, index 1 to 61. */
const staticTable: readonly (readonly [string, string])[] = [
  [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'], [':path', '/index.html'], [':scheme', 'http'], [':scheme', 'https'],
  [':status', '200'], [':status', '204'], [':status', '206'], [':status', '304'], [':status', '400'], [':status', '404'], [':status', '500'],
  ['accept-charset', ''], ['accept-encoding', 'gzip, deflate'], ['accept-language', ''], ['accept-ranges', ''], ['accept', ''],
  ['access-control-allow-origin', ''], ['age', ''], ['allow', ''], ['authorization', ''], ['cache-control', ''], ['content-disposition', ''],
  ['content-encoding', ''], ['content-language', ''], ['content-length', ''], ['content-location', ''], ['content-range', ''], ['content-type', ''],
  ['cookie', ''], ['date', ''], ['etag', ''], ['expect', ''], ['expires', ''], ['from', ''], ['host', ''], ['if-match', ''], ['if-modified-since', ''],
  ['if-none-match', ''], ['if-range', ''], ['if-unmodified-since', ''], ['last-modified', ''], ['link', ''], ['location', ''], ['max-forwards', ''],
  ['proxy-authenticate', ''], ['proxy-authorization', ''], ['range', ''], ['referer', ''], ['refresh', ''], ['retry-after', ''], ['server', ''],
  ['set-cookie', ''], ['strict-transport-security', ''], ['transfer-encoding', ''], ['user-agent', ''], ['vary', ''], ['via', ''], ['www-authenticate', ''],
]

/** Appendix B as code lengths of the symbols 0 to 255; the code is canonical (by length, then by symbol), so that these say it all. EOS has 30 ones. */
const huffmanLengths = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
]

/** A binary tree in an array: node n has its children at 2n and 2n+1; 0 is nothing yet, a negative number the symbol -1-n. */
const huffmanTree = buildTree()

function buildTree(): Int16Array {
  const tree = new Int16Array(1024)
  let nodes = 1, code = 0, length = 0
  const symbols = huffmanLengths.map((bits, symbol) => ({ bits, symbol })).sort((a, b) => a.bits - b.bits || a.symbol - b.symbol)
  for (const { bits, symbol } of symbols) {
    code *= 2 ** (bits - length)
    length = bits
    let node = 0
    for (let bit = bits - 1; bit >= 0; bit--) {
      const at = 2 * node + (Math.floor(code / 2 ** bit) & 1)
      if (bit === 0) tree[at] = -1 - symbol
      else node = tree[at] || (tree[at] = nodes++)
    }
    code++
  }
  return tree
}

function wrong(what: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `malformed header block: ${what}`, { op: 'hpack' })
}

/** Section 5.2: padding is the beginning of EOS, ones, fewer than eight. */
export function huffmanDecode(bytes: Uint8Array): string {
  const out: number[] = []
  let node = 0, depth = 0, ones = true
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const one = byte >> bit & 1
      const next = huffmanTree[2 * node + one] ?? 0
      if (next === 0) throw wrong('a Huffman code that nobody has')
      if (next < 0) { out.push(-1 - next); node = 0; depth = 0; ones = true; continue }
      node = next
      depth++
      ones &&= one === 1
    }
  }
  if (depth > 7 || !ones) throw wrong('wrong Huffman padding')
  return Buffer.from(out).toString('latin1')
}

/** What a client may put into its table, SETTINGS_HEADER_TABLE_SIZE's default. */
const tableBytes = 4096

/** One per connection: the table lives as long. */
export class HeaderDecoder {
  readonly #table: (readonly [string, string])[] = []
  #size = 0
  #limit = tableBytes
  #bytes: Uint8Array = new Uint8Array()
  #at = 0

  /** The fields of one complete block, in order; a later field of the same name replaces the earlier. @throws INVALID_ARGUMENT: the connection is lost */
  decode(block: Uint8Array): Map<string, string> {
    this.#bytes = block
    this.#at = 0
    const fields = new Map<string, string>()
    while (this.#at < block.length) {
      const first = block[this.#at] as number
      if (first >= 0x80) {
        const [name, value] = this.#entry(this.#integer(7))
        fields.set(name, value)
      } else if (first >= 0x40) {
        const field = this.#literal(6)
        this.#insert(field)
        fields.set(field[0], field[1])
      } else if (first >= 0x20) {
        const limit = this.#integer(5)
        if (limit > tableBytes) throw wrong(`a table of ${limit} bytes`)
        this.#limit = limit
        this.#evict(0)
      } else {
        const [name, value] = this.#literal(4)
        fields.set(name, value)
      }
    }
    return fields
  }

  #literal(prefix: number): readonly [string, string] {
    const index = this.#integer(prefix)
    const name = index === 0 ? this.#string() : this.#entry(index)[0]
    return [name, this.#string()]
  }

  #entry(index: number): readonly [string, string] {
    const found = index <= staticTable.length ? staticTable[index - 1] : this.#table[index - staticTable.length - 1]
    if (found === undefined) throw wrong(`no entry ${index}`)
    return found
  }

  /** Section 4.1: an entry counts 32 bytes more than its text. */
  #insert(field: readonly [string, string]): void {
    const size = field[0].length + field[1].length + 32
    this.#evict(size)
    if (size > this.#limit) return
    this.#table.unshift(field)
    this.#size += size
  }

  #evict(room: number): void {
    while (this.#size + room > this.#limit) {
      const last = this.#table.pop()
      if (last === undefined) return
      this.#size -= last[0].length + last[1].length + 32
    }
  }

  /** Section 5.1. Nothing here is as long as a MiB. */
  #integer(prefix: number): number {
    const mask = 2 ** prefix - 1
    let value = this.#next() & mask
    if (value < mask) return value
    for (let shift = 0; ; shift += 7) {
      const byte = this.#next()
      value += (byte & 0x7f) * 2 ** shift
      if (value > 1 << 20) throw wrong('an integer that is too large')
      if (byte < 0x80) return value
    }
  }

  #string(): string {
    const huffman = ((this.#bytes[this.#at] ?? 0) & 0x80) !== 0
    const length = this.#integer(7)
    if (length > this.#bytes.length - this.#at) throw wrong('it ends within a string')
    const bytes = this.#bytes.subarray(this.#at, this.#at += length)
    return huffman ? huffmanDecode(bytes) : Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1')
  }

  #next(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw wrong('it ends within a field')
    return byte
  }
}

const staticNames = new Map(staticTable.map(([name], i) => [name, i + 1] as const).reverse())
const staticFields = new Map(staticTable.map(([name, value], i) => [`${name}\0${value}`, i + 1] as const))

/** A block of literals that no table remembers, in latin1. Lower-case names. */
export function encodeHeaders(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  const parts: Buffer[] = []
  for (const [name, value] of fields) {
    const whole = staticFields.get(`${name}\0${value}`)
    if (whole !== undefined) { parts.push(integer(7, whole, 0x80)); continue }
    const known = staticNames.get(name)
    parts.push(integer(4, known ?? 0, 0))
    if (known === undefined) parts.push(text(name))
    parts.push(text(value))
  }
  return Buffer.concat(parts)
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1')
  return Buffer.concat([integer(7, bytes.length, 0), bytes])
}

function integer(prefix: number, value: number, flags: number): Buffer {
  const mask = 2 ** prefix - 1
  if (value < mask) return Buffer.from([flags | value])
  const bytes = [flags | mask]
  let rest = value - mask
  for (; rest > 0x7f; rest >>= 7) bytes.push(rest & 0x7f | 0x80)
  bytes.push(rest)
  return Buffer.from(bytes)
}
