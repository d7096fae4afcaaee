// Where scratch trees lie that live for a moment: suites and benchmarks.

import fs from 'node:fs'
import os from 'node:os'

/** TMPDIR, else /dev/shm (a tmpfs: fast, with xattrs and devices), else the system's. */
export function scratchBase(): string {
  if (process.env['TMPDIR']) return process.env['TMPDIR']
  try {
    fs.accessSync('/dev/shm', fs.constants.W_OK)
    return '/dev/shm'
  } catch {
    return os.tmpdir()
  }
}
