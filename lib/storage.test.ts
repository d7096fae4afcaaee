import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../fixtures/harness/index.ts'
import { addImage, all, bytesOf, driversHere, failure, file, openIn } from '../fixtures/storage.ts'
import { defaultRoot, open, parseDigest, StorageError } from './index.ts'
import type { ChainId } from './index.ts'
import { tryLock } from './sys/lock.ts'

const test = suite('open')
const layers = [[file('a', 'one')], [file('b', 'two')]]
const here = JSON.stringify(new URL('./index.js', import.meta.url).href)

/** Everything about every path: what a read-only storage must not change. */
function state(dir: string): string[] {
  return (fs.readdirSync(dir, { recursive: true }) as string[]).sort().map(name => {
    const st = fs.lstatSync(path.join(dir, name), { bigint: true })
    return `${name} ${st.ino} ${st.mode} ${st.size} ${st.mtimeNs} ${st.ctimeNs}`
  })
}

for (const driver of driversHere) {
  test(`${driver}: read-only changes nothing, and reads everything`, async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1', name: 'box' })
    await storage.close()
    const root = storage.root
    const before = state(root)
    const reader = await openIn(t, driver, { root, readOnly: true })
    assert.is(reader.readOnly, true)
    const info = await reader.info()
    assert.equal([info.readOnlyReason, info.images, info.containers, info.layers], ['asked for', 1, 1, 2])
    for (const layer of await all(reader.layers.list())) await bytesOf(reader.layers.tar(layer.chainId))
    await bytesOf(reader.images.save(['app:1'])).catch((error: unknown) => { throw error })
    await all(reader.containers.diff('box'))
    await bytesOf(reader.containers.export('box'))
    await reader.containers.mounts('box')
    await reader.diskUsage()
    const writes: readonly (readonly [string, () => Promise<unknown>])[] = [
      ['create', () => reader.containers.create({ image: 'app:1' })], ['mount', () => reader.containers.mount('box')], ['unmount', () => reader.containers.unmount('box')],
      ['remove', () => reader.containers.remove('box')], ['commit', () => reader.containers.commit('box')], ['tag', () => reader.images.tag('app:1', 'app:2')],
      ['remove image', () => reader.images.remove('app:1')], ['release', async () => reader.layers.release((await reader.images.get('app:1')).layers[1] as never)],
      ['register', () => reader.layers.operation('x', async () => undefined)],
    ]
    for (const [name, write] of writes) assert.is((await failure(write)).code, 'READ_ONLY', name)
    assert.equal(state(root), before)
    await reader.close()
    assert.is(id, (await openIn(t, driver)).containers.get('box').id)
  })
}

test('a dockerd that holds volumes/metadata.db makes it read-only, and says so', { skip: needsNative }, async t => {
  const storage = await openIn(t, 'vfs')
  await storage.close()
  const db = path.join(storage.root, 'volumes/metadata.db')
  fs.mkdirSync(path.dirname(db), { recursive: true })
  fs.writeFileSync(db, '')
  const child = spawn('flock', [db, 'sh', '-c', 'echo locked; exec sleep 30'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const end = new Promise(resolve => child.once('exit', resolve))
  t.defer(() => { child.kill('SIGKILL') })
  await new Promise(resolve => child.stdout.once('data', resolve))
  const reader = await openIn(t, 'vfs')
  assert.equal([reader.readOnly, (await reader.info()).readOnlyReason], [true, 'a running dockerd holds the lock on volumes/metadata.db'])
  assert.is((await failure(reader.containers.create())).code, 'READ_ONLY')
  child.kill('SIGKILL')
  await end
  // flock(1) forks: its child held the descriptor, too.
  spawnSync('flock', ['-w', '5', '-s', db, 'true'])
  for (let i = 0; i < 50 && (await openIn(t, 'vfs')).readOnly; i++) await new Promise(resolve => setTimeout(resolve, 20))
  // Held for a moment only, by another process of ours.
  const held = tryLock(db)
  setTimeout(() => held?.release(), 30)
})

test('a root that is a file, is missing and read-only, or holds nothing', async t => {
  const plain = path.join(t.dir, 'plain')
  fs.writeFileSync(plain, '')
  const error = await failure(open({ root: plain }))
  assert.equal([error.code, error.message], ['INVALID_ARGUMENT', `opening ${plain}: it is not a directory`])
  assert.is((await failure(open({ root: path.join(plain, 'below') }))).code, 'INVALID_ARGUMENT')
  const missing = path.join(t.dir, 'missing')
  assert.is((await failure(open({ root: missing, readOnly: true }))).code, 'NOT_FOUND')
  assert.not.ok(fs.existsSync(missing))
  assert.is((await failure(open({ root: t.dir, readOnly: true }))).code, 'NOT_FOUND')
})

test('a root behind a symlink is opened where it is; modes are Docker\'s', async t => {
  const mask = process.umask(0)
  t.defer(() => process.umask(mask))
  const real = path.join(t.dir, 'real'), link = path.join(t.dir, 'link')
  fs.symlinkSync(real, link)
  assert.is((await failure(open({ root: link, driver: 'vfs' }))).code, 'NOT_FOUND', 'a dangling link is nobody\'s root')
  fs.mkdirSync(real, 0o755)
  const storage = await openIn(t, 'vfs', { root: link })
  assert.is(storage.root, real)
  const fresh = await openIn(t, 'vfs', { root: path.join(t.dir, 'a/b/root') })
  const mode = (name: string): string => (fs.statSync(path.join(fresh.root, name)).mode & 0o7777).toString(8)
  assert.equal(['.', 'image', 'image/vfs', 'vfs', 'containers', 'layerstack'].map(mode), ['710', '700', '700', '710', '710', '700'])
})

test('opened by many at once, in one process and in several', { timeoutMs: 60_000 }, async t => {
  const root = path.join(t.dir, 'root')
  const several = await Promise.all([1, 2, 3].map(() => openIn(t, 'vfs', { root })))
  assert.equal(several.map(storage => storage.root), [root, root, root])
  const other = path.join(t.dir, 'other')
  const script = `import { open } from ${here}
    for (let i = 0; i < 5; i++) { const s = await open({ root: ${JSON.stringify(other)}, driver: 'vfs' }); await s.containers.create(); await s.close() }`
  const ends = [1, 2, 3].map(() => new Promise(resolve => spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' }).once('exit', resolve)))
  assert.equal(await Promise.all(ends), [0, 0, 0])
  assert.is((await openIn(t, 'vfs', { root: other })).containers.list().length, 15)
})

test('close is idempotent; disposal closes', async t => {
  const storage = await openIn(t, 'vfs')
  await storage.close()
  await storage.close()
  await storage[Symbol.asyncDispose]()
})

test('a closed storage says so, whoever kept which part of it; what is mounted can still be unmounted', { skip: needsRoot }, async t => {
  const storage = await openIn(t, 'vfs')
  const { layers, images, containers, snapshots, volumes } = storage
  await containers.create({ name: 'box' })
  const box = await containers.mount('box')
  await storage.close()
  const calls: Readonly<Record<string, () => unknown>> = {
    'images.load': () => images.load('/nowhere'), 'images.ids': () => images.ids(), 'containers.create': () => containers.create(), 'containers.list': () => containers.list(),
    'containers.diff': async () => { for await (const _ of containers.diff('box')); }, 'layers.find': () => layers.find(parseDigest(`sha256:${'0'.repeat(64)}`) as ChainId), 'layers.list': async () => { for await (const _ of layers.list()); },
    'volumes.create': () => volumes.create('v'), 'volumes.list': () => volumes.list(), 'snapshots.stat': () => snapshots.stat('x'), 'snapshots.prepare': () => snapshots.prepare('x'),
    info: () => storage.info(), diskUsage: () => storage.diskUsage(), check: async () => { for await (const _ of storage.check()); }, repair: () => storage.repair(), prune: () => storage.prune(),
    migrate: () => storage.migrate({ to: 'overlay2' }),
  }
  for (const [name, call] of Object.entries(calls)) {
    const error: unknown = await (async () => await call())().then(() => undefined, (thrown: unknown) => thrown)
    assert.ok(StorageError.is(error, 'CLOSED'), `${name}: ${String(error)}`)
    assert.match(error.message, /closed$/, name)
  }
  await box.unmount()
})

test('the default root is never Docker\'s', { skip: needsRoot === false ? false : 'needs root to be another user' }, t => {
  assert.is(defaultRoot(), '/var/lib/layerstack')
  t.dir
  const script = `import { defaultRoot } from ${here}; console.log(defaultRoot())`
  const as = (env: NodeJS.ProcessEnv): string => spawnSync(process.execPath, ['--input-type=module', '-e', `process.setuid(65534); ${script.replace('import { defaultRoot } from', 'const { defaultRoot } = await import(').replace('; console', '); console')}`], { encoding: 'utf8', env: { PATH: process.env['PATH'], ...env } }).stdout.trim()
  assert.is(as({ XDG_DATA_HOME: '/x' }), '/x/layerstack')
  assert.is(as({ HOME: '/h' }), '/h/.local/share/layerstack')
  assert.ok(os.homedir().length > 0)
})

test('a root that may not be written: told which and what to do', { skip: needsRoot === false ? false : 'needs root to be another user' }, t => {
  const root = path.join(t.dir, 'root')
  fs.mkdirSync(root, 0o755)
  const script = `process.setgroups([]); process.setgid(65534); process.setuid(65534); const { open } = await import(${here})
    for (const options of [{}, { driver: 'vfs' }, { root: ${JSON.stringify(path.join(root, 'below'))} }]) {
      try { await open({ root: ${JSON.stringify(root)}, ...options }); console.log('opened') } catch (error) { console.log(error.code, error.message, '|', error.info?.hint) }
    }`
  const lines = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout.trim().split('\n')
  assert.is(lines.length, 3)
  assert.match(lines[0] ?? '', /^NOT_SUPPORTED no supported storage driver found: .*vfs cannot write to .*EACCES/)
  assert.match(lines[1] ?? '', /^PREREQUISITE_MISSING vfs: vfs cannot write to .*EACCES \| choose a writable data root$/)
  assert.match(lines[2] ?? '', /^PERMISSION_DENIED opening .*below.* \| give another data root with --root$/)
})
