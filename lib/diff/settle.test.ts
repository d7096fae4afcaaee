// What surrounds the applying of a layer: compressed sources and digests, directories that a layer implies, and seeded entries.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import zlib from 'node:zlib'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { applyBy, pieces } from '../../fixtures/layers.ts'
import { dumpTree, makeTar, makeTree } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { sha256 } from '../ids.ts'
import { runJob } from '../sys/threads.ts'
import { applyLayer } from './index.ts'
import { assembleModule, jobsModule } from './jobs-module.ts'
import type { ApplyArguments, ApplyOutcome, SettleArguments } from './jobs.ts'
import { planSeeds, seedLayer } from './seed.ts'

const test = suite('around a layer')
const failure = (job: Promise<unknown>): Promise<unknown> => job.then(() => undefined, (error: unknown) => error)

test('a layer that has tmp/x alone does not close /tmp', { skip: needsRoot }, async t => {
  const below = path.join(t.dir, 'below'), base = path.join(t.dir, 'base'), branch = path.join(t.dir, 'branch')
  makeTree(base, { 'tmp/': { mode: 0o1777, mtimeNs: 5_000_000_007n, xattrs: { 'user.x': 'x' } }, 'home/': {}, 'home/me/': { mode: 0o700, uid: 1000, gid: 1000 }, 'home/me/old': '', 'was-file': 'f' })
  makeTree(below, { 'home/': { mode: 0o711, mtimeNs: 6n } })
  fs.mkdirSync(branch)
  const { impliedDirectories } = await applyBy('thread', makeTar([
    { path: 'tmp/x', type: 'file' }, { path: 'home/me/deep/new', type: 'file' }, { path: 'was-file/x', type: 'file' }, { path: 'named/', type: 'dir', mode: 0o700 }, { path: 'named/x', type: 'file' },
  ]), branch, 'overlay')
  assert.equal(impliedDirectories, ['tmp', 'home', 'home/me', 'home/me/deep', 'was-file'])
  await runJob<SettleArguments, void>(jobsModule, 'settleImpliedJob', { dir: branch, names: impliedDirectories, lower: { layers: [below, base], whiteouts: 'overlay' } })
  const lines = dumpTree(branch, { root: false }).filter(line => / dir /.test(line)).map(line => / (mtime=\d{1,12}|mtime=16\d*)$/.test(line) ? line : line.replace(/ mtime=.*/, ''))
  assert.equal(lines, [
    'home dir 0711 0:0 mtime=6', 'home/me dir 0700 1000:1000 mtime=1600000000000000000', 'home/me/deep dir 0755 0:0', 'named dir 0700 0:0 mtime=1600000000000000000',
    'tmp dir 1777 0:0 user.x=0x78 mtime=5000000007', 'was-file dir 0755 0:0',
  ])
})

test('implied directories unprivileged: what is not allowed is noted, and nothing fails', async t => {
  const below = path.join(t.dir, 'below'), branch = path.join(t.dir, 'branch')
  fs.mkdirSync(below)
  fs.mkdirSync(branch)
  await applyBy('thread', makeTar([{ path: 'tmp/', type: 'dir', mode: 0o1777, uid: 7, gid: 8 }]), below, 'aufs')
  const { impliedDirectories } = await applyBy('thread', makeTar([{ path: 'tmp/x', type: 'file' }]), branch, 'aufs')
  await runJob<SettleArguments, void>(jobsModule, 'settleImpliedJob', { dir: branch, names: impliedDirectories, lower: { layers: [below], whiteouts: 'aufs' } })
  const tmp = (dir: string): string | undefined => dumpTree(dir, { ignoreXattrs: /^$/ }).find(line => line.startsWith('tmp '))
  assert.is(tmp(branch), tmp(below))
})

test('seeds: made where nothing shows, directories that show left alone, the rest replaced', { skip: needsRoot }, async t => {
  const base = path.join(t.dir, 'base'), branch = path.join(t.dir, 'branch')
  makeTree(base, { 'etc/': { mode: 0o711 }, 'etc/hosts': 'old', 'proc/': { mode: 0o555 }, 'etc/link': { type: 'symlink', to: '/proc' }, 'dev': 'a file' })
  fs.mkdirSync(branch)
  const plan = planSeeds({ layers: [branch, base], whiteouts: 'overlay' }, [
    { name: 'proc', type: 'directory', mode: 0o755 }, { name: 'dev', type: 'directory', mode: 0o755 }, { name: 'dev/pts', type: 'directory', mode: 0o700 },
    { name: 'etc/hosts', type: 'file', mode: 0o644 }, { name: 'etc/mtab', type: 'symlink', mode: 0o777, linkname: '/proc/mounts' }, { name: 'etc/link', type: 'directory', mode: 0o750 },
  ])
  seedLayer(branch, 'overlay', undefined, plan)
  assert.equal(dumpTree(branch, { root: false, times: false }).map(line => line.replace(/ sha256:\S+/, '')), [
    'dev dir 0755 0:0', 'dev/pts dir 0700 0:0', 'etc dir 0711 0:0', 'etc/hosts file 0644 0:0 size=0', 'etc/link dir 0750 0:0', 'etc/mtab symlink 0777 0:0 -> /proc/mounts',
  ])
})

const big = makeTar([{ path: 'big', type: 'file', content: Buffer.alloc(5_000_000, 'layers upon layers ') }, { path: 'after', type: 'file', content: 'x' }], { trailing: 70_000 })
const compressors: Readonly<Record<string, (tar: Buffer) => Buffer>> = {
  plain: tar => tar, gzip: tar => zlib.gzipSync(tar), 'two gzip members': tar => Buffer.concat([zlib.gzipSync(tar.subarray(0, 3_000_001)), zlib.gzipSync(tar.subarray(3_000_001))]),
  zstd: tar => execFileSync('zstd', ['-q'], { input: tar, maxBuffer: 1 << 26 }), xz: tar => execFileSync('xz', ['-0'], { input: tar, maxBuffer: 1 << 26 }), bzip2: tar => execFileSync('bzip2', { input: tar, maxBuffer: 1 << 26 }),
}
function compressed(compress: (tar: Buffer) => Buffer): Buffer | undefined {
  try {
    return compress(big)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
for (const [name, compress] of Object.entries(compressors)) {
  test(`${name}: from a stream in odd pieces and from a range of a file; digests cover every byte`, async (t: Context) => {
    const blob = compressed(compress)
    if (blob === undefined) t.skip(`${name} is not installed`)
    const seen: number[] = []
    const check = (outcome: ApplyOutcome): void => {
      assert.equal([outcome.diffId, outcome.tarBytes, outcome.blobDigest, outcome.blobBytes], [sha256(big), big.length, sha256(blob), blob.length])
      assert.is(outcome.entries, 2)
    }
    const [a, b] = [path.join(t.dir, 'a'), path.join(t.dir, 'b')]
    fs.mkdirSync(a)
    fs.mkdirSync(b)
    check(await applyLayer(pieces(blob, 33_333), a, { onProgress: bytes => seen.push(bytes) }))
    assert.is(seen.at(-1), blob.length)
    const file = path.join(t.dir, 'blob'), split = path.join(t.dir, 'split')
    fs.writeFileSync(file, Buffer.concat([Buffer.from('before'), blob, Buffer.from('behind')]))
    const fd = fs.openSync(file, 'r'), tarSplitFd = fs.openSync(split, 'w+')
    try {
      check(await runJob<ApplyArguments, ApplyOutcome>(jobsModule, 'applyJob', { dir: b, format: 'remove', source: { fd, offset: 6, length: blob.length }, tarSplitFd }))
      const parts: Buffer[] = []
      await runJob<unknown, void>(assembleModule, 'assembleJob', { dir: b, tarSplitFd }, { onOutput: chunk => { parts.push(Buffer.from(chunk)) } })
      assert.is(sha256(Buffer.concat(parts)), sha256(big))
      assert.ok(Buffer.concat(parts).equals(big))
    } finally {
      fs.closeSync(fd)
      fs.closeSync(tarSplitFd)
    }
    assert.equal(dumpTree(a, { root: false }), dumpTree(b, { root: false }))
  })
}

test('damaged and short sources, aborts and failing sources have their codes, and leave no descriptor open', async t => {
  const open = (): number => fs.readdirSync('/proc/self/fd').length
  await applyLayer(pieces(big), t.dir)
  const before = open()
  const gz = zlib.gzipSync(big)
  const stop = new AbortController()
  async function* aborting(): AsyncGenerator<Buffer> { for await (const piece of pieces(big, 50_000)) { yield piece; stop.abort() } }
  async function* failing(): AsyncGenerator<Buffer> { yield big.subarray(0, 100_000); throw new StorageError('IO', 'the network is gone') }
  for (const [code, run] of [
    ['INVALID_ARCHIVE', () => applyLayer(pieces(big.subarray(0, 2_000_000), 7777), t.dir)], ['INVALID_ARCHIVE', () => applyLayer(pieces(gz.subarray(0, gz.length - 100)), t.dir)],
    ['INVALID_ARCHIVE', () => applyLayer(pieces(Buffer.alloc(3000, 'junk')), t.dir)], ['ABORTED', () => applyLayer(aborting(), t.dir, { signal: stop.signal })],
    ['IO', () => applyLayer(failing(), t.dir)], ['NOT_FOUND', () => applyLayer(pieces(big), path.join(t.dir, 'missing'))],
    ['LIMIT_EXCEEDED', () => applyLayer(pieces(big), t.dir, { limits: { entries: 1 } })], ['LIMIT_EXCEEDED', () => applyLayer(pieces(big), t.dir, { limits: { contentBytes: 1000 } })],
  ] as const) {
    const error = await failure(run())
    assert.ok(StorageError.is(error, code), `${code}: ${String(error)}`)
  }
  assert.ok(open() <= before, `${open()} descriptors, ${before} before`)
})

test('a full disk is NO_SPACE, not a bad archive', { skip: needsRoot || needsNative }, async t => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', t.dir])
  t.defer(() => execFileSync('umount', [t.dir]))
  const error = await failure(applyLayer(pieces(big), t.dir))
  assert.ok(StorageError.is(error, 'NO_SPACE'), String(error))
  assert.is(error.info.errno, 'ENOSPC')
})
