// What this process may do: effective capabilities, and whether it lives in a user namespace. Read once from /proc.

import fs from 'node:fs'
import { nativeReason } from './native.ts'

export interface Privileges {
  /** Native calls exist (koffi loaded). */
  readonly native: boolean
  /** CAP_SYS_ADMIN: mount(2), trusted.* xattrs. */
  readonly mount: boolean
  /** CAP_SYS_CHROOT. */
  readonly chroot: boolean
  /** CAP_CHOWN and CAP_FOWNER and CAP_DAC_OVERRIDE: owners and modes of anybody's files. */
  readonly chown: boolean
  /** CAP_MKNOD in the initial user namespace: device nodes. */
  readonly mknod: boolean
  /** In a user namespace other than the initial one. */
  readonly userNamespace: boolean
}

const CAP = { chown: 0n, dacOverride: 1n, fowner: 3n, sysChroot: 18n, sysAdmin: 21n, mknod: 27n }

let cached: Privileges | undefined

export function privileges(): Privileges {
  return cached ??= read()
}

function read(): Privileges {
  const caps = effectiveCapabilities()
  const has = (bit: bigint): boolean => (caps >> bit & 1n) === 1n
  const native = nativeReason === undefined
  const userNamespace = inUserNamespace()
  return {
    native,
    mount: native && has(CAP.sysAdmin),
    chroot: native && has(CAP.sysChroot),
    chown: has(CAP.chown) && has(CAP.fowner) && has(CAP.dacOverride),
    mknod: native && has(CAP.mknod) && !userNamespace,
    userNamespace,
  }
}

function effectiveCapabilities(): bigint {
  try {
    const line = /^CapEff:\s*([0-9a-f]+)/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))
    return BigInt(`0x${line?.[1] ?? '0'}`)
  } catch {
    // No /proc: claim what root usually has, nothing otherwise; the calls themselves report the truth.
    return process.geteuid?.() === 0 ? (1n << 40n) - 1n : 0n
  }
}

/** The initial namespace maps all 2^32-1 ids onto themselves (user_namespaces(7)). */
function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(fs.readFileSync('/proc/self/uid_map', 'latin1'))
  } catch {
    return false
  }
}
