// The rules of labels and keys, and what an update does to labels. Pure.

import { StorageError } from '../errors.ts'

/** containerd's limit for a label's key and value together (labels/validate.go). */
const labelBytes = 4096

/** @throws INVALID_ARGUMENT for an empty key, or one that a file of text could not hold */
export function checkKey(key: string, what = 'snapshot key'): void {
  if (typeof key !== 'string') throw new TypeError(`a ${what} is a string`)
  if (key === '') throw new StorageError('INVALID_ARGUMENT', `the ${what} is empty`)
  // Two keys that differ only in a lone surrogate would have the same bytes.
  if (/[\0\p{Surrogate}]/u.test(key)) throw new StorageError('INVALID_ARGUMENT', `the ${what} ${JSON.stringify(key)} is not UTF-8 without NUL`)
}

/** A copy of the labels. @throws INVALID_ARGUMENT */
export function checkLabels(labels: Readonly<Record<string, string>> | undefined): Record<string, string> {
  const checked: Record<string, string> = {}
  for (const [key, value] of Object.entries(labels ?? {})) {
    if (typeof value !== 'string') throw new TypeError(`the value of label ${JSON.stringify(key)} is not a string`)
    if (Buffer.byteLength(key) + Buffer.byteLength(value) > labelBytes) {
      throw new StorageError('INVALID_ARGUMENT', `label key and value greater than maximum size (${labelBytes} bytes), key: ${key.slice(0, 10)}`)
    }
    if (/\p{Surrogate}/u.test(key + value)) throw new StorageError('INVALID_ARGUMENT', `label ${JSON.stringify(key)} is not UTF-8`)
    Object.defineProperty(checked, key, { value, enumerable: true, configurable: true, writable: true })
  }
  return checked
}

/**
 * What an update makes of the labels: all replaced without field paths or with `labels`; `labels.K` sets K from `given`, or removes it
 * where `given` has none or an empty one. @throws INVALID_ARGUMENT for any other path
 */
export function updateLabels(old: Readonly<Record<string, string>>, given: Readonly<Record<string, string>>, fieldPaths: readonly string[]): Record<string, string> {
  if (fieldPaths.length === 0) return { ...given }
  let labels: Record<string, string> = { ...old }
  for (const path of fieldPaths) {
    if (path === 'labels') {
      labels = { ...given }
      continue
    }
    if (!path.startsWith('labels.')) {
      throw new StorageError('INVALID_ARGUMENT', `cannot update ${JSON.stringify(path)} field on snapshot: only labels can be changed`, { op: 'update' })
    }
    const key = path.slice('labels.'.length)
    const value = Object.hasOwn(given, key) ? given[key] : undefined
    if (value === undefined || value === '') delete labels[key]
    else Object.defineProperty(labels, key, { value, enumerable: true, configurable: true, writable: true })
  }
  return labels
}
