// bzip2 decompression, block by block, synchronously. Here because no maintained package streams it and reports truncated input;
// layers compressed so are rare, hence plain rather than fast code (26 MB/s). Never compresses.

const BLOCK_MAGIC = 0x314159265359
const END_MAGIC = 0x177245385090
const MAX_CODE = 20

/** Thrown and caught in here: the block is not complete yet. */
class Underrun extends Error {}

const crcTable = new Int32Array(256)
for (let i = 0; i < 256; i++) {
  let crc = i << 24
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1
  crcTable[i] = crc
}

/** A canonical Huffman code: for each length the largest code and the offset of its symbols. */
interface Code {
  readonly limit: Int32Array
  readonly base: Int32Array
  readonly symbols: Uint16Array
  readonly shortest: number
}

/**
 * Feed it chunks; it returns what they complete. Concatenated streams are one; after a complete stream zero bytes are padding, and anything
 * else is an error. Throws plain Errors, which compression.ts turns into INVALID_ARCHIVE.
 */
export class Bzip2Decoder {
  #input: Buffer = Buffer.alloc(0)
  #pending: Buffer[] = []
  #pendingSize = 0
  #wanted = 4
  /** Position in bits. */
  #bit = 0
  /** Of the current stream, in bytes; 0 between streams. */
  #blockBytes = 0
  #streamCrc = 0
  #streams = 0
  #padding = false
  #table = new Uint32Array(0)

  push(chunk: Buffer): Buffer[] {
    this.#pending.push(chunk)
    this.#pendingSize += chunk.length
    if (this.#input.length - (this.#bit >>> 3) + this.#pendingSize < this.#wanted) return []
    return this.#run(false)
  }

  finish(): Buffer[] {
    const out = this.#run(true)
    if (this.#blockBytes !== 0 || (!this.#padding && this.#bit < this.#input.length * 8) || this.#streams === 0) throw new Error('unexpected end of data')
    return out
  }

  #run(last: boolean): Buffer[] {
    this.#input = Buffer.concat([this.#input.subarray(this.#bit >>> 3), ...this.#pending])
    this.#bit &= 7
    this.#pending = []
    this.#pendingSize = 0
    const out: Buffer[] = []
    for (;;) {
      const left = this.#input.length - (this.#bit >>> 3)
      if (left === 0 || (!last && left < this.#wanted)) return out
      const start = this.#bit
      try {
        this.#step(out)
        // A block of random bytes grows by about a hundredth; one that was made to grow more is tried again with twice as much.
        this.#wanted = this.#blockBytes === 0 ? 4 : Math.ceil(this.#blockBytes * 1.02) + 1024
      } catch (error) {
        if (!(error instanceof Underrun)) throw error
        if (last) throw new Error('unexpected end of data', { cause: error })
        this.#bit = start
        this.#wanted = Math.max(this.#wanted, left) * 2
        return out
      }
    }
  }

  #step(out: Buffer[]): void {
    if (this.#padding || (this.#blockBytes === 0 && this.#streams > 0 && this.#input[this.#bit >>> 3] === 0)) {
      this.#padding = true
      this.#bit = this.#input.length * 8
      return
    }
    if (this.#blockBytes === 0) {
      const magic = this.#bits(24)
      const level = this.#bits(8) - 0x30
      if (magic !== 0x425a68 || level < 1 || level > 9) throw new Error('invalid header')
      this.#blockBytes = level * 100_000
      this.#streamCrc = 0
      if (this.#table.length < this.#blockBytes) this.#table = new Uint32Array(this.#blockBytes)
      return
    }
    const magic = this.#bits(24) * 0x1000000 + this.#bits(24)
    const crc = (this.#bits(16) << 16) | this.#bits(16)
    if (magic === END_MAGIC) {
      if (crc !== this.#streamCrc) throw new Error('wrong checksum')
      this.#bit = (this.#bit + 7) & ~7
      this.#blockBytes = 0
      this.#streams++
      return
    }
    if (magic !== BLOCK_MAGIC) throw new Error('invalid block')
    const bytes = this.#block(crc)
    this.#streamCrc = ((this.#streamCrc << 1) | (this.#streamCrc >>> 31)) ^ crc
    out.push(bytes)
  }

  /** Up to 24 bits. */
  #bits(count: number): number {
    const at = this.#bit >>> 3
    const end = this.#bit + count
    if (end > this.#input.length * 8) throw new Underrun()
    const input = this.#input
    const word = (input[at]! << 24) | ((input[at + 1] ?? 0) << 16) | ((input[at + 2] ?? 0) << 8) | (input[at + 3] ?? 0)
    const value = (word << (this.#bit & 7)) >>> (32 - count)
    this.#bit = end
    return value
  }

  #block(crc: number): Buffer {
    if (this.#bits(1) !== 0) throw new Error('randomised blocks, which bzip2 has not written since 1997, are not supported')
    const origin = this.#bits(24)
    const used: number[] = []
    const rows = this.#bits(16)
    for (let row = 0; row < 16; row++) {
      if ((rows & (0x8000 >> row)) === 0) continue
      const columns = this.#bits(16)
      for (let column = 0; column < 16; column++) if ((columns & (0x8000 >> column)) !== 0) used.push(row * 16 + column)
    }
    if (used.length === 0) throw new Error('invalid block')
    const { selectors, codes } = this.#codes(used.length + 2)
    const size = this.#symbols(used, selectors, codes)
    if (origin >= size) throw new Error('invalid block')
    return this.#restore(origin, size, crc)
  }

  #codes(symbolCount: number): { selectors: Uint8Array; codes: Code[] } {
    const groups = this.#bits(3)
    const selectorCount = this.#bits(15)
    if (groups < 2 || groups > 6 || selectorCount < 1) throw new Error('invalid block')
    const order = [0, 1, 2, 3, 4, 5]
    const selectors = new Uint8Array(selectorCount)
    for (let i = 0; i < selectorCount; i++) {
      let place = 0
      while (this.#bits(1) === 1) if (++place >= groups) throw new Error('invalid block')
      const group = order.splice(place, 1)[0]!
      order.unshift(group)
      selectors[i] = group
    }
    const codes: Code[] = []
    for (let group = 0; group < groups; group++) {
      const lengths = new Uint8Array(symbolCount)
      let length = this.#bits(5)
      for (let symbol = 0; symbol < symbolCount; symbol++) {
        for (;;) {
          if (length < 1 || length > MAX_CODE) throw new Error('invalid block')
          if (this.#bits(1) === 0) break
          length += this.#bits(1) === 0 ? 1 : -1
        }
        lengths[symbol] = length
      }
      codes.push(codeOf(lengths))
    }
    return { selectors, codes }
  }

  /** Huffman, run lengths and move-to-front; fills the table, returns how far. */
  #symbols(used: number[], selectors: Uint8Array, codes: Code[]): number {
    const table = this.#table
    const order = Uint8Array.from(used)
    const end = used.length + 1
    let size = 0
    let run = 0
    let runBit = 1
    for (let group = 0; ; group++) {
      const selector = selectors[group]
      if (selector === undefined) throw new Error('invalid block')
      const code = codes[selector]!
      for (let i = 0; i < 50; i++) {
        const symbol = this.#symbol(code)
        if (symbol <= 1) {
          run += runBit << symbol
          runBit <<= 1
          if (run > this.#blockBytes) throw new Error('invalid block')
          continue
        }
        if (run > 0) {
          if (size + run > this.#blockBytes) throw new Error('invalid block')
          table.fill(order[0]!, size, size + run)
          size += run
          run = 0
          runBit = 1
        }
        if (symbol === end) return size
        if (size >= this.#blockBytes) throw new Error('invalid block')
        const byte = order[symbol - 1]!
        order.copyWithin(1, 0, symbol - 1)
        order[0] = byte
        table[size++] = byte
      }
    }
  }

  #symbol(code: Code): number {
    let length = code.shortest
    let value = this.#bits(length)
    while (value > code.limit[length]!) {
      if (++length > MAX_CODE) throw new Error('invalid block')
      value = (value << 1) | this.#bits(1)
    }
    const symbol = code.symbols[value - code.base[length]!]
    if (symbol === undefined) throw new Error('invalid block')
    return symbol
  }

  /** The inverse Burrows-Wheeler transform, the outer run lengths, and the check. */
  #restore(origin: number, size: number, crc: number): Buffer {
    const table = this.#table
    const starts = new Uint32Array(256)
    for (let i = 0; i < size; i++) starts[table[i]! & 0xff]!++
    let sum = 0
    for (let byte = 0; byte < 256; byte++) {
      const count = starts[byte]!
      starts[byte] = sum
      sum += count
    }
    for (let i = 0; i < size; i++) table[starts[table[i]! & 0xff]!++]! |= i << 8
    let out = Buffer.allocUnsafe(size + (size >>> 2) + 64)
    let length = 0
    let check = -1
    let same = 0
    let previous = -1
    let at = table[origin]! >>> 8
    for (let i = 0; i < size; i++) {
      const entry = table[at]!
      const byte = entry & 0xff
      at = entry >>> 8
      // After four equal bytes comes a count of more of them.
      const times = same === 4 ? byte : 1
      const value = same === 4 ? previous : byte
      if (length + times > out.length) out = Buffer.concat([out.subarray(0, length)], (out.length + times) * 2)
      for (let j = 0; j < times; j++) {
        out[length++] = value
        check = (check << 8) ^ crcTable[(check >>> 24) ^ value]!
      }
      if (same === 4) same = 0
      else {
        same = byte === previous ? same + 1 : 1
        previous = byte
      }
      if (same === 0) previous = -1
    }
    if (~check !== crc) throw new Error('wrong checksum')
    return out.subarray(0, length)
  }
}

function codeOf(lengths: Uint8Array): Code {
  const counts = new Int32Array(MAX_CODE + 2)
  for (const length of lengths) counts[length]!++
  const limit = new Int32Array(MAX_CODE + 1).fill(-1)
  const base = new Int32Array(MAX_CODE + 1)
  const symbols = new Uint16Array(lengths.length)
  let filled = 0
  let code = 0
  let shortest = 0
  for (let length = 1; length <= MAX_CODE; length++) {
    base[length] = code - filled
    for (let symbol = 0; symbol < lengths.length; symbol++) if (lengths[symbol] === length) symbols[filled++] = symbol
    if (counts[length]! > 0 && shortest === 0) shortest = length
    code += counts[length]!
    limit[length] = code - 1
    code <<= 1
  }
  return { limit, base, symbols, shortest }
}
