// Folders of probes: what the dead have left goes, wherever it lies, and nothing else.

import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { clearProbeFolders, makeProbeFolder, nearestExisting } from './probe-folder.ts'

const test = suite('probe folders')

test('left by the dead, above a home and in it', t => {
  const root = path.join(t.dir, 'root'), home = path.join(root, 'vfs')
  fs.mkdirSync(home, { recursive: true })
  assert.is(nearestExisting(path.join(home, 'none/yet')), home)
  const mine = makeProbeFolder(home, 'vfs')
  // Nobody with this number began at this moment.
  const dead = [path.join(home, '.vfs-probe-1-1-AbCdEf'), path.join(root, '.vfs-probe-1-2-AbCdEf')]
  const others = [path.join(home, '.other-probe-1-1-AbCdEf'), path.join(home, '.vfs-probe-mine'), path.join(home, 'layer')]
  for (const folder of [...dead, ...others]) fs.mkdirSync(path.join(folder, 'in/it'), { recursive: true })
  const emptied: string[] = []
  clearProbeFolders(home, 'vfs', folder => { emptied.push(folder) })
  assert.equal(emptied.sort(), dead.sort())
  for (const folder of dead) assert.not(fs.existsSync(folder), folder)
  for (const folder of [mine, ...others]) assert.ok(fs.existsSync(folder), folder)
})
