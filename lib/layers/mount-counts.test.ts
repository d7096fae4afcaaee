import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, suite } from '../../fixtures/harness/index.ts'
import { failure } from '../../fixtures/storage.ts'
import type { LayerId } from '../ids.ts'
import { processIdentity } from '../sys/lock.ts'
import { MountCounts } from './mount-counts.ts'

const test = suite('mount counts')
const id = 'a'.repeat(64) as LayerId
const nothing = (): void => undefined

function writeHolders(dir: string, holders: { boot?: string; processes?: Record<string, number>; persistent?: number }): void {
  const boot = holders.boot ?? fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  fs.writeFileSync(path.join(dir, id), JSON.stringify({ boot, processes: holders.processes ?? {}, persistent: holders.persistent ?? 0 }))
}

test('holds add up, the last drop unmounts, and no file stays', async t => {
  const counts = new MountCounts(t.dir)
  const seen: string[] = []
  await counts.hold(id, false, () => seen.push('first'))
  await counts.hold(id, false, () => seen.push('second'))
  assert.is(counts.count(id), 2)
  await counts.drop(id, false, () => seen.push('early'))
  assert.is(counts.count(id), 1)
  await counts.drop(id, false, () => seen.push('last'))
  assert.equal(seen, ['first', 'second', 'last'])
  assert.is(counts.count(id), 0)
  assert.equal(fs.readdirSync(t.dir), [])
})

test('a first hold that a kill left half written was none', async t => {
  const counts = new MountCounts(t.dir)
  for (const text of ['', '{"boot":"']) {
    fs.writeFileSync(path.join(t.dir, id), text)
    assert.is(counts.count(id), 0)
    assert.equal(counts.noted(), [id])
    await counts.hold(id, false, nothing)
    assert.is(counts.count(id), 1)
    await counts.drop(id, false, nothing)
    assert.equal(fs.readdirSync(t.dir), [])
  }
})

test('a mount that fails takes no hold; an unmount that fails gives none back', async t => {
  const counts = new MountCounts(t.dir)
  const broken = (): void => { throw new Error('no') }
  await failure(counts.hold(id, false, broken))
  assert.is(counts.count(id), 0)
  assert.equal(fs.readdirSync(t.dir), [])
  await counts.hold(id, false, nothing)
  await failure(counts.drop(id, false, broken))
  assert.is(counts.count(id), 1)
})

test('what is not mounted cannot be unmounted, and that leaves no lock file', async t => {
  const counts = new MountCounts(t.dir)
  const error = await failure(counts.drop(id, false, nothing))
  assert.is(error.code, 'FAILED_PRECONDITION')
  assert.is(error.message, `layer ${id} is not mounted`)
  assert.is((await failure(counts.drop(id, true, nothing))).code, 'FAILED_PRECONDITION')
  assert.equal(fs.readdirSync(t.dir), [])
})

test('a process that was killed does not count, one that lives does', async t => {
  const counts = new MountCounts(t.dir)
  const child = spawn('sleep', ['30'])
  const end = new Promise(resolve => child.once('exit', resolve))
  writeHolders(t.dir, { processes: { [processIdentity(child.pid as number) as string]: 3 } })
  assert.is(counts.count(id), 3)
  child.kill('SIGKILL')
  await end
  assert.is(counts.count(id), 0)
  // The same pid with another start time is another process.
  writeHolders(t.dir, { processes: { [`${process.pid} 1`]: 1 } })
  assert.is(counts.count(id), 0)
})

test('a persistent hold outlives its process, and any process may give it back by that word', async t => {
  const counts = new MountCounts(t.dir)
  const script = `import { MountCounts } from ${JSON.stringify(new URL('./mount-counts.js', import.meta.url).href)}
    await new MountCounts(${JSON.stringify(t.dir)}).hold('${id}', true, () => {}); await new MountCounts(${JSON.stringify(t.dir)}).hold('${id}', false, () => {})`
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  assert.is(counts.count(id), 1, 'the child\'s own hold went with it')
  assert.is((await failure(counts.drop(id, false, nothing))).code, 'FAILED_PRECONDITION', 'it is not this process\'s own')
  let last = 0
  await counts.drop(id, true, () => { last++ })
  assert.is(last, 1)
})

test('mounts end with the boot, and so do holds; a file that a power cut spoilt is of an earlier boot', async t => {
  const counts = new MountCounts(t.dir)
  writeHolders(t.dir, { boot: 'another', processes: { [processIdentity(process.pid) as string]: 1 }, persistent: 2 })
  assert.is(counts.count(id), 0)
  for (const spoilt of ['', '\0\0\0\0', '{"boot":', '7', 'null']) {
    fs.writeFileSync(path.join(t.dir, id), spoilt)
    assert.is(counts.count(id), 0, JSON.stringify(spoilt))
  }
  await counts.hold(id, false, nothing)
  assert.is(counts.count(id), 1)
})

test('many processes at once: no hold is lost', { skip: needsNative, timeoutMs: 60_000 }, async t => {
  const script = `import { MountCounts } from ${JSON.stringify(new URL('./mount-counts.js', import.meta.url).href)}
    const counts = new MountCounts(${JSON.stringify(t.dir)})
    for (let i = 0; i < 50; i++) await counts.hold('${id}', true, () => {})
    for (let i = 0; i < 40; i++) await counts.drop('${id}', true, () => {})`
  const ends = [1, 2, 3].map(() => new Promise(resolve => spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' }).once('exit', resolve)))
  assert.equal(await Promise.all(ends), [0, 0, 0])
  assert.is(new MountCounts(t.dir).count(id), 30)
})

test('clear forgets all holds after its work, and keeps them when that fails', async t => {
  const counts = new MountCounts(t.dir)
  await counts.hold(id, false, nothing)
  await counts.hold(id, true, nothing)
  await failure(counts.clear(id, async holders => { assert.is(holders, 2); throw new Error('mounted') }))
  assert.is(counts.count(id), 2)
  await counts.clear(id, nothing)
  assert.is(counts.count(id), 0)
  assert.equal(fs.readdirSync(t.dir), [])
})
