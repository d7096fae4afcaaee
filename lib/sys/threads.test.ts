import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { maxThreads, runJob, streamJob } from './threads.ts'
import type { JobOptions } from './threads.ts'

const jobs = new URL('../../fixtures/thread-jobs.js', import.meta.url).href
const run = <A, R>(name: string, args: A, options?: JobOptions): Promise<R> => runJob<A, R>(jobs, name, args, options)
const isAborted = (e: unknown): boolean => StorageError.is(e, 'ABORTED')
async function rejects(promise: Promise<unknown>, check: (e: unknown) => boolean): Promise<void> {
  let error: unknown
  try { await promise } catch (e) { error = e }
  assert.ok(error !== undefined, 'should have been rejected')
  assert.ok(check(error), String(error))
}

const test = suite('sys/threads')

test('arguments in, result out, more calls than threads', async () => {
  assert.ok(maxThreads >= 1)
  const sums = await Promise.all(Array.from({ length: 40 }, (_, i) => run<unknown, number>('add', { a: i, b: 1 })))
  assert.equal(sums, Array.from({ length: 40 }, (_, i) => i + 1))
})

test('errors come back as what they were', async () => {
  await rejects(run('fail', 'storage'), e => StorageError.is(e, 'NO_SPACE') && e.info.path === '/x' && e.info.errno === 'ENOSPC')
  await rejects(run('fail', 'type'), e => e instanceof TypeError && e.message === 'wrong')
  await rejects(run('fail', 'other'), e => (e as NodeJS.ErrnoException).code === 'ENOENT')
  await rejects(run('none', null), e => e instanceof TypeError)
})

test('what cannot be cloned fails the job alone, again and again', async () => {
  for (let i = 0; i < maxThreads + 2; i++) {
    await rejects(run('add', { a: () => 1 }), e => (e as Error).name === 'DataCloneError')
    await rejects(run('unclonable', null), e => e instanceof Error)
  }
  assert.is(await run('add', { a: 1, b: 2 }), 3)
})

test('a thread that dies fails its job, and another takes its place', async () => {
  for (let i = 0; i < maxThreads + 1; i++) await rejects(run('die', null), e => StorageError.is(e, 'IO'))
  assert.is(await run('add', { a: 1, b: 2 }), 3)
})

test('bytes through a job in order, with progress', async () => {
  async function* source(): AsyncGenerator<Buffer> { for (let i = 0; i < 50; i++) yield Buffer.alloc(100 + i, i) }
  const out: Buffer[] = []
  let progress = 0
  const total = await run<null, number>('echo', null, { input: source(), onOutput: chunk => { out.push(Buffer.from(chunk)) }, onProgress: n => { progress = n } })
  const expected = Buffer.concat(Array.from({ length: 50 }, (_, i) => Buffer.alloc(100 + i, i)))
  assert.is(total, expected.length)
  assert.is(progress, expected.length)
  assert.ok(Buffer.concat(out).equals(expected))
})

test('an input that fails, an output that fails', async () => {
  let closed = false
  async function* bad(): AsyncGenerator<Buffer> { yield Buffer.from('x'); throw new StorageError('INVALID_ARCHIVE', 'cut') }
  async function* endless(): AsyncGenerator<Buffer> { try { for (;;) yield Buffer.from('x') } finally { closed = true } }
  await rejects(run('echo', null, { input: bad(), onOutput: () => undefined }), e => StorageError.is(e, 'INVALID_ARCHIVE'))
  await rejects(run('echo', null, { input: endless(), onOutput: () => { throw new StorageError('NO_SPACE', 'full') } }), e => StorageError.is(e, 'NO_SPACE'))
  await sleep(5)
  assert.is(closed, true)
})

test('a slow consumer holds the job back', async () => {
  let taken = 0, most = 0
  const stream = streamJob<number, number>(jobs, 'pour', 200)
  let produced = 0
  for (;;) {
    const next = await stream.next()
    if (next.done === true) { produced = next.value; break }
    taken++
    if (taken === 3) await sleep(30)
    most = Math.max(most, next.value[0] ?? 0)
  }
  assert.equal([produced, taken, most], [200, 200, 199])
  const early = streamJob<number, number>(jobs, 'pour', 1e6)
  await early.next()
  await early.return(0)
  assert.is(await run('add', { a: 1, b: 2 }), 3)
})

test('an abort: before, while it waits for a thread, while it runs, while it waits for input', async () => {
  await rejects(run('busy', 10, { signal: AbortSignal.abort() }), isAborted)
  const all = Array.from({ length: maxThreads }, () => run('busy', 80))
  const waiting = new AbortController()
  const late = run('busy', 60_000, { signal: waiting.signal })
  waiting.abort()
  await rejects(late, isAborted)
  await Promise.all(all)
  const running = new AbortController()
  const began = performance.now()
  setTimeout(() => running.abort(), 20)
  await rejects(run('busy', 60_000, { signal: running.signal }), isAborted)
  const stuck = new AbortController()
  async function* never(): AsyncGenerator<Buffer> { await new Promise(() => undefined); yield Buffer.alloc(0) }
  setTimeout(() => stuck.abort(), 20)
  await rejects(run('echo', null, { signal: stuck.signal, input: never() }), isAborted)
  assert.ok(performance.now() - began < 5000)
  assert.is(await run('add', { a: 1, b: 2 }), 3)
})

test('the event loop goes on meanwhile', async () => {
  let ticks = 0
  const timer = setInterval(() => { ticks++ }, 5)
  await run('busy', 150)
  clearInterval(timer)
  assert.ok(ticks >= 5, `${ticks} ticks`)
})

test('threads start in a program that was given as text', () => {
  const code = `const { runJob } = await import(${JSON.stringify(new URL('./threads.js', import.meta.url).href)})
    console.log(await runJob(${JSON.stringify(jobs)}, 'add', { a: 1, b: 2 }))`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })
  assert.equal([child.stdout.trim(), child.status], ['3', 0], child.stderr)
})
