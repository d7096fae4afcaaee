import { fuseOverlayfsSkips } from '../../fixtures/conformance-skips.ts'
import { suite, tempBase } from '../../fixtures/harness/index.ts'
import { conformance } from '../../lib/conformance/index.ts'
import fuseOverlayfs from './index.ts'

const probe = await fuseOverlayfs.probe(tempBase())
const test = suite('fuse-overlayfs conformance')
conformance({
  test: (name, options, run) => test(name, options, run),
  label: 'fuse-overlayfs', probe,
  open: home => fuseOverlayfs.open({ home, options: fuseOverlayfs.parseOptions([]) }),
  skip: fuseOverlayfsSkips,
})
