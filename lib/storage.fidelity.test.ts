// Everything that makes up a tree survives the whole way: load → container → commit → save → load elsewhere → mounted.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { addImage, all, bytesOf, changesText, failure, file, once, openIn } from '../fixtures/storage.ts'
import { digestOf } from '../fixtures/image-store.ts'
import { makeTar } from '../fixtures/make-tar.ts'
import { dumpTree, makeTree } from '../fixtures/tree.ts'
import type { TreeSpec } from '../fixtures/tree.ts'
import type { Digest } from './ids.ts'
import { setXattr } from './sys/xattr.ts'

const test = suite('fidelity')
const y2040 = 2_208_988_800_123_456_789n
const binary = Buffer.from([0, 1, 2, 0xff, 0x0a, 0])
/** cap_net_raw+ep, as the kernel stores it (VFS_CAP_REVISION_2). */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')

const odd: TreeSpec = {
  'dir/': { mode: 0o1777, uid: 3_000_000, gid: 3_000_001, mtimeNs: y2040 },
  'dir/raw\\xff\\xfename': { content: 'not UTF-8', mtimeNs: y2040 },
  'dir/raw\\xff\\xfedir/': { mode: 0o700 },
  'dir/raw\\xff\\xfedir/\\xe9': { type: 'symlink', to: Buffer.from([0x2f, 0xfe]), mtimeNs: 5n },
  'xattrs': { content: 'x', xattrs: { 'user.binary': binary, 'user.empty': '', 'trusted.x': binary, 'security.capability': capability } },
  'before1970': { content: 'old', mtimeNs: -1_500_000_000n },
  'setuid': { content: '#!', mode: 0o6755, uid: 12, gid: 34 },
  'sparse': { sparse: { sizeBytes: 8 * 1024 ** 3, runs: [[1_000_000, 'near'], [8 * 1024 ** 3 - 3, 'end']] } },
  'fifo': { type: 'fifo', mode: 0o620 },
  'null': { type: 'char', rdev: [1, 3], mode: 0o666 },
  'block': { type: 'block', rdev: [259, 70000], uid: 3_000_000 },
  'one': { content: 'linked', mode: 0o640 },
  'dir/two': { type: 'hardlink', to: 'one' },
  [`${'long'.repeat(40)}/${'name'.repeat(60)}`]: 'a path of more than 255 bytes',
}

/** Without what an engine's mount points make of /etc and the rest; the sizes of holes are the file system's business. */
const dump = (dir: string): string[] => dumpTree(dir, { root: false, filter: name => !/^(dev|proc|sys|etc|\.dockerenv)$/.test(name) })

for (const driver of ['overlay2', 'vfs']) {
  test(`${driver}: load, container, commit, save, load into a second root, mount`, { skip: needsRoot, timeoutMs: 180_000 }, async t => {
    const source = path.join(t.dir, 'source')
    makeTree(source, odd)
    const storage = await openIn(t, driver)
    // The base comes from GNU tar, which is nobody of ours.
    const tar = path.join(t.dir, 'base.tar')
    const made = spawnSync('tar', ['--format=pax', '--xattrs', '--xattrs-include=*', '--sparse', '--numeric-owner', '-cf', tar, '-C', source, '.'], { encoding: 'utf8' })
    assert.is(made.status, 0, made.stderr)
    await storage.images.import(tar, { reference: 'odd:1' })
    const box = await storage.containers.create({ image: 'odd:1', name: 'box' })
    const expected = await storage.containers.withMount('box', dir => {
      assert.equal(dump(dir), dump(source), 'the loaded image')
      // And the same kinds of things made in the container.
      makeTree(path.join(dir, 'more'), odd)
      makeTree(dir, { 'dir/raw\\xff\\xfename': { type: 'absent' }, setuid: { content: 'changed', mode: 0o4711 } })
      setXattr(path.join(dir, 'xattrs'), 'user.binary', Buffer.from([0, 0]))
      return dump(dir)
    })
    await storage.containers.commit('box', { reference: 'odd:2' })
    const archive = path.join(t.dir, 'saved.tar')
    const fd = fs.openSync(archive, 'w')
    for await (const chunk of storage.images.save(['odd:2'])) fs.writeSync(fd, chunk)
    fs.closeSync(fd)
    assert.ok(fs.statSync(archive).size < 3_000_000, 'the holes were not written')
    const second = await openIn(t, driver, { root: path.join(t.dir, 'second') })
    await second.images.load(archive)
    const next = await second.containers.create({ image: 'odd:2' })
    await second.containers.withMount(next.id, dir => assert.equal(dump(dir), expected))
    assert.equal((await changesText(second.containers.diff(next.id))), [])
    assert.ok((await second.containers.usage(next.id)).sizeBytes < 50_000_000, 'the sparse file stayed sparse')
    await second.containers.remove(next.id)
    await storage.containers.remove(box.id)
  })
}

test('overlay2: an image of 400 layers loads, mounts, diffs, commits, and is written out; beyond the limit it is told', { skip: needsRoot, timeoutMs: 180_000 }, async t => {
  const storage = await openIn(t, 'overlay2')
  const layers = Array.from({ length: 400 }, (_, i) => [file(`layers/${i}`, `${i}`), file('top', `${i}`), ...(i % 10 === 9 ? [{ path: `layers/.wh.${i - 1}`, type: 'file' }] : [])])
  await addImage(storage, 'deep:1', layers)
  const { id } = await storage.containers.create({ image: 'deep:1' })
  await storage.containers.withMount(id, dir => {
    assert.is(fs.readFileSync(path.join(dir, 'top'), 'utf8'), '399')
    assert.is(fs.readdirSync(path.join(dir, 'layers')).length, 360)
    makeTree(dir, { 'layers/0': { type: 'absent' }, 'layers/new': 'x' })
  })
  assert.equal(await changesText(storage.containers.diff(id)), ['C /layers', 'D /layers/0', 'A /layers/new'])
  const { imageId } = await storage.containers.commit(id)
  assert.is((await storage.images.get(imageId)).layers.length, 401)
  const [top] = (await storage.images.get(imageId)).layers.slice(-1)
  assert.ok((await bytesOf(storage.layers.tar(top as never))).length > 0)
  const next = await storage.containers.create({ image: imageId })
  await storage.containers.withMount(next.id, dir => assert.is(fs.readdirSync(path.join(dir, 'layers')).length, 360))
  for (const one of [id, next.id]) await storage.containers.remove(one)

  // Up to the limit everything works, one more does not.
  const most = storage.driver.supports.maxDepth - 1
  const more = Array.from({ length: most - 400 }, (_, i) => makeTar([file('more', `${i}`)]))
  const parent = (await storage.images.get('deep:1')).layers.at(-1) as never
  await storage.layers.operation('full', async operation => {
    const stream = (tar: Buffer): { source: { stream: AsyncGenerator<Buffer> }; diffId: Digest } => ({ source: { stream: once(tar) }, diffId: digestOf(tar) as Digest })
    const registered = await storage.layers.register(operation, more.map(stream), parent)
    const config = { architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: (await storage.layers.chain(registered.at(-1)?.chainId as never)).reverse().map(layer => layer.diffId) } }
    const full = await storage.images.create(Buffer.from(JSON.stringify(config)), { operation, reference: 'full:1' })
    const last = await storage.containers.create({ image: full })
    await storage.containers.withMount(last.id, dir => fs.writeFileSync(path.join(dir, 'written'), 'x'))
    assert.equal(await changesText(storage.containers.diff(last.id)), ['A /written'])
    const error = await failure(storage.containers.commit(last.id))
    assert.equal([error.code, error.message], ['LIMIT_EXCEEDED', `max depth exceeded: ${most + 1} layers, and overlay2 carries ${most}`])
    await storage.containers.remove(last.id)
  })
  for (const image of ['full:1', imageId, 'deep:1']) await storage.images.remove(image)
  assert.equal(await all(storage.driver.list()), [])
})
