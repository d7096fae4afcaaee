// The wall clock in nanoseconds. Node's Date.now() floors to milliseconds, so that a time stamp could lie before the call that asked for it.

import { bind, nativeReason } from './native.ts'

const clockGettime = bind('int clock_gettime(int clock, void *time)')
const CLOCK_REALTIME = 0
const timespec = Buffer.alloc(16)

/** Nanoseconds since 1970 (CLOCK_REALTIME), as the kernel has them. */
export function wallClockNs(): bigint {
  if (nativeReason !== undefined) return anchoredNs()
  clockGettime([CLOCK_REALTIME, timespec])
  return timespec.readBigInt64LE(0) * 1_000_000_000n + timespec.readBigInt64LE(8)
}

let anchor: bigint | undefined

/**
 * Without native calls: the monotonic clock, tied to the wall clock where a millisecond begins, and tied anew when somebody sets the wall
 * clock. Exported for its test.
 */
export function anchoredNs(): bigint {
  const wallMs = Date.now()
  if (anchor !== undefined) {
    const ns = anchor + process.hrtime.bigint()
    // Date.now() is floored, so the true time is up to 1 ms later; beyond that the clock was set.
    const ahead = ns - BigInt(wallMs) * 1_000_000n
    if (ahead > -1_000_000n && ahead < 2_000_000n) return ns
  }
  // Busy for a millisecond at most, once.
  let ms = Date.now()
  for (const start = ms; ms === start;) ms = Date.now()
  const monotonic = process.hrtime.bigint()
  anchor = BigInt(ms) * 1_000_000n - monotonic
  return anchor + monotonic
}
