// The whole suite once more as root of a user namespace only: marks under user.overlay.*, mounts with userxattr.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'

const test = suite('overlay2 in a user namespace')

test('the conformance suite', { skip: needsRoot, timeoutMs: 240_000 }, t => {
  const file = fileURLToPath(new URL('./overlay2.conformance.test.js', import.meta.url))
  const child = spawnSync('unshare', ['-Urm', process.execPath, file], { env: { ...process.env, TMPDIR: t.dir }, encoding: 'utf8', timeout: 200_000 })
  if (child.stderr.includes('unshare failed')) t.skip('user namespaces are switched off here')
  assert.is(child.status, 0, child.stdout.split('\n').filter(line => !line.includes('•')).join('\n').slice(0, 3000) + child.stderr)
  const summary = JSON.parse(/@harness (.*)/.exec(child.stdout)?.[1] ?? '{}') as { passed: number; failed: number }
  if (child.stdout.includes('overlay2 cannot') || child.stdout.includes('a test mount')) t.skip('overlay cannot be mounted in a user namespace here')
  assert.ok(summary.failed === 0 && summary.passed > 50, JSON.stringify(summary))
})
