// The report on a terminal: per backing a table of the chief figures, the advice, the comparison. Returns text; colour is the caller's, by function.

import { isReal, compareSentences, nameOfCell } from './compare-text.ts'
import type { Comparison } from '../compare.ts'
import { cellInterval, recommend } from '../recommend.ts'
import { plain } from '../types.ts'
import type { BenchResult } from '../types.ts'
import { describeParameter, formatRatio, formatSpread, formatValue } from './format.ts'

export interface TextOptions {
  readonly comparison?: Comparison
  /** All measures instead of the first of each workload. Default false. */
  readonly all?: boolean
  /** Makes text stand out. Default: as it is. */
  readonly bold?: (text: string) => string
  readonly dim?: (text: string) => string
}

export function renderText(result: BenchResult, options: TextOptions = {}): string {
  const { bold = same, dim = same, comparison } = options
  const parts: string[] = []
  for (const { name, fileSystem } of result.backings) {
    const lines = tableOf(result, name, options)
    if (lines.length > 1) parts.push(`${bold(name)} ${dim(name === fileSystem ? '' : `(${fileSystem})`)}\n${lines.join('\n')}`)
  }
  const missing = new Set(result.absent.filter(({ workload }) => workload !== undefined).map(({ driver, backing, workload, parameter, reason }) => `${driver} on ${backing}, ${workload}${parameter === undefined ? '' : ` ${parameter}`}: ${reason}`))
  if (missing.size > 0) parts.push(dim([...missing].map(text => `not measured: ${text}`).join('\n')))
  const { overall, backings } = recommend(result)
  parts.push([...overall, ...backings.flatMap(({ sentences }) => sentences.slice(0, 1))].map((text, i) => i === 0 ? bold(text) : text).join('\n'))
  if (comparison !== undefined) parts.push(comparisonText(comparison, result, bold))
  return `${parts.join('\n\n')}\n`
}

function same(text: string): string {
  return text
}

function tableOf(result: BenchResult, backing: string, { all = false, bold = same, dim = same }: TextOptions): string[] {
  const cells = result.cells.filter(cell => cell.backing === backing && cell.driver !== plain)
  const drivers = result.drivers.filter(driver => cells.some(cell => cell.driver === driver))
  const rows: { readonly text: string; readonly best: boolean }[][] = [['', ...drivers].map(text => ({ text, best: false }))]
  for (const work of result.workloads) {
    for (const measure of all ? work.measures : work.measures.slice(0, 1)) {
      const own = cells.filter(cell => cell.workload === work.name && cell.measure === measure.name)
      for (const parameter of [...new Set(own.map(cell => cell.parameter))].sort((a, b) => (a ?? 0) - (b ?? 0))) {
        const intervals = drivers.map(driver => own.find(cell => cell.driver === driver && cell.parameter === parameter)).map(cell => cell === undefined ? undefined : cellInterval(cell))
        const least = Math.min(...intervals.map(interval => interval?.median ?? Infinity))
        const title = `${work.title}: ${measure.title}${parameter === undefined ? '' : `, ${describeParameter(parameter, work.parameter)}`}`
        rows.push([{ text: title, best: false }, ...intervals.map(interval => interval === undefined ? { text: '–', best: false }
          : { text: `${formatValue(interval.median, measure.unit)} ${formatSpread(interval).padStart(6)}`, best: drivers.length > 1 && interval.median <= least * 1.1 })])
      }
    }
  }
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map(row => row[column]?.text.length ?? 0)))
  return rows.map((row, i) => row.map(({ text, best }, column) => {
    const padded = column === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[column] ?? 0)
    return best ? bold(padded) : i === 0 ? dim(padded) : padded
  }).join('  ').trimEnd())
}

function comparisonText(comparison: Comparison, { workloads }: BenchResult, bold: (text: string) => string): string {
  const real = comparison.cells.filter(isReal).sort((a, b) => Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio)))
  const lines = real.map(compared => `  ${formatRatio(compared.ratio)} × (${formatRatio(compared.low)} to ${formatRatio(compared.high)})  ${compared.verdict}: ${nameOfCell(compared.cell, workloads)}, ${formatValue(compared.before, compared.unit)} → ${formatValue(compared.after, compared.unit)}`)
  const [first = '', ...rest] = compareSentences(comparison)
  return [bold(first), ...lines, ...rest].join('\n')
}
