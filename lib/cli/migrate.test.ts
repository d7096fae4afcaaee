import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'

const test = suite('cli: system migrate')

test('moves to another driver and back, says what it moved, and names the driver where it must be named', { skip: needsRoot, timeoutMs: 60_000 }, t => {
  const root = `${t.dir}/root`
  const cli = (...args: string[]): { readonly status: number | null; readonly out: string; readonly err: string } => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(projectRoot, 'dist/lib/cli/main.js'), '--root', root, '--durability', 'none', ...args], { encoding: 'utf8', env: { PATH: process.env['PATH'] } })
    return { status, out: stdout, err: stderr }
  }
  const image = write(t.dir, 'a.tar', makeTar(oldDockerArchive([makeImage()])))
  assert.is(cli('--driver', 'overlay2', 'image', 'load', '-i', image).status, 0)
  assert.is(cli('container', 'create', '--name', 'box', 'app:1').status, 0)
  const there = cli('system', 'migrate', '--to', 'vfs')
  assert.equal([there.status, there.err], [0, ''])
  assert.is(there.out, 'Moved 2 layers, 1 image and 1 container from overlay2 to vfs; the old side is gone.\nName the driver from now on: --driver vfs\n')
  assert.is(fs.existsSync(`${root}/overlay2`), false)
  const kept = cli('--driver', 'vfs', 'system', 'migrate', '--to', 'overlay2', '--keep', '--json')
  assert.equal(JSON.parse(kept.out), { layers: 2, images: 1, containers: 1, layersBefore: 0, notKept: 0, dropped: false })
  assert.match(cli('container', 'ls').out, /box/)
  const again = cli('--driver', 'vfs', 'system', 'migrate', '--to', 'overlay2')
  assert.is(again.out, 'Moved 2 layers (2 of them by an earlier run), 1 image and 0 containers from vfs to overlay2; the old side is gone.\n')
  assert.match(cli('info').out, /Storage Driver: overlay2/)
  const self = cli('system', 'migrate', '--to', 'overlay2')
  assert.is(self.status, 1)
  assert.match(self.err, /cannot migrate from overlay2 to itself/)
  assert.is(cli('system', 'migrate').status, 2)
})
