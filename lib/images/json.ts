// JSON from archives and from the data root: bounded, decoded field by field, with errors that name the place. And JSON as Go writes it.

import { StorageError } from '../errors.ts'
import type { Code } from '../errors.ts'

/** A JSON object whose fields are asked for by type. `null` counts as absent, as in Go. */
export class Fields {
  readonly #values: Readonly<Record<string, unknown>>
  readonly #what: string
  readonly #code: Code

  /** `what` begins every message, e.g. `invalid manifest`. */
  constructor(value: unknown, what: string, code: Code = 'INVALID_ARCHIVE') {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new StorageError(code, `${what}: expected an object`)
    this.#values = value as Record<string, unknown>
    this.#what = what
    this.#code = code
  }

  #get(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? this.#values[key] : undefined
  }

  #wrong(key: string, expected: string): StorageError {
    return new StorageError(this.#code, `${this.#what}: ${key} is not ${expected}`)
  }

  has(key: string): boolean {
    return (this.#get(key) ?? undefined) !== undefined
  }

  string(key: string): string | undefined {
    const value = this.#get(key) ?? undefined
    if (value !== undefined && typeof value !== 'string') throw this.#wrong(key, 'a string')
    return value
  }

  mustString(key: string): string {
    const value = this.string(key)
    if (value === undefined || value === '') throw new StorageError(this.#code, `${this.#what}: ${key} is missing`)
    return value
  }

  /** A whole number of bytes, or of something else that is not negative. */
  mustSize(key: string): number {
    const value = this.#get(key)
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw this.#wrong(key, 'a size')
    return value
  }

  boolean(key: string): boolean {
    const value = this.#get(key) ?? false
    if (typeof value !== 'boolean') throw this.#wrong(key, 'true or false')
    return value
  }

  array(key: string): readonly unknown[] {
    const value = this.#get(key) ?? []
    if (!Array.isArray(value)) throw this.#wrong(key, 'an array')
    return value
  }

  strings(key: string): readonly string[] {
    const value = this.array(key)
    if (!value.every(item => typeof item === 'string')) throw this.#wrong(key, 'an array of strings')
    return value
  }

  /** The objects of an array. */
  each(key: string): readonly Fields[] {
    return this.array(key).map((item, i) => new Fields(item, `${this.#what}: ${key}[${i}]`, this.#code))
  }

  object(key: string): Fields | undefined {
    const value = this.#get(key) ?? undefined
    return value === undefined ? undefined : new Fields(value, `${this.#what}: ${key}`, this.#code)
  }

  mustObject(key: string): Fields {
    const value = this.object(key)
    if (value === undefined) throw new StorageError(this.#code, `${this.#what}: ${key} is missing`)
    return value
  }

  /** A map from string to string, empty when absent. */
  map(key: string): Readonly<Record<string, string>> {
    const value = this.object(key)
    if (value === undefined) return {}
    for (const name of value.keys()) if (typeof value.raw(name) !== 'string') throw this.#wrong(key, 'a map of strings')
    return value.#values as Record<string, string>
  }

  keys(): string[] {
    return Object.keys(this.#values)
  }

  raw(key: string): unknown {
    return this.#get(key)
  }
}

/** Arrays and objects in each other. JSON.parse needs no stack, but whoever writes or walks the value does, from about 5,000 on; Go refuses 10,000. */
const deepestJson = 1000

function isTooDeep(text: string): boolean {
  let depth = 0, inString = false
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x22) inString = !inString
    else if (inString) { if (code === 0x5c) i++ } // a backslash takes the next character with it
    else if (code === 0x5b || code === 0x7b) { if (++depth > deepestJson) return true }
    else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}

/** Parse bytes as UTF-8 JSON. Of two equal keys the last counts, as in Go. @throws `code` with `what` in the message */
export function parseJson(bytes: Uint8Array | string, what: string, code: Code = 'INVALID_ARCHIVE'): unknown {
  const text = typeof bytes === 'string' ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
  if (isTooDeep(text)) throw new StorageError(code, `${what}: it is nested more than ${deepestJson} deep`)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new StorageError(code, `${what}: not JSON: ${(error as Error).message}`, {}, { cause: error })
  }
}

/** As Go's encoding/json writes it: compact, with `<`, `>`, `&` and the two line separators escaped. Keys keep their order. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A copy with keys in byte order, as Go writes maps. */
export function sortKeys<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
}

/** RFC 3339 with as many decimals as it takes, as Go's RFC3339Nano: `2025-01-01T00:00:00.5Z`. */
export function goTime(date: Date): string {
  return date.toISOString().replace(/\.?0+Z$/, 'Z')
}
