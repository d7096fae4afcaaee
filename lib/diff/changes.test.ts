// Lists of changes: moby's tables, branches made by hand, and what two trees or a branch can look like at the edges.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { assert, needsNative, needsRoot, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { applyBy, entriesOf, layerBytes } from '../../fixtures/layers.ts'
import { makeTree } from '../../fixtures/tree.ts'
import type { NodeSpec } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { mknod, S_IFCHR, setTimes } from '../sys/files.ts'
import { privileges } from '../sys/privileges.ts'
import { setXattr } from '../sys/xattr.ts'
import { listChanges } from './index.ts'
import type { ChangesOptions } from './index.ts'

const test = suite('changes')
const prefix = privileges().mount ? 'trusted.overlay.' : 'user.overlay.'

async function listed(upper: string, lower?: string | readonly string[], options: ChangesOptions = {}): Promise<string[]> {
  const found: string[] = []
  for await (const { kind, path: at } of listChanges(upper, lower, { xattrPrefix: prefix, ...options })) found.push(`${kind} ${at.toString('latin1')}`)
  return found
}
const trees = { whiteouts: 'none' } as const

const moby = JSON.parse(fs.readFileSync(path.join(projectRoot, 'fixtures/cases/archive-cases.json'), 'utf8')) as {
  readonly sampleDir: { readonly entries: readonly (readonly string[])[] }
  readonly changesDirsExpected: readonly (readonly [string, string])[]
}

function sampleDir(dir: string): void {
  makeTree(dir, Object.fromEntries(moby.sampleDir.entries.map(([type, name = '', text = '', mode = '']): [string, NodeSpec] => [name, type === 'symlink'
    ? { type: 'symlink', to: text.replace('${root}', dir) } : { type: type as 'file' | 'dir', content: text, mode: parseInt(mode, 8) }])))
}

/** moby's mutateSampleDir, in its order. */
function mutate(dir: string): void {
  const at = (name: string): string => path.join(dir, name)
  const later = 1_600_000_001_000_000_000n
  fs.rmSync(at('file1'))
  fs.rmSync(at('dir1'), { recursive: true })
  fs.rmSync(at('symlink1'))
  fs.writeFileSync(at('file2'), 'fileNN\n')
  fs.rmSync(at('file3'))
  fs.writeFileSync(at('file3'), 'fileMM\n', { mode: 0o404 })
  fs.lutimesSync(at('file4'), Number(later / 1_000_000_000n), Number(later / 1_000_000_000n))
  fs.rmSync(at('file5'))
  fs.mkdirSync(at('file5'), 0o666)
  fs.writeFileSync(at('filenew'), 'filenew\n')
  fs.mkdirSync(at('dirnew'))
  fs.symlinkSync('targetnew', at('symlinknew'))
  fs.rmSync(at('symlink2'))
  fs.symlinkSync('target2change', at('symlink2'))
  fs.rmSync(at('dir2'), { recursive: true })
  fs.writeFileSync(at('dir2'), 'dir2\n')
  fs.lutimesSync(at('dir3'), Number(later / 1_000_000_000n), Number(later / 1_000_000_000n))
}

test('TestChangesDirsMutated', async t => {
  const a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  sampleDir(a)
  execFileSync('cp', ['-a', a, b])
  assert.equal(await listed(b, a, trees), [], 'TestChangesDirsEmpty')
  mutate(b)
  assert.equal(await listed(b, a, trees), moby.changesDirsExpected.map(([kind, name]) => `${kind} ${name}`))
})

test('TestApplyLayer: the layer of the mutations makes the one tree of the other', { skip: needsNative }, async t => {
  const a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  sampleDir(a)
  execFileSync('cp', ['-a', a, b])
  mutate(b)
  const { tar } = await layerBytes(b, a, trees)
  await applyBy('thread', tar, a)
  assert.equal(await listed(a, b, trees), [])
})

test('TestChangesSize: each inode once, deletions nothing', async t => {
  const empty = path.join(t.dir, 'empty'), a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  fs.mkdirSync(empty)
  makeTree(a, Object.fromEntries(Array.from({ length: 100 }, (_, i): [string, NodeSpec] => [`f${i}`, i % 10 === 0 ? { content: `content ${i}` } : { type: 'hardlink', to: `f${i - i % 10}` }])))
  const sizeOf = async (upper: string, lower: string): Promise<number> => {
    const to = fs.mkdtempSync(path.join(t.dir, 'to-'))
    return (await applyBy('thread', (await layerBytes(upper, lower, trees)).tar, to, 'aufs')).sizeBytes
  }
  assert.is(await sizeOf(a, empty), Array.from({ length: 10 }, (_, i) => `content ${i * 10}`.length).reduce((x, y) => x + y))
  assert.is(await sizeOf(a, a), 0)
  assert.is(await sizeOf(empty, a), 0)
  makeTree(a, { modified: 'abc' })
  execFileSync('cp', ['-a', a, b])
  makeTree(b, { added: 'abc', modified: { content: 'xyz', mtimeNs: 3n } })
  assert.is(await sizeOf(b, a), 6)
})

test('an aufs branch (TestChangesWithChanges, GH13590)', async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper')
  sampleDir(lower)
  makeTree(lower, { 'dir1/subfolder/': { mode: 0o740 } })
  makeTree(upper, {
    'dir1/': { mode: 0o740 }, 'dir1/.wh.file1-2': '', 'dir1/file1-1': { content: Buffer.alloc(1), mode: 0o1444 }, 'dir1/subfolder/': { mode: 0o740 },
    'dir1/subfolder/newFile': { mode: 0o740 }, '.wh..wh.plnk/': {}, '.wh..wh.aufs': '',
  })
  fs.chmodSync(upper, 0o755)
  assert.equal(await listed(upper, lower, { whiteouts: 'aufs' }),
    ['C /dir1', 'C /dir1/file1-1', 'D /dir1/file1-2', 'C /dir1/subfolder', 'A /dir1/subfolder/newFile'])

  // moby's table has the changed entries alone here; as in its ChangesDirs, the directories around them are changes, too.
  const low = path.join(t.dir, 'low'), add = path.join(t.dir, 'add'), modify = path.join(t.dir, 'modify')
  makeTree(low, { 'dir1/dir2/dir3/file.txt': 'hello' })
  makeTree(add, { 'dir1/dir2/dir3/file1.txt': 'bye' })
  makeTree(modify, { 'dir1/dir2/dir3/file.txt': 'bye' })
  const around = ['C /dir1', 'C /dir1/dir2', 'C /dir1/dir2/dir3']
  assert.equal(await listed(add, low, { whiteouts: 'aufs' }), [...around, 'A /dir1/dir2/dir3/file1.txt'])
  assert.equal(await listed(modify, low, { whiteouts: 'aufs' }), [...around, 'C /dir1/dir2/dir3/file.txt'])
})

test('aufs branches upon each other: opaque directories, whiteouts that come back', async t => {
  const [one, two, three] = ['one', 'two', 'three'].map(name => path.join(t.dir, name)) as [string, string, string]
  makeTree(one, { 'd/a': 'a', 'd/b': 'b', 'gone': 'g', 'e/x': 'x' })
  makeTree(two, { 'd/.wh..wh..opq': '', 'd/c': 'c', '.wh.gone': '', '.wh.never': '' })
  makeTree(three, { 'gone': 'back', '.wh.e': '', 'd/.wh.c': '', 'd/a': 'new' })
  const aufs = { whiteouts: 'aufs' } as const
  assert.equal(await listed(two, one, aufs), ['C /d', 'D /d/a', 'D /d/b', 'A /d/c', 'D /gone'])
  assert.equal(await listed(three, [two, one], aufs), ['C /d', 'A /d/a', 'D /d/c', 'D /e', 'A /gone'])
  const flat = path.join(t.dir, 'flat')
  fs.mkdirSync(flat)
  for (const [upper, ...lower] of [[one], [two, one], [three, two, one]] as [string, ...string[]][]) {
    await applyBy('thread', (await layerBytes(upper, lower, aufs)).tar, flat)
  }
  assert.equal(fs.readdirSync(flat).concat(fs.readdirSync(path.join(flat, 'd'))), ['d', 'gone', 'a'])
})

test('a rewrite with the old size and time shows in a branch', { skip: needsNative }, async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper')
  makeTree(lower, { f: 'before', same: 'same' })
  makeTree(upper, { f: 'after!', same: 'same' })
  assert.equal(await listed(upper, lower), ['C /f'])
})

test('each kind of metadata is a change; the time of a directory is none', { skip: needsRoot }, async t => {
  const a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  const names = ['mode', 'uid', 'gid', 'mtime', 'xattr', 'capability', 'device', 'label', 'dirtime/', 'dirmode/', 'dirxattr/', 'linktime', 'linkuid']
  for (const dir of [a, b]) makeTree(dir, Object.fromEntries(names.map((name): [string, NodeSpec] => [name, name.startsWith('link') ? { type: 'symlink', to: 'x' } : name === 'device' ? { type: 'char', rdev: [1, dir === a ? 3 : 5] } : {}])))
  const at = (name: string): string => path.join(b, name)
  fs.chmodSync(at('mode'), 0o4644)
  fs.chownSync(at('uid'), 1, 0)
  fs.chownSync(at('gid'), 0, 1)
  setTimes(at('mtime'), 0n, 1_600_000_000_000_000_001n)
  setXattr(at('xattr'), 'user.x', '')
  setXattr(at('capability'), 'security.capability', Buffer.from('0100000200240000000000000000000000000000', 'hex'))
  // Not the content's: the host's policy.
  setXattr(at('label'), 'security.test', 'x')
  setTimes(at('dirtime'), 0n, 0n)
  fs.chmodSync(at('dirmode'), 0o700)
  setXattr(at('dirxattr'), 'user.x', 'x')
  setTimes(at('linktime'), 0n, 0n)
  fs.lchownSync(at('linkuid'), 1, 0)
  fs.chmodSync(b, 0o711)
  const expected = ['/', '/capability', '/device', '/dirmode', '/dirxattr', '/gid', '/linktime', '/linkuid', '/mode', '/mtime', '/uid', '/xattr'].map(name => `C ${name}`)
  assert.equal(await listed(b, a, trees), expected)
  assert.equal(await listed(b, a), expected)
})

test('a note of owner and mode that a container wrote is not believed by root', { skip: needsRoot }, async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper')
  makeTree(lower, { sh: 'sh' })
  makeTree(upper, { sh: { content: 'sh', xattrs: { 'user.containers.override_stat': '0:0:04755' } }, own: { uid: 1000, xattrs: { 'user.containers.override_stat': '0:0:04755' } } })
  assert.equal(await listed(upper, lower), ['A /own'])
  const [entry] = await entriesOf((await layerBytes(upper, lower)).tar)
  assert.equal([entry?.header.mode, entry?.header.uid, entry?.header.xattrs], [0o644, 1000, undefined])
})

test('byte order, with directories before what is in them, also where a sibling sorts like a path', async t => {
  makeTree(t.dir, { 'a/b': '', 'a-b': '', 'a.b': '', 'aa': '', '\\xff': '', 'A': '' })
  assert.equal(await listed(t.dir, undefined, trees), ['A /A', 'A /a', 'A /a/b', 'A /a-b', 'A /a.b', 'A /aa', 'A /\xff'])
})

test('sockets are not content, and what one has replaced is gone', async t => {
  const a = path.join(t.dir, 'a'), b = path.join(t.dir, 'b')
  makeTree(a, { f: 'f' })
  fs.mkdirSync(b)
  for (const name of ['f', 'new']) {
    const server = net.createServer().listen(path.join(b, name))
    t.defer(() => new Promise(resolve => server.close(resolve)))
    await new Promise(resolve => server.once('listening', resolve))
  }
  assert.equal(await listed(b, a, trees), ['D /f'])
})

test('whiteouts of nothing, and whiteouts below an opaque directory, are no changes', { skip: needsNative }, async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper')
  makeTree(lower, { 'd/x': 'x', 'd/y': 'y' })
  makeTree(upper, { 'd/y': 'new' })
  for (const name of ['nothing', 'd/never']) mknod(path.join(upper, name), S_IFCHR)
  setXattr(path.join(upper, 'd'), `${prefix}opaque`, 'y')
  assert.equal(await listed(upper, lower), ['C /d', 'D /d/x', 'C /d/y'])
  setXattr(path.join(upper, 'd'), `${prefix}opaque`, 'x')
  assert.equal(await listed(upper, lower), ['C /d', 'C /d/y'])
})

test('what is missing is an error with a code, not an empty list', async t => {
  for (const run of [() => listed(path.join(t.dir, 'no'), t.dir, trees), () => listed(t.dir, path.join(t.dir, 'no'), trees)]) {
    const error = await run().catch((e: unknown) => e)
    assert.ok(StorageError.is(error, 'NOT_FOUND'), String(error))
  }
  const error = await listChanges('a', ['b', 'c'], { whiteouts: 'none' }).next().catch((e: unknown) => e)
  assert.instance(error, TypeError)
})

test('a metacopy whose data is gone is corrupt', { skip: needsNative }, async t => {
  const lower = path.join(t.dir, 'lower'), upper = path.join(t.dir, 'upper')
  fs.mkdirSync(lower)
  makeTree(upper, { f: 'f' })
  setXattr(path.join(upper, 'f'), `${prefix}metacopy`, '')
  const error = await listed(upper, lower).catch((e: unknown) => e)
  assert.ok(StorageError.is(error, 'CORRUPT'), String(error))
})
