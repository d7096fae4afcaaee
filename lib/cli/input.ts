// Bytes in: a file by name, or stdin in the form that suits the library best.

import fs from 'node:fs'
import { addAbortSignal } from 'node:stream'
import { StorageError } from '../errors.ts'

/**
 * Stdin as an archive: the descriptor when it is a file, which is then read in place; a stream otherwise, which the signal can end while it waits.
 * @throws INVALID_ARGUMENT with Docker's text when it is a terminal
 */
export function standardInput(signal: AbortSignal, what: string): 0 | AsyncIterable<Uint8Array> {
  if (process.stdin.isTTY) throw new StorageError('INVALID_ARGUMENT', `requested ${what} from stdin, but stdin is empty`, { hint: 'name a file, or send one: < FILE' })
  if (fs.fstatSync(0).isFile()) return 0
  return addAbortSignal(signal, process.stdin)
}

/** The size of a file, for progress; undefined for what has none. */
export function sizeOf(file: string | number): number | undefined {
  const stat = typeof file === 'number' ? fs.fstatSync(file) : fs.statSync(file, { throwIfNoEntry: false })
  return stat?.isFile() === true ? stat.size : undefined
}
