// The digest of a file's content from its stored runs. Equal contents have equal digests, whether their zeros are stored or left out as holes; a file of
// terabytes of holes costs nothing. Knows no archive.

import { createHash } from 'node:crypto'

/** Up to here a digest is the plain sha256 of all bytes, which others can check; a hole of this size takes 0.3 s to hash. */
export const plainLimitBytes = 256 * 1024 * 1024
const BLOCK = 4096
const zeros = Buffer.alloc(64 * 1024)
const zeroBlock = zeros.subarray(0, BLOCK)

/**
 * Fed with runs in ascending order. `sha256:…` for files of up to 256 MiB. For larger ones `sha256-blocks:…`: sha256 over the file's size, then, for
 * each aligned block of 4 KiB that is not all zeros, its number (both 8 bytes, big-endian) and its bytes. The size decides which, so equal files are digested alike.
 */
export class ContentDigest {
  readonly #hash = createHash('sha256')
  readonly #sizeBytes: number
  readonly #blocks: boolean
  #position = 0
  /** The block being filled, with `blocks`. */
  readonly #block: Buffer
  #number = 0

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    this.#blocks = sizeBytes > plainLimitBytes
    this.#block = this.#blocks ? Buffer.alloc(BLOCK) : zeroBlock
    if (this.#blocks) this.#hash.update(bigEndian(sizeBytes))
  }

  update(bytes: Buffer, offset: number): void {
    if (this.#blocks) this.#fill(bytes, offset)
    else {
      this.#zerosTo(offset)
      this.#hash.update(bytes)
      this.#position = offset + bytes.length
    }
  }

  finish(): string {
    if (this.#blocks) {
      this.#endBlock()
      return `sha256-blocks:${this.#hash.digest('hex')}`
    }
    this.#zerosTo(this.#sizeBytes)
    return `sha256:${this.#hash.digest('hex')}`
  }

  #zerosTo(offset: number): void {
    for (let left = offset - this.#position; left > 0; left -= zeros.length) this.#hash.update(left < zeros.length ? zeros.subarray(0, left) : zeros)
    this.#position = offset
  }

  #fill(bytes: Buffer, offset: number): void {
    for (let at = 0; at < bytes.length;) {
      const number = Math.floor((offset + at) / BLOCK), inside = (offset + at) % BLOCK
      if (number !== this.#number) {
        this.#endBlock()
        this.#number = number
      }
      const length = Math.min(BLOCK - inside, bytes.length - at)
      bytes.copy(this.#block, inside, at, at + length)
      at += length
    }
  }

  #endBlock(): void {
    if (this.#block.equals(zeroBlock)) return
    this.#hash.update(bigEndian(this.#number)).update(this.#block)
    this.#block.fill(0)
  }
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
