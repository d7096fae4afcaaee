// Volumes whose containers are hostile: they exchange what lies in the volume for links to the host while it is filled, cloned, saved, restored or pinned.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { bytesOf, openIn } from '../../fixtures/storage.ts'
import { swapping } from '../../fixtures/swapper.ts'
import { dumpTree, makeTar, makeTree } from '../../fixtures/tree.ts'
import { isErrno, StorageError } from '../errors.ts'

const test = suite('hostile volumes')
const secret = 'the secret of the host'

function host(dir: string): { readonly at: string; readonly assertSame: () => void } {
  const at = path.join(dir, 'host')
  makeTree(at, { 'shadow': { content: secret, mode: 0o600 }, 'd/shadow': secret, 'f0': secret })
  const before = dumpTree(at)
  return { at, assertSame: () => assert.equal(dumpTree(at), before) }
}

test('a volume that a container writes to is cloned and saved', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const storage = await openIn(t, 'vfs'), { volumes } = storage, { at, assertSame } = host(t.dir)
  const { mountpoint } = await volumes.create('data')
  makeTree(mountpoint, { ...Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`d/f${i}`, 'harmless'])), 'link': { type: 'symlink', to: at }, 'file': 'harmless', 'flink': { type: 'symlink', to: path.join(at, 'shadow') } })
  await swapping(t, mountpoint, [['d', 'link'], ['file', 'flink']])
  for (let i = 0; i < 15; i++) {
    const clone = await volumes.clone('data', `clone-${i}`)
    for (const [name = '', type] of dumpTree(clone.mountpoint).map(line => line.split(' '))) {
      if (type === 'file') assert.not.match(fs.readFileSync(path.join(clone.mountpoint, name), 'utf8'), secret, name)
    }
    assert.is((await bytesOf(volumes.export('data'))).indexOf(secret), -1)
  }
  assertSame()
})

test('a volume that a container writes to is filled and restored', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const storage = await openIn(t, 'vfs'), { volumes } = storage, { at, assertSame } = host(t.dir)
  const source = path.join(t.dir, 'image')
  makeTree(source, { 'd/shadow': { content: 'from the image', mode: 0o666 }, 'shadow': { content: 'from the image', mode: 0o666 }, 'f0': 'x' })
  const { mountpoint } = await volumes.create('data')
  for (const who of ['hostile', 'other']) await volumes.use('data', who)
  await swapping(t, mountpoint, [{ appearing: '.layerstack-filling', link: at }, { appearing: '.layerstack-filled', link: at }])
  const tar = makeTar([{ path: 'd/shadow', type: 'file', content: 'from a tar' }, { path: 'shadow', type: 'file', content: 'from a tar', mode: 0o666 }])
  const tried = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      assert.ok(StorageError.is(error) || isErrno(error, 'ENOTDIR', 'ELOOP', 'ENOENT', 'EEXIST', 'ENOTEMPTY'), String(error))
    }
    assertSame()
    // The container's links among them: whatever is left goes, by what is not watched.
    for (const name of fs.readdirSync(mountpoint)) if (!name.startsWith('.swap-')) fs.rmSync(path.join(mountpoint, name), { recursive: true, force: true })
  }
  for (let i = 0; i < 15; i++) {
    await tried(() => volumes.fill('data', source, { reference: 'other' }))
    await tried(() => volumes.import('data', (async function* () { yield tar })()))
  }
})

test('a subpath that is exchanged for a link is filled and pinned inside the volume, or not at all', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const storage = await openIn(t, 'vfs'), { volumes } = storage, { at, assertSame } = host(t.dir)
  const source = path.join(t.dir, 'image')
  makeTree(source, { 'shadow': { content: 'from the image', mode: 0o666 }, 'new': 'x' })
  const { mountpoint } = await volumes.create('data')
  makeTree(mountpoint, { 'sub/': {}, 'link': { type: 'symlink', to: at } })
  await swapping(t, mountpoint, [['sub', 'link']])
  let inside = 0, refused = 0
  for (let i = 0; i < 60; i++) {
    try {
      await volumes.fill('data', source, { reference: 'r', subpath: 'sub' })
      const where = volumes.pin('data', 'sub')
      try {
        assert.not.ok(fs.readdirSync(where).includes('f0'), 'the host was mounted')
        inside++
      } finally {
        volumes.unpin(where)
      }
    } catch (error) {
      assert.ok(StorageError.is(error), String(error))
      assert.match(error.code, /FAILED_PRECONDITION|NOT_FOUND/, String(error))
      refused++
    }
    assertSame()
  }
  assert.ok(inside > 0 && refused > 0, `${inside} ${refused}`)
})
