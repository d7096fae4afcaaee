// One CSV record as Go's encoding/csv reads it (RFC 4180, LazyQuotes off), with its errors; and its writing. `--mount` is such a record.
// Columns in errors count bytes, so this works on bytes.

import { StorageError } from '../errors.ts'

const quote = 0x22, comma = 0x2c, newline = 0x0a, carriageReturn = 0x0d

/** Lines with their newline; `\r\n` is read as `\n`, and a `\r` before the end is dropped. */
function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  for (let from = 0; from < bytes.length;) {
    const at = bytes.indexOf(newline, from)
    const end = at < 0 ? bytes.length : at + 1
    const line = bytes.subarray(from, end)
    from = end
    if (at < 0) lines.push(line.at(-1) === carriageReturn ? line.subarray(0, -1) : line)
    else if (line.at(-2) === carriageReturn) lines.push(Buffer.concat([line.subarray(0, -2), Buffer.from('\n')]))
    else lines.push(line)
  }
  return lines
}

const withoutNewline = (line: Buffer): Buffer => line.at(-1) === newline ? line.subarray(0, -1) : line

/**
 * The fields of the first record; empty lines before it are passed over.
 * @throws INVALID_ARGUMENT `EOF`, `parse error on line N, column N: …` in Go's words
 */
export function parseCsvRecord(text: string): string[] {
  const lines = linesOf(Buffer.from(text))
  const first = lines.findIndex(line => withoutNewline(line).length > 0)
  if (first < 0) throw new StorageError('INVALID_ARGUMENT', 'EOF')
  const fields: string[] = []
  let at = first, line = lines[at] ?? Buffer.alloc(0), column = 1
  const fail = (atLine: number, atColumn: number, what: string): StorageError => {
    const where = `parse error on line ${atLine + 1}, column ${atColumn}: ${what}`
    return new StorageError('INVALID_ARGUMENT', atLine === first ? where : `record on line ${first + 1}; ${where}`)
  }
  const advance = (count: number): void => { line = line.subarray(count); column += count }
  for (;;) {
    if (line[0] !== quote) {
      const end = line.indexOf(comma)
      const field = end < 0 ? withoutNewline(line) : line.subarray(0, end)
      const bare = field.indexOf(quote)
      if (bare >= 0) throw fail(at, column + bare, 'bare " in non-quoted-field')
      fields.push(field.toString())
      if (end < 0) return fields
      advance(end + 1)
      continue
    }
    advance(1)
    const parts: Buffer[] = []
    for (;;) {
      const end = line.indexOf(quote)
      if (end >= 0) {
        parts.push(line.subarray(0, end))
        advance(end + 1)
        if (line[0] === quote) {
          parts.push(line.subarray(0, 1))
          advance(1)
          continue
        }
        const last = withoutNewline(line).length === 0
        if (!last && line[0] !== comma) throw fail(at, column - 1, 'extraneous or missing " in quoted-field')
        fields.push(Buffer.concat(parts).toString())
        if (last) return fields
        advance(1)
        break
      }
      if (line.length === 0) throw fail(at, column, 'extraneous or missing " in quoted-field')
      parts.push(line)
      column += line.length
      const next = lines[at + 1]
      if (next === undefined) line = Buffer.alloc(0)
      else {
        line = next
        at++
        column = 1
      }
    }
  }
}

/** A record that `parseCsvRecord` reads back: fields with a comma, a quote or a line break are quoted. */
export function formatCsvRecord(fields: readonly string[]): string {
  // A record of one empty field would be an empty line, which readers pass over.
  if (fields.length === 1 && fields[0] === '') return '""'
  return fields.map(field => /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field).join(',')
}
