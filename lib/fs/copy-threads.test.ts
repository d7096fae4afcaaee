import fs from 'node:fs'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { randomFrom } from '../../fixtures/random-layers.ts'
import { testSeed } from '../../fixtures/seed.ts'
import { assertSame, dump } from '../conformance/compare.ts'
import { isErrno, StorageError } from '../errors.ts'
import { makedev, mknod, S_IFCHR, S_IFIFO, setTimes } from '../sys/files.ts'
import { performMount, unmount } from '../sys/mount.ts'
import { nativeReason } from '../sys/native.ts'
import { setXattr } from '../sys/xattr.ts'
import { failWork, sharedWork, Work } from './copy-work.ts'
import { copyTree, copyTreeSync } from './copy.ts'
import { walk } from './walk.ts'

const test = suite('fs/copy-threads')
const isRoot = needsRoot === false

/** About a thousand entries, so that more than one thread is asked; with links between directories, and directories that may be read only. */
function randomTree(root: string, seed: number): void {
  const random = randomFrom(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const directories = [root], files: string[] = []
  fs.mkdirSync(root)
  for (let i = 0; i < 150; i++) {
    const dir = `${pick(random() < 0.3 ? directories.slice(-3) : directories)}/d${i}`
    fs.mkdirSync(dir)
    directories.push(dir)
  }
  for (let i = 0; i < 900; i++) {
    const at = `${pick(directories)}/f${i}`
    const kind = random()
    if (kind < 0.1 && files.length > 0) { fs.linkSync(pick(files), at); continue }
    if (kind < 0.17) fs.symlinkSync(`../to ${i}`, at)
    else if (kind < 0.2 && nativeReason === undefined) mknod(at, S_IFIFO | 0o600)
    else if (kind < 0.22 && isRoot) mknod(at, S_IFCHR | 0o600, makedev(1, 3 + i))
    else if (kind < 0.24) fs.truncateSync(at, (fs.writeFileSync(at, 'before a hole'), 1 << 24))
    else fs.writeFileSync(at, Buffer.alloc(pick([0, 1, 4096, 5000, 70_000]), at))
    files.push(at)
  }
  for (const at of [...files, ...directories.reverse()]) {
    const stat = fs.lstatSync(at)
    if (isRoot) fs.lchownSync(at, pick([0, 0, 0, 33, 70_000]), pick([0, 0, 5, 70_000]))
    if (isRoot && random() < 0.1) setXattr(at, 'trusted.layerstack', `of ${at}`)
    const modes = stat.isDirectory() ? [0o755, 0o755, 0o555, 0o2775, 0o1777, 0o3700, 0o500] : isRoot ? [0o644, 0o755, 0o4755, 0o2711, 0o666, 0o400, 0] : [0o644, 0o755, 0o666, 0o400]
    if (!stat.isSymbolicLink()) fs.chmodSync(at, pick(modes))
    if (nativeReason === undefined) setTimes(at, BigInt(Math.floor(random() * 1e18)), BigInt(Math.floor(random() * 1e18)))
    else fs.lutimesSync(at, 1e9, Math.floor(random() * 1e9))
  }
}

/** Directories that their owner may not write, of a root or of an ordinary user, are in nobody's way when the test ends. */
function opened(t: Context): void {
  t.defer(() => {
    const each = (dir: string): void => {
      fs.chmodSync(dir, 0o700)
      for (const entry of fs.readdirSync(dir, { withFileTypes: true })) if (entry.isDirectory()) each(`${dir}/${entry.name}`)
    }
    each(t.dir)
  })
}

/** What a dump leaves out: access times, as they are before the dump reads, and which files have holes. */
function unread(root: string): string[] {
  const lines: string[] = []
  walk(root, { enter({ relative, stat }) { if (!stat.isDirectory()) lines.push(`${relative} ${nativeReason === undefined ? stat.atimeNs : ''}${stat.blocks * 512n < stat.size ? ' sparse' : ''}`) } })
  return lines
}

/** Hold the copy that `make` makes against its source. */
async function compared<T>(source: string, target: string, what: string, make: () => T | Promise<T>): Promise<T> {
  const before = unread(source)
  const result = await make()
  assertSame(unread(target), before, `${what}: access times and holes`)
  const lines = (root: string): string[] => dump(root, { timesUnitNs: nativeReason === undefined ? 1n : 10_000n })
  // What the copy inherits is no part of it.
  assertSame(lines(target).map(line => line.replace(/ system\.posix_acl_default=\w+/, '')), lines(source), what)
  return result
}

test('several threads make what one makes', async t => {
  opened(t)
  // Threads have an umask of their own for it, or set what it took.
  const mask = process.umask(0o077)
  t.defer(() => { process.umask(mask) })
  for (let i = 0; i < 4; i++) {
    const source = `${t.dir}/src${i}`
    randomTree(source, testSeed + i)
    assert.ok(dump(source).some(line => line.includes(' =/')))
    const serial = await compared(source, `${t.dir}/one${i}`, `tree ${i} by one thread`, () => copyTreeSync(source, `${t.dir}/one${i}`))
    assert.equal(await compared(source, `${t.dir}/many${i}`, `tree ${i} by several`, () => copyTree(source, `${t.dir}/many${i}`)), serial)
    if (i > 0) continue
    // Two at once, each calling for the other's threads.
    assert.equal(await Promise.all([copyTree(source, `${t.dir}/a`), copyTree(source, `${t.dir}/b`, { changing: true })]), [serial, serial])
    assertSame(dump(`${t.dir}/a`), dump(`${t.dir}/b`), 'two copies at once')
  }
})

test('more directories than the shared list holds', async t => {
  for (let i = 0; i < 2000; i++) {
    fs.mkdirSync(`${t.dir}/src/${'x'.repeat(200)}${i}`, { recursive: true })
    fs.writeFileSync(`${t.dir}/src/${'x'.repeat(200)}${i}/f`, `${i}`)
  }
  const report = await copyTree(`${t.dir}/src`, `${t.dir}/dst`)
  assertSame(dump(`${t.dir}/dst`), dump(`${t.dir}/src`), 'the copy')
  assert.equal([report.directories, report.files], [2001, 2000])
})

test('modes and owners are the source\'s below a directory with a default ACL and setgid', { skip: needsNative }, async t => {
  opened(t)
  randomTree(`${t.dir}/src`, testSeed)
  fs.mkdirSync(`${t.dir}/acl`)
  fs.chmodSync(`${t.dir}/acl`, 0o2755)
  if (isRoot) fs.chownSync(`${t.dir}/acl`, 0, 1234)
  if (isRoot) fs.chmodSync(`${t.dir}/acl`, 0o2755)
  const acl = Buffer.alloc(28)
  acl.writeUInt32LE(2)
  for (const [i, [tag, bits]] of ([[1, 7], [4, 5], [0x20, 0]] as const).entries()) {
    acl.writeUInt16LE(tag, 4 + 8 * i)
    acl.writeUInt16LE(bits, 6 + 8 * i)
    acl.writeUInt32LE(0xffffffff, 8 + 8 * i)
  }
  try {
    setXattr(`${t.dir}/acl`, 'system.posix_acl_default', acl)
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP')) t.skip('the file system holds no ACLs')
    throw error
  }
  await compared(`${t.dir}/src`, `${t.dir}/acl/dst`, 'the copy', () => copyTree(`${t.dir}/src`, `${t.dir}/acl/dst`))
})

test('a failure of any thread ends all, and nothing is left', { skip: needsRoot }, async t => {
  const at = `${t.dir}/small`
  fs.mkdirSync(at)
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['size=12m'] }, at)
  t.defer(() => unmount(at))
  for (let i = 0; i < 2000; i++) {
    if (i % 20 === 0) fs.mkdirSync(`${t.dir}/src/${i / 20}`, { recursive: true })
    fs.writeFileSync(`${t.dir}/src/${Math.floor(i / 20)}/f${i}`, Buffer.alloc(8000, 1))
  }
  fs.mkdirSync(`${at}/into`)
  // Several times: which thread hears of it first differs.
  for (let i = 0; i < 12; i++) for (const [to, options] of [[`${at}/dst`, {}], [`${at}/into`, { into: true }]] as const) {
    let error: unknown
    try { await copyTree(`${t.dir}/src`, to, options) } catch (e) { error = e }
    assert.ok(StorageError.is(error, 'NO_SPACE'), String(error))
    assert.not.ok((error as Error).message.includes('removing'), (error as Error).message)
    assert.equal([fs.readdirSync(at), fs.readdirSync(`${at}/into`)], [['into'], []])
  }
})

test('an abort ends all threads, and nothing is left', async t => {
  for (let i = 0; i < 3000; i++) {
    if (i % 10 === 0) fs.mkdirSync(`${t.dir}/src/${i / 10}`, { recursive: true })
    fs.writeFileSync(`${t.dir}/src/${Math.floor(i / 10)}/f${i}`, Buffer.alloc(20_000, 1))
  }
  let aborted = 0
  for (const after of [1, 60, 100, 140, 180, 220]) {
    const stop = new AbortController()
    let copying = true
    const copy = copyTree(`${t.dir}/src`, `${t.dir}/dst`, { signal: stop.signal }).then(() => undefined, (e: unknown) => e).finally(() => { copying = false })
    const look = (): void => {
      let made = 0
      try { made = fs.readdirSync(`${t.dir}/dst`).length } catch (error) { if (!isErrno(error, 'ENOENT')) throw error }
      if (made >= after) stop.abort()
      else if (copying) setImmediate(look)
    }
    look()
    const error = await copy
    if (error === undefined) fs.rmSync(`${t.dir}/dst`, { recursive: true }) // done before it was seen
    else { assert.ok(StorageError.is(error, 'ABORTED'), String(error)); aborted++ }
    assert.equal(fs.readdirSync(t.dir), ['src'])
  }
  assert.ok(aborted > 0)
})

test('the shared list gives each directory once, and ends when none is worked on or one has failed', () => {
  const shared = sharedWork()
  const one = new Work(shared, true), two = new Work(shared, false)
  const check = (): void => undefined
  assert.is(one.take(check)?.length, 0)
  for (const name of ['a', 'b', 'c\xff']) one.push(Buffer.from(name, 'latin1'))
  assert.equal([two.take(check)?.toString('latin1'), one.take(check)?.toString('latin1'), two.take(check)?.toString('latin1')], ['c\xff', 'b', 'a'])
  // Nothing to take, while others may still find more: it waits, and hears of an abort.
  assert.throws(() => two.take(() => { throw new StorageError('ABORTED', 'aborted') }), (e: unknown) => StorageError.is(e, 'ABORTED'))
  for (let i = 0; i < 4; i++) one.done()
  assert.equal([one.take(check), two.take(check), one.alone], [undefined, undefined, false])
  const other = sharedWork()
  const third = new Work(other, true)
  failWork(other)
  assert.is(third.take(check)?.length, 0)
  third.push(Buffer.from('never'))
  assert.equal([third.take(check), third.failed, third.alone], [undefined, true, true])
})
