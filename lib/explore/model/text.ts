// Names and commands from images as text that shows what they are: control characters, direction overrides, invisible characters and bytes that are
// not UTF-8 are written out, so that a name can neither hide nor imitate. Runs in Node and in the page; makes no markup.

/** Bytes that are not UTF-8 travel as one private character each: U+10FF00 + byte. A name that really has such a character travels as its four bytes. */
export const INVALID_BYTE = 0x10ff00

export interface Segment {
  readonly text: string
  /** Written out: not what the name holds, but a description of it. */
  readonly escaped: boolean
}

// Controls, format characters (direction, joiners, soft hyphen), separators, private and unassigned ones, and blanks that look like none or like a space.
const suspect = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}\u00a0\u034f\u115f\u1160\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]/u
const suspects = new RegExp(suspect, 'gu')
const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

export function needsEscape(text: string): boolean {
  return suspect.test(text)
}

/** Cut `text` into what is shown as it is and what is written out, in order. */
export function segments(text: string): Segment[] {
  const found: Segment[] = []
  let from = 0
  for (const match of text.matchAll(suspects)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index), escaped: false })
    found.push({ text: escapeOf(match[0]), escaped: true })
    from = match.index + match[0].length
  }
  if (from < text.length) found.push({ text: text.slice(from), escaped: false })
  return found
}

/** The same in one string, for titles, labels and the clipboard; a backslash is doubled where something is written out, so that it can be read back. */
export function plain(text: string): string {
  if (!needsEscape(text)) return text
  return segments(text).map(segment => segment.escaped ? segment.text : segment.text.replaceAll('\\', '\\\\')).join('')
}

function escapeOf(character: string): string {
  const code = character.codePointAt(0) as number
  if (code >= INVALID_BYTE && code <= INVALID_BYTE + 0xff) return `\\x${hex(code - INVALID_BYTE)}`
  return short[character] ?? (code < 0x80 ? `\\x${hex(code)}` : `\\u{${code.toString(16)}}`)
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}

/** Powers of 1000, three digits, as Docker counts: `12.3 MB`. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes, unit = 0
  while (Number(value.toPrecision(3)) >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${Number(value.toPrecision(3))} ${units[unit]}`
}

/** `1,234,567` */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `1 file`, `3 files` */
export function counted(value: number, one: string, several = `${one}s`): string {
  return `${grouped(value)} ${value === 1 ? one : several}`
}

/** A ratio in percent, rounded down near 1 so that only what is perfect reads `100 %`. */
export function percent(ratio: number): string {
  if (!Number.isFinite(ratio)) return '–'
  const value = ratio * 100
  return `${ratio < 1 && value > 99.9 ? Math.floor(value * 100) / 100 : Number(value.toFixed(1))} %`
}

/** Seconds since 1970 as `2026-01-31 12:00`, in UTC; with `full` also seconds and what is below. */
export function moment(seconds: number, full = false, nanos = 0): string {
  const date = new Date(seconds * 1000)
  if (Number.isNaN(date.getTime())) return 'unknown'
  const iso = date.toISOString().replace('T', ' ')
  if (!full) return iso.slice(0, -8)
  return `${iso.slice(0, -5)}${nanos === 0 ? '' : `.${String(nanos).padStart(9, '0').replace(/0+$/, '')}`} UTC`
}

const bits = ['---', '--x', '-w-', '-wx', 'r--', 'r-x', 'rw-', 'rwx'] as const

/** As `ls -l` writes it: `drwxr-xr-x`, with `s` and `t`. `letter` is `-`, `d`, `l`, `b`, `c` or `p`. */
export function modeText(letter: string, mode: number): string {
  const special = (text: string, set: boolean, mark: string): string => set ? text.slice(0, 2) + (text[2] === 'x' ? mark : mark.toUpperCase()) : text
  return letter + special(bits[mode >> 6 & 7]!, (mode & 0o4000) !== 0, 's') + special(bits[mode >> 3 & 7]!, (mode & 0o2000) !== 0, 's')
    + special(bits[mode & 7]!, (mode & 0o1000) !== 0, 't')
}

/** A history step as its author wrote it: without the shell and the builders' marks around it. */
export function commandText(createdBy: string): string {
  const text = createdBy.replaceAll(/[\t ]+/g, ' ').replace(/ # buildkit$/, '').trim()
  const nop = /^(?:\|\d+ .*? )?\/bin\/sh -c #\(nop\) +(.*)$/s.exec(text)
  if (nop !== null) return nop[1] as string
  const run = /^(?:RUN )?(?:\|\d+ .*? )?\/bin\/sh -c (.*)$/s.exec(text)
  return run === null ? text : `RUN ${run[1]}`
}
