// The commands that look into images, compare them and make images of images, as processes: texts, exit statuses, what they leave behind.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'

const test = suite('cli/diff')
const bin = path.join(import.meta.dirname, 'main.js')

interface Result { readonly status: number | null; readonly stdout: string; readonly stderr: string; readonly bytes: Buffer }

/** In the test's folder, with a store that is not there until something is stored. */
async function run(t: Context, ...args: string[]): Promise<Result> {
  const { LAYERSTACK_ROOT: _, DOCKER_DRIVER: __, ...env } = process.env
  const tmp = path.join(t.dir, 'tmp')
  fs.mkdirSync(tmp, { recursive: true })
  const child = spawn(process.execPath, [bin, '--root', path.join(t.dir, 'root'), '--driver', 'vfs', '--durability', 'none', ...args], { cwd: t.dir, env: { ...env, TMPDIR: tmp }, stdio: ['ignore', 'pipe', 'pipe'] })
  const out: Buffer[] = [], err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  assert.equal(fs.readdirSync(tmp), [], 'nothing is left in the temporary directory')
  return { status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), bytes: Buffer.concat(out) }
}

const d = (name: string): TarEntrySpec => ({ path: `${name}/`, type: 'dir' })
const f = (name: string | Buffer, content = 'content', more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: name, type: 'file', content, ...more })
const options = { timeoutMs: 120_000 }

function archive(t: Context, name: string, layers: readonly (readonly TarEntrySpec[])[], tags = ['app:1'], config: Readonly<Record<string, unknown>> = {}): string {
  return write(t.dir, name, makeTar(oldDockerArchive([makeImage({ layers, tags, config })])))
}

const base = [d('etc'), f('etc/os', 'one'), d('doc'), f('doc/1', 'x'.repeat(1500)), f('doc/2')]

test('diff: texts, json, templates, statuses 0, 1 and 2', options, async t => {
  archive(t, 'a.tar', [base])
  archive(t, 'b.tar', [base, [d('etc'), f('etc/os', 'other', { mode: 0o600 }), f('.wh.doc', ''), f('new\x1b', 'n')]])
  const same = await run(t, 'diff', 'a.tar', './a.tar')
  assert.equal([same.status, same.stderr, same.stdout.endsWith('\nno difference\n')], [0, '', true])
  const found = await run(t, 'diff', 'a.tar', 'b.tar')
  assert.is(found.status, 1)
  assert.equal(found.stdout.split('\n').slice(2), [
    `C history: ${JSON.stringify([0, 1].map(i => i === 0 ? { created: '2024-05-06T07:08:09.123456789Z', created_by: 'step 0' } : { created: '2024-05-06T07:08:09.123456789Z', created_by: 'CMD', comment: 'last', empty_layer: true }))} → `
      + `${JSON.stringify([{ created: '2024-05-06T07:08:09.123456789Z', created_by: 'step 0' }, { created: '2024-05-06T07:08:09.123456789Z', created_by: 'step 1' }, { created: '2024-05-06T07:08:09.123456789Z', created_by: 'CMD', comment: 'last', empty_layer: true }]).slice(0, 199)}…`,
    'D /doc/  (2 entries, 1.507kB)', 'C /etc/os  (3B → 5B, content, mode 0644 → 0600)', 'A /new\x1b  (1B)', '1 added, 1 changed, 3 removed; 6B came, 1.51kB went', '',
  ])
  const lines = await run(t, 'diff', '-s', '-p', 'doc', '-p', 'new\x1b', '--format', '{{.Kind}} {{.Path}}\\t{{json .SizeAfter}}', 'a.tar', 'b.tar')
  assert.equal([lines.status, lines.stdout], [1, 'D /doc\tnull\nD /doc/1\tnull\nD /doc/2\tnull\nA /new\\x1b\t1\n'])
  const json = await run(t, 'diff', '--json', '--by', 'both', 'a.tar', 'b.tar')
  const value = JSON.parse(json.stdout) as { equal: boolean; layers: { same: boolean }[]; flat: { removed: number }; sharedLayers: number }
  assert.equal([json.status, value.equal, value.layers.map(layer => layer.same), value.flat.removed, value.sharedLayers], [1, false, [true, false], 3, 1])
  for (const args of [['a.tar', 'nothing'], ['a.tar'], ['--format', '{{.Nothing}}', 'a.tar', 'b.tar']]) {
    const failed = await run(t, 'diff', ...args)
    assert.equal([failed.status, failed.stdout, failed.stderr.startsWith('layerstack: ')], [2, '', true], args.join(' '))
  }
  assert.not(fs.existsSync(path.join(t.dir, 'root')), 'looking makes no store')
})

test('efficiency: figures, rules of a file, statuses', options, async t => {
  archive(t, 'a.tar', [[f('x', 'x'.repeat(100))], [f('x', 'y'.repeat(300)), f('y', 'z'.repeat(50))]])
  const plain = await run(t, 'image', 'efficiency', 'a.tar')
  assert.equal([plain.status, plain.stderr], [0, ''])
  assert.match(plain.stdout, /efficiency +33\.33 %\nwasted +400B \(400 bytes\)\nwasted of user bytes 114\.29 %\nsize +450B, of which 350B show\n/)
  assert.match(plain.stdout, /\n2 +400B +\/x\n/)
  const broken = await run(t, 'image', 'efficiency', '--ci', '--json', 'a.tar')
  const { rules, image } = JSON.parse(broken.stdout) as { rules: { rule: string; status: string }[]; image: { inefficientBytes: number; fileReference: object[] } }
  assert.equal([broken.status, rules.map(rule => rule.status), image.inefficientBytes, image.fileReference], [1, ['fail', 'skip', 'fail'], 400, [{ count: 2, sizeBytes: 400, file: '/x', layers: [0, 1] }]])
  fs.writeFileSync(path.join(t.dir, '.dive-ci'), 'rules:\n  lowestEfficiency: 0.3\n  highestUserWastedPercent: off\n')
  assert.is((await run(t, 'image', 'efficiency', 'a.tar', '--ci')).status, 0)
  assert.is((await run(t, 'image', 'efficiency', 'a.tar', '--highest-wasted-bytes', '399B')).status, 1)
})

test('flatten, squash and rebase: into archives and the store', options, async t => {
  const own = [d('app'), f('app/x'), f('doc/.wh.2', '')]
  archive(t, 'old.tar', [base], ['base:1'])
  archive(t, 'new.tar', [[...base, f('patched')]], ['base:2'])
  archive(t, 'app.tar', [base, own])
  fs.writeFileSync(path.join(t.dir, 'app.tar.gz'), gzipSync(fs.readFileSync(path.join(t.dir, 'app.tar'))))
  const flat = await run(t, 'image', 'flatten', 'app.tar.gz')
  assert.equal([flat.status, flat.stderr], [0, ''])
  assert.is(spawnSync('tar', ['-t'], { input: flat.bytes, encoding: 'utf8' }).stdout, 'app/\ndoc/\netc/\netc/os\ndoc/1\napp/x\n')
  assert.not(fs.existsSync(path.join(t.dir, 'root')))

  const squashed = await run(t, 'image', 'squash', 'app.tar', '-t', 'app:small')
  assert.match(squashed.stdout, /^sha256:[a-f0-9]{64}\n$/)
  assert.is((await run(t, 'diff', '-s', 'app:small', 'app.tar')).status, 0)
  const again = await run(t, 'image', 'squash', 'app.tar', '-o', 'small.tar')
  assert.equal([again.status, again.stdout], [0, squashed.stdout], 'the same image each time')
  assert.equal((({ status, stdout }) => [status, stdout])(await run(t, 'diff', '-q', '--by', 'both', 'small.tar', 'app:small')), [0, ''])

  const rebased = await run(t, 'image', 'rebase', '--from', 'old.tar', '--onto', 'new.tar', '-o', 'rebased.tar', 'app.tar')
  assert.is(rebased.status, 0)
  assert.is((await run(t, 'diff', '-s', '--format', '{{.Kind}} {{.Path}}', 'app.tar', 'rebased.tar')).stdout, 'A /patched\n')
  archive(t, 'clash.tar', [base, [f('patched', 'mine')]])
  const refused = await run(t, 'image', 'rebase', '--from', 'old.tar', '--onto', 'new.tar', '-t', 'clash:1', 'clash.tar')
  assert.equal([refused.status, refused.stdout], [1, ''])
  assert.match(refused.stderr, /^warning: conflict: \/patched: the image and the new base each have one, and not the same\nlayerstack: cannot rebase clash\.tar: 1 path is in conflict\n/)
  assert.is((await run(t, 'image', 'rebase', '--base-layers', '1', '--onto', 'new.tar', '--allow-conflicts', '-t', 'clash:1', 'clash.tar')).status, 0)
  assert.equal((await run(t, 'image', 'ls', '--json')).stdout.match(/"(app:small|clash:1)"/g)?.sort(), ['"app:small"', '"clash:1"'])
})
