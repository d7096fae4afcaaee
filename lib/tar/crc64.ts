// CRC-64 ISO, the checksum that tar-split keeps of each file's content (Go's hash/crc64 with crc64.ISO). It finds accidents, not attacks.
//
// No tables. The polynomial is sparse: x^64 = x^4 + x^3 + x + 1, so eight bytes are folded into the state with three shifts of 64 bits, and
// the at most four bits that fall out with three more. Squaring keeps it sparse (x^128 = x^8 + x^6 + x^2 + 1, and x^256 = x^16 + x^12 + x^4 + 1), so
// four sums run beside each other, 32 bytes apart, each multiplied by x^256 a step; WebAssembly holds them in two registers.
// 7.1 - 7.4 GB/s in pieces of 64 KiB or more; the scalar code alone 1.8 GB/s.

import { crcFoldModule } from './crc64-wasm.ts'

/** One state of 64 bits in reflected order: `lo` holds x^63..x^32, `hi` x^31..x^0. */
let lo = 0
let hi = 0

/** Fold `bytes[from, to)` into (lo, hi), eight at a time, then one at a time. */
function foldScalar(bytes: Uint8Array, from: number, to: number): void {
  let a = lo
  let b = hi
  let at = from
  if (to - at >= 8) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (const last = to - 8; at <= last; at += 8) {
      const p = a ^ view.getInt32(at, true)
      const q = b ^ view.getInt32(at + 4, true)
      const over = (p << 31) ^ (p << 29) ^ (p << 28)
      a = p ^ (p >>> 1) ^ (p >>> 3) ^ (p >>> 4) ^ (q << 31) ^ (q << 29) ^ (q << 28)
      b = q ^ (q >>> 1) ^ (q >>> 3) ^ (q >>> 4) ^ over ^ (over >>> 1) ^ (over >>> 3) ^ (over >>> 4)
    }
  }
  for (; at < to; at++) {
    const p = (a ^ bytes[at]!) & 0xff
    a = (a >>> 8) | (b << 24)
    b >>>= 8
    // p * x^8 is p * x^64 eight places higher: its eight bits lie at x^64..x^71, and fold down as x^0..x^11.
    const top = p << 24
    b ^= top ^ (top >>> 1) ^ (top >>> 3) ^ (top >>> 4)
  }
  lo = a
  hi = b
}

const WINDOW = 64 * 1024
/** Below this the copy into WebAssembly's memory and the call cost more than they save (measured: even at about 200 bytes). */
const WASM_FROM = 256

interface Fold {
  /** Input at 32, up to WINDOW bytes. */
  readonly memory: Uint8Array
  /** The state, at 0..7. */
  readonly state: Int32Array
  run(sizeBytes: number): void
}

const fold = loadFold()

function loadFold(): Fold | undefined {
  // `node --jitless` has no WebAssembly; the plain code then does everything.
  if (!('WebAssembly' in globalThis)) return undefined
  const { memory, run } = crcFoldModule()
  return { memory: new Uint8Array(memory.buffer), state: new Int32Array(memory.buffer, 0, 2), run }
}

/** A running CRC-64 ISO. `digest` may be asked at any time and does not end the sum. */
export class Crc64 {
  #lo = -1
  #hi = -1

  update(bytes: Uint8Array): void {
    lo = this.#lo
    hi = this.#hi
    let at = 0
    if (fold !== undefined && bytes.length >= WASM_FROM) {
      const whole = bytes.length & ~31
      while (at < whole) {
        const size = Math.min(WINDOW, whole - at)
        fold.memory.set(size === bytes.length ? bytes : bytes.subarray(at, at + size), 32)
        fold.state[0] = lo
        fold.state[1] = hi
        fold.run(size)
        // The four sums become one: they are the last 32 bytes of an equal message that starts from a state of zero.
        lo = 0
        hi = 0
        foldScalar(fold.memory, 32, 64)
        at += size
      }
    }
    if (at < bytes.length) foldScalar(bytes, at, bytes.length)
    this.#lo = lo
    this.#hi = hi
  }

  /** Eight bytes, big-endian, as Go's `Sum` writes them. */
  digest(): Buffer {
    const out = Buffer.allocUnsafe(8)
    out.writeInt32BE(~this.#hi, 0)
    out.writeInt32BE(~this.#lo, 4)
    return out
  }

  reset(): void {
    this.#lo = -1
    this.#hi = -1
  }
}
