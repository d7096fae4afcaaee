// The tests of this room once more without what root has: as nobody, and without native calls. What cannot be kept then is skipped or
// noted by them; everything else must hold as it is.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, suite } from '../../fixtures/harness/index.ts'

const test = suite('without privileges')
const here = import.meta.dirname
const nobody = 65534

function canRead(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, to become nobody'
  const run = spawnSync(process.execPath, ['-e', `require('node:fs').accessSync(${JSON.stringify(path.join(here, 'apply.test.js'))})`], { uid: nobody, gid: nobody })
  return run.status === 0 ? false : 'nobody may not read the project\'s folder here'
}
const asNobody = canRead()
const noChroot = process.getuid?.() !== 0 ? 'needs root, to give a capability up' : spawnSync('setpriv', ['--version']).status !== 0 && 'needs setpriv'

function runAs(file: string, dir: string, identity: { uid?: number; gid?: number }, env: Record<string, string>, through: readonly string[] = []): { passed: number; failed: number } {
  const [program = process.execPath, ...args] = [...through, process.execPath, path.join(here, file)]
  const run = spawnSync(program, args, { ...identity, env: { ...process.env, TMPDIR: dir, ...env }, encoding: 'utf8', timeout: 100_000, maxBuffer: 1 << 26 })
  const last = run.stdout.split('\n').findLast(line => line.startsWith('@harness '))
  const counts = JSON.parse(last?.slice('@harness '.length) ?? '{"passed":0,"failed":1}') as { passed: number; failed: number }
  assert.is(counts.failed, 0, `${run.stdout.slice(-6000)}\n${run.stderr.slice(-2000)}`)
  assert.is(run.status, 0)
  return counts
}

for (const [file, least] of [['apply.test.js', 5], ['attacks.test.js', 150], ['hostile-entries.test.js', 20], ['changes.test.js', 5], ['write-layer.test.js', 3], ['settle.test.js', 1]] as const) {
  test(`${file} as nobody`, { skip: asNobody || needsNative, timeoutMs: 120_000 }, t => {
    fs.chownSync(t.dir, nobody, nobody)
    assert.ok(runAs(file, t.dir, { uid: nobody, gid: nobody }, {}).passed >= least)
  })
  test(`${file} as nobody without native calls`, { skip: asNobody, timeoutMs: 120_000 }, t => {
    fs.chownSync(t.dir, nobody, nobody)
    assert.ok(runAs(file, t.dir, { uid: nobody, gid: nobody }, { LAYERSTACK_NO_NATIVE: '1' }).passed >= Math.min(least, 3) - 2)
  })
  if (file === 'apply.test.js' || file === 'attacks.test.js') test(`${file} as root that may not chroot`, { skip: noChroot || needsNative, timeoutMs: 120_000 }, t => {
    assert.ok(runAs(file, t.dir, {}, {}, ['setpriv', '--bounding-set=-sys_chroot', '--inh-caps=-sys_chroot']).passed >= least)
  })
  // The one thing that root without native calls has of its own: owners are set, and the umask is the process's.
  if (file === 'apply.test.js' || file === 'attacks.test.js') test(`${file} as ourselves without native calls`, { timeoutMs: 120_000 }, t => {
    assert.ok(runAs(file, t.dir, {}, { LAYERSTACK_NO_NATIVE: '1' }).passed >= Math.min(least, 3) - 2)
  })
}
