import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../fixtures/harness/index.ts'
import { failure } from '../fixtures/storage.ts'
import type { DriverModule, ProbeResult } from './driver.ts'
import { driverPriority, selectDriver } from './select-driver.ts'

const test = suite('select driver')

const works: ProbeResult = { ok: true, supports: { nativeMounts: false, independentLayers: false, maxDepth: 1, quota: false, ownership: true } }
const fails = (reason: string): ProbeResult => ({ ok: false, code: 'PREREQUISITE_MISSING', reason, hint: `mend ${reason}` })

function modules(answers: Readonly<Record<string, ProbeResult>>, probed: string[] = []): DriverModule[] {
  return Object.entries(answers).map(([name, answer]) => ({
    name, parseOptions: () => ({}),
    async probe(home: string) { probed.push(path.basename(home)); return answer },
    async open() { throw new Error('not opened here') },
  }))
}
const both = { vfs: works, overlay2: works, btrfs: works }

function use(root: string, name: string): void {
  fs.mkdirSync(path.join(root, name, 'layer'), { recursive: true })
}

test('an empty root gets the first in Docker\'s order that works', async t => {
  assert.equal(driverPriority.slice(0, 4), ['overlay2', 'fuse-overlayfs', 'btrfs', 'zfs'])
  const first = await selectDriver({ root: t.dir, modules: modules(both) })
  assert.equal([first.name, first.reason], ['overlay2', 'overlay2 is the first choice and works here'])
  assert.equal(await first.others(), [{ name: 'btrfs', reason: 'overlay2 comes first' }, { name: 'vfs', reason: 'overlay2 comes first' }])
  const next = await selectDriver({ root: t.dir, modules: modules({ ...both, overlay2: fails('no overlay') }) })
  assert.equal([next.name, (await next.others())[0]], ['btrfs', { name: 'overlay2', reason: 'no overlay' }])
  const own = await selectDriver({ root: t.dir, modules: modules({ mine: works }) })
  assert.is(own.name, 'mine', 'a driver of the caller\'s, after those that have a place')
})

test('none works: all reasons', async t => {
  const error = await failure(selectDriver({ root: t.dir, modules: modules({ overlay2: fails('no overlay'), vfs: fails('no room') }) }))
  assert.equal([error.code, error.message], ['NOT_SUPPORTED', 'no supported storage driver found: overlay2: no overlay; vfs: no room'])
})

test('a driver that was used here is taken, or nothing: images must not vanish', async t => {
  use(t.dir, 'btrfs')
  const choice = await selectDriver({ root: t.dir, modules: modules(both) })
  assert.equal([choice.name, choice.reason], ['btrfs', `${path.join(t.dir, 'btrfs')} holds layers already`])
  const error = await failure(selectDriver({ root: t.dir, modules: modules({ ...both, btrfs: fails('no subvolumes') }) }))
  assert.equal([error.code, error.message, error.info?.hint], ['PREREQUISITE_MISSING', 'btrfs: no subvolumes', 'mend no subvolumes'])
})

test('an empty folder does not count, nor does vfs; one that may not be read does', async t => {
  fs.mkdirSync(path.join(t.dir, 'btrfs'))
  use(t.dir, 'vfs')
  assert.is((await selectDriver({ root: t.dir, modules: modules(both) })).name, 'overlay2')
})

test('several were used: Docker\'s error; naming one decides', async t => {
  for (const name of ['btrfs', 'overlay2', 'vfs']) use(t.dir, name)
  const error = await failure(selectDriver({ root: t.dir, modules: modules(both) }))
  assert.equal([error.code, error.message], ['FAILED_PRECONDITION', `${t.dir} contains several valid graphdrivers: overlay2, btrfs; cleanup or explicitly choose storage driver (-s <DRIVER>)`])
  assert.is((await selectDriver({ root: t.dir, modules: modules(both), driver: 'btrfs' })).name, 'btrfs')
})

test('a prior driver that is not part of the library is named with what to do', async t => {
  use(t.dir, 'devicemapper')
  const error = await failure(selectDriver({ root: t.dir, modules: modules(both) }))
  assert.equal([error.code, error.message], ['NOT_SUPPORTED', 'the devicemapper storage-driver is not part of layerstack'])
  assert.match(error.info?.hint ?? '', 'removed devicemapper in 25.0')
})

test('named by the caller, or by DOCKER_DRIVER: that one or an error', async t => {
  const byEnvironment = await selectDriver({ root: t.dir, modules: modules(both), environment: 'vfs' })
  assert.equal([byEnvironment.name, byEnvironment.reason], ['vfs', 'the environment variable DOCKER_DRIVER names vfs'])
  const asked = await selectDriver({ root: t.dir, modules: modules({ ...both, overlay2: fails('no overlay') }), driver: 'vfs', environment: 'overlay2' })
  assert.equal([asked.name, asked.reason, await asked.others()], ['vfs', 'vfs was asked for', [{ name: 'overlay2', reason: 'no overlay' }, { name: 'btrfs', reason: 'would work, but vfs was given' }]])
  assert.is((await failure(selectDriver({ root: t.dir, modules: modules({ vfs: fails('no room') }), driver: 'vfs' }))).message, 'vfs: no room')
  const unknown = await failure(selectDriver({ root: t.dir, modules: modules(both), driver: 'nothing' }))
  assert.equal([unknown.code, unknown.message], ['NOT_SUPPORTED', 'driver not supported: nothing'])
  assert.is((await selectDriver({ root: t.dir, modules: modules(both), environment: '' })).name, 'overlay2', 'an empty variable names nothing')
})

test('read-only: nothing is tried, the root tells', async t => {
  const probed: string[] = []
  const empty = await failure(selectDriver({ root: t.dir, modules: modules(both, probed), readOnly: true }))
  assert.is(empty.code, 'NOT_FOUND')
  use(t.dir, 'vfs')
  assert.is((await selectDriver({ root: t.dir, modules: modules(both, probed), readOnly: true })).name, 'vfs')
  use(t.dir, 'btrfs')
  assert.is((await selectDriver({ root: t.dir, modules: modules(both, probed), readOnly: true })).name, 'btrfs')
  assert.is((await selectDriver({ root: t.dir, modules: modules(both, probed), readOnly: true, driver: 'overlay2' })).name, 'overlay2')
  assert.equal(probed, [])
})

test('a driver that is neither tried nor chosen is not loaded', async t => {
  const loaded: string[] = []
  const sources = modules(both).map(module => ({ name: module.name, load: async () => { loaded.push(module.name); return module } }))
  use(t.dir, 'btrfs')
  const choice = await selectDriver({ root: t.dir, modules: sources })
  assert.equal([choice.name, loaded], ['btrfs', ['btrfs']])
  assert.is((await selectDriver({ root: t.dir, modules: sources, driver: 'vfs' })).module.name, 'vfs')
  assert.equal(loaded, ['btrfs', 'vfs'])
  assert.equal((await choice.others()).map(({ name }) => name), ['vfs', 'overlay2'])
  assert.ok(loaded.includes('overlay2'))
})
