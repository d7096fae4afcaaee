// mkdir -p that ends: Node 20's recursive mkdir loops for ever where the kernel answers ENOENT although the parent is there (below /proc).

import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'

/** Make `dir` and what is missing above it. The mode is that of `dir` alone, whatever the umask; a directory that exists keeps its own. @throws the kernel's errors */
export function makeDirectories(dir: string, mode = 0o755): void {
  try {
    fs.mkdirSync(dir, mode)
  } catch (error) {
    if (isErrno(error, 'EEXIST') && fs.statSync(dir).isDirectory()) return
    const parent = path.dirname(dir)
    if (!isErrno(error, 'ENOENT') || fs.existsSync(parent)) throw error
    makeDirectories(parent)
    makeDirectories(dir, mode)
    return
  }
  fs.chmodSync(dir, mode)
}

/** `dir`, or the nearest above it that exists. */
export function nearestExisting(dir: string): string {
  return fs.existsSync(dir) ? dir : nearestExisting(path.dirname(dir))
}
