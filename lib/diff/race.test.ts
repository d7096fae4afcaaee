// CVE-2018-15664: a container swaps a directory for a symlink to the host while its layer is read. The bytes behind the link must never
// come into a list or an archive, whatever moment is hit.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { layerBytes } from '../../fixtures/layers.ts'
import { makeTree } from '../../fixtures/tree.ts'
import { nativeReason } from '../sys/native.ts'
import { listChanges } from './index.ts'
import type { ChangesOptions } from './index.ts'

const test = suite('swapped directories')

/** RENAME_EXCHANGE would hit more moments, but Node lacks it; rename over and back is enough (see the counts). */
const swapper = `
const fs = require('node:fs'), [dir, link, file, fileLink] = ['d', 'link', 'd2/f', 'flink'].map(name => process.argv[1] + '/' + name)
process.send('ready')
for (;;) try {
  fs.renameSync(dir, dir + '-away'); fs.renameSync(link, dir)
  fs.renameSync(file, file + '-away'); fs.renameSync(fileLink, file)
  fs.renameSync(dir, link); fs.renameSync(dir + '-away', dir)
  fs.renameSync(file, fileLink); fs.renameSync(file + '-away', file)
} catch {}
`

for (const whiteouts of ['none', 'overlay', 'aufs'] as const) {
  test(`a symlink to the host is never followed (${whiteouts})`, { timeoutMs: 60_000, skip: whiteouts === 'overlay' && nativeReason }, async t => {
    const upper = path.join(t.dir, 'upper'), lower = path.join(t.dir, 'lower'), host = path.join(t.dir, 'host')
    makeTree(host, { 'secret-name': 'the secret of the host', 'f0': 'the secret of the host', 'sub/f0': 'the secret of the host' })
    makeTree(lower, { 'd/lower': 'l', 'd2/f': 'l' })
    makeTree(upper, {
      ...Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`d/f${i}`, 'harmless'])), 'd/sub/f0': 'harmless', 'd2/f': 'harmless',
      'link': { type: 'symlink', to: host }, 'flink': { type: 'symlink', to: path.join(host, 'f0') },
    })
    const child = spawn(process.execPath, ['-e', swapper, upper], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    t.defer(() => new Promise(resolve => { child.once('exit', resolve); child.kill('SIGKILL') }))
    await new Promise(resolve => child.once('message', resolve))
    const options: ChangesOptions = { whiteouts, ...(process.getuid?.() === 0 ? {} : { xattrPrefix: 'user.overlay.' }) }
    let asLink = 0, asDirectory = 0, elsewhere = 0
    for (let i = 0; i < 200; i++) {
      const { tar, skipped } = await layerBytes(upper, lower, options)
      assert.is(tar.indexOf('the secret of the host'), -1, `run ${i}: content`)
      assert.is(tar.indexOf('secret-name'), -1, `run ${i}: a name`)
      if (tar.includes('d/f0')) asDirectory++
      else if (tar.includes('d-away/f0')) asLink++
      else elsewhere++
      elsewhere += skipped.length
      for await (const change of listChanges(upper, lower, options)) assert.not(change.path.includes('secret-name'))
    }
    // The race was there: both states, or one half-way, were met.
    assert.ok(asDirectory > 0 && asLink + elsewhere > 0, `${asDirectory} ${asLink} ${elsewhere}`)
    assert.ok(fs.readFileSync(path.join(host, 'f0'), 'utf8').startsWith('the secret'))
  })
}
