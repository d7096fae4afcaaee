// `--format`: the part of Go's templates that Docker's users write: `{{.Field}}`, `{{json .}}`, `{{json .Field}}`, `\t` and `\n`. Knows no fields itself.

import { StorageError } from '../errors.ts'

export type Fields = Readonly<Record<string, unknown>>

/** Compile a template for values that have the given fields. @throws INVALID_ARGUMENT, naming the fields */
export function template(text: string, fields: readonly string[]): (value: Fields) => string {
  const parts: ((value: Fields) => string)[] = []
  const plain = (piece: string): void => {
    const shown = piece.replace(/\\([tn\\])/g, (_, c: string) => ({ t: '\t', n: '\n' })[c] ?? '\\')
    if (shown !== '') parts.push(() => shown)
  }
  let at = 0
  for (const match of text.matchAll(/\{\{-?\s*(.*?)\s*-?\}\}/g)) {
    plain(text.slice(at, match.index))
    at = match.index + match[0].length
    const inner = /^(json\s+)?\.(\w*)$/.exec(match[1] ?? '')
    const [json, field] = [inner?.[1] !== undefined, inner?.[2]]
    if (inner === null || field === undefined || field !== '' && !fields.includes(field) || field === '' && !json) throw unknown(match[0], fields)
    parts.push(value => {
      const found = field === '' ? value : value[field]
      return json ? JSON.stringify(found) ?? 'null' : shown(found)
    })
  }
  const rest = text.slice(at)
  if (rest.includes('{{')) throw unknown(rest, fields)
  plain(rest)
  return value => parts.map(part => part(value)).join('')
}

function shown(value: unknown): string {
  return value === undefined || value === null ? '' : Array.isArray(value) ? value.map(shown).join(',') : typeof value === 'object' ? JSON.stringify(value) : String(value)
}

function unknown(what: string, fields: readonly string[]): StorageError {
  return new StorageError('INVALID_ARGUMENT', `invalid template at ${what}`, { hint: `fields are ${fields.map(field => `.${field}`).join(', ')}; {{json .}} prints all` })
}
