// Numbers and texts as few bytes: LEB128, differences, and tables of strings. Shared by the encoder (Node) and the page.

export class ByteWriter {
  #bytes = new Uint8Array(1 << 16)
  #length = 0

  get bytes(): Uint8Array { return this.#bytes.subarray(0, this.#length) }

  /** 0 to 2^53 - 1, seven bits a byte. */
  number(value: number): void {
    this.#reserve(8)
    let rest = value
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = rest % 0x80 + 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.#bytes[this.#length++] = rest
  }

  /** -2^52 to 2^52 - 1, small ones of either sign short. */
  signed(value: number): void {
    this.number(value < 0 ? -2 * value - 1 : 2 * value)
  }

  column(values: ArrayLike<number>): void {
    for (let i = 0; i < values.length; i++) this.number(values[i]!)
  }

  /** None may hold NUL. */
  strings(values: readonly string[]): void {
    const bytes = new TextEncoder().encode(values.join('\0'))
    this.number(values.length)
    this.number(bytes.length)
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more))
    grown.set(this.bytes)
    this.#bytes = grown
  }
}

export class ByteReader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  number(): number {
    let value = 0, scale = 1
    for (;;) {
      const byte = this.#bytes[this.#at++]
      if (byte === undefined) throw new RangeError('the data ends early')
      if (byte < 0x80) return value + byte * scale
      value += (byte - 0x80) * scale
      scale *= 0x80
    }
  }

  signed(): number {
    const value = this.number()
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }

  column<T extends Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array>(into: T): T {
    for (let i = 0; i < into.length; i++) into[i] = this.number()
    return into
  }

  strings(): string[] {
    const count = this.number(), length = this.number()
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#bytes.subarray(this.#at, this.#at + length))
    this.#at += length
    return count === 0 ? [] : text.split('\0')
  }
}
