import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { TestFunction } from '../../fixtures/harness/index.ts'
import { addImage, all, bytesOf, changesText, driversHere, failure, file, openIn } from '../../fixtures/storage.ts'
import { listingOf } from '../../fixtures/image-store.ts'
import { dumpTree, makeTree, overlayMarksAndOwnerNotes } from '../../fixtures/tree.ts'
import { applyLayer } from '../index.ts'
import type { Storage } from '../index.ts'
import { performMount, mountTable, unmount } from '../sys/mount.ts'

const test = suite('containers')

const layers = [
  [file('base', 'one'), { path: 'etc/', type: 'dir' }, file('etc/hosts', 'of the image'), file('etc/motd', 'hello'), { path: 'etc/resolv.conf', type: 'symlink', linkname: '../run/resolv.conf' }, { path: 'var/', type: 'dir' }, file('var/log', 'x')],
  [file('etc/motd', 'hello again'), { path: '.wh.base', type: 'file' }],
]
const mountedBelow = (dir: string): string[] => mountTable().map(mount => mount.target).filter(target => target.startsWith(`${dir}/`))
const ids = async (storage: Storage): Promise<string[]> => (await all(storage.driver.list())).sort()

for (const driver of driversHere) {
  const it = (name: string, run: TestFunction): void => test(`${driver}: ${name}`, async t => {
    await run(t)
    assert.equal(mountedBelow(t.dir), [], 'nothing stays mounted')
  })

  it('create, find by name, id and prefix, list, remove', async t => {
    const storage = await openIn(t, driver), { containers } = storage
    const image = await addImage(storage, 'app:1', layers, { Cmd: ['/run'], Env: ['A=1', 'B=2'], Labels: { x: '1' } })
    const before = listingOf(storage.root).filter(line => !line.includes('/committed ')), idsBefore = await ids(storage)
    const box = await containers.create({ image: 'app:1', name: 'box', config: { Env: ['B=3', 'C=4'], Labels: { y: '2' } } })
    const empty = await containers.create()
    assert.equal(box.config, { Env: ['B=3', 'C=4', 'A=1'], Cmd: ['/run'], Labels: { x: '1', y: '2' }, Image: 'app:1' })
    assert.is(box.imageId, image)
    assert.is(empty.imageId, undefined)
    assert.match(empty.name, /^[a-z]+_[a-z]+_[a-z0-9]+$/)
    assert.equal(containers.list().map(record => record.id), [empty.id, box.id], 'newest first')
    for (const ref of ['box', '/box', box.id, box.id.slice(0, 12)]) assert.is(containers.get(ref).id, box.id)
    assert.is((await failure(() => containers.get('nobody'))).message, 'No such container: nobody')
    assert.is((await failure(containers.create({ name: 'box' }))).message, `Conflict. The container name "/box" is already in use by container "${box.id}"`)
    assert.is((await failure(containers.create({ name: '-x' }))).code, 'INVALID_ARGUMENT')
    assert.is((await failure(containers.create({ image: 'nothing' }))).code, 'NOT_FOUND')
    assert.is((await ids(storage)).length, idsBefore.length + 4)
    await containers.remove('box')
    await containers.remove(empty.id)
    assert.equal(listingOf(storage.root).filter(line => !line.includes('/committed ')), before, 'and nothing stays')
    assert.is((await failure(containers.remove('box'))).code, 'NOT_FOUND')
  })

  it('the files lie as dockerd has them', async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    const dir = path.join(storage.root, 'image', driver, 'layerdb/mounts', id)
    const mode = (name: string): string => (fs.statSync(name).mode & 0o7777).toString(8)
    assert.equal(fs.readdirSync(dir).sort(), ['init-id', 'mount-id', 'parent'])
    assert.equal([mode(dir), mode(path.join(dir, 'mount-id')), mode(path.join(storage.root, 'containers')), mode(path.join(storage.root, 'containers', id))], ['755', '644', '710', '710'])
    const mountId = fs.readFileSync(path.join(dir, 'mount-id'), 'utf8')
    assert.match(mountId, /^[a-f0-9]{64}$/)
    assert.is(fs.readFileSync(path.join(dir, 'init-id'), 'utf8'), `${mountId}-init`)
    assert.is(fs.readFileSync(path.join(dir, 'parent'), 'utf8'), (await storage.images.get('app:1')).layers.at(-1))
    for (const name of ['config.v2.json', 'hostconfig.json']) assert.is(mode(path.join(storage.root, 'containers', id, name)), '600')
    await storage.containers.remove(id)
  })

  it('the init layer: mount points that replace what the image has, and never show as changes', async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    await storage.containers.withMount(id, dir => {
      const tree = dumpTree(dir, { times: false, root: false }).map(line => line.split(' ').slice(0, 3).join(' '))
      for (const line of ['.dockerenv file 0755', 'dev dir 0755', 'dev/console file 0755', 'dev/pts dir 0755', 'dev/shm dir 0755', 'etc/hosts file 0755', 'etc/hostname file 0755', 'etc/resolv.conf file 0755', 'etc/mtab symlink 0777', 'proc dir 0755', 'sys dir 0755']) {
        assert.ok(tree.includes(line), `${line}\n${tree.join('\n')}`)
      }
      assert.is(fs.readFileSync(path.join(dir, 'etc/hosts'), 'utf8'), '')
      assert.is(fs.readlinkSync(path.join(dir, 'etc/mtab')), '/proc/mounts')
      assert.is(fs.readFileSync(path.join(dir, 'etc/motd'), 'utf8'), 'hello again')
      assert.not.ok(fs.existsSync(path.join(dir, 'base')))
    })
    assert.equal(await changesText(storage.containers.diff(id)), [])
    await storage.containers.remove(id)
  })

  it('two containers do not see each other\'s changes; diff tells A, C and D (TestMountChanges)', async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const [one, two] = [await storage.containers.create({ image: 'app:1' }), await storage.containers.create({ image: 'app:1' })]
    await storage.containers.withMount(one.id, dir => makeTree(dir, { 'new/file': 'x', 'etc/motd': 'changed', 'var/log': { type: 'absent' } }))
    assert.equal(await changesText(storage.containers.diff(one.id)), ['C /etc', 'C /etc/motd', 'A /new', 'A /new/file', 'C /var', 'D /var/log'])
    assert.equal(await changesText(storage.containers.diff(two.id)), [])
    await storage.containers.withMount(two.id, dir => assert.is(fs.readFileSync(path.join(dir, 'etc/motd'), 'utf8'), 'hello again'))
    assert.ok((await storage.containers.usage(one.id)).sizeBytes > 0)
    for (const { id } of [one, two]) await storage.containers.remove(id)
  })

  it('export is the tree', async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    const out = path.join(t.dir, 'out')
    fs.mkdirSync(out)
    await storage.containers.withMount(id, async dir => {
      makeTree(dir, { 'new/file': 'x', 'etc/motd': { type: 'absent' } })
      await applyLayer(storage.containers.export(id), out)
      const options = { root: false, ignoreXattrs: overlayMarksAndOwnerNotes }
      assert.equal(dumpTree(out, options), dumpTree(dir, options))
    })
    await storage.containers.remove(id)
  })

  it('mounts are counted; the last one unmounts; what is mounted is not removed without force', async t => {
    const storage = await openIn(t, driver), { containers } = storage
    await addImage(storage, 'app:1', layers)
    const { id } = await containers.create({ image: 'app:1' })
    const one = await containers.mount(id), two = await containers.mount(id)
    assert.is(one.path, two.path)
    assert.is(containers.mountState(id).holders, 2)
    await one.unmount()
    await one.unmount()
    assert.is(containers.mountState(id).holders, 1, 'a second unmount of the same hold is harmless')
    assert.ok(fs.existsSync(path.join(two.path, 'etc/motd')))
    const error = await failure(containers.remove(id))
    assert.is(error.code, 'IN_USE')
    assert.match(error.message, `container layer ${id} is mounted by 1`)
    assert.is(containers.get(id).id, id, 'it is still there')
    await two.unmount()
    if (driver === 'overlay2') assert.not.ok(fs.existsSync(two.path), 'merged exists only while mounted')
    assert.is((await failure(containers.unmount(id))).code, 'FAILED_PRECONDITION')
    await containers.mount(id)
    // A writer who did not notice that it was unmounted has left this below the mount; the store opens, mounts and removes all the same.
    const { path: root, unmount: giveBack } = await containers.mount(id)
    const holds = mountTable().filter(mount => mount.target === root).length
    if (holds > 0) {
      unmount(root)
      fs.writeFileSync(path.join(root, 'late'), 'x')
    }
    await giveBack()
    await containers.mount(id)
    await containers.remove(id, { force: true })
    assert.equal(containers.list(), [])
    assert.equal(fs.readdirSync(path.join(storage.root, 'layerstack/mounts', driver)), [])
  })

  it('mounts that a killed process leaves do not keep the container', async t => {
    const storage = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    const script = `import { open } from ${JSON.stringify(new URL('../index.js', import.meta.url).href)}
      const storage = await open({ root: ${JSON.stringify(storage.root)}, driver: '${driver}' })
      await storage.containers.mount('${id}')
      console.log('mounted'); setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    const end = new Promise(resolve => child.once('exit', resolve))
    t.defer(() => { child.kill('SIGKILL') })
    await new Promise(resolve => child.stdout.once('data', resolve))
    assert.is(storage.containers.mountState(id).holders, 1)
    assert.is((await failure(storage.containers.remove(id))).code, 'IN_USE')
    child.kill('SIGKILL')
    await end
    assert.is(storage.containers.mountState(id).holders, 0)
    assert.is(storage.containers.mountState(id).path !== undefined, driver === 'overlay2', 'the mount itself is still there')
    await storage.containers.remove(id)
  })

  it('removed by two at once, mounted and removed at once: one wins, nothing stays', async t => {
    const storage = await openIn(t, driver), other = await openIn(t, driver)
    await addImage(storage, 'app:1', layers)
    const before = await ids(storage)
    for (let i = 0; i < 8; i++) {
      const { id } = await storage.containers.create({ image: 'app:1' })
      const results = await Promise.allSettled([storage.containers.remove(id, { force: true }), other.containers.remove(id, { force: true }), other.containers.mount(id)])
      for (const result of results) {
        if (result.status === 'rejected' && (result.reason as { code?: string }).code !== 'NOT_FOUND') throw result.reason
      }
      assert.equal(await ids(storage), before)
    }
    assert.equal(fs.readdirSync(path.join(storage.root, 'layerstack/mounts', driver)), [])
  })

  it('many made at once with one name: one wins', async t => {
    const storage = await openIn(t, driver), other = await openIn(t, driver)
    const results = await Promise.allSettled([storage, other, storage, other].map(one => one.containers.create({ name: 'same' })))
    assert.equal(results.filter(result => result.status === 'fulfilled').length, 1)
    for (const result of results) if (result.status === 'rejected') assert.match(String(result.reason), 'is already in use')
    assert.is((await ids(storage)).length, 2)
    await storage.containers.remove('same')
  })

  it('an image that a container uses is not removed; by force it is, and its layers stay until the container goes', async t => {
    const storage = await openIn(t, driver)
    const image = await addImage(storage, 'app:1', layers)
    const { id } = await storage.containers.create({ image: 'app:1' })
    assert.is((await failure(storage.images.remove('app:1'))).message,
      `conflict: unable to remove repository reference "app:1" (must force) - container ${id.slice(0, 12)} is using its referenced image ${image.slice(7, 19)}`)
    assert.match((await failure(storage.images.remove(image))).message, /unable to delete [a-f0-9]{12} \(must be forced\) - image is being used by stopped container/)
    await storage.images.remove(image, { force: true })
    await storage.containers.withMount(id, dir => assert.is(fs.readFileSync(path.join(dir, 'etc/motd'), 'utf8'), 'hello again'))
    await storage.containers.remove(id)
    assert.equal(await ids(storage), [], 'the last user is gone')
  })

  it('a damaged record stops nobody else', async t => {
    const storage = await openIn(t, driver)
    const { id } = await storage.containers.create({ name: 'box' })
    const broken = 'b'.repeat(64)
    fs.mkdirSync(path.join(storage.root, 'containers', broken))
    fs.writeFileSync(path.join(storage.root, 'containers', broken, 'config.v2.json'), '{')
    assert.equal(storage.containers.list().map(record => record.name), ['box'])
    assert.is((await failure(() => storage.containers.get(broken))).code, 'CORRUPT')
    await storage.containers.remove(id)
  })
}

test('mounts() describes what an engine mounts', { skip: driversHere.includes('overlay2') ? false : 'needs root: overlay2' }, async t => {
  const storage = await openIn(t, 'overlay2')
  await addImage(storage, 'app:1', layers)
  const { id } = await storage.containers.create({ image: 'app:1' })
  const [mount] = await storage.containers.mounts(id)
  assert.is(mount?.type, 'overlay')
  const target = path.join(t.dir, 'target')
  fs.mkdirSync(target)
  performMount(mount as never, target)
  t.defer(() => unmount(target))
  assert.is(fs.readFileSync(path.join(target, 'etc/motd'), 'utf8'), 'hello again')
  fs.writeFileSync(path.join(target, 'written'), 'x')
  unmount(target)
  assert.equal(await changesText(storage.containers.diff(id)), ['A /written'])
  assert.ok((await bytesOf(storage.containers.export(id))).length > 0)
})
