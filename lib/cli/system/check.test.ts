// check, repair and prune as their users call them: what they print, and the status that they end with.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, projectRoot, suite } from '../../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../../fixtures/image-store.ts'
import { makeTar } from '../../../fixtures/make-tar.ts'
import type { Finding, PruneResult, RepairResult } from '../../index.ts'

const test = suite('cli: system check, repair, prune')

interface Outcome { readonly status: number | null; readonly out: string; readonly err: string }

function cliOn(root: string): (...args: string[]) => Outcome {
  return (...args) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(projectRoot, 'dist/lib/cli/main.js'), '--root', root, '--driver', 'vfs', '--durability', 'none', ...args], { encoding: 'utf8', env: { PATH: process.env['PATH'] } })
    return { status, out: stdout, err: stderr }
  }
}

test('diagnosis, dry run, repair and prune, for people and for programs', { timeoutMs: 120_000 }, t => {
  const root = `${t.dir}/root`, cli = cliOn(root)
  const archive = write(t.dir, 'a.tar', makeTar(oldDockerArchive([makeImage()])))
  assert.is(cli('image', 'load', '-i', archive).status, 0)
  assert.equal(cli('system', 'check'), { status: 0, out: 'All is in order.\n', err: '' })
  assert.equal(cli('system', 'check', '--json'), { status: 0, out: '', err: '' })
  assert.equal(cli('system', 'repair', '--apply'), { status: 0, out: 'All is in order; there is nothing to repair.\n', err: '' })

  const orphan = 'ab'.repeat(32)
  fs.mkdirSync(`${root}/vfs/dir/${orphan}`)
  fs.writeFileSync(`${root}/vfs/dir/${orphan}/big`, Buffer.alloc(1 << 20, 1))
  const [layer = ''] = fs.readdirSync(`${root}/vfs/dir`).filter(id => fs.existsSync(`${root}/vfs/dir/${id}/app/run`))
  fs.writeFileSync(`${root}/vfs/dir/${layer}/app/run`, '#!/bin/xx\n')

  const found = cli('system', 'check')
  assert.is(found.status, 1)
  assert.match(found.out, /^Damaged\n {2}content-damaged \(1\)\n[\s\S]*file integrity checksum failed for "app\/run"\n {6}images: app:1\n {6}repair: /)
  assert.match(found.out, /Left over\n {2}driver-orphan \(1, 1\.0\d+MB\)\n/)
  assert.match(found.out, /\n1 damage, 1 leftover, 1\.0\d+MB to be gained\. See what a repair would do: layerstack system repair\n$/)
  const quick = cli('system', 'check', '--quick', '--json')
  assert.equal([quick.status, quick.out.trim().split('\n').map(line => (JSON.parse(line) as Finding).kind)], [1, ['driver-orphan']])
  assert.equal(cli('system', 'check', '--only', 'images,volumes').status, 0)
  const wrong = cli('system', 'check', '--only', 'nowhere')
  assert.equal([wrong.status, wrong.err], [1, 'layerstack: there is no area "nowhere" to check\n  areas: driver, layers, images, containers, volumes, leftovers\n'])

  const dry = cli('system', 'repair')
  assert.is(dry.status, 1)
  assert.match(dry.out, /^would: content-damaged [\s\S]*would: driver-orphan .*\(gains 1\.0\d+MB\)\n[\s\S]*2 repairs to do, 1\.0\d+MB to be gained\. Do it: layerstack system repair --apply\n/)
  assert.match(dry.out, /would be set aside and need loading again:\n {2}app:1\n$/)
  assert.ok(fs.existsSync(`${root}/vfs/dir/${orphan}`))

  const healed = JSON.parse(cli('system', 'repair', '--apply', '--from', archive, '--json').out) as RepairResult
  assert.equal([healed.steps.map(step => `${step.finding.kind} ${step.outcome}`), healed.reload, healed.remaining], [['content-damaged done', 'driver-orphan done'], [], []])
  assert.equal(cli('system', 'check').out, 'All is in order.\n')

  fs.writeFileSync(`${root}/vfs/dir/${layer}/app/run`, '#!/bin/xx\n')
  const aside = cli('system', 'repair', '--apply')
  assert.is(aside.status, 0)
  assert.match(aside.out, /^done: content-damaged [\s\S]*\n1 repair done, 0B gained\.\nSet aside; load again:\n {2}app:1\n$/)
  assert.is(cli('image', 'ls', '-q').out, '')
  const after = cli('system', 'check')
  assert.is(after.status, 0)
  assert.match(after.out, /^Worth knowing\n {2}set-aside \(2, /)
  const would = cli('system', 'prune', '--dry-run')
  assert.match(would.out, /^Leftovers that would go:\n[\s\S]*\(set-aside, [\s\S]*Total reclaimable space: \d/)
  const pruned = JSON.parse(cli('system', 'prune', '-f', '--json').out) as PruneResult
  assert.ok(pruned.reclaimedBytes > 0)
  assert.equal(cli('system', 'check').out, 'All is in order.\n')
  assert.equal(fs.readdirSync(`${root}/vfs/dir`), [])
})

test('prune: images without a name, all without a container, anonymous volumes; until', { timeoutMs: 120_000 }, t => {
  const root = `${t.dir}/root`, cli = cliOn(root)
  const ok = (...args: string[]): string => {
    const { status, out, err } = cli(...args)
    assert.equal([status, err], [0, ''], args.join(' '))
    return out
  }
  const used = makeImage({ tags: ['used:1'] }), old = makeImage({ tags: ['old:1'], layers: [[{ path: 'old', type: 'file', content: Buffer.alloc(300_000, 7) }]] })
  const nameless = makeImage({ tags: [], layers: [[{ path: 'nameless', type: 'file', content: Buffer.alloc(200_000, 8) }]] })
  ok('image', 'load', '-q', '-i', write(t.dir, 'a.tar', makeTar(oldDockerArchive([used, old, nameless]))))
  ok('container', 'create', '--name', 'box', 'used:1')
  ok('volume', 'create')
  ok('volume', 'create', 'named')

  const plan = JSON.parse(ok('system', 'prune', '--dry-run', '--volumes', '--json')) as PruneResult
  assert.equal([plan.images.length, plan.volumes.length, plan.leftovers], [2, 1, []])
  assert.equal(ok('system', 'prune', '-f', '--filter', 'until=2020-01-01'), 'Total reclaimed space: 0B\n')
  const first = JSON.parse(ok('system', 'prune', '-f', '--volumes', '--json')) as PruneResult
  assert.equal([first.images, first.volumes, first.reclaimedBytes], [plan.images, plan.volumes, plan.reclaimedBytes])
  assert.ok(first.reclaimedBytes >= 200_000 && first.reclaimedBytes < 300_000, String(first.reclaimedBytes))
  assert.equal(ok('volume', 'ls', '-q'), 'named\n')
  const second = ok('system', 'prune', '-f', '--all')
  assert.match(second, /^Deleted Images:\nuntagged: old:1\ndeleted: sha256:[a-f0-9]{64}\ndeleted: sha256:[a-f0-9]{64}\n\nTotal reclaimed space: 3\d\d\.\dkB\n$/)
  assert.match(ok('image', 'ls'), /used/)
  assert.equal(ok('system', 'check'), 'All is in order.\n')
  const other = cli('system', 'prune', '-f', '--filter', 'label=x')
  assert.equal([other.status, other.err], [1, "layerstack: invalid filter 'label'\n  system prune knows until=TIME\n"])
})
