import { aufsSkips, aufsSkipsWithoutMounts } from '../../fixtures/conformance-skips.ts'
import { suite, tempBase } from '../../fixtures/harness/index.ts'
import { conformance } from '../../lib/conformance/index.ts'
import { nativeReason } from '../../lib/sys/native.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import aufs, { openUnprobed } from './index.ts'
import { supportsHere } from './probe.ts'

// On a kernel with aufs everything runs on real mounts; on others, without mounts, what the layout, apply, diff and changes have to do with.
const probe = await aufs.probe(tempBase())
const test = suite('aufs conformance')
const reason = nativeReason ?? (privileges().mount && privileges().chown ? undefined : 'needs root: devices and foreign owners')
conformance({
  test: (name, options, run) => test(name, options, run),
  label: 'aufs',
  ...(probe.ok
    ? { probe, open: home => aufs.open({ home, options: {} }), skip: aufsSkips }
    : {
        withoutMounts: true, open: home => openUnprobed(home, true),
        probe: reason === undefined ? { ok: true, supports: supportsHere } : { ok: false, code: 'PREREQUISITE_MISSING', reason, hint: '' },
        skip: aufsSkipsWithoutMounts,
      }),
})
