// The snapshot service against containerd's overlayfs snapshotter, both over gRPC from the same Go client, round about, on a tmpfs and on an ext4 image
// that lies on it, at equal durability (containerd syncs its metadata, not its directories); then the Snapshotter in process, and with 100,000
// snapshots. Needs root, Go and containerd's sources; installs nothing.

import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { goHarness, needsGo, startServer } from '../fixtures/containerd/harness.ts'
import { mountImage } from '../fixtures/loop.ts'
import { tempBase } from '../fixtures/places.ts'
import { open } from '../lib/index.ts'

interface Figures { readonly min?: number; readonly median: number; readonly p95?: number }
type Call = Readonly<Record<string, Figures>>

export interface SnapshotBenchOptions {
  readonly rounds: number
  /** Calls of each kind per round. */
  readonly count: number
  /** Where the figures go, as JSON. */
  readonly out?: string | undefined
}

export async function benchSnapshots({ rounds, count, out }: SnapshotBenchOptions): Promise<void> {
  const work = fs.mkdtempSync(path.join(tempBase(), 'ls-bench-'))
  const report: Record<string, unknown> = {}
  try {
    const reason = process.geteuid?.() !== 0 ? 'needs root' : needsGo()
    if (reason !== false) console.log(`not against containerd: ${reason}`)
    else {
      report['tmpfs'] = await against(path.join(work, 'tmpfs'), rounds, count)
      await onExt4(async dir => { report['ext4'] = await against(dir, rounds, count) })
    }
    report['in process'] = await inProcess(path.join(work, 'own'))
    report['100,000 snapshots'] = await many(path.join(work, 'many'))
  } finally {
    fs.rmSync(work, { recursive: true, force: true })
  }
  if (out !== undefined) fs.writeFileSync(out, `${JSON.stringify(report, null, 2)}\n`)
}

async function onExt4(use: (dir: string) => Promise<void>): Promise<void> {
  const image = mountImage('ext4', { sizeBytes: 4 * 2 ** 30 })
  try {
    await use(path.join(image.dir, 'b'))
  } finally {
    image.close()
  }
}

/** containerd's snapshotter in a process of its own; it ends with its standard input. */
async function reference(dir: string): Promise<{ readonly child: ChildProcess; end(): Promise<unknown> }> {
  const child = spawn(goHarness(), ['-test.run', '^TestServeReference$', '-test.v'], {
    stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, REFERENCE_SOCKET: path.join(dir, 'r'), REFERENCE_ROOT: path.join(dir, 'reference') },
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => { if (chunk.includes('ready')) resolve() })
    child.once('close', () => reject(new Error('containerd\'s snapshotter did not start')))
  })
  return {
    child,
    async end() {
      const closed = new Promise(resolve => child.once('close', resolve))
      child.stdin.end('\n')
      await closed
    },
  }
}

async function against(dir: string, rounds: number, count: number): Promise<unknown> {
  fs.mkdirSync(dir)
  const theirs = await reference(dir)
  const ours = await startServer('overlay2', path.join(dir, 'layerstack'), path.join(dir, 'l'), { durability: 'metadata' })
  const samples: Record<'containerd' | 'layerstack', Call[]> = { containerd: [], layerstack: [] }
  try {
    // The first round warms both up and does not count.
    for (let round = 0; round <= rounds; round++) {
      for (const [name, socket] of [['containerd', 'r'], ['layerstack', 'l']] as const) {
        const result = spawnSync(goHarness(), ['-test.run', '^TestBench$', '-test.v'], {
          encoding: 'utf8', env: { ...process.env, BENCH_SOCKET: path.join(dir, socket), BENCH_COUNT: String(count), BENCH_ROUND: String(round) },
        })
        const line = result.stdout.split('\n').find(text => text.startsWith('bench '))
        if (line === undefined) throw new Error(`${name}: ${result.stdout}${result.stderr}${ours.stderr()}`)
        if (round > 0) samples[name].push(JSON.parse(line.slice(6)) as Call)
      }
    }
  } finally {
    await ours.end()
    await theirs.end()
  }
  console.log(`\n${path.basename(dir) === 'b' ? 'ext4 on a loop device on tmpfs' : 'tmpfs'}: µs per call, ${count} calls × ${rounds} rounds, median (least)`)
  for (const call of Object.keys(samples.containerd[0] ?? {})) {
    const of = (name: 'containerd' | 'layerstack'): { median: number; min: number } => ({
      median: median(samples[name].map(one => one[call]?.median ?? NaN)), min: Math.min(...samples[name].map(one => one[call]?.min ?? one[call]?.median ?? NaN)),
    })
    const a = of('containerd'), b = of('layerstack')
    console.log(`${call.padEnd(16)} containerd ${a.median.toFixed(0).padStart(7)} (${a.min.toFixed(0)})  layerstack ${b.median.toFixed(0).padStart(7)} (${b.min.toFixed(0)})  ${(b.median / a.median).toFixed(2)} ×`)
  }
  return samples
}

async function inProcess(root: string): Promise<Figures> {
  await using storage = await open({ root, driver: 'overlay2' })
  const { snapshots } = storage
  await snapshots.prepare('base')
  await snapshots.commit('BASE', 'base')
  const times: number[] = []
  for (let i = 0; i < 3000; i++) {
    const start = performance.now()
    await snapshots.prepare('a', 'BASE')
    await snapshots.commit('b', 'a')
    await snapshots.remove('b')
    times.push((performance.now() - start) * 1000)
  }
  const figures = sorted(times)
  console.log(`\nin process, tmpfs: prepare + commit + remove ${figures.median.toFixed(0)} µs (${figures.min?.toFixed(0)})`)
  return figures
}

async function many(root: string): Promise<unknown> {
  await using storage = await open({ root, driver: 'overlay2', durability: 'none' })
  const { snapshots } = storage
  await snapshots.prepare('base')
  await snapshots.commit('BASE', 'base')
  const total = 100_000
  for (let i = 0; i < total; i++) await snapshots.view(`default/${i}/view`, 'BASE', { labels: { 'containerd.io/snapshot/cri.image-ref': 'docker.io/library/debian:latest' } })
  const times: number[] = []
  for (let i = 0; i < 20_000; i++) {
    const key = `default/${(i * 7919) % total}/view`
    const start = performance.now()
    await snapshots.stat(key)
    times.push((performance.now() - start) * 1000)
    // Each look-up in a turn of its own, as calls come in.
    if (i % 100 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  const stat = sorted(times)
  const start = performance.now()
  let seen = 0, firstMs = 0
  for await (const _ of snapshots.walk()) if (seen++ === 0) firstMs = performance.now() - start
  const walkMs = performance.now() - start
  const fileBytes = fs.statSync(path.join(root, 'layerstack', 'snapshots', 'overlay2', 'data.mdb')).size
  console.log(`100,000 snapshots: stat ${stat.median.toFixed(1)} µs (p95 ${stat.p95?.toFixed(1)}), walk of ${seen} ${walkMs.toFixed(0)} ms, its first after ${firstMs.toFixed(1)} ms, ${(fileBytes / 1e6).toFixed(0)} MB of catalogue`)
  return { stat, walkMs, firstMs, seen, fileBytes }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN
}

function sorted(times: number[]): Figures {
  times.sort((a, b) => a - b)
  return { min: times[0] ?? NaN, median: times[times.length >> 1] ?? NaN, p95: times[Math.floor(times.length * 0.95)] ?? NaN }
}
