// containerd's own snapshotter test suite (snapshots/testsuite) through containerd's own proxy client against our server.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../../../fixtures/loop.ts'
import { goHarness, needsGo, serveCommand } from '../../../fixtures/containerd/harness.ts'

const test = suite('containerd\'s snapshotter suite')
const skip = needsRoot || needsGo()

/** What the release under test skips whatever the snapshotter (its issues.go: `rename test still fails on some kernels`). */
const skippedUpstream = ['Rename']

const noBtrfs = skipWithoutImage('btrfs')

for (const driver of ['overlay2', 'vfs', 'btrfs']) {
  test(driver, { skip: skip || (driver === 'btrfs' ? noBtrfs : false), timeoutMs: 600_000 }, t => {
    const binary = goHarness()
    const temp = path.join(t.dir, 't')
    fs.mkdirSync(temp)
    if (driver === 'btrfs') {
      const image = mountImage('btrfs', { sizeBytes: 3 * 2 ** 30 })
      t.defer(() => image.close())
      fs.rmdirSync(temp)
      fs.symlinkSync(image.dir, temp)
    }
    const result = spawnSync(binary, ['-test.run', '^TestSuite$', '-test.v', '-test.root', '-test.parallel', '4'], {
      encoding: 'utf8', timeout: 570_000,
      env: { ...process.env, TMPDIR: fs.realpathSync(temp), SERVE_CMD: serveCommand(driver, '{root}', '{socket}').join(' '), SUITE_NAME: `layerstack-${driver}` },
    })
    const lines = (what: string): string[] => [...result.stdout.matchAll(new RegExp(`^ +--- ${what}: TestSuite/(\\S+)`, 'gm'))].map(match => match[1] ?? '').sort()
    assert.equal(lines('FAIL'), [], result.stdout.slice(-8000) + result.stderr.slice(-4000))
    assert.is(result.status, 0, result.stdout.slice(-8000) + result.stderr.slice(-4000))
    assert.equal(lines('SKIP'), skippedUpstream)
    assert.is(lines('PASS').length, 20, 'as many tests as the suite of 1.6.20 has, but the skipped one')
  })
}
