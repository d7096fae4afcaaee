// The driver suite a second and a third time: through the Snapshotter, and through gRPC.

import { openAsDriver } from '../../../fixtures/containerd/as-driver.ts'
import { suite, tempBase } from '../../../fixtures/harness/index.ts'
import { conformance } from '../../conformance/index.ts'
import { drivers } from '../../index.ts'

const test = suite('snapshotter conformance')

for (const name of ['overlay2', 'vfs'] as const) {
  const module = drivers[name]
  const probe = await module.probe(tempBase())
  for (const transport of ['in process', 'grpc'] as const) {
    conformance({
      test: (title, options, run) => test(title, options, run),
      label: `${name} ${transport}`, probe: probe.ok ? { ...probe, supports: { ...probe.supports, quota: false } } : probe,
      open: home => openAsDriver(module, home, transport, name === 'overlay2'),
    })
  }
}
