// Values as Go's standard library and docker/go-units read and print them: booleans, sizes, quoted strings, paths. Docker's flags are
// defined by these functions, down to their oddities. Pure.

import { StorageError } from '../errors.ts'

/** fmt's %q (strconv.Quote). */
export function goQuote(text: string): string {
  let out = '"'
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0
    const short = shortEscapes[char]
    if (short !== undefined) out += short
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, '0')}`
    else if (char === ' ' || /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(char)) out += char
    else out += code > 0xffff ? `\\U${code.toString(16).padStart(8, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
  }
  return `${out}"`
}
const shortEscapes: Readonly<Record<string, string>> = {
  '\x07': '\\a', '\b': '\\b', '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t', '\v': '\\v', '\\': '\\\\', '"': '\\"',
}

// unicode.IsSpace; JavaScript's own trim knows U+FEFF and not U+0085.
const space = '[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+'
const spaces = new RegExp(`^${space}|${space}$`, 'g')

/** strings.TrimSpace. */
export function goTrim(text: string): string {
  return text.replace(spaces, '')
}

/** strings.Cut: before the first separator, after it, and whether there was one. */
export function cut(text: string, separator: string): [before: string, after: string, found: boolean] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, '', false] : [text.slice(0, at), text.slice(at + separator.length), true]
}

/** strconv.ParseBool; undefined where that fails. */
export function parseBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false
  return undefined
}

/** strconv.ParseUint(text, 8, 32); undefined where that fails. */
export function parseOctal(text: string): number | undefined {
  if (!/^[0-7]+$/.test(text)) return undefined
  const value = parseInt(text, 8)
  return value <= 0xffffffff ? value : undefined
}

const decimalFloat = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i
const hexFloat = /^([+-]?)0x(_?[0-9a-f]+(?:_[0-9a-f]+)*)?\.?([0-9a-f]+(?:_[0-9a-f]+)*)?p([+-]?\d+(?:_\d+)*)$/i

/** strconv.ParseFloat(text, 64); undefined where that fails. */
function parseFloat64(text: string): number | undefined {
  if (/^[+-]?(inf|infinity)$/i.test(text)) return text.startsWith('-') ? -Infinity : Infinity
  if (/^nan$/i.test(text)) return NaN
  const hex = hexFloat.exec(text)
  const value = hex === null ? (decimalFloat.test(text) ? Number(text) : undefined) : hexValue(hex)
  return value === undefined || !Number.isFinite(value) ? undefined : value
}

function hexValue([, sign, whole = '', fraction = '', exponent = '']: RegExpExecArray): number | undefined {
  const digits = (whole + fraction).replaceAll('_', '')
  if (digits === '') return undefined
  const shift = Number(exponent.replaceAll('_', '')) - 4 * fraction.replaceAll('_', '').length
  return (sign === '-' ? -1 : 1) * Number(BigInt(`0x${digits}`)) * 2 ** shift
}

/** Go's conversion of a float to int64: what does not fit becomes the smallest integer (amd64). */
function toInt64(value: number): number {
  return value >= -(2 ** 63) && value < 2 ** 63 ? Math.trunc(value) : -(2 ** 63)
}

const binaryUnits: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 }

/**
 * units.RAMInBytes (docker/go-units 0.5): `1m`, `1.5g`, `64 KiB`, `512b`; powers of 1024.
 * @throws INVALID_ARGUMENT `invalid size: 'x'`, `invalid suffix: 'x'`, `strconv.ParseFloat: parsing "x": invalid syntax`
 */
export function ramInBytes(text: string): number {
  const invalid = (message: string): StorageError => new StorageError('INVALID_ARGUMENT', message, { key: text })
  const separator = Math.max(...[...'0123456789. '].map(char => text.lastIndexOf(char)))
  if (separator < 0) throw invalid(`invalid size: '${text}'`)
  const number = text.slice(0, text[separator] === ' ' ? separator : separator + 1)
  const size = parseFloat64(number)
  if (size === undefined) {
    const outOfRange = decimalFloat.test(number) || hexFloat.test(number)
    throw invalid(`strconv.ParseFloat: parsing ${goQuote(number)}: ${outOfRange ? 'value out of range' : 'invalid syntax'}`)
  }
  if (size < 0) throw invalid(`invalid size: '${text}'`)
  const suffix = text.slice(separator + 1)
  if (suffix === '') return toInt64(size)
  const lower = suffix.toLowerCase()
  const badSuffix = (shown: string): StorageError => invalid(`invalid suffix: '${shown}'`)
  if (Buffer.byteLength(suffix) > 3) throw badSuffix(suffix)
  if (lower === 'b') return toInt64(size)
  const factor = binaryUnits[lower[0] ?? '']
  if (factor === undefined || !['', 'b', 'ib'].includes(lower.slice(1))) throw badSuffix(lower)
  return toInt64(size * factor)
}

/** path.Clean. */
export function cleanPath(path: string): string {
  const rooted = path.startsWith('/')
  const kept: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') kept.push(part)
    else if (kept.length > 0 && kept.at(-1) !== '..') kept.pop()
    else if (!rooted) kept.push('..')
  }
  return `${rooted ? '/' : ''}${kept.join('/')}` || '.'
}

/** filepath.IsLocal on Unix: relative, not empty, and does not lead out. */
export function isLocalPath(path: string): boolean {
  if (path === '' || path.startsWith('/')) return false
  const clean = path.split('/').some(part => part === '.' || part === '..') ? cleanPath(path) : path
  return clean !== '..' && !clean.startsWith('../')
}
