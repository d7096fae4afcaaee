// `--storage-opt key=value` pairs, split as Docker splits them. Knows no driver's keys.

import { StorageError } from './errors.ts'

/** `overlay2.size=10G` → [`overlay2.size`, `10G`], both trimmed. @throws INVALID_ARGUMENT with Docker's text */
export function splitPair(pair: string): [key: string, value: string] {
  const at = pair.indexOf('=')
  if (at < 0) throw new StorageError('INVALID_ARGUMENT', `unable to parse storage-opt key/value: ${pair}`, { hint: 'write it as key=value' })
  return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()]
}
