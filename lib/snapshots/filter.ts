// containerd's filter language (filters/parser.go): selectors joined by commas must all match, of several filters one. Parses and matches;
// knows the fields of a snapshot and nothing else.

import { StorageError } from '../errors.ts'
import { boundedTest } from '../sys/bounded-regexp.ts'
import type { SnapshotInfo } from './types.ts'

export type SnapshotFilter = (info: SnapshotInfo) => boolean

type Operator = '==' | '!=' | '~='

/**
 * A predicate for filter strings as `ctr snapshots ls` and Walk take them: `kind==active,labels."containerd.io/gc.root"`. None, or an empty
 * one, matches everything. Regular expressions (`~=`) are JavaScript's, with Go's `(?i)` at the start, `(?P<name>…)`, `\A` and `\z`.
 * @throws INVALID_ARGUMENT
 */
export function parseFilters(filters: readonly string[]): SnapshotFilter {
  if (filters.length === 0) return () => true
  const parsed = filters.map(text => new Parser(text).parse())
  return info => parsed.some(filter => filter(info))
}

class Parser {
  readonly #text: string
  #at = 0

  constructor(text: string) { this.#text = text }

  parse(): SnapshotFilter {
    if (this.#text === '') return () => true
    const selectors = [this.#selector()]
    for (this.#blanks(); this.#at < this.#text.length; this.#blanks()) {
      if (this.#text[this.#at] !== ',') throw this.#wrong('unexpected input')
      this.#at++
      selectors.push(this.#selector())
    }
    return info => selectors.every(selector => selector(info))
  }

  #selector(): SnapshotFilter {
    const path = [this.#field()]
    while (this.#text[this.#at] === '.') { this.#at++; path.push(this.#field()) }
    this.#blanks()
    const operator = this.#take(/[=!~]+/y)
    if (operator === undefined) return info => fieldOf(info, path) !== undefined
    if (operator !== '==' && operator !== '!=' && operator !== '~=') throw this.#wrong(`unsupported operator ${operator}`)
    return comparison(path, operator, this.#value(operator), reason => this.#wrong(reason))
  }

  #field(): string {
    this.#blanks()
    if (this.#text[this.#at] === '"') return this.#quoted()
    const name = this.#take(/[A-Za-z0-9_]+/y)
    if (name === undefined) throw this.#wrong('expected field or quoted')
    return name
  }

  #value(operator: Operator): string {
    this.#blanks()
    const next = this.#text[this.#at]
    if (next === '"' || next === '/' || next === '|') {
      if (next !== '"' && operator !== '~=') throw this.#wrong('invalid quote encountered')
      return this.#quoted()
    }
    // Letters, marks, numbers, punctuation and symbols, as Go's unicode.IsGraphic; not a separator first.
    const value = next === '.' ? undefined : this.#take(/[^\s,\p{C}]+/uy)
    if (value === undefined) throw this.#wrong('expected value or quoted')
    return value
  }

  /** A Go string literal in "…", or in /…/ or |…| for regular expressions. */
  #quoted(): string {
    const quote = this.#text[this.#at++]
    let value = ''
    for (;;) {
      const char = this.#text[this.#at]
      if (char === undefined || char === '\n') throw this.#wrong('quoted literal not terminated')
      this.#at++
      if (char === quote) return value
      value += char === '\\' ? this.#escape(quote) : char
    }
  }

  #escape(quote: string | undefined): string {
    const char = this.#text[this.#at++]
    if (char === quote || char === '\\') return char ?? ''
    const simple = char === undefined ? undefined : simpleEscapes[char]
    if (simple !== undefined) return simple
    const digits = char === 'x' ? this.#take(/[0-9A-Fa-f]{2}/y) : char === 'u' ? this.#take(/[0-9A-Fa-f]{4}/y) : char === 'U' ? this.#take(/[0-9A-Fa-f]{8}/y) : undefined
    if (digits !== undefined && parseInt(digits, 16) <= 0x10ffff) return String.fromCodePoint(parseInt(digits, 16))
    if (char !== undefined && /[0-3]/.test(char)) {
      const rest = this.#take(/[0-7]{2}/y)
      if (rest !== undefined) return String.fromCodePoint(parseInt(char + rest, 8))
    }
    throw this.#wrong('illegal escape sequence')
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }

  #blanks(): void { this.#take(/\s+/y) }

  #wrong(reason: string): StorageError {
    const at = Math.min(this.#at, this.#text.length)
    return new StorageError('INVALID_ARGUMENT', `invalid filter ${JSON.stringify(this.#text)}: ${reason} at ${at}`, { op: 'walk' })
  }
}

const simpleEscapes: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' }

function comparison(path: readonly string[], operator: Operator, value: string, wrong: (reason: string) => StorageError): SnapshotFilter {
  // An absent field compares as the empty string, but is never equal to anything: containerd's filters/filter.go.
  if (operator === '==') return info => fieldOf(info, path) === value
  if (operator === '!=') return info => (fieldOf(info, path) ?? '') !== value
  const pattern = goPattern(value, wrong)
  return info => boundedTest(pattern, fieldOf(info, path) ?? '')
}

function goPattern(source: string, wrong: (reason: string) => StorageError): RegExp {
  const flags = /^\(\?([ims]+)\)/.exec(source)
  const body = source.slice(flags?.[0].length ?? 0).replaceAll('(?P<', '(?<').replaceAll('\\A', '^').replaceAll('\\z', '$')
  try {
    return new RegExp(body, [...new Set(flags?.[1] ?? ''), 'u'].join(''))
  } catch (error) {
    throw wrong(`invalid regular expression: ${(error as Error).message}`)
  }
}

/** Undefined when the snapshot has no such field. Name and parent are always there. */
function fieldOf(info: SnapshotInfo, path: readonly string[]): string | undefined {
  switch (path[0]) {
    case 'name': return info.name
    case 'parent': return info.parent ?? ''
    case 'kind': return info.kind
    case 'labels': {
      const name = path.slice(1).join('.')
      return Object.hasOwn(info.labels, name) ? info.labels[name] : undefined
    }
    default: return undefined
  }
}
