// What a workload is to the runner, and the trees that several of them work on.

import { Buffer } from 'node:buffer'
import fs from 'node:fs'
import path from 'node:path'
import type { LayerId } from '../ids.ts'
import type { Stage } from './stage.ts'
import type { Measure, WorkloadInfo } from './types.ts'
import type { Visit } from './visit.ts'

export interface Workload extends WorkloadInfo {
  /** The values of its parameter, ascending; [0] for a workload that has none. */
  parameters(quick: boolean): readonly number[]
  /** Most bytes that it holds on a backing at once, for one driver. Default: little. */
  needsBytes?(parameter: number): number
  /** Run it: set up, `visit.repeat` the timed steps; what it leaves is cleared away for it. @throws NotHere */
  run(visit: Visit): Promise<void>
}

export const kib = 1024, mib = 1024 * kib, gib = 1024 * mib

export function millis(name: string, title: string): Measure { return { name, title, unit: 'ms' } }
export function micros(name: string, title: string): Measure { return { name, title, unit: 'µs' } }
export function bytes(name: string, title: string): Measure { return { name, title, unit: 'bytes' } }

/** Not compressible and not equal from place to place, but the same in every run. */
export const noise: Buffer = makeNoise(mib + 64 * kib)
function makeNoise(length: number): Buffer {
  const buffer = Buffer.alloc(length)
  let state = 0x9e3779b9
  for (let at = 0; at < length; at += 4) {
    // xorshift32 (Marsaglia 2003).
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    buffer.writeInt32LE(state | 0, at)
  }
  return buffer
}

const sizes = [64, 512, 2048, 4096, 16_384]

/** The n-th file of the trees: `dir-<n / 100>/file-<n>`, as in moby's graphtest; sizes go round from 64 B to 16 KiB, 4.6 kB on average. */
export function fileName(n: number): string {
  return `dir-${Math.floor(n / 100)}/file-${n}`
}

export function writeFile(dir: string, n: number, seed = 0): void {
  const size = sizes[n % sizes.length] ?? 64
  const from = (n * 37 + seed * 4096) % mib
  fs.writeFileSync(path.join(dir, fileName(n)), noise.subarray(from, from + size))
}

/** Files `from` to `to`, 100 to a directory. */
export function fillTree(dir: string, to: number, from = 0): void {
  for (let n = from; n < to; n++) {
    if (n === from || n % 100 === 0) fs.mkdirSync(path.join(dir, `dir-${Math.floor(n / 100)}`), { recursive: true })
    writeFile(dir, n)
  }
}

export function writeBig(file: string, sizeBytes: number): void {
  const fd = fs.openSync(file, 'w')
  try {
    for (let at = 0; at < sizeBytes; at += mib) fs.writeSync(fd, noise, 0, Math.min(mib, sizeBytes - at))
  } finally {
    fs.closeSync(fd)
  }
}

export const imageFiles = 1000

/** 1,000 files in ten directories, 4.6 MB; and one of 1 MiB. */
export function image(stage: Stage): Promise<LayerId> {
  return stage.shared('image', () => stage.layer(undefined, dir => {
    fillTree(dir, imageFiles)
    writeBig(path.join(dir, 'big'), mib)
  }))
}

/** 60 files in three layers: what a small container starts on. */
export function smallImage(stage: Stage): Promise<LayerId> {
  return stage.shared('small image', async () => {
    const base = await stage.layer(undefined, dir => fillTree(dir, 30))
    const middle = await stage.layer(base, dir => fillTree(dir, 60, 30))
    return await stage.layer(middle, dir => {
      fs.mkdirSync(path.join(dir, 'dir-0'), { recursive: true })
      writeFile(dir, 1, 1)
    })
  })
}
