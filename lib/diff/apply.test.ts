// What an entry has must be on disk afterwards, whichever way it is applied; the oracle is a tree made with plain calls.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { applyBy, entriesOf, layerBytes, pieces, ways } from '../../fixtures/layers.ts'
import { dumpTree, makeTar, makeTree } from '../../fixtures/tree.ts'
import type { TarEntrySpec } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { mknod, S_IFCHR } from '../sys/files.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { getXattr } from '../sys/xattr.ts'
import { applyLayer } from './index.ts'

const test = suite('applying layers')
const formats = ['remove', 'overlay', 'aufs'] as const
const raw = Buffer.from([0x6e, 0xff, 0xfe, 0x20, 0x0a])
const capability = Buffer.from('0100000200240000000000000000000000000000', 'hex')
const deep = Array.from({ length: 30 }, (_, i) => `directory-${String(i).padStart(2, '0')}`).join('/')
const day2040 = 2_208_988_800_123_456_789n

const plain: readonly TarEntrySpec[] = [
  { path: './', type: 'dir', mode: 0o750, mtimeNs: 7_000_000_001n },
  { path: 'd/', type: 'dir', mode: 0o1777, mtimeNs: -1n },
  { path: 'd/file', type: 'file', content: 'hello', mode: 0o640, mtimeNs: 1_700_000_000_000_000_001n },
  { path: 'd/empty', type: 'file', mode: 0o666, mtime: 0 },
  { path: 'd/all', type: 'file', mode: 0o777, content: 'x'.repeat(300_000), mtime: -86_400 },
  { path: 'd/hard', type: 'hardlink', linkname: 'd/file', mode: 0o777 },
  { path: 'd/link', type: 'symlink', linkname: '../nowhere', mtimeNs: day2040 },
  { path: 'd/hardlink-to-link', type: 'hardlink', linkname: 'd/link' },
  { path: raw, type: 'file', content: 'raw', mtimeNs: day2040 },
  { path: 'ünï', type: 'dir', mode: 0o711, mtime: 2_208_988_800 },
  { path: 'to-raw', type: 'symlink', linkname: raw },
  { path: `${deep}/`, type: 'dir', mode: 0o755, mtime: 5 },
  { path: `${deep}/${'n'.repeat(255)}`, type: 'file', content: 'deep', mtime: 6 },
]

const special: readonly TarEntrySpec[] = [
  { path: 'suid', type: 'file', mode: 0o4755, uid: 1000, gid: 1000, content: 's' },
  { path: 'sgid', type: 'file', mode: 0o2711, uid: 3_000_000, gid: 4_294_967_294, content: 's' },
  { path: 'shared/', type: 'dir', mode: 0o2775, uid: 5, gid: 50, mtime: 9 },
  { path: 'shared/file', type: 'file', mode: 0o644, content: 'root group', mtime: 10 },
  { path: 'shared/dir/', type: 'dir', mode: 0o755, mtime: 11 },
  { path: 'shared/link', type: 'symlink', linkname: 'file', mtime: 12 },
  { path: 'shared/implied/file', type: 'file', mtime: 13 },
  { path: 'link', type: 'symlink', linkname: 'x', uid: 6, gid: 7, mtime: 14 },
  { path: 'pipe', type: 'fifo', mode: 0o620, uid: 8, mtime: 15 },
  { path: 'null', type: 'char', mode: 0o666, devmajor: 1, devminor: 3, mtime: 16 },
  { path: 'disk', type: 'block', mode: 0o660, gid: 6, devmajor: 259, devminor: 70_000, mtime: 17 },
  { path: 'xattrs', type: 'file', mtime: 18, content: 'x', xattrs: { 'user.bytes': Buffer.from([0, 10, 255, 61]), 'trusted.t': 'v', 'security.capability': capability, 'user.empty': '' } },
  { path: 'xdir/', type: 'dir', mtime: 19, xattrs: { 'user.dir': 'd' } },
]

for (const way of ways) {
  for (const format of formats) {
    test(`${way}, ${format}: modes, times, links, names of any bytes, depth`, { skip: needsNative }, async t => {
      const dir = path.join(t.dir, 'a'), oracle = path.join(t.dir, 'b')
      fs.mkdirSync(dir)
      const summary = await applyBy(way, makeTar(plain), dir, format)
      makeTree(oracle, {
        '.': { mode: 0o750, mtimeNs: 7_000_000_001n }, 'd/': { mode: 0o1777, mtimeNs: -1n },
        'd/file': { content: 'hello', mode: 0o640, mtimeNs: 1_700_000_000_000_000_001n },
        'd/empty': { mode: 0o666, mtimeNs: 0n }, 'd/all': { mode: 0o777, content: 'x'.repeat(300_000), mtimeNs: -86_400_000_000_000n },
        'd/hard': { type: 'hardlink', to: 'd/file' }, 'd/link': { type: 'symlink', to: '../nowhere', mtimeNs: day2040 },
        'd/hardlink-to-link': { type: 'hardlink', to: 'd/link' }, 'n\\xff\\xfe \\x0a': { content: 'raw', mtimeNs: day2040 },
        'ünï/': { mode: 0o711, mtimeNs: 2_208_988_800_000_000_000n }, 'to-raw': { type: 'symlink', to: raw },
        [`${deep}/`]: { mtimeNs: 5_000_000_000n }, [`${deep}/${'n'.repeat(255)}`]: { content: 'deep', mtimeNs: 6_000_000_000n },
      })
      // Directories that the archive does not name have the time at which they were made.
      const clean = (lines: string[]): string[] => lines.map(line => /^directory-/.test(line) && !line.includes('/directory-29') ? line.replace(/mtime=\d+/, '') : line)
        // Unprivileged, the archive's root ids are a note, and root's are ours.
        .map(line => privileges().chown ? line : line.replace(/ \d+:\d+ /, ' ').replace(/ user\.containers\.override_stat=\S+/, ''))
      assert.equal(clean(dumpTree(dir)), clean(dumpTree(oracle)))
      assert.is(summary.entries, plain.length)
      assert.is(summary.impliedDirectories.length, 29)
      assert.is(summary.sizeBytes, 5 + 300_000 + 3 + 4 + '../nowhere'.length + raw.length)
    })

    test(`${way}, ${format}: owners, set-id bits, devices, attributes`, { skip: needsRoot }, async t => {
      const dir = path.join(t.dir, 'a'), oracle = path.join(t.dir, 'b')
      // Were the layer's own directory setgid, everything made in it would have its group.
      fs.mkdirSync(dir)
      fs.chownSync(dir, 0, 77)
      fs.chmodSync(dir, 0o2755)
      const summary = await applyBy(way, makeTar(special), dir, format)
      assert.equal(summary.skipped, [])
      const s = (n: number): { mtimeNs: bigint } => ({ mtimeNs: BigInt(n) * 1_000_000_000n })
      makeTree(oracle, {
        'suid': { content: 's', uid: 1000, gid: 1000, mode: 0o4755 }, 'sgid': { content: 's', uid: 3_000_000, gid: 4_294_967_294, mode: 0o2711 },
        'shared/': { mode: 0o2775, uid: 5, gid: 50, ...s(9) }, 'shared/file': { content: 'root group', uid: 0, gid: 0, ...s(10) },
        'shared/dir/': { uid: 0, gid: 0, mode: 0o755, ...s(11) }, 'shared/link': { type: 'symlink', to: 'file', uid: 0, gid: 0, ...s(12) },
        'shared/implied/': { uid: 0, gid: 0, mode: 0o755 }, 'shared/implied/file': { uid: 0, gid: 0, ...s(13) },
        'link': { type: 'symlink', to: 'x', uid: 6, gid: 7, ...s(14) }, 'pipe': { type: 'fifo', mode: 0o620, uid: 8, gid: 0, ...s(15) },
        'null': { type: 'char', rdev: [1, 3], mode: 0o666, ...s(16) }, 'disk': { type: 'block', rdev: [259, 70_000], mode: 0o660, uid: 0, gid: 6, ...s(17) },
        'xattrs': { content: 'x', ...s(18), xattrs: { 'user.bytes': Buffer.from([0, 10, 255, 61]), 'trusted.t': 'v', 'security.capability': capability, 'user.empty': '' } },
        'xdir/': { ...s(19), xattrs: { 'user.dir': 'd' } },
      })
      const clean = (lines: string[]): string[] => lines.map(line => line.startsWith('shared/implied dir') ? line.replace(/mtime=\d+/, '') : line)
      assert.equal(clean(dumpTree(dir, { root: false })), clean(dumpTree(oracle, { root: false })))
    })
  }

  test(`${way}: times beyond what the file system stores are cut, not refused`, async t => {
    await applyBy(way, makeTar([
      { path: 'before', type: 'file', mtime: -1 }, { path: 'far', type: 'file', mtime: 253_402_300_800 },
      { path: 'huge', type: 'dir', records: { mtime: '9223372036854775807' } }, { path: 'tiny', type: 'symlink', linkname: 'x', records: { mtime: '-9223372036854775807.5' } },
    ]), t.dir)
    assert.is(fs.statSync(path.join(t.dir, 'before')).mtimeMs, -1000)
    assert.ok(fs.statSync(path.join(t.dir, 'huge')).mtimeMs > Date.now())
    assert.ok(fs.lstatSync(path.join(t.dir, 'tiny')).mtimeMs < 0)
  })

  test(`${way}: a sparse file keeps its holes`, { skip: needsNative }, async t => {
    const from = path.join(t.dir, 'from'), to = path.join(t.dir, 'to')
    const sizeBytes = 8 * 1024 ** 3 + 1
    makeTree(from, { big: { sparse: { sizeBytes, runs: [[0, 'start'], [5 * 1024 ** 3 + 3, 'middle'], [sizeBytes - 1, 'e']] } }, hole: { sparse: { sizeBytes: 1 << 27, runs: [] } } })
    fs.mkdirSync(to)
    const { tar } = await layerBytes(from, undefined, { whiteouts: 'none' })
    assert.ok(tar.length < 1 << 20, `the archive has ${tar.length} bytes`)
    const summary = await applyBy(way, tar, to)
    assert.is(summary.sizeBytes, sizeBytes + (1 << 27))
    const options = { sparse: true, root: false, ignoreXattrs: /override_stat/ }
    assert.equal(dumpTree(to, options), dumpTree(from, options))
  })

  test(`${way}: what replaces what`, async t => {
    makeTree(t.dir, { 'dir/inside': 'old', 'file': 'old', 'kept/old': 'old', 'peer-a': 'same', 'peer-b': { type: 'hardlink', to: 'peer-a' }, 'link': { type: 'symlink', to: 'kept' } })
    await applyBy(way, makeTar([
      { path: 'dir', type: 'file', content: 'new' }, { path: 'file', type: 'dir' }, { path: 'file/below', type: 'file', content: 'new' },
      { path: 'kept', type: 'dir', mode: 0o700 }, { path: 'peer-a', type: 'file', content: 'changed' }, { path: 'link', type: 'dir' }, { path: 'link/x', type: 'file' },
    ]), t.dir)
    const names = dumpTree(t.dir, { root: false, times: false }).map(line => line.split(' ').slice(0, 3).join(' '))
    assert.equal(names, ['dir file 0644', 'file dir 0755', 'file/below file 0644', 'kept dir 0700', 'kept/old file 0644', 'link dir 0755', 'link/x file 0644', 'peer-a file 0644', 'peer-b file 0644'])
    assert.is(fs.readFileSync(path.join(t.dir, 'peer-b'), 'utf8'), 'same')
  })

  test(`${way}: a directory entry also takes away`, { skip: needsNative }, async t => {
    makeTree(t.dir, { 'd/': { xattrs: { 'user.old': '1', 'user.both': '1' } }, 'd/f': 'f' })
    await applyBy(way, makeTar([{ path: 'd', type: 'dir', mode: 0o700, xattrs: { 'user.both': '2' } }]), t.dir)
    assert.is(getXattr(path.join(t.dir, 'd'), 'user.old'), undefined)
    assert.is(getXattr(path.join(t.dir, 'd'), 'user.both')?.toString(), '2')
    assert.ok(fs.existsSync(path.join(t.dir, 'd/f')))
  })
}

test('what may not be kept is reported, and control attributes are never set', async t => {
  const summary = await applyLayer(pieces(makeTar([{
    path: 'x', type: 'file', xattrs: { 'trusted.overlay.opaque': 'y', 'user.overlay.redirect': '/', 'user.containers.override_stat': '0:0:4755', 'trusted.overlay.metacopy': '' },
  }])), t.dir, { whiteouts: 'overlay' })
  assert.is(summary.skippedCount, 4)
  if (nativeReason === undefined) assert.not.match(dumpTree(t.dir, { ignoreXattrs: /^$/ }).join('\n'), /0x79|redirect=|4755|metacopy/)
})

test('what an unprivileged store notes, a written layer carries', { skip: needsNative }, async t => {
  const entries = [...plain, ...special].filter(entry => entry.type !== 'hardlink' && entry.path !== 'link')
  await applyBy('thread', makeTar(entries), t.dir)
  const written = new Map((await entriesOf((await layerBytes(t.dir, undefined, { whiteouts: 'none' })).tar)).map(({ header }) => [header.name.toString('latin1').replace(/\/$/, ''), header]))
  for (const { header } of await entriesOf(makeTar(entries))) {
    const name = header.name.toString('latin1').replace(/\/$/, '')
    const found = written.get(name)
    if (name === '.') continue
    assert.ok(found, name)
    for (const key of ['type', 'mode', 'uid', 'gid', 'sizeBytes', 'mtimeNs', 'devMajor', 'devMinor'] as const) assert.is(found[key], header[key], `${name} ${key}`)
    assert.equal(found.linkname, header.linkname)
    for (const [key, value] of header.xattrs ?? []) if (key.startsWith('user.') || privileges().chown) assert.equal(found.xattrs?.get(key), value, `${name} ${key}`)
  }
})

test('a device 0:0 is refused, as overlayfs would take it for a deletion', async t => {
  for (const whiteouts of formats) {
    const error = await applyLayer(pieces(makeTar([{ path: 'x', type: 'char', devmajor: 0, devminor: 0 }])), t.dir, { whiteouts }).catch((e: unknown) => e)
    assert.ok(StorageError.is(error, 'INVALID_ARCHIVE'))
    assert.not(fs.existsSync(path.join(t.dir, 'x')))
  }
})

test('an owner that chown(2) would take for "leave it" is refused', async t => {
  for (const owner of [{ uid: 4_294_967_295 }, { gid: 4_294_967_295 }]) {
    const error = await applyLayer(pieces(makeTar([{ path: 'x', type: 'file', mode: 0o4755, ...owner }])), t.dir).catch((e: unknown) => e)
    assert.ok(StorageError.is(error, 'INVALID_ARCHIVE'))
  }
})

test('the same directory by a relative path, again and again', async t => {
  const relative = path.relative(process.cwd(), t.dir)
  for (let i = 0; i < 4; i++) await applyLayer(pieces(makeTar([{ path: `f${i}`, type: 'file' }])), relative)
  assert.equal(fs.readdirSync(t.dir).sort(), ['f0', 'f1', 'f2', 'f3'])
})

test('whiteouts as overlay and aufs branches have them', { skip: needsNative }, async t => {
  const prefix = privileges().mount ? 'trusted.overlay.' : 'user.overlay.'
  const layer = makeTar([
    { path: 'gone/.wh.file', type: 'file' }, { path: '.wh.again', type: 'file' }, { path: 'again/', type: 'dir' }, { path: 'again/x', type: 'file' },
    { path: 'hidden/', type: 'dir' }, { path: 'hidden/.wh..wh..opq', type: 'file' }, { path: 'stays', type: 'file' }, { path: '.wh.stays', type: 'file' },
    { path: '.wh.dead', type: 'file' }, { path: '.wh.dead', type: 'file' }, { path: 'swap', type: 'symlink', linkname: 'x' }, { path: 'swap', type: 'dir' },
  ])
  const overlay = path.join(t.dir, 'overlay'), aufs = path.join(t.dir, 'aufs')
  fs.mkdirSync(overlay)
  fs.mkdirSync(aufs)
  for (const way of ways) await applyBy(way, layer, overlay, 'overlay', prefix)
  await applyBy('thread', layer, aufs, 'aufs')
  const opaque = (name: string): string | undefined => getXattr(path.join(overlay, name), `${prefix}opaque`)?.toString()
  assert.equal(['again', 'hidden', 'swap', 'gone'].map(opaque), ['y', 'y', 'y', undefined])
  const probe = path.join(t.dir, 'probe')
  mknod(probe, S_IFCHR)
  for (const name of ['gone/file', 'dead']) assert.is(fs.lstatSync(path.join(overlay, name)).rdev, 0)
  assert.ok(fs.lstatSync(path.join(overlay, 'stays')).isFile())
  assert.equal(fs.readdirSync(aufs).sort(), ['.wh.dead', 'again', 'gone', 'hidden', 'stays', 'swap'])
  assert.equal(fs.readdirSync(path.join(aufs, 'gone')), ['.wh.file'])
  assert.equal([...fs.readdirSync(path.join(aufs, 'again')), ...fs.readdirSync(path.join(aufs, 'hidden')), ...fs.readdirSync(path.join(aufs, 'swap'))].sort(),
    ['.wh..wh..opq', '.wh..wh..opq', '.wh..wh..opq', 'x'])
})
