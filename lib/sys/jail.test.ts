// Jailed threads: what they see, and that nothing of it is left in the thread or in the process.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, suite } from '../../fixtures/harness/index.ts'
import { testJobs } from '../../fixtures/test-jobs.ts'
import type { jailJob, Seen } from '../../fixtures/test-jobs.ts'
import { errnoOf } from '../errors.ts'
import { canJail, inJail } from './jail.ts'
import { privileges } from './privileges.ts'
import { maxThreads, runJob } from './threads.ts'

const test = suite('jail')
const needsChroot = privileges().chroot ? false : needsNative || 'needs CAP_SYS_CHROOT'
type Result = Awaited<ReturnType<typeof jailJob>>
const jail = (dir: string, fail = false): Promise<Result> => runJob(testJobs, 'jailJob', { dir, fail })

test('the root is the directory, the umask is 0, and afterwards both are what they were', { skip: needsChroot }, async t => {
  const real = fs.readdirSync('/').sort()
  const usual = process.umask()
  // More often than there are threads, so that each comes back and goes in again; failing every second time.
  for (let i = 0; i < 3 * maxThreads; i++) {
    const dir = path.join(t.dir, String(i))
    fs.mkdirSync(path.join(dir, 'here'), { recursive: true })
    const { before, inside, after, failed } = await jail(dir, i % 2 === 1)
    assert.equal([before.names, after.names], [real, real])
    assert.equal(inside, { names: ['here'], umask: 0, escape: ['here'] })
    assert.equal([before.umask, after.umask, after.cwd], [usual, usual, '/'])
    assert.is(failed, i % 2 === 1 ? 'no good' : '')
    assert.is(fs.statSync(path.join(dir, 'made')).mode & 0o777, 0o666)
    assert.ok(fs.existsSync(path.join(dir, 'relative')), 'the working directory was not inside')
  }
})

test('a directory that is missing fails, and leaves umask and root alone', { skip: needsChroot }, async t => {
  const usual = process.umask()
  for (let i = 0; i < 2 * maxThreads; i++) {
    const { after, failed } = await jail(path.join(t.dir, 'missing'))
    assert.match(failed, /^chroot .*missing: no such file/)
    assert.equal([after.umask, after.names], [usual, fs.readdirSync('/').sort()])
  }
})

test('jails do not nest, and the outer one holds', { skip: needsChroot }, async t => {
  fs.mkdirSync(path.join(t.dir, 'sub/below'), { recursive: true })
  assert.equal(await runJob(testJobs, 'nestJob', t.dir), ['TypeError', 'sub', 'sub', 'TypeError', 'sub', 'sub'])
  const { after } = await jail(path.join(t.dir, 'sub'))
  assert.equal(after.names, fs.readdirSync('/').sort())
})

test('the main thread, its async calls, and children of the thread are not affected', { skip: needsChroot }, async t => {
  fs.mkdirSync(path.join(t.dir, 'd'))
  const cwd = process.cwd(), umask = process.umask()
  const jobs = Array.from({ length: 20 }, (_, i) => { fs.mkdirSync(path.join(t.dir, `d${i}`)); return jail(path.join(t.dir, `d${i}`)) })
  const reads = Array.from({ length: 200 }, () => fs.promises.readFile('/proc/self/status', 'utf8'))
  assert.ok((await Promise.all(reads)).every(text => text.startsWith('Name:')))
  await Promise.all(jobs)
  assert.equal([process.cwd(), process.umask()], [cwd, umask])
  assert.equal((await runJob<string, string>(testJobs, 'spawnAfterJailJob', path.join(t.dir, 'd'))).trim().split('\n').sort(), fs.readdirSync('/').filter(name => !name.startsWith('.')).sort())
})

test('a umask of its own, and a directory of its own, without privileges', { skip: needsNative }, async t => {
  const old = process.umask(0o077)
  t.defer(() => process.umask(old))
  const { inside, mode } = await runJob<string, { inside: number; mode: number; after: number }>(testJobs, 'umaskJob', t.dir)
  assert.equal([inside, mode, process.umask()], [0, 0o666, 0o077])
  fs.mkdirSync(path.join(t.dir, 'only'))
  fs.rmSync(path.join(t.dir, 'wide'))
  assert.equal(await runJob(testJobs, 'directoryJob', t.dir), { inside: 'only', after: '/' })
})

test('the main thread is never jailed', async t => {
  assert.is(canJail(), false)
  const error = await inJail(t.dir, () => undefined).catch((e: unknown) => e)
  assert.ok(error instanceof TypeError, errnoOf(error))
  const seen: Pick<Seen, 'names'> = { names: fs.readdirSync('/') }
  assert.ok(seen.names.length > 1)
})
