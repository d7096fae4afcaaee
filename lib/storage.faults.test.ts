// Calls that fail (a full disk, a quota, a bad device, no descriptors, no permission) in every operation: a clear error, nothing left, and the next time it
// works. A sample; all with `npm run torture`. And a real file system that is full.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../fixtures/loop.ts'
import { testSeed } from '../fixtures/seed.ts'
import { all, failure } from '../fixtures/storage.ts'
import { deeds, furnish, makeInputs } from '../fixtures/torture/deeds.ts'
import type { FaultLine, FaultPlan } from '../fixtures/torture/faults-run.ts'
import { difference, portrait } from '../fixtures/torture/portrait.ts'
import { runPreloaded } from '../fixtures/torture/preloaded.ts'
import { skipWithoutShim } from '../fixtures/torture/shim.ts'
import { open } from './index.ts'

const test = suite('failing calls')

test('injected into every operation', { skip: needsRoot || skipWithoutShim(), timeoutMs: 280_000 }, async t => {
  const plan: FaultPlan = { dir: t.dir, driver: 'overlay2', seed: testSeed, deeds: deeds.map(({ name }) => name), each: process.env['LAYERSTACK_FULL'] === undefined ? 1 : 10, rounds: 1, untilMs: Number.MAX_SAFE_INTEGER }
  const lines: FaultLine[] = []
  const end = await runPreloaded('faults-run', plan, line => { lines.push(JSON.parse(line) as FaultLine) })
  for (const { deed, fault, call, findings } of lines) assert.equal(findings, [], `${deed} ${fault.errno}${fault.persistent ? ' from' : ''} at ${fault.at} (${call}), seed ${testSeed}`)
  assert.is(end.status, 0, `seed ${testSeed}, ${end.stderr}`)
  assert.ok(lines.length >= deeds.length / 2 && lines.some(({ code }) => code !== undefined))
  console.log(`  ${lines.length} calls failed, ${lines.filter(({ code }) => code !== undefined).length} of them with an error, seed ${testSeed}`)
})

test('a full ext4: told, rolled back, and done once there is space', { skip: needsRoot || skipWithoutImage('ext4'), timeoutMs: 120_000 }, async t => {
  const image = mountImage('ext4', { sizeBytes: 24 * 2 ** 20, mkfs: ['-m', '0'] })
  t.defer(() => image.close())
  const inputs = makeInputs(path.join(t.dir, 'inputs')), root = path.join(image.dir, 'root'), ballast = path.join(image.dir, 'ballast')
  const storage = await open({ root, driver: 'overlay2' })
  t.defer(() => storage.close())
  await furnish(storage)
  const before = await portrait(storage)
  for (const name of ['load', 'load-two', 'import', 'commit', 'volume-fill']) {
    const deed = deeds.find(one => one.name === name)
    assert.ok(deed !== undefined)
    fillUp(ballast, 64 * 1024)
    const error = await failure(deed.steps[0]?.(storage, inputs) as Promise<unknown>)
    assert.is(error.code, 'NO_SPACE', `${name}: ${error.message}`)
    assert.equal(difference(await portrait(storage), before), [], name)
    fs.rmSync(ballast)
  }
  for (const name of ['load', 'load-two', 'import', 'commit', 'volume-fill']) await deeds.find(one => one.name === name)?.steps[0]?.(storage, inputs)
  assert.equal((await all(storage.check())).filter(({ severity }) => severity !== 'notice'), [])
})

/** Leave about so many bytes. */
function fillUp(file: string, leaveBytes: number): void {
  const fd = fs.openSync(file, 'w')
  try {
    const chunk = Buffer.alloc(16 * 1024, 'b')
    for (;;) {
      const { bavail, bsize } = fs.statfsSync(file)
      if (bavail * bsize <= leaveBytes) return
      fs.writeSync(fd, chunk)
      fs.fdatasyncSync(fd)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    fs.closeSync(fd)
  }
}
