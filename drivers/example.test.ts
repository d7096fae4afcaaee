// The example of drivers/README.md is what it says: the code is taken from there, installed beside the package as a stranger would have it, and run
// against the published suite by Node's own test runner.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, projectRoot, suite } from '../fixtures/harness/index.ts'

const test = suite('drivers/README example')

test('a driver written from the docs passes the published conformance suite', { timeoutMs: 240_000, skip: needsNative }, t => {
  const text = fs.readFileSync(path.join(projectRoot, 'drivers/README.md'), 'utf8')
  const [driver, runner] = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(match => match[1] ?? '')
  assert.ok(driver !== undefined && runner !== undefined)
  assert.ok(driver.split('\n').filter(line => line.trim() !== '').length <= 75, 'about sixty lines')
  fs.mkdirSync(`${t.dir}/node_modules`)
  fs.symlinkSync(projectRoot, `${t.dir}/node_modules/layerstack`)
  fs.writeFileSync(`${t.dir}/package.json`, '{"type":"module"}')
  fs.writeFileSync(`${t.dir}/copies.js`, driver)
  fs.writeFileSync(`${t.dir}/copies.test.js`, runner)
  const run = (file: string): { readonly status: number | null; readonly output: string } => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--test-reporter=tap', file], { cwd: t.dir, encoding: 'utf8', env: { ...process.env, TMPDIR: t.dir }, timeout: 200_000 })
    return { status, output: stdout + stderr }
  }
  const { status, output } = run('copies.test.js')
  const count = (what: string): number => Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(output)?.[1])
  assert.is(status, 0, output.split('\n').filter(line => /^not ok|error:|expected|actual/.test(line)).slice(0, 40).join('\n') || output.slice(-2000))
  assert.is(count('fail'), 0)
  assert.ok(count('pass') > 50, output.slice(-500))
  // The suite is no formality: a driver that forgets to copy fails it.
  fs.writeFileSync(`${t.dir}/copies.js`, driver.replace('else await copyTree(this.#dir(parent), tree)', 'else fs.mkdirSync(tree)'))
  assert.is(run('copies.test.js').status, 1)
})
