import { suite } from '../../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { conformance } from '../../lib/conformance/index.ts'
import type { ProbeResult } from '../../lib/driver.ts'
import btrfs from './index.ts'

const reason = skipWithoutImage('btrfs')
const image = reason === false ? mountImage('btrfs', { sizeBytes: 3 * 2 ** 30 }) : undefined
const probe: ProbeResult = image === undefined ? { ok: false, code: 'PREREQUISITE_MISSING', reason: String(reason), hint: '' } : await btrfs.probe(image.dir)
const test = suite('btrfs conformance')
test.after(() => image?.close())
conformance({
  test: (name, options, run) => test(name, options, run),
  label: 'btrfs', probe, ...(image === undefined ? {} : { tempBase: image.dir }),
  open: home => btrfs.open({ home, options: btrfs.parseOptions([]) }),
})
