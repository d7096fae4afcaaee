// Every operation that changes a root, killed at a change of a file that it makes: opened again, the root is as before the step or as after it, to the last
// file. A sample of all points, the same in every run; all of them with `npm run torture`.

import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../fixtures/loop.ts'
import { testSeed } from '../fixtures/seed.ts'
import { openCrashBench } from '../fixtures/torture/crash.ts'
import { deeds } from '../fixtures/torture/deeds.ts'
import { random } from '../fixtures/torture/random.ts'
import { skipWithoutShim } from '../fixtures/torture/shim.ts'

const test = suite('crash points')
const full = process.env['LAYERSTACK_FULL'] !== undefined

for (const driver of ['overlay2', 'vfs', 'btrfs']) {
  const skip = needsRoot || skipWithoutShim() || (driver === 'btrfs' ? full ? skipWithoutImage('btrfs') : 'only with LAYERSTACK_FULL=1' : false)
  test(`${driver}: killed anywhere, every operation is undone or done`, { skip, timeoutMs: 280_000 }, async t => {
    let dir = t.dir
    if (driver === 'btrfs') {
      const image = mountImage('btrfs', { sizeBytes: 4 * 2 ** 30 })
      t.defer(() => image.close())
      dir = image.dir
    }
    const bench = await openCrashBench(dir, driver)
    t.defer(() => bench.close())
    const below = random(testSeed)
    let runs = 0, points = 0
    // vfs takes its turn with half of them, as the catalogue's code is the same.
    for (const [i, deed] of deeds.entries()) {
      if (!full && driver === 'vfs' && i % 2 !== testSeed % 2) continue
      const count = await bench.points(deed)
      points += count
      for (let n = full ? 5 : 1; n > 0; n--) {
        const at = 1 + below(count)
        const { findings, call, killed } = await bench.crash(deed, at, { again: below(4) === 0 ? 1 + below(30) : undefined, resume: below(3) === 0 })
        assert.equal(findings, [], `${driver} ${deed.name} killed at ${at} (${call}), seed ${testSeed}`)
        assert.ok(killed || at > 1, `${deed.name} was killed`)
        runs++
      }
    }
    console.log(`  ${driver}: ${runs} kills of ${points} points, seed ${testSeed}`)
  })
}
