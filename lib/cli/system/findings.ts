// Findings for people: grouped by what they are, the worst first, with what would be done and what it would give back. Pure.

import type { Finding, RepairResult, RepairStep, Severity } from '../../index.ts'
import { styled } from '../style.ts'
import { humanSize, printable } from '../units.ts'

const order: readonly Severity[] = ['damage', 'leftover', 'notice']
const titles: Readonly<Record<Severity, string>> = { damage: 'Damaged', leftover: 'Left over', notice: 'Worth knowing' }
const colors = { damage: ['red', 'bold'], leftover: ['yellow', 'bold'], notice: 'bold' } as const
/** More of a kind are counted, not listed. */
const mostListed = 20

export function describeFindings(findings: readonly Finding[]): string {
  if (findings.length === 0) return 'All is in order.\n'
  const parts = order.flatMap(severity => group(findings, severity))
  const damage = findings.filter(finding => finding.severity === 'damage').length, leftovers = findings.filter(finding => finding.severity === 'leftover')
  const total = damage + leftovers.length === 0 ? 'All is in order, but for what is worth knowing.' : [
    count(damage, 'damage'), count(leftovers.length, 'leftover'),
    ...(leftovers.length === 0 ? [] : [`${humanSize(leftovers.reduce((sum, { gainBytes }) => sum + gainBytes, 0))} to be gained`]),
  ].join(', ') + '. See what a repair would do: layerstack system repair'
  return `${parts.join('\n')}\n${total}\n`
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}

function group(findings: readonly Finding[], severity: Severity): string[] {
  const own = findings.filter(finding => finding.severity === severity)
  if (own.length === 0) return []
  const kinds = [...new Set(own.map(finding => finding.kind))]
  return [`${styled(process.stdout, [...[colors[severity]].flat()], titles[severity])}\n${kinds.map(kind => kindOf(own.filter(finding => finding.kind === kind))).join('')}`]
}

function kindOf(findings: readonly Finding[]): string {
  const [first] = findings
  const sizeBytes = findings.reduce((sum, finding) => sum + finding.sizeBytes, 0)
  const head = `  ${first?.kind ?? ''} (${findings.length}${sizeBytes === 0 ? '' : `, ${humanSize(sizeBytes)}`})\n`
  const lines = findings.slice(0, mostListed).map(finding => lineOf(finding))
  return head + lines.join('') + (findings.length > mostListed ? `    and ${findings.length - mostListed} more\n` : '')
}

function lineOf({ path, sizeBytes, reason, repair, images }: Finding): string {
  const size = sizeBytes === 0 ? '' : ` (${humanSize(sizeBytes)})`
  return `    ${printable(path)}${size}\n      ${printable(reason)}\n`
    + (images === undefined ? '' : `      images: ${printable(images.join(', '))}\n`) + (repair === undefined ? '' : `      repair: ${printable(repair)}\n`)
}

// ---- repair -----------------------------------------------------------------------------------------------------------------

const outcomes: Readonly<Record<RepairStep['outcome'], string>> = { planned: 'would', done: 'done', left: 'left alone' }

export function describeStep({ finding, outcome, why }: RepairStep): string {
  const { kind, path, gainBytes, repair = '', reason } = finding
  const gain = gainBytes === 0 || outcome === 'left' ? '' : ` (${outcome === 'done' ? 'gained' : 'gains'} ${humanSize(gainBytes)})`
  return `${styled(process.stdout, outcome === 'left' ? 'yellow' : 'green', outcomes[outcome])}: ${kind} ${printable(path)}${gain}\n  ${printable(reason)}\n  ${printable(why === undefined ? repair : `not done: ${why}`)}\n`
}

export function describeRepair({ steps, gainBytes, reload, remaining }: RepairResult, applied: boolean): string {
  if (steps.length === 0 && remaining.length === 0) return 'All is in order; there is nothing to repair.\n'
  const done = steps.filter(step => step.outcome !== 'left').length
  const parts = [
    `${applied ? `${count(done, 'repair')} done` : `${count(done, 'repair')} to do`}, ${humanSize(gainBytes)} ${applied ? 'gained' : 'to be gained'}.${applied || done === 0 ? '' : ' Do it: layerstack system repair --apply'}\n`,
    ...(reload.length === 0 ? [] : [`${applied ? 'Set aside; load again' : 'Without an archive (--from), these would be set aside and need loading again'}:\n${reload.map(name => `  ${printable(name)}\n`).join('')}`]),
    ...(remaining.length === 0 ? [] : [`${applied ? 'Still wrong' : 'Would be left alone'}:\n${remaining.map(finding => lineOf(finding)).join('')}`]),
  ]
  return parts.join('')
}
