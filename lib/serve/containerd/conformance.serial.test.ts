// The driver suite a second and a third time: through the Snapshotter, and through gRPC.

import { openAsDriver } from '../../../fixtures/containerd/as-driver.ts'
import { mountImage, skipWithoutImage } from '../../../fixtures/loop.ts'
import { suite, tempBase } from '../../../fixtures/harness/index.ts'
import { conformance } from '../../conformance/index.ts'
import { drivers } from '../../index.ts'
import type { ProbeResult } from '../../index.ts'

/** What the suite asks of a driver and the model has no word for. */
const notDrivers = {
  'an unknown option of a layer is INVALID_ARGUMENT and leaves nothing': 'the Snapshotter takes no driver options',
  'a store that is opened again has its layers, and a second opener sees the first one\'s': 'the suite goes on with a driver that it has closed; a closed Snapshotter says CLOSED. snapshotter.test.ts has this test for two openers',
}

const test = suite('snapshotter conformance')

const full = Boolean(process.env['LAYERSTACK_FULL'])
const noBtrfs = full ? skipWithoutImage('btrfs') : 'left to LAYERSTACK_FULL=1'
const image = noBtrfs === false ? mountImage('btrfs', { sizeBytes: 3 * 2 ** 30 }) : undefined
test.after(() => image?.close())

for (const name of ['overlay2', 'vfs', 'btrfs'] as const) {
  const module = drivers[name]
  const base = name === 'btrfs' ? image?.dir : tempBase()
  const probe: ProbeResult = base === undefined ? { ok: false, code: 'PREREQUISITE_MISSING', reason: String(noBtrfs), hint: '' } : await module.probe(base)
  for (const transport of ['in process', 'grpc'] as const) {
    // All of them take some ten minutes. What is left out here differs from what is run in the driver or in the transport, never in both.
    if (!full && (name === 'btrfs' || name === 'vfs' && transport === 'in process')) continue
    conformance({
      test: (title, options, run) => test(title, options, run),
      label: `${name} ${transport}`, probe: probe.ok ? { ...probe, supports: { ...probe.supports, quota: false } } : probe,
      skip: notDrivers, ...(base === undefined ? {} : { tempBase: base }),
      open: home => openAsDriver(module, home, transport, name === 'overlay2'),
    })
  }
}
