import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { id, mode } from '../../fixtures/driver-tests.ts'
import { assert, needsRoot, suite, tempBase } from '../../fixtures/harness/index.ts'
import { listChanges } from '../../lib/diff/index.ts'
import { StorageError } from '../../lib/errors.ts'
import { performMounts, unmount } from '../../lib/sys/mount.ts'
import fuseOverlayfs from './index.ts'

const test = suite('fuse-overlayfs')
const probed = await fuseOverlayfs.probe(tempBase())
const skip = probed.ok ? false : probed.reason

test('the layout is overlay2\'s, the mounts a program\'s', { skip }, async t => {
  const home = `${t.dir}/fuse`
  const driver = await fuseOverlayfs.open({ home, options: {} })
  await driver.create(id('base'))
  await driver.create(id('top'), { parent: id('base'), writable: true })
  assert.equal(fs.readdirSync(`${home}/top`).sort(), ['diff', 'link', 'lower', 'work'])
  assert.is(mode(`${home}/top/work`), '710')
  const link = fs.readFileSync(`${home}/base/link`, 'latin1')
  assert.equal(await driver.mounts(id('top'), 'rw'), [{
    type: 'fuse3.fuse-overlayfs', source: 'fuse-overlayfs', options: [`lowerdir=${home}/l/${link}`, `upperdir=${home}/top/diff`, `workdir=${home}/top/work`],
  }])
  assert.throws(() => fuseOverlayfs.parseOptions(['fuse-overlayfs.colour=blue']), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
  const colon = await fuseOverlayfs.probe(`${t.dir}/a:b`)
  assert.ok(!colon.ok && colon.code === 'INCOMPATIBLE_FILESYSTEM')
})

test('a failing program is told in its words, and its absence with what to install', { skip }, t => {
  fs.mkdirSync(`${t.dir}/m`)
  const wrong = { type: 'fuse3.fuse-overlayfs', source: 'x', options: [`lowerdir=${t.dir}/none`] }
  assert.throws(() => performMounts([wrong], `${t.dir}/m`), (e: unknown) => StorageError.is(e, 'IO') && /fuse-overlayfs/.test(e.message))
  assert.throws(() => performMounts([{ ...wrong, type: 'fuse3.no-such-program' }], `${t.dir}/m`), (e: unknown) => StorageError.is(e, 'PREREQUISITE_MISSING') && e.info.hint === 'install the package no-such-program')
})

test('deletions are read as it writes them: devices, .wh. files, and three opaque marks', { skip: skip || needsRoot }, async t => {
  const driver = await fuseOverlayfs.open({ home: `${t.dir}/fuse`, options: {} })
  await driver.create(id('base'))
  const base = (await driver.content(id('base'))).path
  for (const dir of ['d', 'e', 'o']) { fs.mkdirSync(`${base}/${dir}`); fs.writeFileSync(`${base}/${dir}/old`, 'x') }
  fs.writeFileSync(`${base}/f`, 'x')
  await driver.create(id('top'), { parent: id('base'), writable: true })
  fs.mkdirSync(`${t.dir}/m`)
  performMounts(await driver.mounts(id('top'), 'rw'), `${t.dir}/m`)
  try {
    fs.rmSync(`${t.dir}/m/f`)
    fs.rmSync(`${t.dir}/m/d`, { recursive: true })
    fs.mkdirSync(`${t.dir}/m/d`)
    fs.writeFileSync(`${t.dir}/m/d/new`, 'x')
  } finally {
    unmount(`${t.dir}/m`)
  }
  const content = await driver.content(id('top'))
  assert.ok(content.kind === 'branch' && content.whiteouts === 'fuse-overlayfs')
  // Where it may make no devices it writes files, as aufs does.
  fs.writeFileSync(`${content.path}/.wh.e`, '')
  fs.mkdirSync(`${content.path}/o`)
  fs.writeFileSync(`${content.path}/o/.wh..wh..opq`, '')
  const lines: string[] = []
  for await (const change of listChanges(content.path, content.lowers, { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix })) lines.push(`${change.kind} ${change.path}`)
  assert.equal(lines.sort(), ['A /d/new', 'C /d', 'C /o', 'D /d/old', 'D /e', 'D /f', 'D /o/old'])
})

test('the conformance suite in a user namespace', { skip: skip || needsRoot, timeoutMs: 240_000 }, t => {
  const file = fileURLToPath(new URL('./fuse-overlayfs.conformance.test.js', import.meta.url))
  const child = spawnSync('unshare', ['-Urm', process.execPath, file], { env: { ...process.env, TMPDIR: t.dir }, encoding: 'utf8', timeout: 200_000 })
  if (child.stderr.includes('unshare failed')) t.skip('user namespaces are switched off here')
  assert.is(child.status, 0, child.stdout.split('\n').filter(line => !line.includes('•')).join('\n').slice(0, 3000) + child.stderr)
  const summary = JSON.parse(/@harness (.*)/.exec(child.stdout)?.[1] ?? '{}') as { passed: number; failed: number }
  assert.ok(summary.failed === 0 && summary.passed > 50, JSON.stringify(summary))
})
