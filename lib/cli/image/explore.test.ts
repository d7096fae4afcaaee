// `layerstack image explore` as its users run it.

import { spawnSync } from 'node:child_process'
import type { SpawnSyncReturns } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { buildSampleImage } from '../../../fixtures/sample-image.ts'

const test = suite('cli: image explore')
const bin = path.join(import.meta.dirname, '../main.js')

function run(t: Context, ...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [bin, '--root', path.join(t.dir, 'root'), '--driver', 'vfs', '--durability', 'none', 'image', 'explore', ...args], { encoding: 'utf8', maxBuffer: 1 << 26 })
}

test('an archive becomes a page, without a store', { timeoutMs: 60_000 }, async t => {
  const archive = path.join(t.dir, 'sample.tar'), page = path.join(t.dir, 'sample.html')
  const sample = await buildSampleImage({ output: archive, tag: 'sample:1' })
  const { status, stdout, stderr } = run(t, archive, '--html', page)
  assert.is(`${status} ${stderr}`, '0 ')
  assert.match(stdout, /sample\.html: [\d.]+[kM]B\n$/)
  const text = fs.readFileSync(page, 'utf8')
  assert.match(text, /<title>sample:1 – layers<\/title>/)
  for (const { digest } of sample.layers) assert.ok(text.includes(digest), `${digest} is not in the page`)
  assert.is(fs.existsSync(path.join(t.dir, 'root')), false)
  const piped = run(t, archive, '--html', '-', '--title', 'Other', '--no-digests')
  assert.match(piped.stdout, /^<!doctype html>[^]*<title>Other/)
  const json = run(t, archive, '--html', page, '--json')
  assert.equal(JSON.parse(json.stdout), { html: page, sizeBytes: fs.statSync(page).size })
})

test('what cannot be is said, and leaves no file', async t => {
  const usage = run(t, 'x')
  assert.is(usage.status, 2)
  assert.match(usage.stderr, /--html/)
  const page = path.join(t.dir, 'x.html')
  const missing = run(t, path.join(t.dir, 'no.tar'), '--html', page)
  assert.is(missing.status, 1)
  assert.match(missing.stderr, /no\.tar/)
  assert.equal(fs.readdirSync(t.dir).filter(name => name.includes('html')), [])
})
