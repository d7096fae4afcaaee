// Layers written on the calling thread: the bytes of a thread's, memory that is used again, readers that are slow or leave, and what counts as small.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { layerBytes } from '../../fixtures/layers.ts'
import { makeTree } from '../../fixtures/tree.ts'
import type { TreeSpec } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { runJob, warmThread } from '../sys/threads.ts'
import { treesOf } from './index.ts'
import { jobsModule } from './jobs-module.ts'
import type { ApplyArguments, ApplyOutcome, WriteArguments, WriteOutcome } from './jobs.ts'
import { isSmall, writeHere } from './write-here.ts'
import type { WriteHereOptions } from './write-here.ts'

const test = suite('writing layers on the calling thread')
const none = { whiteouts: 'none' } as const
const argumentsFor = (upper: string, lower?: string): WriteArguments => ({ ...treesOf(upper, lower, none), options: {} })

/** Files whose bytes tell where they belong, so that a chunk in the wrong place or of the wrong time is seen. */
function numbered(count: number, sizeBytes: number): TreeSpec {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${String(i).padStart(4, '0')}`, `${i} `.repeat(Math.ceil(sizeBytes / `${i} `.length))]))
}

async function written(args: WriteArguments, options: WriteHereOptions = {}, onChunk: () => Promise<void> | undefined = () => undefined): Promise<WriteOutcome & { readonly tar: Buffer }> {
  const chunks: Buffer[] = []
  const stream = writeHere(args, options)
  for (;;) {
    const next = await stream.next()
    if (next.done === true) return { ...next.value, tar: Buffer.concat(chunks) }
    // A copy where the memory is used again; else the chunks must stay what they are.
    chunks.push(options.shared === true ? Buffer.from(next.value) : next.value)
    await onChunk()
  }
}

test('the same bytes as from a thread, whatever memory they lie in', async t => {
  const upper = path.join(t.dir, 'upper'), lower = path.join(t.dir, 'lower')
  makeTree(lower, { 'gone/x': 'x', 'd/old': 'old', 'd/y': 'y' })
  makeTree(upper, { ...numbered(120, 9000), 'd/y': 'changed', 'd/hard': { type: 'hardlink', to: 'd/y' }, 'link': { type: 'symlink', to: 'd/y' }, '.wh.x': '', 'large': 'l'.repeat(40_000_000), 'pipe': { type: 'fifo' } })
  const expected = await layerBytes(upper, lower, none)
  assert.ok(expected.skipped.length === 1 && expected.tar.length > 41_000_000)
  for (const shared of [false, true]) {
    const { tar, ...outcome } = await written(argumentsFor(upper, lower), { shared })
    assert.ok(tar.equals(expected.tar), `shared: ${shared}`)
    assert.equal(outcome, { entries: expected.entries, skipped: expected.skipped, diffId: expected.diffId, tarBytes: expected.tarBytes })
  }
})

test('a reader that is slow at first, and one that is slow always, get the same', async t => {
  makeTree(t.dir, numbered(40, 1_000_000))
  const { diffId } = await layerBytes(t.dir, undefined, none)
  let turns = 0
  for (const slow of [(): boolean => turns++ === 0, (): boolean => true]) {
    const { tar } = await written(argumentsFor(t.dir), { shared: true }, async () => { if (slow()) for (let i = 0; i < 200; i++) await new Promise(resolve => setImmediate(resolve)) })
    assert.is(`sha256:${createHash('sha256').update(tar).digest('hex')}`, diffId)
  }
})

test('a job reads shared memory before it is written to again', { timeoutMs: 60_000 }, async t => {
  const from = path.join(t.dir, 'from'), to = path.join(t.dir, 'to')
  makeTree(from, numbered(90, 700_000))
  warmThread(jobsModule)
  for (let run = 0; run < 3; run++) {
    fs.mkdirSync(to)
    const stream = writeHere(argumentsFor(from), { shared: true })
    let outcome: WriteOutcome | undefined
    async function* input(): AsyncGenerator<Buffer> { outcome = yield* stream }
    const applied = await runJob<ApplyArguments, ApplyOutcome>(jobsModule, 'applyJob', { dir: to, format: 'remove', plain: true }, { input: input() })
    assert.is(applied.diffId, outcome?.diffId)
    assert.equal([applied.blobDigest, applied.tarBytes, applied.blobBytes], [applied.diffId, outcome?.tarBytes, outcome?.tarBytes])
    for (const name of fs.readdirSync(from)) assert.ok(fs.readFileSync(path.join(to, name)).equals(fs.readFileSync(path.join(from, name))), name)
    fs.rmSync(to, { recursive: true })
  }
})

test('no memory without end for a reader that does not come', async t => {
  makeTree(t.dir, { holes: { sparse: { sizeBytes: 60 * 1024 * 1024, runs: [] } } })
  const stream = writeHere(argumentsFor(t.dir))
  await stream.next()
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 2000; i++) await new Promise(resolve => setImmediate(resolve))
  assert.ok(process.memoryUsage().arrayBuffers - before < 24 * 1024 * 1024, 'it was all written ahead')
  await stream.return(undefined as never)
})

test('an abort, a reader that leaves, and an error end it with every descriptor closed', async t => {
  const deep = path.join(t.dir, 'a')
  makeTree(deep, { 'b/c/': {}, ...numbered(60, 1_000_000) })
  const open = fs.readdirSync('/proc/self/fd').length
  const failureOf = async (work: () => Promise<unknown>): Promise<unknown> => await work().then(() => undefined, (error: unknown) => error)
  const early = new AbortController(), late = new AbortController()
  early.abort()
  assert.ok(StorageError.is(await failureOf(() => written(argumentsFor(deep), { signal: early.signal })), 'ABORTED'))
  assert.ok(StorageError.is(await failureOf(() => written(argumentsFor(deep), { signal: late.signal }, async () => { late.abort() })), 'ABORTED'))
  for await (const chunk of writeHere(argumentsFor(deep))) { assert.ok(chunk.length > 0); break }
  assert.ok(StorageError.is(await failureOf(() => written(argumentsFor(path.join(t.dir, 'absent')))), 'NOT_FOUND'))
  assert.is(fs.readdirSync('/proc/self/fd').length, open)
})

test('small is what has few entries and few bytes, wherever they lie', { skip: needsRoot || needsNative }, t => {
  makeTree(t.dir, { 'a/b/c': '12345', 'a/d': { type: 'symlink', to: '/' }, 'e': { type: 'char', rdev: [0, 0] }, '\\xff/f': '123' })
  assert.ok(isSmall(t.dir))
  assert.ok(isSmall(t.dir, { entries: 7, bytes: 8 }))
  assert.not(isSmall(t.dir, { entries: 6, bytes: 8 }))
  assert.not(isSmall(t.dir, { entries: 7, bytes: 7 }))
  assert.ok(isSmall(path.join(t.dir, 'absent')), 'the writer tells what is wrong')
})
