// The pool of threads: errors, aborts, back-pressure, and that a thread comes back whatever a job, its caller or its streams do.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { testJobs } from '../../fixtures/test-jobs.ts'
import { StorageError } from '../errors.ts'
import { maxThreads, runJob, streamJob } from './threads.ts'
import type { JobOptions } from './threads.ts'

const test = suite('threads')
const run = <R>(name: string, args?: unknown, options?: JobOptions): Promise<R> => runJob<unknown, R>(testJobs, name, args, options)
const failure = (job: Promise<unknown>): Promise<unknown> => job.then(() => undefined, (error: unknown) => error)
const shared = (): Int32Array<SharedArrayBuffer> => new Int32Array(new SharedArrayBuffer(4))

/** Every thread of the pool answers: none was lost, none is stuck. */
async function poolIsWhole(): Promise<void> {
  const cells = Array.from({ length: maxThreads }, shared)
  const stop = new AbortController()
  const jobs = cells.map(cell => failure(run('spinJob', cell, { signal: stop.signal })))
  const until = Date.now() + 5000
  while (cells.some(cell => Atomics.load(cell, 0) === 0) && Date.now() < until) await sleep(2)
  assert.equal(cells.map(cell => cell[0]), cells.map(() => 1), 'not all threads run')
  stop.abort()
  await Promise.all(jobs)
}

test('arguments and results are clones; errors come with code, info and kind', async () => {
  const args = { list: [1n, 'x'], bytes: new Uint8Array([1]) }
  assert.equal(await run('echoJob', args), args)
  const storage = await failure(run('failJob', 'storage'))
  assert.ok(StorageError.is(storage, 'NO_SPACE'))
  assert.equal(storage.info, { op: 'test', path: '/x', errno: 'ENOSPC', hint: 'make room' })
  assert.match(storage.stack ?? '', /failJob/)
  assert.instance(await failure(run('failJob', 'type')), TypeError)
  assert.is((await failure(run('failJob', 'errno')) as NodeJS.ErrnoException).code, 'ENOENT')
  assert.is((await failure(run('failJob', 'quota')) as NodeJS.ErrnoException).code, 'EDQUOT')
  assert.is((await failure(run('failJob', 'text')) as Error).message, 'a text')
  assert.instance(await failure(run('noSuchJob')), TypeError)
  assert.ok(await failure(runJob('file:///no/such/module.js', 'x', undefined)))
  await poolIsWhole()
})

test('what cannot be cloned fails, and the thread comes back', async () => {
  for (let i = 0; i < maxThreads + 1; i++) {
    assert.is((await failure(run('echoJob', () => undefined)) as Error).name, 'DataCloneError')
    assert.ok(await failure(run('uncloneableJob')))
  }
  await poolIsWhole()
})

test('input is pulled as it is read, to its end, or no further than the job goes', async () => {
  let given = 0, closed = 0
  async function* input(): AsyncGenerator<Buffer> {
    try { for (; given < 20; given++) yield Buffer.alloc(1000) } finally { closed++ }
  }
  assert.equal(await run('catJob', {}, { input: input() }), { bytes: 20_000, chunks: 20 })
  given = 0
  assert.equal(await run('catJob', { take: 3 }, { input: input() }), { bytes: 3000, chunks: 3 })
  assert.ok(given <= 5, `${given} chunks were pulled for 3`)
  await sleep(5)
  assert.is(closed, 2)
  assert.equal(await run('catJob', {}), { bytes: 0, chunks: 0 })
})

test('an input that fails fails the job with its error', async () => {
  async function* input(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(10)
    throw new StorageError('DIGEST_MISMATCH', 'the blob is another', { key: 'k' })
  }
  const error = await failure(run('catJob', {}, { input: input() }))
  assert.ok(StorageError.is(error, 'DIGEST_MISMATCH') && error.info.key === 'k')
  await poolIsWhole()
})

test('an abort ends what computes, what waits for input, what waits for output, and what waits for a thread', async () => {
  const aborted = async (start: (signal: AbortSignal) => Promise<unknown>, ready: () => boolean = () => true): Promise<void> => {
    const stop = new AbortController()
    const job = failure(start(stop.signal))
    const until = Date.now() + 5000
    while (!ready() && Date.now() < until) await sleep(1)
    stop.abort()
    assert.ok(StorageError.is(await job, 'ABORTED'))
  }
  const spin = shared(), wait = shared(), spout = shared()
  await aborted(signal => run('spinJob', spin, { signal }), () => spin[0] === 1)
  async function* never(): AsyncGenerator<Buffer> { await new Promise(() => undefined); yield Buffer.alloc(1) }
  await aborted(signal => run('readForeverJob', wait, { signal, input: never() }), () => wait[0] === 1)
  let release: () => void = () => undefined
  const held = new Promise<void>(resolve => { release = resolve })
  const waiting = aborted(signal => run('spoutJob', { chunks: 100, shared: spout }, { signal, onOutput: () => held }), () => (spout[0] ?? 0) >= 4)
  await sleep(30)
  release()
  await waiting
  // All threads taken: the queue is left at once, and its place is not lost to others.
  const cells = Array.from({ length: maxThreads }, shared)
  const stop = new AbortController()
  const busy = cells.map(cell => failure(run('spinJob', cell, { signal: stop.signal })))
  await aborted(signal => run('echoJob', 1, { signal }))
  const late = run('echoJob', 'late')
  stop.abort()
  await Promise.all(busy)
  assert.is(await late, 'late')
  assert.ok(StorageError.is(await failure(run('echoJob', 1, { signal: AbortSignal.abort() })), 'ABORTED'))
  await poolIsWhole()
})

test('output is held back: no more than a few chunks ahead, in order', async () => {
  const cell = shared(), seen: number[] = []
  let ahead = 0
  await run('spoutJob', { chunks: 40, shared: cell }, {
    async onOutput(chunk) {
      seen.push(chunk.readInt32LE())
      await sleep(2)
      ahead = Math.max(ahead, (cell[0] ?? 0) - seen.length)
    },
  })
  assert.equal(seen, Array.from({ length: 40 }, (_, i) => i))
  assert.ok(ahead <= 4, `${ahead} chunks ahead`)
})

test('a callback that throws stops the job, and its error is the job\'s', async () => {
  const mine = new Error('mine')
  const cell = shared()
  assert.is(await failure(run('spoutJob', { chunks: 1000, shared: cell }, { onOutput() { throw mine } })), mine)
  assert.ok((cell[0] ?? 0) < 20)
  assert.is(await failure(run('spoutJob', { chunks: 1000, shared: shared() }, { onOutput: () => Promise.reject(mine) })), mine)
  assert.is(await failure(run('spoutJob', { chunks: 1000, shared: shared() }, { onOutput: () => undefined, onProgress() { throw mine } })), mine)
  await poolIsWhole()
})

test('a stream: all chunks and the result; leaving early, throwing, and never beginning free the thread', async () => {
  const stream = streamJob<unknown, number>(testJobs, 'spoutJob', { chunks: 10, shared: shared() })
  const seen: number[] = []
  let next = await stream.next()
  for (; next.done !== true; next = await stream.next()) seen.push(next.value.readInt32LE())
  assert.equal([seen.length, next.value], [10, 10])
  for (let i = 0; i < maxThreads + 1; i++) {
    const cell = shared()
    for await (const _ of streamJob(testJobs, 'spoutJob', { chunks: 100_000, shared: cell })) break
    assert.ok((cell[0] ?? 0) < 20)
    await failure((async () => { for await (const _ of streamJob(testJobs, 'spoutJob', { chunks: 100_000, shared: shared() })) throw new Error('consumer') })())
    await streamJob(testJobs, 'spoutJob', { chunks: 10, shared: shared() }).return(0)
  }
  const broken = streamJob(testJobs, 'failJob', 'storage')
  assert.ok(StorageError.is(await failure(broken.next()), 'NO_SPACE'))
  const stop = new AbortController()
  const aborted = streamJob(testJobs, 'spoutJob', { chunks: 100_000, shared: shared() }, { signal: stop.signal })
  await aborted.next()
  stop.abort()
  assert.ok(StorageError.is(await failure((async () => { for await (const _ of aborted) { /* to the end */ } })()), 'ABORTED'))
  await poolIsWhole()
})

test('a thread that dies fails its job and is replaced', async () => {
  for (const name of ['crashJob', 'throwLaterJob']) {
    for (let i = 0; i < maxThreads; i++) {
      const queued = [run('crashJob'), run(name), run('echoJob', 'after')].map(failure)
      const [a, b] = await Promise.all(queued)
      assert.ok(StorageError.is(a, 'IO') && StorageError.is(b, 'IO'))
    }
  }
  await poolIsWhole()
})

test('a thousand small jobs', async () => {
  const results = await Promise.all(Array.from({ length: 1000 }, (_, i) => run<number>('echoJob', i)))
  assert.is(results.reduce((a, b) => a + b), 499_500)
})

test('a process with idle threads ends by itself, and one with a job does not end before it', () => {
  const threads = new URL('./threads.js', import.meta.url).href
  const script = `
    const { runJob } = await import(${JSON.stringify(threads)})
    const jobs = ${JSON.stringify(testJobs)}
    await Promise.all([1, 2, 3, 4].map(i => runJob(jobs, 'echoJob', i)))
    void runJob(jobs, 'catJob', {}, { input: (async function* () { await new Promise(r => setTimeout(r, 200)); yield Buffer.alloc(5) })() }).then(r => console.log('read', r.bytes))
  `
  const done = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 15_000, encoding: 'utf8', cwd: fileURLToPath(new URL('.', import.meta.url)) })
  assert.equal([done.status, done.stdout.trim(), done.stderr], [0, 'read 5', ''])
})

/** A program that runs `jobs` jobs, told as text or in a file, with arguments of node's; what it prints. */
function program(t: { readonly dir: string }, how: 'file' | 'text', nodeArguments: readonly string[], script: string, env: NodeJS.ProcessEnv = {}): readonly unknown[] {
  const file = `${t.dir}/program.mjs`
  fs.writeFileSync(file, script)
  const done = spawnSync(process.execPath, [...nodeArguments, ...(how === 'file' ? [file] : ['--input-type=module', '-e', script])], { timeout: 20_000, encoding: 'utf8', env: { ...process.env, ...env } })
  return [done.status, done.stdout.trim(), done.stderr]
}
const threads = new URL('./threads.js', import.meta.url).href

test('node\'s own arguments, also those that a thread is not given by name', t => {
  const script = `
    const { runJob } = await import(${JSON.stringify(threads)})
    const sums = await Promise.all([1, 2, 3, 4, 5].map(i => runJob(${JSON.stringify(testJobs)}, 'echoJob', i)))
    console.log(sums.join(' '), typeof globalThis.gc, globalThis.imported)
  `
  const imported = '--import=data:text/javascript,globalThis.imported=1'
  for (const how of ['file', 'text'] as const) {
    assert.equal(program(t, how, ['--max-old-space-size=400', '--expose-gc', '--title=engine', imported], script), [0, '1 2 3 4 5 function 1', ''], how)
  }
})

test('where the system gives no thread every job says so, and the next ones run', t => {
  const script = `
    import { createRequire, syncBuiltinESMExports } from 'node:module'
    const workers = createRequire(import.meta.url)('node:worker_threads')
    const { Worker } = workers
    let none = true
    workers.Worker = class extends Worker { constructor(...given) { if (none) throw new Error('Worker initialization failure: EAGAIN'); super(...given) } }
    syncBuiltinESMExports()
    const { runJob } = await import(${JSON.stringify(threads)})
    const jobs = ${JSON.stringify(testJobs)}
    const told = async (name, options) => await runJob(jobs, name, 'ran', options).catch(error => error.code)
    const six = name => Promise.all([1, 2, 3, 4, 5, 6].map(i => told(name, i % 2 ? {} : { signal: new AbortController().signal })))
    console.log(...await six('echoJob'))
    none = false
    const dying = six('crashJob')
    none = true
    console.log(...await dying)
    none = false
    console.log(...await six('echoJob'))
  `
  const limit = 'LIMIT_EXCEEDED'
  const lines = [Array(6).fill(limit), ['IO', 'IO', limit, limit, limit, limit], Array(6).fill('ran')].map(words => words.join(' '))
  assert.equal(program(t, 'file', [], script, { LAYERSTACK_THREADS: '2' }), [0, lines.join('\n'), ''])
})
