// Hostile archives: every case of fixtures/cases, by every way of applying a layer, with one result. Outside of the root nothing may
// be read, made or changed; inside, the result is what the case says.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { applyBy, ways } from '../../fixtures/layers.ts'
import type { Way } from '../../fixtures/layers.ts'
import { dumpTree, makeCaseTar, makeTar, makeTree } from '../../fixtures/tree.ts'
import type { NodeSpec, TarEntrySpec } from '../../fixtures/tree.ts'
import { StorageError } from '../errors.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { getXattr } from '../sys/xattr.ts'
import { isOverlayWhiteout } from './whiteouts.ts'

const test = suite('hostile layers')

type Entry = TarEntrySpec & { readonly path: string; readonly content?: string; readonly mode?: string }
interface Check {
  readonly op: string
  readonly path?: string
  readonly equals?: string
  readonly a?: string
  readonly b?: string
  readonly target?: string
  readonly secret?: string
  readonly checks?: readonly Check[]
}
interface Case {
  readonly name: string
  readonly entries: readonly Entry[]
  readonly pre?: readonly Entry[]
  readonly outside?: readonly Entry[]
  readonly applyMode?: 'overlay'
  readonly raw?: string
  readonly trailing?: string
  readonly expected: { readonly result: 'ok' | 'error' | 'either'; readonly errorKind?: string; readonly checks: readonly Check[] }
}

/** What the kinds of error in the cases are called here: the code, and the errno where the kernel has one. */
const errorKinds: Readonly<Record<string, readonly [code: string, errno?: string]>> = {
  'invalid-archive': ['INVALID_ARCHIVE'], 'invalid-header': ['INVALID_ARCHIVE'], 'unexpected-eof': ['INVALID_ARCHIVE'],
  'not-found': ['INVALID_ARCHIVE', 'ENOENT'], 'too-many-links': ['INVALID_ARCHIVE', 'ELOOP'], 'name-too-long': ['INVALID_ARCHIVE', 'ENAMETOOLONG'],
}
/** Where the cases leave it open: what this library does. */
const decided: Readonly<Record<string, 'ok' | string>> = {
  HardlinkSymlinkChmod: 'ok', VictimDotDotName: 'ok', VictimSlashDotDotName: 'ok', VictimHardlinkReadSlash: 'INVALID_ARCHIVE', VictimHardlinkThenSymlink: 'INVALID_ARCHIVE',
  VictimSymlinkRead: 'ok', VictimSymlinkWrite: 'ok', VictimSymlinkThenSymlink: 'ok', VictimSymlinkNewdir: 'ok', UmociHardlinkMetadataNotApplied: 'ok',
  AufsMetadataEntries: 'ok', UnknownTypeflag: 'INVALID_ARCHIVE', EmptyStream: 'ok', PathTooLong: 'INVALID_ARCHIVE', NulInName: 'INVALID_ARCHIVE',
  HugePaxHeader: 'LIMIT_EXCEEDED', UidGidLarge: 'ok',
}
/** JSON's doubles round int64's largest up, out of its range. */
const largestTime = 2 ** 63 - 1024
const prefix = privileges().mount ? 'trusted.overlay.' : 'user.overlay.'

function nodesOf(entries: readonly Entry[]): Record<string, NodeSpec> {
  return Object.fromEntries(entries.map(({ path: at, type, content, mode, linkname }) => [at.replace(/^\/|\/$/g, ''), {
    type: type as 'file' | 'dir' | 'symlink' | 'hardlink', ...(content === undefined ? {} : { content }),
    ...(mode === undefined || type === 'symlink' ? {} : { mode: parseInt(mode, 8) }),
    ...(linkname === undefined ? {} : { to: type === 'hardlink' ? String(linkname).replace(/^\//, '') : String(linkname) }),
  }]))
}

/** In the cases a path of a hard link in `pre` may lead through a symlink: resolved here, inside the root, as the case means it. */
function makePre(root: string, pre: readonly Entry[]): void {
  for (const entry of pre) {
    const link = path.join(root, path.dirname(entry.path))
    const at = fs.existsSync(link) ? path.join(path.relative(root, fs.realpathSync(link).replace(/^\/etc$/, path.join(root, 'etc'))), path.basename(entry.path)) : entry.path
    if (entry.type === 'hardlink' && path.resolve(root, at) === path.resolve(root, String(entry.linkname).replace(/^\//, ''))) continue
    makeTree(root, nodesOf([{ ...entry, path: at }]))
  }
}

function check(root: string, outside: string, before: readonly string[], c: Check): void {
  const at = (name = ''): string => path.join(root, name)
  switch (c.op) {
    case 'content': assert.is(fs.readFileSync(inRoot(root, c.path ?? ''), 'utf8'), c.equals); break
    case 'sameInode': assert.is(fs.statSync(inRoot(root, c.a ?? '')).ino, fs.statSync(inRoot(root, c.b ?? '')).ino); break
    case 'notSameInode': assert.is.not(fs.statSync(inRoot(root, c.a ?? '')).ino, fs.statSync(inRoot(root, c.b ?? '')).ino); break
    case 'rootIsDir': assert.ok(fs.lstatSync(root).isDirectory()); break
    case 'isDir': assert.ok(fs.lstatSync(at(c.path)).isDirectory()); break
    case 'isFifo': assert.ok(nativeReason !== undefined || (privileges().chown ? fs.lstatSync(at(c.path)).isFIFO() : fs.existsSync(at(c.path)))); break
    case 'isSymlink': assert.is(fs.readlinkSync(at(c.path)), c.target); break
    case 'sameSymlinkTarget': assert.is(fs.readlinkSync(at(c.a)), fs.readlinkSync(at(c.b))); break
    case 'absent': assert.not(fs.lstatSync(at(c.path), { throwIfNoEntry: false })); break
    case 'mode': assert.is(fs.lstatSync(at(c.path)).mode & (privileges().chown ? 0o7777 : 0o700), parseInt(c.equals ?? '', 8) & (privileges().chown ? 0o7777 : 0o700)); break
    case 'outsideAbsent': assert.not(fs.existsSync(path.isAbsolute(c.path ?? '') ? c.path ?? '' : path.join(outside, c.path ?? ''))); break
    case 'outsideMode': assert.is(fs.statSync(path.join(outside, c.path ?? '')).mode & 0o7777, parseInt(c.equals ?? '', 8)); break
    case 'outsideContent': assert.is(fs.readFileSync(path.join(outside, c.path ?? ''), 'utf8'), c.equals); break
    // Everything outside is compared after every case.
    case 'outsideUnchanged': assert.ok(before.length > 0); break
    case 'noLeak': {
      for (const line of dumpTree(root)) {
        const [name = '', type] = line.split(' ')
        if (type === 'file') assert.not.match(fs.readFileSync(path.join(root, name), 'utf8'), c.secret ?? '')
      }
      break
    }
    case 'overlayWhiteout': assert.ok(isOverlayWhiteout(fs.lstatSync(at(c.path)))); break
    case 'overlayOpaque': assert.is(getXattr(at(c.path), `${prefix}opaque`)?.toString(), 'y'); break
    default: throw new Error(`unknown check ${c.op}`)
  }
}

/** The path with its symlinks resolved as in a container whose root this is. */
function inRoot(root: string, name: string, depth = 0): string {
  let at = root
  for (const part of name.split('/').filter(Boolean)) {
    at = path.join(at, part)
    if (!fs.lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink() || depth > 40) continue
    const target = fs.readlinkSync(at)
    const from = target.startsWith('/') ? '/' : `/${path.relative(root, path.dirname(at))}`
    at = inRoot(root, path.resolve(from, target), depth + 1)
  }
  return at
}

async function outcome(run: Promise<unknown>): Promise<'ok' | StorageError> {
  try {
    await run
    return 'ok'
  } catch (error) {
    assert.ok(StorageError.is(error), String(error))
    return error
  }
}

async function attack(way: Way, base: string, c: Case): Promise<readonly string[]> {
  const root = path.join(base, 'dest')
  fs.mkdirSync(root)
  makeTree(base, nodesOf(c.outside ?? []))
  makePre(root, c.pre ?? [])
  const outOf = (): string[] => dumpTree(base, { filter: name => name !== 'dest', root: false })
  const before = outOf()
  const place = (text: string | Buffer | undefined): string => String(text ?? '').replaceAll('$OUT', base)
  const entries = c.entries.map(entry => ({ ...entry, path: place(entry.path), linkname: place(entry.linkname), mtime: Math.min(entry.mtime ?? 1, largestTime) }))
  const result = await outcome(applyBy(way, makeCaseTar({ ...c, entries }), root, c.applyMode ?? 'remove', prefix))
  assert.equal(outOf(), before, 'what lies outside was changed')
  const expected = c.expected.result === 'either' ? decided[c.name] : c.expected.result
  if (expected === 'ok') assert.is(result, 'ok')
  else {
    assert.ok(result !== 'ok', 'it was accepted')
    const [code, errno] = c.expected.errorKind === undefined ? [expected] : errorKinds[c.expected.errorKind] ?? []
    assert.is(result.code, code, result.message)
    if (errno !== undefined) assert.is(result.info.errno, errno)
    assert.match(result.message, /^[^A-Z]/)
  }
  for (const one of c.expected.checks) {
    if (one.op !== 'ifOk') check(root, base, before, one)
    else if (result === 'ok') for (const inner of one.checks ?? []) check(root, base, before, inner)
  }
  // What a failure leaves behind is not the same everywhere, nor kept by anybody.
  return result === 'ok' ? dumpTree(root).map(line => line.replace(/mtime=\d{19}/, '').replaceAll(base.slice(1), 'BASE')) : []
}

function read(name: string): unknown {
  return JSON.parse(fs.readFileSync(path.join(projectRoot, 'fixtures/cases', name), 'utf8'))
}

const cases = read('tar-attacks.json') as readonly Case[]
for (const c of cases) {
  test(c.name, { skip: c.applyMode === 'overlay' && needsNative }, async t => {
    const results: (readonly string[])[] = []
    for (const way of ways) {
      const base = path.join(t.dir, way)
      fs.mkdirSync(base)
      results.push(await attack(way, base, c))
    }
    const [first = []] = results
    for (const other of results) assert.equal(other, first)
  })
}

// ---- moby's, and what neither has --------------------------------------------------------------------------------------------

interface Breakout { readonly attack: string; readonly mobyTest: string; readonly entries: readonly TarEntrySpec[]; readonly mustSucceed?: boolean }
const moby = read('archive-cases.json') as {
  readonly breakout: readonly Breakout[]
  readonly whiteouts: readonly { readonly layer: readonly string[]; readonly expected: readonly string[] }[]
  readonly extraAttacks: readonly { readonly name: string; readonly entries?: readonly TarEntrySpec[] }[]
}

function victim(base: string): { readonly dest: string; readonly assertSafe: () => void } {
  const dest = path.join(base, 'dest'), secret = `secret ${process.hrtime.bigint()}`
  makeTree(base, { 'victim/': { mode: 0o755 }, 'victim/hello': { content: secret, mode: 0o644 }, 'dest-evil/x': secret, 'dest/': {} })
  const safe = (): string[] => dumpTree(base, { filter: name => !name.startsWith('dest') || name.startsWith('dest-evil'), root: false })
  const before = safe()
  return {
    dest,
    assertSafe() {
      assert.equal(safe(), before)
      const walk = (dir: string): void => {
        for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
          if (entry.isDirectory()) walk(path.join(dir, entry.name))
          // Hard links out of the root show here; symlinks are texts.
          else if (entry.isFile()) assert.is.not(fs.readFileSync(path.join(dir, entry.name), 'utf8'), secret)
        }
      }
      walk(dest)
    },
  }
}

for (const { mobyTest, attack: name, entries, mustSucceed } of moby.breakout) {
  for (const format of ['remove', 'overlay'] as const) {
    test(`${mobyTest}: ${name} (${format})`, async t => {
      for (const way of ways) {
        const { dest, assertSafe } = victim(path.join(t.dir, way))
        const result = await outcome(applyBy(way, makeTar(entries), dest, format, prefix))
        if (mustSucceed) assert.is(result, 'ok')
        if (result !== 'ok') assert.is(result.code, 'INVALID_ARCHIVE')
        assertSafe()
      }
    })
  }
}

for (const { name, entries } of moby.extraAttacks) {
  if (entries === undefined) continue
  for (const format of ['remove', 'overlay', 'aufs'] as const) {
    test(`${name.trim()} (${format})`, { skip: format === 'overlay' && needsNative }, async t => {
      const results: string[] = []
      for (const way of ways) {
        const { dest, assertSafe } = victim(path.join(t.dir, way))
        makeTree(dest, { 'a/keep': 'k' })
        const result = await outcome(applyBy(way, makeTar(entries), dest, format, prefix))
        assertSafe()
        assert.is(fs.readFileSync(path.join(dest, 'a/keep'), 'utf8'), 'k')
        results.push(result === 'ok' ? 'ok' : result.message.replaceAll(path.join(t.dir, way), ''))
        if (name.includes('.wh..wh.plnk')) assert.match(results[0] ?? '', /^invalid aufs hardlink/)
        if (/^(whiteout of|bare)/.test(name)) assert.match(results[0] ?? '', /^invalid whiteout name/)
      }
      assert.is(new Set(results).size, 1, results.join('\n'))
    })
  }
}

test('TestApplyLayerWhiteouts: four layers onto one directory', async t => {
  for (const way of ways) {
    const dir = path.join(t.dir, way)
    fs.mkdirSync(dir)
    for (const { layer, expected } of moby.whiteouts) {
      await applyBy(way, makeTar(layer.map(name => ({ path: name, type: name.endsWith('/') ? 'dir' : 'file' }))), dir)
      const found = dumpTree(dir, { root: false }).map(line => line.split(' ')).map(([name, type]) => type === 'dir' ? `${name}/` : name)
      assert.equal(found, [...expected].sort((a, b) => Buffer.compare(Buffer.from(a.replace(/\/$/, '')), Buffer.from(b.replace(/\/$/, '')))))
    }
  }
})

const own: Readonly<Record<string, readonly TarEntrySpec[]>> = {
  // A name that was looked up while it was missing must be looked up again: link(2) makes symlinks too.
  'a whiteout remembers a parent that a hard link makes a symlink': [
    { path: 's', type: 'symlink', linkname: '../victim' }, { path: 'l/.wh.x', type: 'file' }, { path: 'l', type: 'hardlink', linkname: 's' }, { path: 'l/hello', type: 'file', content: 'owned' },
  ],
  'a file remembered as a parent becomes a symlink': [
    { path: 's', type: 'symlink', linkname: '../victim' }, { path: 'f', type: 'file' }, { path: 'f/.wh.x', type: 'file' }, { path: 'f', type: 'hardlink', linkname: 's' }, { path: 'f/hello', type: 'file', content: 'owned' },
  ],
  'a directory remembered is whited out and becomes a symlink': [
    { path: 'd/e/f', type: 'file' }, { path: 'd', type: 'symlink', linkname: '../victim' }, { path: 'd/hello', type: 'file', content: 'owned' }, { path: 'd/e/f', type: 'file', content: 'owned' },
  ],
  'a dangling link is followed inside': [{ path: 'l', type: 'symlink', linkname: '../../../victim' }, { path: 'l/hello', type: 'file', content: 'owned' }, { path: 'l/.wh.hello', type: 'file' }],
  'a chain of links': [
    ...Array.from({ length: 39 }, (_, i) => ({ path: `l${i}`, type: 'symlink', linkname: `l${i + 1}` })), { path: 'l39', type: 'symlink', linkname: '../victim' }, { path: 'l0/hello', type: 'file', content: 'owned' },
  ],
  'aufs pseudo links lead out': [
    { path: '.wh..wh.plnk', type: 'symlink', linkname: '../victim' }, { path: '.wh..wh.plnk/1.2', type: 'file', content: 'owned' }, { path: 'f', type: 'hardlink', linkname: '.wh..wh.plnk/hello' },
  ],
  'a hard link to a directory outside by a symlink': [{ path: 'l', type: 'symlink', linkname: '../victim' }, { path: 'h', type: 'hardlink', linkname: 'l/hello' }],
  'an opaque root': [{ path: '.wh..wh..opq', type: 'file' }, { path: '../.wh..wh..opq', type: 'file' }, { path: '../victim/.wh..wh..opq', type: 'file' }],
}
for (const [name, entries] of Object.entries(own)) {
  test(name, async t => {
    const results: string[] = []
    for (const way of ways) {
      const { dest, assertSafe } = victim(path.join(t.dir, way))
      const result = await outcome(applyBy(way, makeTar(entries), dest))
      assertSafe()
      results.push(result === 'ok' ? dumpTree(dest).map(line => line.replace(/mtime=\d+/, '')).join('\n') : `${result.code} ${result.info.errno}`)
    }
    assert.is(new Set(results).size, 1, results.join('\n\n'))
  })
}

test('41 links are too many everywhere, as for the kernel', async t => {
  for (const way of ways) {
    const dir = path.join(t.dir, way)
    fs.mkdirSync(dir)
    const links = Array.from({ length: 41 }, (_, i) => ({ path: `l${i}`, type: 'symlink', linkname: `l${i + 1}` }))
    const result = await outcome(applyBy(way, makeTar([{ path: 'l41', type: 'dir' }, ...links, { path: 'l0/x', type: 'file' }]), dir))
    assert.ok(result !== 'ok' && result.info.errno === 'ELOOP')
  }
})

test('an attack split over two layers: a link in the lower, a file below it in the upper', async t => {
  const lower: readonly TarEntrySpec[] = [{ path: 'l', type: 'symlink', linkname: '../victim' }, { path: 'abs', type: 'symlink', linkname: path.join(t.dir, 'thread/victim') }]
  const upper: readonly TarEntrySpec[] = [{ path: 'l/hello', type: 'file', content: 'owned' }, { path: 'abs/hello', type: 'file', content: 'owned' }, { path: 'l/.wh.hello', type: 'file' }, { path: 'abs/.wh..wh..opq', type: 'file' }]
  for (const way of ways) {
    const { dest, assertSafe } = victim(path.join(t.dir, way))
    for (const layer of [lower, upper]) assert.is(await outcome(applyBy(way, makeTar(layer), dest)), 'ok')
    assertSafe()
    assert.ok(fs.lstatSync(path.join(dest, 'l')).isSymbolicLink())
    assert.is(fs.readFileSync(path.join(dest, 'victim/hello'), 'utf8'), 'owned')
  }
})
