// Power cuts: with durability `full`, what was acknowledged is there on a copy of the device made at any moment. More of it with `npm run torture`.

import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { skipWithoutImage } from '../fixtures/loop.ts'
import { powerCuts } from '../fixtures/torture/power.ts'

const test = suite('power cuts')
const full = process.env['LAYERSTACK_FULL'] !== undefined

for (const [driver, kind] of [['overlay2', 'ext4'], ['vfs', 'ext4'], ['btrfs', 'btrfs']] as const) {
  const skip = needsRoot || skipWithoutImage('xfs') || skipWithoutImage(kind) || (driver === 'overlay2' || full ? false : 'only with LAYERSTACK_FULL=1')
  test(`${driver} on ${kind}: all that was acknowledged is there`, { skip, timeoutMs: 280_000 }, async () => {
    const { cuts, findings } = await powerCuts({ driver, kind, seed: 1, cuts: full ? 30 : 6 })
    assert.equal(findings, [])
    console.log(`  ${driver} on ${kind}: ${cuts} cuts`)
  })
}
