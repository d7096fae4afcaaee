import { suite, tempBase } from '../../fixtures/harness/index.ts'
import { conformance } from '../../lib/conformance/index.ts'
import vfs from './index.ts'

const probe = await vfs.probe(tempBase())
const test = suite('vfs conformance')
conformance({
  test: (name, options, run) => test(name, options, run),
  label: 'vfs', probe,
  open: home => vfs.open({ home, options: vfs.parseOptions([]) }),
})
