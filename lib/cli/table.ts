// Tables as docker/cli prints them: Go's tabwriter with minimum width 10, padding 3. Knows no contents.

import { printable } from './units.ts'

/** The lines, headings first, each ended. The last column is not padded. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headings, ...rows.map(row => row.map(printable))]
  const widths = headings.map((_, i) => Math.max(10, ...all.map(row => [...row[i] ?? ''].length + 3)))
  return all.map(row => {
    const cells = row.map((cell, i) => i === row.length - 1 ? cell : cell + ' '.repeat((widths[i] ?? 0) - [...cell].length))
    return `${cells.join('')}\n`
  }).join('')
}
