// `--storage-opt key=value` pairs, split as Docker splits them. Knows no driver's keys.

import { StorageError } from './errors.ts'

/** `overlay2.size=10G` → [`overlay2.size`, `10G`], both trimmed. @throws INVALID_ARGUMENT with Docker's text */
export function splitPair(pair: string): [key: string, value: string] {
  const at = pair.indexOf('=')
  if (at < 0) throw new StorageError('INVALID_ARGUMENT', `unable to parse storage-opt key/value: ${pair}`, { hint: 'write it as key=value' })
  return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()]
}

const units = 'kmgtp'

/** A size in Docker's words (go-units RAMInBytes): `10G`, `512m`, `1.5GiB`, `4096`; a unit is a power of 1024. Bytes. @throws INVALID_ARGUMENT */
export function parseSize(text: string): number {
  const m = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])i?b?|b)?$/i.exec(text.trim())
  const bytes = m === null ? NaN : Math.floor(Number(m[1]) * 1024 ** (m[2] === undefined ? 0 : units.indexOf(m[2].toLowerCase()) + 1))
  if (!Number.isSafeInteger(bytes)) throw new StorageError('INVALID_ARGUMENT', `invalid size: '${text}'`, { hint: 'write it as 10G, 512m or a number of bytes' })
  return bytes
}

/**
 * The size limit of a new layer in bytes, from its own options or else the daemon's default; undefined for none. What every driver with a limit
 * means by it: so much more than its parent shows may the layer come to hold.
 * @throws INVALID_ARGUMENT for an unknown option, or a limit on a layer that nobody writes to
 */
export function layerSize(driver: string, storageOptions: Readonly<Record<string, string>> | undefined, writable: boolean, byDefault: number | undefined): number | undefined {
  const keys = Object.keys(storageOptions ?? {})
  const unknown = keys.find(key => key.toLowerCase() !== 'size')
  if (unknown !== undefined) throw new StorageError('INVALID_ARGUMENT', `${driver}: unknown option ${unknown}`, { driver, op: 'create', hint: 'known: size' })
  const [key] = keys
  if (key !== undefined && !writable) throw new StorageError('INVALID_ARGUMENT', '--storage-opt size is only supported for ReadWrite Layers', { driver, op: 'create' })
  const bytes = key === undefined ? writable ? byDefault : undefined : parseSize(storageOptions?.[key] ?? '')
  return bytes === 0 ? undefined : bytes
}
