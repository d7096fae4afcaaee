// The inner loop of crc64.ts as a WebAssembly module of about 250 bytes, assembled here, instruction by instruction, so that it can be read.
// Owns the machine code and its memory layout; knows nothing of states, tails or digests.

/** What of the WebAssembly interface is used here; neither the ES library of TypeScript nor @types/node 20 declares it. */
interface WasmInterface {
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { readonly exports: Record<string, unknown> }
}

export interface CrcFold {
  readonly memory: { readonly buffer: ArrayBuffer }
  run(sizeBytes: number): void
}

const local = { end: 0, p: 1, a: 2, b: 3, t: 4 } as const
const get = (index: number): number[] => [0x20, index]
const set = (index: number): number[] => [0x21, index]
/** i32.const; values below 64 fit the single byte of a signed LEB128. */
const int = (value: number): number[] => value < 64 ? [0x41, value] : [0x41, (value & 0x7f) | 0x80, value >> 7]
const load = (offset: number): number[] => [0xfd, 0x00, 0x00, offset]
const store = (offset: number): number[] => [0xfd, 0x0b, 0x00, offset]
const xor = [0xfd, 0x51]
const shl = (bits: number): number[] => [...int(bits), 0xfd, 0xcb, 0x01]
const shr = (bits: number): number[] => [...int(bits), 0xfd, 0xcd, 0x01]

/** x = x * x^256 ^ load(p + offset), on two sums at once. */
function step(x: number, offset: number): number[] {
  return [
    ...get(x), ...shl(60), ...get(x), ...shl(52), ...xor, ...get(x), ...shl(48), ...xor, ...set(local.t),
    ...get(x), ...get(x), ...shr(4), ...xor, ...get(x), ...shr(12), ...get(x), ...shr(16), ...xor, ...xor,
    ...get(local.t), ...get(local.t), ...shr(1), ...xor, ...get(local.t), ...shr(3), ...get(local.t), ...shr(4), ...xor, ...xor, ...xor,
    ...get(local.p), ...load(offset), ...xor, ...set(x),
  ]
}

const body = [
  2, 1, 0x7f, 3, 0x7b, // locals: p is an i32, a, b and t are v128
  ...get(local.end), ...int(32), 0x6a, ...set(local.end),
  ...int(0), ...load(32), ...int(0), ...load(0), ...xor, ...set(local.a), // the state is added to the first word
  ...int(0), ...load(48), ...set(local.b),
  ...int(64), ...set(local.p),
  0x02, 0x40, 0x03, 0x40, // block, loop
  ...get(local.p), ...get(local.end), 0x4f, 0x0d, 1, // p >= end: leave
  ...step(local.a, 0), ...step(local.b, 16),
  ...get(local.p), ...int(32), 0x6a, ...set(local.p), 0x0c, 0, // the next 32 bytes
  0x0b, 0x0b,
  ...int(0), ...get(local.a), ...store(32),
  ...int(0), ...get(local.b), ...store(48),
  0x0b,
]

function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)]
}
const section = (id: number, content: number[]): number[] => [id, ...leb(content.length), ...content]
const name = (text: string): number[] => [text.length, ...Buffer.from(text)]

/**
 * A fresh instance. Memory: the state at 0 (8 bytes, little-endian; 8..15 stay zero), the input at 32 (a positive multiple of 32 bytes,
 * at most 64 KiB); `run` replaces the first 32 bytes of the input by the four sums.
 */
export function crcFoldModule(): CrcFold {
  const module = Uint8Array.from([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 1, 0x7f, 0]), // type 0: (i32) -> ()
    ...section(3, [1, 0]),
    ...section(5, [1, 0, 2]), // two pages of memory
    ...section(7, [2, ...name('memory'), 2, 0, ...name('run'), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ])
  const wasm = (globalThis as unknown as { WebAssembly: WasmInterface }).WebAssembly
  return new wasm.Instance(new wasm.Module(module)).exports as unknown as CrcFold
}
