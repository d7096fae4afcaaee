// Layers as they are written: what other programs make of them, hard links, holes, and trees that change while they are read.

import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { applyBy, entriesOf, layerBytes } from '../../fixtures/layers.ts'
import { dumpTree, makeTree } from '../../fixtures/tree.ts'
import type { TreeSpec } from '../../fixtures/tree.ts'
import { sha256 } from '../ids.ts'
import { writeLayer } from './index.ts'

const test = suite('writing layers')
const none = { whiteouts: 'none' } as const
const installed = (program: string): string | false => {
  try { execFileSync(program, ['--version'], { stdio: 'ignore' }); return false } catch { return `${program} is not installed` }
}

const everything: TreeSpec = {
  'dir/': { mode: 0o2775, gid: 50, mtimeNs: 1_500_000_000_000_000_007n }, 'dir/file': { content: 'x'.repeat(100_000), mode: 0o4711, uid: 3_000_000, mtimeNs: 2_208_988_800_123_456_789n },
  'dir/hard': { type: 'hardlink', to: 'dir/file' }, 'link': { type: 'symlink', to: '../x', uid: 5 }, 'pipe': { type: 'fifo' },
  'null': { type: 'char', rdev: [1, 3] }, 'disk': { type: 'block', rdev: [259, 70_000] }, 'old': { content: '', mtimeNs: -5_000_000_000n },
  'x': { content: 'x', xattrs: { 'user.bytes': Buffer.from([0, 10, 255]), 'security.capability': Buffer.from('0100000200240000000000000000000000000000', 'hex') } },
  '\\xff\\xfe': 'bytes', [`${'long/'.repeat(40)}${'n'.repeat(200)}`]: 'long', [`long/\\xff${'m'.repeat(180)}`]: 'long bytes',
}

for (const [program, args] of [['tar', ['--xattrs', '--xattrs-include=*']], ['bsdtar', ['--xattrs', '--acls']]] as const) {
  test(`${program} extracts the tree that was written`, { skip: needsRoot || installed(program) }, async t => {
    const from = path.join(t.dir, 'from'), to = path.join(t.dir, 'to')
    makeTree(from, everything)
    fs.mkdirSync(to)
    const { tar, tarBytes, diffId, skipped } = await layerBytes(from, undefined, none)
    assert.equal(skipped, [])
    assert.is(tar.length, tarBytes)
    assert.is(sha256(tar), diffId)
    execFileSync(program, ['-x', '-p', '--same-owner', ...args, '-C', to, '-f', '-'], { input: tar })
    const clean = (dir: string): string[] => dumpTree(dir, { root: false })
    assert.equal(clean(to), clean(from))
    const listing = execFileSync(program, ['-tf', '-'], { input: tar, encoding: 'latin1' }).trimEnd().split('\n')
    assert.is(listing.length, (await entriesOf(tar)).length)
  })
}

test('the same tree gives the same bytes, wherever it lies and however it was made', { skip: needsRoot }, async t => {
  const digests = new Set<string>()
  for (const [i, keys] of [Object.keys(everything), Object.keys(everything), Object.keys(everything).filter(key => !key.endsWith('hard')).reverse()].entries()) {
    const dir = path.join(t.dir, `tree${i}`)
    makeTree(dir, Object.fromEntries(keys.map(key => [key, everything[key] ?? ''])))
    makeTree(dir, { 'dir/hard': { type: 'hardlink', to: 'dir/file' } })
    // Parents that were made on the way have the time of the making in no run.
    makeTree(dir, { 'dir/': { mtimeNs: 1_500_000_000_000_000_007n, mode: 0o2775, gid: 50 } })
    fs.chmodSync(path.join(dir, 'dir'), 0o2775)
    for (let run = 0; run < 3; run++) digests.add((await layerBytes(dir, undefined, none)).diffId)
  }
  assert.is(digests.size, 1)
})

test('whiteouts are root\'s, empty, and of 1970, whenever they are written', async t => {
  const a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  makeTree(a, { 'd/x': 'x', 'y': 'y', 'e/f': 'f' })
  makeTree(b, { 'd/': {} })
  const { tar } = await layerBytes(b, a, none)
  const whiteouts = (await entriesOf(tar)).filter(({ header }) => header.name.includes('.wh.')).map(({ header: h }) => [h.name.toString(), h.type, h.mode, h.uid, h.gid, h.sizeBytes, h.mtimeNs])
  assert.equal(whiteouts, ['d/.wh.x', '.wh.e', '.wh.y'].map(name => [name, 'file', 0o600, 0, 0, 0, 0n]))
})

test('a link to an unchanged file brings the file, and its directories, with it', { skip: needsNative }, async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper'), branch = path.join(t.dir, 'branch')
  makeTree(lower, { 'a/deep/': { mode: 0o710 }, 'a/deep/file': 'same', 'z/': { mode: 0o700 }, 'z/other': 'other', 'm/': {} })
  execFileSync('cp', ['-a', lower, upper])
  fs.linkSync(path.join(upper, 'a/deep/file'), path.join(upper, 'm/new'))
  fs.linkSync(path.join(upper, 'z/other'), path.join(upper, 'm/second'))
  const layer = await layerBytes(upper, lower, none)
  const names = (await entriesOf(layer.tar)).map(({ header }) => `${header.type} ${header.name}${header.linkname.length > 0 ? ` ${header.linkname}` : ''}`)
  assert.equal(names, ['directory m/', 'file m/new', 'directory a/', 'directory a/deep/', 'link a/deep/file m/new', 'file m/second', 'directory z/', 'link z/other m/second'])
  await applyBy('thread', layer.tar, lower)
  const clean = (dir: string): string[] => dumpTree(dir, { root: false, ignoreXattrs: /override/ })
  assert.equal(clean(lower), clean(upper))
  fs.mkdirSync(branch)
  assert.equal((await applyBy('thread', layer.tar, branch, 'aufs')).impliedDirectories, [])
})

test('names that a reader would take for deletions are left out, and reported', async t => {
  makeTree(t.dir, { '.wh.': '', 'd/.wh.x': 'x', 'd/.wh..wh..opq': '', '.what': 'w', 'wh.x': '' })
  const { tar, skipped } = await layerBytes(t.dir, undefined, none)
  assert.equal(skipped.map(entry => entry.path), ['.wh.', 'd/.wh..wh..opq', 'd/.wh.x'])
  assert.equal((await entriesOf(tar)).map(({ header }) => header.name.toString()), ['.what', 'd/', 'wh.x'])
})

test('8 GiB of holes are a small archive in no time; sparse: never writes zeros, always from the first hole', { skip: needsNative }, async t => {
  makeTree(t.dir, { big: { sparse: { sizeBytes: 8 * 1024 ** 3, runs: [[4 * 1024 ** 3, 'here']] } } })
  const { tar } = await layerBytes(t.dir, undefined, none)
  assert.ok(tar.length < 16_384, String(tar.length))
  makeTree(t.dir, { big: { type: 'absent' }, small: { sparse: { sizeBytes: 1 << 20, runs: [[1 << 19, 'here']] } } })
  const lengths = await Promise.all((['auto', 'always', 'never'] as const).map(async sparse => (await layerBytes(t.dir, undefined, { ...none, sparse })).tar.length))
  assert.ok((lengths[1] ?? 0) < 16_384)
  assert.ok((lengths[0] ?? 0) > 1 << 20 && lengths[0] === lengths[2])
  const to = fs.mkdtempSync(path.join(t.dir, 'to-'))
  await applyBy('thread', (await layerBytes(t.dir, undefined, { ...none, sparse: 'always' })).tar, to)
  assert.ok(fs.readFileSync(path.join(to, 'small')).equals(fs.readFileSync(path.join(t.dir, 'small'))))
})

test('a consumer that leaves early leaves nothing behind', async t => {
  makeTree(t.dir, Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}`, Buffer.alloc(1 << 20, i).toString('latin1')])))
  const open = fs.readdirSync('/proc/self/fd').length
  for (let i = 0; i < 5; i++) for await (const chunk of writeLayer(t.dir, undefined, none)) { assert.ok(chunk.length > 0); break }
  assert.ok(fs.readdirSync('/proc/self/fd').length <= open + 2, 'descriptors stay open')
})

/** Grows, cuts, replaces and removes what another process reads. */
const mutator = `
const fs = require('node:fs'), dir = process.argv[1]
const kinds = [p => fs.writeFileSync(p, Buffer.alloc(Math.random() * 300000, 120)), p => fs.truncateSync(p, Math.random() * 1000), p => fs.appendFileSync(p, Buffer.alloc(50000, 121)),
  p => fs.rmSync(p, { recursive: true }), p => fs.mkdirSync(p), p => fs.symlinkSync('x', p), p => fs.writeFileSync(p + '/below', 'b'), p => fs.linkSync(p, p + 'l')]
process.send('ready')
for (;;) try { kinds[Math.random() * kinds.length | 0](dir + '/' + (Math.random() * 60 | 0)) } catch {}
`

test('a tree that changes while it is read gives whole archives', { timeoutMs: 60_000 }, async t => {
  const dir = path.join(t.dir, 'tree')
  makeTree(dir, Object.fromEntries(Array.from({ length: 60 }, (_, i) => [String(i), 'x'.repeat(i * 5000)])))
  const child = spawn(process.execPath, ['-e', mutator, dir], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  t.defer(() => new Promise(resolve => { child.once('exit', resolve); child.kill('SIGKILL') }))
  await new Promise(resolve => child.once('message', resolve))
  let vanished = 0, entries = 0
  for (let i = 0; i < 25; i++) {
    const { tar, skipped, entries: written } = await layerBytes(dir, i % 2 === 0 ? undefined : t.dir, none)
    assert.is((await entriesOf(tar)).length, written)
    vanished += skipped.length
    entries += written
  }
  assert.ok(entries > 200 && vanished < entries, `${entries} entries, ${vanished} vanished`)
})
