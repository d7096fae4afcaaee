// A comparison in words, for the page and the terminal.

import type { Comparison, ComparedCell } from '../compare.ts'
import type { WorkloadInfo } from '../types.ts'
import { describeParameter, formatChange } from './format.ts'

export function isReal({ verdict }: ComparedCell): boolean {
  return verdict !== 'same' && verdict !== 'unclear'
}

/** `overlay2 on ext4: first write to a lower file, second write, 1 GiB`. */
export function nameOfCell(cell: ComparedCell['cell'], workloads: readonly WorkloadInfo[]): string {
  const work = workloads.find(({ name }) => name === cell.workload)
  const measure = work?.measures.find(({ name }) => name === cell.measure)?.title ?? cell.measure
  const parameter = cell.parameter === undefined || work?.parameter === undefined ? '' : `, ${describeParameter(cell.parameter, work.parameter)}`
  return `${cell.driver} on ${cell.backing}: ${work?.title ?? cell.workload}, ${measure}${parameter}`
}

export function compareSentences({ cells, drift, referenceDrift, notes, alpha, leastChange }: Comparison): string[] {
  if (cells.length === 0) return ['The two results have no figure in common that was measured in two rounds at least.']
  const real = cells.filter(isReal).length, same = cells.filter(({ verdict }) => verdict === 'same').length
  const enough = cells.filter(({ rounds }) => Math.min(...rounds) >= 4).length
  const sentences = [
    real === 0 ? `No difference is real among ${cells.length} figures.` : `${real} of ${cells.length} figures are really different.`,
    `${same} are the same within ${Math.round(leastChange * 100)} %${real + same < cells.length ? `; of ${cells.length - real - same} these rounds cannot tell` : ''}. `
    + `A difference counts when it is at least ${Math.round(leastChange * 100)} %, and identical code would show any in ${Number((alpha * 100).toPrecision(2))} of 100 comparisons at most.`,
  ]
  if (enough < cells.length) sentences.push(`${cells.length - enough} figures have fewer than four rounds on a side, too few to call anything real.`)
  const direction = (ratio: number): string => Math.abs(ratio - 1) < 0.005 ? 'as fast as before' : `${formatChange(ratio)} ${ratio > 1 ? 'slower' : 'faster'}`
  if (Math.abs(drift - 1) >= 0.02) {
    sentences.push(Math.abs(Math.log(drift / referenceDrift)) < 1e-9
      ? `The machine itself was ${direction(referenceDrift)}; a difference that this explains does not count.`
      : `Everything was ${direction(drift)} in the second run, the machine itself ${direction(referenceDrift)}; a difference that this explains does not count.`)
  }
  if (notes.length > 0) sentences.push(`Not the same conditions: ${notes.join('; ')}.`)
  return sentences
}
