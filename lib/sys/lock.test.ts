import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { once } from 'node:events'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { isAlive, isLocked, lock, processIdentity, tryLock } from './lock.ts'
import { nativeReason } from './native.ts'

const test = suite('sys/lock')
const native = nativeReason === undefined

/** Another process that takes the lock and prints what it got. */
async function other(t: Context, file: string, hold: boolean): Promise<{ pid: number; got: string; kill(): Promise<void> }> {
  const code = `const { tryLock } = await import(${JSON.stringify(new URL('./lock.js', import.meta.url).href)})
    const got = tryLock(${JSON.stringify(file)}); console.log(got ? 'held' : 'refused')
    if (${hold} && got) setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const kill = async (): Promise<void> => { child.kill('SIGKILL'); await ended }
  t.defer(kill)
  const [text] = await once(child.stdout, 'data') as [Buffer]
  return { pid: child.pid ?? 0, got: text.toString().trim(), kill }
}

test('one holder at a time, also within a process; release is idempotent', t => {
  const file = `${t.dir}/lock`
  const first = tryLock(file)
  assert.ok(first)
  assert.is(tryLock(file), undefined)
  assert.is(isLocked(file), true)
  first.release()
  first.release()
  assert.is(isLocked(file), false)
  assert.is(fs.statSync(file).mode & 0o777, 0o600)
  const second = tryLock(file)
  assert.ok(second)
  first.release()
  assert.is(tryLock(file), undefined)
  second.releaseAndUnlink()
  assert.is(fs.existsSync(file), false)
  assert.is(isLocked(file), false)
})

test('shared locks', { skip: native ? false : 'without native calls every lock is exclusive' }, t => {
  const file = `${t.dir}/lock`
  const a = tryLock(file, 'shared'), b = tryLock(file, 'shared')
  assert.ok(a && b)
  assert.is(tryLock(file), undefined)
  a.release()
  assert.is(tryLock(file), undefined)
  b.release()
  const c = tryLock(file)
  assert.ok(c)
  assert.is(tryLock(file, 'shared'), undefined)
  c.release()
})

test('another process is kept out, and its death lets us in', async t => {
  const file = `${t.dir}/lock`
  const mine = tryLock(file)
  assert.ok(mine)
  assert.is((await other(t, file, false)).got, 'refused')
  mine.release()
  const holder = await other(t, file, true)
  assert.is(holder.got, 'held')
  assert.is(tryLock(file), undefined)
  let error: unknown
  try { await lock(file, { timeoutMs: 50 }) } catch (e) { error = e }
  assert.ok(StorageError.is(error, 'LOCKED'))
  const waiting = lock(file, { timeoutMs: 10_000 })
  await holder.kill()
  const got = await waiting
  assert.is(tryLock(file), undefined)
  got.release()
})

test('waiting ends with the signal', async t => {
  const file = `${t.dir}/lock`
  const mine = tryLock(file)
  const stop = new AbortController()
  setTimeout(() => stop.abort(), 20)
  let error: unknown
  try { await lock(file, { signal: stop.signal }) } catch (e) { error = e }
  assert.ok(StorageError.is(error, 'ABORTED'))
  mine?.release()
})

test('of many waiters one after the other gets it', async t => {
  const file = `${t.dir}/lock`
  let inside = 0, most = 0, done = 0
  await Promise.all(Array.from({ length: 20 }, async () => {
    const held = await lock(file)
    most = Math.max(most, ++inside)
    await new Promise(resolve => setImmediate(resolve))
    inside--
    done++
    if (done % 2 === 0) held.release(); else held.releaseAndUnlink()
  }))
  assert.equal([most, done], [1, 20])
})

test('identities name a process, not just a pid', () => {
  const mine = processIdentity(process.pid) ?? ''
  assert.match(mine, /^\d+ \d+$/)
  assert.is(isAlive(mine), true)
  assert.is(isAlive(`${process.pid} 1`), false)
  assert.is(isAlive(''), false)
  assert.is(processIdentity(2 ** 22 + 1), undefined)
})
