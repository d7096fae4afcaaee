// Several processes at one root, some killed: everybody sees what holds together, and in the end it is clean. Minutes of it with `npm run torture`.

import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { severalProcesses } from '../fixtures/torture/processes.ts'

const test = suite('several processes')
const seconds = Number(process.env['LAYERSTACK_TORTURE_SECONDS'] ?? 8)

for (const driver of needsRoot === false ? ['overlay2'] : ['vfs']) {
  test(`${driver}: writers and readers, some of them killed`, { timeoutMs: seconds * 1000 + 200_000 }, async t => {
    const { deeds, looks, killed, findings } = await severalProcesses({ dir: t.dir, driver, seed: 1, seconds, writers: 3, readers: 1 })
    assert.equal(findings, [])
    assert.ok(deeds > 0 && looks > 0)
    console.log(`  ${deeds} deeds, ${looks} looks, ${killed} killed`)
  })
}
