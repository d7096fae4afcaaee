import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { isErrno, StorageError } from '../errors.ts'
import { assertSame, dump } from '../conformance/compare.ts'
import { makedev, mknod, S_IFCHR, S_IFIFO, S_IFSOCK, setTimes } from '../sys/files.ts'
import { performMount, unmount } from '../sys/mount.ts'
import { faults, nativeReason, sysError } from '../sys/native.ts'
import { getXattr, setXattr } from '../sys/xattr.ts'
import { forgetMethods, knownMethod, probeMethod } from './copy-data.ts'
import { copyTree, copyTreeSync } from './copy.ts'
import { walk } from './walk.ts'

const test = suite('fs/copy')
const isRoot = needsRoot === false

/** Everything a layer can hold; devices and foreign owners as root only. */
function build(dir: string): void {
  fs.mkdirSync(`${dir}/d/e`, { recursive: true })
  fs.writeFileSync(`${dir}/d/f`, 'content')
  fs.writeFileSync(`${dir}/empty`, '')
  fs.writeFileSync(`${dir}/large`, Buffer.alloc(700_000, 'abc'))
  fs.writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xfe, 0xff])]), 'bytes')
  fs.linkSync(`${dir}/d/f`, `${dir}/d/e/g`)
  fs.symlinkSync('../nowhere', `${dir}/d/l`)
  fs.linkSync(`${dir}/d/l`, `${dir}/d/l2`)
  fs.writeFileSync(`${dir}/sparse`, '')
  fs.truncateSync(`${dir}/sparse`, 1 << 30)
  const fd = fs.openSync(`${dir}/sparse`, 'r+')
  fs.writeSync(fd, 'middle', 600_000_000)
  fs.closeSync(fd)
  fs.chmodSync(`${dir}/d`, 0o1751)
  fs.chmodSync(`${dir}/d/f`, 0o4711)
  if (nativeReason === undefined) {
    mknod(`${dir}/fifo`, S_IFIFO | 0o640)
    mknod(`${dir}/sock`, S_IFSOCK | 0o755)
  }
  if (!isRoot) return
  mknod(`${dir}/null`, S_IFCHR | 0o666, makedev(1, 3))
  fs.lchownSync(`${dir}/d/f`, 3_000_000, 77)
  fs.chmodSync(`${dir}/d/f`, 0o4711)
  fs.lchownSync(`${dir}/d/l`, 5, 6)
  fs.lchownSync(`${dir}/fifo`, 7, 8)
  setXattr(`${dir}/d/f`, 'security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'))
  setXattr(`${dir}/d`, 'trusted.layerstack', Buffer.from([0, 255]))
}

function ageAll(dir: string): void {
  const paths: Buffer[] = []
  walk(dir, { enter: () => undefined, leave: e => { paths.push(e.path) } })
  walk(dir, { enter: e => { if (!e.stat.isDirectory()) paths.unshift(e.path) } })
  for (const [i, path] of paths.entries()) {
    const ns = 1_000_000_000_123_456_789n + BigInt(i) * 1_000_000_007n
    if (nativeReason === undefined) setTimes(path, ns - 5n, ns)
    else fs.lutimesSync(path, 1e9 + i, 1e9 + i)
  }
}

const options = nativeReason === undefined ? {} : { timesUnitNs: 10_000n }

test('everything is copied, to the nanosecond', async t => {
  fs.mkdirSync(`${t.dir}/src`)
  build(`${t.dir}/src`)
  ageAll(`${t.dir}/src`)
  const atimes = (dir: string): string[] => {
    const all: string[] = []
    walk(dir, { enter: e => { if (!e.stat.isDirectory()) all.push(`${e.relative} ${e.stat.atimeNs}`) } })
    return all
  }
  const before = atimes(`${t.dir}/src`)
  const report = copyTreeSync(`${t.dir}/src`, `${t.dir}/dst`)
  if (nativeReason === undefined) assertSame(atimes(`${t.dir}/dst`), before, 'access times')
  const expected = dump(`${t.dir}/src`, options)
  assertSame(dump(`${t.dir}/dst`, options), expected, 'the copy')
  assert.ok(expected.some(line => line.includes('mtime')))
  assert.equal([report.directories, report.hardLinks, report.lost, report.xattrsMissing], [3, 2, 0, 0])
  assert.ok(fs.statSync(`${t.dir}/dst/sparse`).blocks * 512 < 1 << 20)
  await copyTree(`${t.dir}/src`, `${t.dir}/async`)
  assertSame(dump(`${t.dir}/async`, options), expected, 'the copy by a thread')
})

test('each way of copying gives the same bytes, and is remembered', { skip: needsNative }, t => {
  fs.mkdirSync(`${t.dir}/src`)
  build(`${t.dir}/src`)
  const expected = dump(`${t.dir}/src`).map(line => line.replace(/ mtime.*/, ''))
  const refuse: Record<string, readonly string[]> = { 'copy_file_range': ['ioctl'], 'read/write': ['ioctl', 'copy_file_range'] }
  const { dev } = fs.statSync(t.dir, { bigint: true })
  for (const [method, calls] of Object.entries(refuse)) {
    forgetMethods()
    let asked = 0
    faults.before = name => { if (calls.includes(name)) { asked++; throw sysError(name, 95) } }
    try {
      // tryClone's own list of harmless errors is inside the native call, so a fault there is an error: only the ranged copy is refused that way.
      if (calls.length === 2) faults.before = name => { if (name === 'copy_file_range') { asked++; throw sysError(name, 95) } }
      else delete faults.before
      const report = copyTreeSync(`${t.dir}/src`, `${t.dir}/dst-${method.length}`)
      assertSame(dump(`${t.dir}/dst-${method.length}`).map(line => line.replace(/ mtime.*/, '')), expected, method)
      const used = knownMethod(dev, dev)
      assert.ok(used === 'reflink' || used === method, used)
      if (used !== 'reflink') {
        assert.ok(report.methods[method as 'read/write'] >= 4)
        assert.ok(asked <= 1, 'a way that failed is not tried for every file')
      }
    } finally {
      delete faults.before
      forgetMethods()
    }
  }
  assert.ok(['reflink', 'copy_file_range', 'read/write'].includes(probeMethod(t.dir)))
})

/** A file system of 1 MiB. */
function small(t: Context): string {
  const at = `${t.dir}/small`
  fs.mkdirSync(at)
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['size=1m'] }, at)
  t.defer(() => unmount(at))
  return at
}

test('to another file system, holes and all', { skip: needsRoot }, t => {
  const at = small(t)
  fs.mkdirSync(`${t.dir}/src`)
  build(`${t.dir}/src`)
  ageAll(`${t.dir}/src`)
  copyTreeSync(`${t.dir}/src`, `${at}/dst`)
  assertSame(dump(`${at}/dst`), dump(`${t.dir}/src`), 'the copy')
})

test('a full disk: NO_SPACE, and nothing is left', { skip: needsRoot }, async t => {
  const at = small(t)
  fs.mkdirSync(`${t.dir}/src`)
  for (let i = 0; i < 30; i++) fs.writeFileSync(`${t.dir}/src/f${i}`, Buffer.alloc(100_000, 1))
  fs.mkdirSync(`${at}/into`)
  assert.throws(() => copyTreeSync(`${t.dir}/src`, `${at}/dst`), (e: unknown) => StorageError.is(e, 'NO_SPACE'))
  assert.throws(() => copyTreeSync(`${t.dir}/src`, `${at}/into`, { into: true }), (e: unknown) => StorageError.is(e, 'NO_SPACE'))
  let error: unknown
  try { await copyTree(`${t.dir}/src`, `${at}/dst`) } catch (e) { error = e }
  assert.ok(StorageError.is(error, 'NO_SPACE'))
  assert.equal(fs.readdirSync(at), ['into'])
  assert.equal(fs.readdirSync(`${at}/into`), [])
})

test('what is there is not overwritten; into an empty directory on request', t => {
  fs.mkdirSync(`${t.dir}/src`)
  fs.writeFileSync(`${t.dir}/src/f`, 'new')
  fs.mkdirSync(`${t.dir}/dst`)
  fs.writeFileSync(`${t.dir}/dst/f`, 'old')
  assert.throws(() => copyTreeSync(`${t.dir}/src`, `${t.dir}/dst`), (e: unknown) => StorageError.is(e, 'ALREADY_EXISTS'))
  assert.throws(() => copyTreeSync(`${t.dir}/src`, `${t.dir}/dst`, { into: true }), (e: unknown) => StorageError.is(e, 'FAILED_PRECONDITION'))
  assert.is(fs.readFileSync(`${t.dir}/dst/f`, 'utf8'), 'old')
  fs.mkdirSync(`${t.dir}/empty`)
  fs.chmodSync(`${t.dir}/src`, 0o711)
  copyTreeSync(`${t.dir}/src`, `${t.dir}/empty`, { into: true })
  assert.equal([fs.readFileSync(`${t.dir}/empty/f`, 'utf8'), fs.statSync(`${t.dir}/empty`).mode & 0o777], ['new', 0o711])
  assert.throws(() => copyTreeSync(`${t.dir}/none`, `${t.dir}/x`), (e: unknown) => isErrno(e, 'ENOENT'))
  copyTreeSync(`${t.dir}/src/f`, `${t.dir}/one`)
  assert.is(fs.readFileSync(`${t.dir}/one`, 'utf8'), 'new')
})

test('an abort removes what was copied', async t => {
  for (let i = 0; i < 300; i++) { fs.mkdirSync(`${t.dir}/src/${i}`, { recursive: true }); fs.writeFileSync(`${t.dir}/src/${i}/f`, Buffer.alloc(20_000, 1)) }
  const stop = new AbortController()
  const copying = copyTree(`${t.dir}/src`, `${t.dir}/dst`, { signal: stop.signal })
  setTimeout(() => stop.abort(), 3)
  let error: unknown
  try { await copying } catch (e) { error = e }
  assert.ok(StorageError.is(error, 'ABORTED'))
  assert.equal(fs.readdirSync(t.dir), ['src'])
})

test('a fault in the middle of a copy is the error, and nothing is left', { skip: needsNative }, t => {
  fs.mkdirSync(`${t.dir}/src`)
  build(`${t.dir}/src`)
  t.defer(() => { delete faults.before })
  for (const call of ['futimens', 'utimensat', 'llistxattr', 'mknod']) {
    faults.before = name => { if (name === call) throw sysError(name, 5) }
    assert.throws(() => copyTreeSync(`${t.dir}/src`, `${t.dir}/dst`), (e: unknown) => StorageError.is(e, 'IO') && e.info.syscall === call)
    delete faults.before
    assert.equal(fs.readdirSync(t.dir), ['src'])
  }
  // xattrs that the target cannot have are counted (copy-xattrs.ts), others are errors.
  if (!isRoot) return
  for (const [number, counted] of [[95, true], [1, true], [28, false]] as const) {
    faults.before = name => { if (name === 'lsetxattr') throw sysError(name, number) }
    if (counted) assert.is(copyTreeSync(`${t.dir}/src`, `${t.dir}/dst-${number}`).xattrsMissing, 2)
    else assert.throws(() => copyTreeSync(`${t.dir}/src`, `${t.dir}/dst-${number}`), (e: unknown) => StorageError.is(e, 'NO_SPACE'))
  }
})

test('an ordinary user copies its tree, and notes the owners of a foreign one', { skip: needsRoot }, t => {
  fs.chmodSync(t.dir, 0o777)
  fs.mkdirSync(`${t.dir}/foreign`)
  fs.writeFileSync(`${t.dir}/foreign/f`, 'x')
  fs.chownSync(`${t.dir}/foreign/f`, 12, 34)
  setXattr(`${t.dir}/foreign/f`, 'trusted.secret', 'x')
  const code = `
    import fs from 'node:fs'
    const { copyTreeSync } = await import(${JSON.stringify(new URL('./copy.js', import.meta.url).href)})
    const { readOverrideStat } = await import(${JSON.stringify(new URL('./override-stat.js', import.meta.url).href)})
    const dir = ${JSON.stringify(t.dir)}
    const report = copyTreeSync(dir + '/foreign', dir + '/copy')
    const again = copyTreeSync(dir + '/copy', dir + '/again')
    console.log(JSON.stringify([report.noted, readOverrideStat(dir + '/copy/f'), again.noted, readOverrideStat(dir + '/again/f')]))`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], { uid: 65534, gid: 65534, encoding: 'utf8' })
  assert.is(child.status, 0, child.stderr)
  const [noted, first, notedAgain, second] = JSON.parse(child.stdout) as readonly unknown[]
  if (noted === 0) t.skip('the file system holds no user.* attributes')
  assert.equal([noted, first, notedAgain, second], [2, { uid: 12, gid: 34, mode: 0o644 }, 0, { uid: 12, gid: 34, mode: 0o644 }])
  assert.is(getXattr(`${t.dir}/copy/f`, 'trusted.secret'), undefined)
})
