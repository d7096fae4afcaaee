// Ten processes at the same volumes, some killed: no count is wrong, no data lost, no mount left. LAYERSTACK_TORTURE_SECONDS says for how long.

import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, needsRoot, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { open } from '../index.ts'
import { mountTable } from '../sys/mount.ts'

const test = suite('volume torture')
const seconds = Number(process.env['LAYERSTACK_TORTURE_SECONDS'] ?? 5)
const workers = 10

interface Report { readonly rounds?: number; readonly failed?: string }

test(`${workers} processes for ${seconds} s`, { timeoutMs: seconds * 1000 + 60_000 }, async t => {
  const root = path.join(t.dir, 'root'), device = path.join(t.dir, 'device'), log = path.join(t.dir, 'log')
  fs.mkdirSync(device)
  fs.writeFileSync(path.join(device, 'precious'), 'of the host')
  fs.writeFileSync(log, '')
  {
    await using storage = await open({ root, driver: 'vfs', durability: 'none' })
    await storage.volumes.create('kept')
    await storage.volumes.use('kept', 'the test')
  }
  const end = Date.now() + seconds * 1000
  const plan = JSON.stringify({ root, device, log, mounts: needsRoot === false, untilMs: end })
  const failures: string[] = []
  let rounds = 0, killed = 0
  const alive = new Set<ChildProcess>()
  const start = (): void => {
    const child = fork(path.join(projectRoot, 'dist/fixtures/volume-worker.js'), [plan], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    alive.add(child)
    child.on('message', (report: Report) => {
      rounds += report.rounds ?? 0
      if (report.failed !== undefined) failures.push(report.failed)
    })
    child.once('exit', () => alive.delete(child))
  }
  t.defer(() => { for (const child of alive) child.kill('SIGKILL') })
  for (let i = 0; i < workers; i++) start()
  await sleep(700)
  while (Date.now() < end && failures.length === 0) {
    await sleep(500)
    const victim = [...alive][Math.floor(Math.random() * alive.size)]
    if (victim !== undefined && victim.kill('SIGKILL')) killed++
    while (alive.size < workers) start()
  }
  while (alive.size > 0) await sleep(20)
  assert.equal(failures, [])
  assert.ok(killed > 0 && rounds > 0, 'something was done, and somebody killed')

  await using storage = await open({ root, driver: 'vfs', durability: 'none' })
  const { volumes } = storage
  for (const { name, mountpoint } of volumes.list()) {
    assert.is(volumes.mountCount(name), 0, `${name} is held by nobody`)
    assert.equal(volumes.references(name), name === 'kept' ? ['the test'] : [])
    assert.ok(fs.statSync(mountpoint).isDirectory())
  }
  assert.equal(mountTable().filter(mount => mount.target.startsWith(t.dir)), [])
  const logged = fs.readFileSync(log, 'utf8').split('\n').filter(line => line !== '')
  const kept = volumes.get('kept').mountpoint
  assert.ok(logged.length > 0)
  for (const file of logged) assert.is(fs.readFileSync(path.join(kept, file), 'utf8'), file)
  assert.is(fs.readFileSync(path.join(device, 'precious'), 'utf8'), 'of the host')
  for (const left of ['trash', 'locks', 'subpaths', 'mounts']) assert.equal(fs.readdirSync(path.join(root, 'layerstack', 'volumes', left)), [], left)
  // Everything can be removed, and nothing is left.
  await volumes.release('kept', 'the test')
  for (const { name } of volumes.list()) await volumes.remove(name)
  assert.equal(fs.readdirSync(path.join(root, 'volumes')), ['metadata.db'])
  console.log(`  ${rounds} rounds by those that were not killed, ${killed} killed, ${logged.length} files kept`)
})
