// Attacks on applying a layer beyond the cases of attacks.test.ts: attributes by which stores steer themselves, sizes that lie, limits, files that the jailed thread itself
// might read or load, and processes that may not jail.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { applyBy, pieces, ways } from '../../fixtures/layers.ts'
import { failure } from '../../fixtures/storage.ts'
import { testJobs } from '../../fixtures/test-jobs.ts'
import { dumpTree, makeTar } from '../../fixtures/tree.ts'
import type { TarEntrySpec } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { privileges } from '../sys/privileges.ts'
import { listXattrs } from '../sys/xattr.ts'
import type { TarLimits } from '../tar/types.ts'
import type { ApplyFormat } from './apply.ts'
import { applyLayer } from './index.ts'

const test = suite('hostile entries')
const prefix = privileges().mount ? 'trusted.overlay.' : 'user.overlay.'
const formats: readonly ApplyFormat[] = needsNative === false ? ['remove', 'overlay', 'aufs'] : ['remove', 'aufs']

/** Apply by every way and format; the same result from all ways. Returns it. */
async function everywhere(dir: string, tar: Buffer, before: (dir: string) => void = () => undefined): Promise<Map<ApplyFormat, StorageError | 'ok'>> {
  const found = new Map<ApplyFormat, StorageError | 'ok'>()
  for (const format of formats) {
    const results: string[] = []
    for (const way of ways) {
      const root = path.join(dir, `${format}-${way}`, 'root')
      fs.mkdirSync(root, { recursive: true })
      before(root)
      let result: StorageError | 'ok' = 'ok'
      try {
        await applyBy(way, tar, root, format, prefix)
      } catch (error) {
        assert.ok(StorageError.is(error), String(error))
        result = error
      }
      assert.equal(fs.readdirSync(path.dirname(root)), ['root'])
      found.set(format, result)
      results.push(result === 'ok' ? dumpTree(root).map(line => line.replace(/mtime=\d{19}/, '')).join('\n') : `${result.code} ${result.info.errno}`)
    }
    assert.is(new Set(results).size, 1, `${format}: ${results.join('\n\n')}`)
  }
  return found
}

for (const name of ['.wh..', '.wh...', 'a/.wh..', 'a/.wh...', 'a/b/.wh...', './.wh..', '../.wh...', 'a/../.wh..', '/.wh...', '.wh.', 'a/.wh.', 'a//.wh...']) {
  test(`${name} is refused and removes nothing`, async t => {
    const results = await everywhere(t.dir, makeTar([{ path: name, type: 'file' }]), root => {
      fs.mkdirSync(path.join(root, 'a/b'), { recursive: true })
      fs.writeFileSync(path.join(root, 'a/keep'), 'k')
    })
    for (const [format, result] of results) {
      assert.ok(result !== 'ok' && result.code === 'INVALID_ARCHIVE', `${format} ${String(result)}`)
      for (const way of ways) assert.is(fs.readFileSync(path.join(t.dir, `${format}-${way}`, 'root/a/keep'), 'utf8'), 'k')
    }
  })
}

const control = [
  'trusted.overlay.opaque', 'trusted.overlay.redirect', 'trusted.overlay.metacopy', 'trusted.overlay.origin', 'trusted.overlay.overlay.opaque', 'user.overlay.opaque', 'user.overlay.redirect',
  'user.overlay.whiteouts', 'user.containers.override_stat', 'user.fuseoverlayfs.opaque', 'user.rootlesscontainers', 'trusted.layerstack.x', 'user.layerstack.x',
]
test('attributes by which stores steer themselves are left out, on files, directories and the root', { skip: needsNative }, async t => {
  const xattrs = Object.fromEntries(control.map(name => [name, name.endsWith('redirect') ? '/etc' : name.endsWith('override_stat') ? '0:0:4755' : 'y']))
  const libarchive = Object.fromEntries(control.map(name => [`LIBARCHIVE.xattr.${name.replace('overlay', '%6Fverlay')}`, 'eQ']))
  for (const records of [{ xattrs }, { records: libarchive }]) {
    const dir = path.join(t.dir, 'xattrs' in records ? 'schily' : 'libarchive')
    const entries: TarEntrySpec[] = [{ path: './', type: 'dir', ...records }, { path: 'd', type: 'dir', ...records }, { path: 'd/f', type: 'file', content: 'x', ...records }]
    for (const format of formats) {
      for (const way of ways) {
        const root = path.join(dir, `${format}-${way}`)
        fs.mkdirSync(root, { recursive: true })
        const { skippedCount } = await applyBy(way, makeTar(entries), root, format, prefix)
        for (const name of ['.', 'd', 'd/f']) {
          const left = listXattrs(path.join(root, name)).filter(xattr => control.includes(xattr) && !(xattr === 'user.containers.override_stat' && !privileges().chown))
          assert.equal(left, [], `${format} ${way} ${name}`)
        }
        assert.ok(skippedCount >= 3 * control.length, `${skippedCount}`)
      }
    }
  }
})

const lies: Readonly<Record<string, readonly [entries: readonly TarEntrySpec[], codes: RegExp]>> = {
  'a size beyond the archive': [[{ path: 'f', type: 'file', content: 'short', declaredSize: 1 << 30 }], /INVALID_ARCHIVE/],
  'a negative size': [[{ path: 'f', type: 'file', declaredSize: -1 }], /INVALID_ARCHIVE/],
  'a size of 2^62': [[{ path: 'f', type: 'file', declaredSize: 2 ** 62 }], /INVALID_ARCHIVE/],
  'a PAX size that is larger than the header\'s': [[{ path: 'f', type: 'file', content: 'abc', records: { size: '99999999' } }], /INVALID_ARCHIVE/],
  'a PAX size that is no number': [[{ path: 'f', type: 'file', content: 'abc', records: { size: '1e3' } }], /INVALID_ARCHIVE/],
  'a sparse file larger than any file system has': [[{ path: 'f', type: 'file', content: Buffer.alloc(1), records: { 'GNU.sparse.size': '9007199254740991', 'GNU.sparse.numblocks': '1', 'GNU.sparse.map': '0,1' } }], /LIMIT_EXCEEDED/],
  'a sparse map that lies beyond its file': [[{ path: 'f', type: 'file', content: Buffer.alloc(1), records: { 'GNU.sparse.size': '10', 'GNU.sparse.numblocks': '1', 'GNU.sparse.map': '20,1' } }], /INVALID_ARCHIVE/],
  'a sparse map of more bytes than are stored': [[{ path: 'f', type: 'file', content: Buffer.alloc(1), records: { 'GNU.sparse.size': '1000', 'GNU.sparse.numblocks': '1', 'GNU.sparse.map': '0,700' } }], /INVALID_ARCHIVE/],
}
for (const [what, [entries, codes]] of Object.entries(lies)) {
  test(what, async t => {
    for (const result of (await everywhere(t.dir, makeTar(entries))).values()) {
      assert.ok(result !== 'ok', 'it was accepted')
      assert.match(result.code, codes, result.message)
    }
  })
}

test('a body that links and directories claim to have is read as what it is, the next header', async t => {
  // Go's archive/tar, and so dockerd and containerd, see `hidden`; a reader that skips the body does not.
  const hidden = makeTar([{ path: 'hidden', type: 'file', content: 'seen' }], { end: false })
  for (const type of ['symlink', 'dir', 'fifo']) {
    const lying = makeTar([{ path: 'l', type, linkname: 'x', declaredSize: hidden.length }])
    await everywhere(path.join(t.dir, type), Buffer.concat([lying, hidden, Buffer.alloc(1024)]))
    assert.is(fs.readFileSync(path.join(t.dir, type, `remove-thread/root/hidden`), 'utf8'), 'seen')
  }
})

const limited: Readonly<Record<keyof Omit<TarLimits, 'expansionRatio'>, readonly [limit: number, entries: readonly TarEntrySpec[]]>> = {
  entries: [3, Array.from({ length: 4 }, (_, i) => ({ path: `f${i}`, type: 'file' }))],
  contentBytes: [100, [{ path: 'a', type: 'file', content: 'x'.repeat(60) }, { path: 'b', type: 'file', content: 'x'.repeat(60) }]],
  nameBytes: [20, [{ path: 'd/'.repeat(15), type: 'dir' }]],
  extendedHeaderBytes: [500, [{ path: 'a', type: 'file', paxPadding: 1000 }]],
}
for (const [limit, [value, entries]] of Object.entries(limited)) {
  test(`the limit ${limit}`, async t => {
    const apply = (limits: TarLimits): Promise<unknown> => applyLayer(pieces(gzipSync(makeTar(entries))), t.dir, { limits })
    const error = await failure(apply({ [limit]: value }))
    assert.is(error.code, 'LIMIT_EXCEEDED')
    assert.match(error.info?.hint ?? '', new RegExp(`\\b${limit}\\b`))
    await apply({ [limit]: value * 10 })
  })
}

test('the limit expansionRatio', { skip: process.env['LAYERSTACK_FULL'] ? false : 'only with LAYERSTACK_FULL=1: it counts from the first GiB on', timeoutMs: 120_000 }, async t => {
  async function* bomb(): AsyncGenerator<Buffer> {
    const member = gzipSync(Buffer.alloc(64 * 1024 * 1024))
    yield gzipSync(makeTar([{ path: 'f', type: 'file', declaredSize: 2 ** 31 }]))
    for (let i = 0; i < 32; i++) yield member
  }
  const error = await failure(applyLayer(bomb(), t.dir, { limits: { expansionRatio: 100 } }))
  assert.is(error.code, 'LIMIT_EXCEEDED')
  assert.match(error.info?.hint ?? '', /expansionRatio/)
})

test('a 0:0 device, which overlayfs takes for a deletion, is refused; a device beyond 32 bits too', async t => {
  for (const [i, device] of [{ devmajor: 0, devminor: 0 }, { devmajor: 2 ** 32, devminor: 1 }, { devmajor: 1, devminor: -1 }].entries()) {
    for (const result of (await everywhere(path.join(t.dir, String(i)), makeTar([{ path: 'a', type: 'char', ...device }]))).values()) {
      assert.ok(result !== 'ok' && result.code === 'INVALID_ARCHIVE')
    }
  }
})

test('a hard link to a setuid file has no say in its owner or mode', async t => {
  const entries: TarEntrySpec[] = [{ path: 'su', type: 'file', mode: 0o4755, content: 'x' }, { path: 'link', type: 'hardlink', linkname: 'su', mode: 0o6777, uid: 1000, gid: 1000, xattrs: { 'user.a': 'b' } }]
  for (const result of (await everywhere(t.dir, makeTar(entries))).values()) assert.is(result, 'ok')
  const made = fs.statSync(path.join(t.dir, 'remove-thread/root/su'))
  assert.is(made.nlink, 2)
  if (privileges().chown) assert.equal([made.mode & 0o7777, made.uid], [0o4755, 0])
})

test('names that no file system has', async t => {
  for (const [i, name] of ['x'.repeat(256), `${'d/'.repeat(2100)}f`, Buffer.from([0x61, 0, 0x62]), `${'x'.repeat(300)}/.wh.a`].entries()) {
    for (const result of (await everywhere(path.join(t.dir, String(i)), makeTar([{ path: name, type: 'file', via: 'PAX' }]))).values()) {
      assert.ok(result !== 'ok' && result.code === 'INVALID_ARCHIVE', `${i}: ${String(result)}`)
    }
  }
})

// ---- what the jailed thread would read itself --------------------------------------------------------------------------------

const replaced: readonly TarEntrySpec[] = [{ path: 'd/x/y', type: 'file', content: '1' }, { path: 'd', type: 'file', content: '2' }]
for (const [what, table] of Object.entries<TarEntrySpec>({
  'a fifo': { path: 'proc/self/mountinfo', type: 'fifo' },
  'a forged table': { path: 'proc/self/mountinfo', type: 'file', content: '36 35 98:0 / /d/x rw - ext4 /dev/root rw\n' },
  'a link to itself': { path: 'proc/self/mountinfo', type: 'symlink', linkname: 'mountinfo' },
})) {
  test(`the tree's own /proc/self/mountinfo is not asked: ${what}`, async t => {
    for (const result of (await everywhere(t.dir, makeTar([table, ...replaced]))).values()) assert.is(result, 'ok')
    assert.is(fs.readFileSync(path.join(t.dir, 'remove-thread/root/d'), 'utf8'), '2')
  })
}

test('modules in the tree are not loaded, whatever the compression', { skip: spawnSync('xz', ['--version']).status !== 0 && 'needs xz' }, async t => {
  const marker = path.join(t.dir, 'loaded')
  const code = `require('node:fs').writeFileSync(${JSON.stringify(marker)}, ''); module.exports = {}`
  const names = ['koffi', 'xz-decompress', 'zstddec', 'lmdb'].flatMap(name => [`node_modules/${name}/index.js`, `work/node_modules/${name}/index.js`, `${import.meta.dirname.slice(1)}/../../node_modules/${name}/index.js`])
  const tar = makeTar([...names.map(name => ({ path: path.posix.normalize(name), type: 'file', content: code })), ...replaced])
  const root = path.join(t.dir, 'root')
  for (const compressed of [spawnSync('xz', ['-c'], { input: tar }).stdout, gzipSync(tar), tar]) {
    fs.mkdirSync(root)
    await applyLayer(pieces(compressed, 1000), root)
    fs.rmSync(root, { recursive: true })
  }
  assert.not.ok(fs.existsSync(marker))
})

// ---- where threads cannot be jailed ------------------------------------------------------------------------------------------

test('unshare(2) refused by a seccomp filter, as in Docker\'s containers: openat2 instead', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const victim = path.join(t.dir, 'victim'), root = path.join(t.dir, 'root')
  for (const dir of [victim, root]) fs.mkdirSync(dir)
  fs.writeFileSync(path.join(t.dir, 'layer.tar'), makeTar([{ path: 'l', type: 'symlink', linkname: '../victim' }, { path: 'l/owned', type: 'file', content: 'x', uid: 5, mode: 0o640 }]))
  // In a process of its own, as a thread that has been jailed once stays able to be.
  const script = `
    import { runJob } from ${JSON.stringify(new URL('../sys/threads.js', import.meta.url).href)}
    console.log(JSON.stringify(await runJob(${JSON.stringify(testJobs)}, 'refusedUnshareJob', ${JSON.stringify({ dir: root, tar: path.join(t.dir, 'layer.tar') })})))`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.is(run.stderr, '')
  assert.equal(JSON.parse(run.stdout), { canJail: false, entries: 2 })
  assert.equal(fs.readdirSync(victim), [])
  const made = fs.lstatSync(path.join(root, 'victim/owned'))
  assert.equal([made.uid, made.mode & 0o777], [5, 0o640])
})
