// Folders of probes: what the dead have left goes, wherever it lies, and nothing else.

import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { nearestExisting } from './make-directories.ts'
import { clearProbeFolders, inProbeFolder } from './probe-folder.ts'

const test = suite('probe folders')

test('left by the dead, above a home and in it', t => {
  const root = path.join(t.dir, 'root'), home = path.join(root, 'vfs')
  fs.mkdirSync(home, { recursive: true })
  assert.is(nearestExisting(path.join(home, 'none/yet')), home)
  // Nobody with this number began at this moment.
  const dead = [path.join(home, '.vfs-probe-1-1-AbCdEf'), path.join(root, '.vfs-probe-1-2-AbCdEf')]
  const others = [path.join(home, '.other-probe-1-1-AbCdEf'), path.join(home, '.vfs-probe-mine'), path.join(home, 'layer')]
  for (const folder of [...dead, ...others]) fs.mkdirSync(path.join(folder, 'in/it'), { recursive: true })
  const emptied: string[] = []
  const mine = inProbeFolder(home, 'vfs', folder => {
    clearProbeFolders(home, 'vfs', other => { emptied.push(other) })
    assert.ok(fs.existsSync(folder), 'one of the living stays')
    return folder
  })
  assert.not(fs.existsSync(String(mine)))
  assert.equal(emptied.sort(), dead.sort())
  for (const folder of dead) assert.not(fs.existsSync(folder), folder)
  for (const folder of others) assert.ok(fs.existsSync(folder), folder)
})

test('where nothing can be written the driver says so', t => {
  const refused = inProbeFolder(path.join(t.dir, 'none'), 'vfs', () => ({ ok: true }))
  assert.equal(refused, { ok: false, code: 'PREREQUISITE_MISSING', reason: `vfs cannot write to ${path.join(t.dir, 'none')}: ENOENT`, hint: 'choose a writable data root' })
})
