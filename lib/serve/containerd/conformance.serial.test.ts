// The driver suite a second and a third time: through the Snapshotter, and through gRPC.

import { openAsDriver } from '../../../fixtures/containerd/as-driver.ts'
import { aufsSkips, aufsSkipsWithoutMounts, fuseOverlayfsSkips } from '../../../fixtures/conformance-skips.ts'
import { mountImage, skipWithoutImage } from '../../../fixtures/loop.ts'
import { needsRoot, suite, tempBase } from '../../../fixtures/harness/index.ts'
import aufs, { openUnprobed } from '../../../drivers/aufs/index.ts'
import { supportsHere } from '../../../drivers/aufs/probe.ts'
import { conformance } from '../../conformance/index.ts'
import { drivers } from '../../index.ts'
import type { DriverModule, ProbeResult, WhiteoutFormat } from '../../index.ts'

/** What the suite asks of a driver and the model has no word for. */
const notDrivers = {
  'an unknown option of a layer is INVALID_ARGUMENT and leaves nothing': 'the Snapshotter takes no driver options',
  'a store that is opened again has its layers, and a second opener sees the first one\'s': 'the suite goes on with a driver that it has closed; a closed Snapshotter says CLOSED. snapshotter.test.ts has this test for two openers',
}

const test = suite('snapshotter conformance')

const full = Boolean(process.env['LAYERSTACK_FULL'])
const later = 'left to LAYERSTACK_FULL=1'
const noBtrfs = full ? skipWithoutImage('btrfs') : later
const image = noBtrfs === false ? mountImage('btrfs', { sizeBytes: 3 * 2 ** 30 }) : undefined
test.after(() => image?.close())

interface Candidate {
  readonly module: DriverModule
  /** Of drivers whose layers are branches. */
  readonly whiteouts?: WhiteoutFormat
  readonly base?: string
  readonly skip?: Readonly<Record<string, string>>
  readonly withoutMounts?: boolean
  readonly probe: ProbeResult
}

const absent = (reason: string): ProbeResult => ({ ok: false, code: 'PREREQUISITE_MISSING', reason, hint: '' })

/** On a kernel with aufs on real mounts, on others what its layout, apply, diff and changes have to do with. */
async function aufsHere(): Promise<Candidate> {
  const probe = await aufs.probe(tempBase())
  if (probe.ok) return { module: aufs as DriverModule, whiteouts: 'aufs', probe, skip: aufsSkips }
  const module = { ...aufs, probe: async () => ({ ok: true, supports: supportsHere }) as const, open: ({ home }: { readonly home: string }) => openUnprobed(home, true) }
  return {
    module: module as DriverModule, whiteouts: 'aufs', withoutMounts: true, skip: aufsSkipsWithoutMounts,
    probe: needsRoot === false ? await module.probe() : absent(needsRoot),
  }
}

const candidates: Readonly<Record<string, Candidate>> = {
  overlay2: { module: drivers.overlay2, whiteouts: 'overlay', probe: await drivers.overlay2.probe(tempBase()) },
  vfs: { module: drivers.vfs, probe: await drivers.vfs.probe(tempBase()) },
  btrfs: { module: drivers.btrfs, ...(image === undefined ? { probe: absent(String(noBtrfs)) } : { base: image.dir, probe: await drivers.btrfs.probe(image.dir) }) },
  'fuse-overlayfs': {
    module: drivers['fuse-overlayfs'], whiteouts: 'fuse-overlayfs', skip: fuseOverlayfsSkips,
    probe: full ? await drivers['fuse-overlayfs'].probe(tempBase()) : absent(later),
  },
  aufs: await aufsHere(),
}

// All of them take three minutes of a processor, these one. Left out: btrfs and fuse-overlayfs, whose snapshots go the ways of vfs's and overlay2's up to the
// driver, which has its own run of the suite; and aufs through gRPC, which knows no drivers.
const brief: Readonly<Record<string, readonly string[]>> = { overlay2: ['in process', 'grpc'], vfs: ['in process', 'grpc'], aufs: ['in process'] }

for (const [name, { module, whiteouts, base, probe, skip = {}, withoutMounts = false }] of Object.entries(candidates)) {
  for (const transport of ['in process', 'grpc'] as const) {
    if (!full && brief[name]?.includes(transport) !== true) continue
    conformance({
      test: (title, options, run) => test(title, options, run),
      label: `${name} ${transport}`, probe: probe.ok ? { ...probe, supports: { ...probe.supports, quota: false } } : probe,
      skip: { ...notDrivers, ...skip }, withoutMounts, ...(base === undefined ? {} : { tempBase: base }),
      open: home => openAsDriver(module, home, transport, whiteouts),
    })
  }
}
