import fs from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { canJail, inJail } from './jail.ts'
import { runJob } from './threads.ts'

const jobs = new URL('../../fixtures/thread-jobs.js', import.meta.url).href
const test = suite('sys/jail')
const job = <R>(name: string, dir: string): Promise<R> => runJob<string, R>(jobs, name, dir)

test('a jailed thread cannot leave by links or dots, keeps its descriptors, and comes out again, also after failures', { skip: needsRoot }, async t => {
  const dir = `${t.dir}/jail`
  fs.mkdirSync(dir)
  fs.writeFileSync(`${dir}/f`, 'inside')
  fs.writeFileSync(`${t.dir}/secret`, 'by descriptor')
  fs.symlinkSync('../secret', `${dir}/up`)
  fs.symlinkSync('/f', `${dir}/abs`)
  assert.is(await job('possible', ''), true)
  for (let i = 0; i < 3; i++) {
    assert.equal(await job('jailed', dir), ['inside', 'inside', 'inside', 'kept inside', 'inside', 'by descriptor', 'out again', 'work failed', 'out again', 'ENOENT', 'out again'])
  }
  // Umask 0 inside, whatever the process's is; the other threads notice nothing.
  assert.is(fs.statSync(`${dir}/made`).mode & 0o777, 0o666)
  assert.ok(fs.existsSync(`${t.dir}/secret`))
})

test('a thread with an umask and a working directory of its own', { skip: needsNative }, async t => {
  const old = process.umask(0o077)
  const cwd = process.cwd()
  try {
    fs.writeFileSync(`${t.dir}/f`, 'short')
    assert.is(await job('masked', t.dir), 0o666)
    assert.equal(await job('inside', t.dir), ['short', 'back'])
    assert.is(process.umask(), 0o077)
    assert.is(process.cwd(), cwd)
  } finally {
    process.umask(old)
  }
})

test('the main thread is never jailed', async t => {
  assert.is(isMainThread, true)
  assert.is(canJail(), false)
  let error: unknown
  try { await inJail(t.dir, () => undefined) } catch (e) { error = e }
  assert.instance(error, TypeError)
})
