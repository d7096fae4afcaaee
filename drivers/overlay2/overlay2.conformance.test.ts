import { suite, tempBase } from '../../fixtures/harness/index.ts'
import { conformance } from '../../lib/conformance/index.ts'
import overlay2 from './index.ts'

const probe = await overlay2.probe(tempBase())
const test = suite('overlay2 conformance')
conformance({
  test: (name, options, run) => test(name, options, run),
  label: 'overlay2', probe,
  open: home => overlay2.open({ home, options: overlay2.parseOptions([]) }),
})
