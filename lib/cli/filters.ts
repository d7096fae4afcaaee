// Docker's --filter grammar for images, as the library's ListFilter. Pure.

import { StorageError } from '../errors.ts'
import type { ListFilter } from '../images/index.ts'

const knownKeys = ['dangling', 'reference', 'label', 'before', 'since', 'until'] as const
type Key = (typeof knownKeys)[number]

/** @throws INVALID_ARGUMENT in Docker's words */
export function parseFilters(filters: readonly string[], nowMs = Date.now()): ListFilter {
  const found: Partial<Record<Key, string[]>> = {}
  for (const filter of filters) {
    const at = filter.indexOf('=')
    if (at < 0) throw new StorageError('INVALID_ARGUMENT', 'invalid argument for --filter: bad format of filter (expected name=value)', { key: filter })
    const key = filter.slice(0, at).trim().toLowerCase() as Key
    if (!knownKeys.includes(key)) throw new StorageError('INVALID_ARGUMENT', `invalid filter '${key}'`, { key: filter, hint: `known filters: ${knownKeys.join(', ')}` })
    ;(found[key] ??= []).push(filter.slice(at + 1).trim())
  }
  const single = (key: Key): string | undefined => {
    const values = found[key]
    if (values !== undefined && values.length > 1) throw new StorageError('INVALID_ARGUMENT', `filter '${key}' can be given once`, { key })
    return values?.[0]
  }
  const dangling = single('dangling'), before = single('before'), since = single('since'), until = single('until')
  return {
    ...(found.reference === undefined ? {} : { reference: found.reference }), ...(found.label === undefined ? {} : { label: found.label }),
    ...(dangling === undefined ? {} : { dangling: flag(dangling) }), ...(until === undefined ? {} : { until: moment(until, nowMs) }),
    ...(before === undefined ? {} : { before }), ...(since === undefined ? {} : { since }),
  }
}

function flag(text: string): boolean {
  if (/^(1|true)$/i.test(text)) return true
  if (/^(0|false)$/i.test(text)) return false
  throw new StorageError('INVALID_ARGUMENT', `invalid filter 'dangling=${text}'`, { hint: 'write dangling=true or dangling=false' })
}

const unitMs: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 1e-3, ns: 1e-6 }

/** A time, seconds since 1970, or how long ago in Go's words (`24h`, `1h30m`). */
function moment(text: string, nowMs: number): Date {
  if (/^\d+(\.\d+)?$/.test(text)) return new Date(Number(text) * 1000)
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|ms|h|m|s)/g)]
  if (parts.length > 0 && parts.map(([whole]) => whole).join('') === text) {
    return new Date(nowMs - parts.reduce((sum, [, value, unit]) => sum + Number(value) * (unitMs[unit ?? ''] ?? 0), 0))
  }
  const ms = Date.parse(text)
  if (Number.isNaN(ms)) throw new StorageError('INVALID_ARGUMENT', `invalid filter 'until=${text}'`, { hint: 'write a date, or a time ago such as 24h' })
  return new Date(ms)
}
