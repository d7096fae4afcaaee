// The names in a folder that need not be there: it may be made later, or somebody may just have removed it.

import fs from 'node:fs'
import { isErrno } from '../errors.ts'

/** Sorted; none where there is no folder, nor where the kernel answers one of `alsoNone`. @throws the kernel's other errors */
export function namesIn(dir: string, ...alsoNone: readonly string[]): string[] {
  try {
    return fs.readdirSync(dir).sort()
  } catch (error) {
    if (isErrno(error, 'ENOENT', ...alsoNone)) return []
    throw error
  }
}
