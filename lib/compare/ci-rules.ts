// dive's rules for build pipelines: what a `.dive-ci` file says, and whether an image keeps to it. Reads the two-level YAML that such files are, and no more.

import fs from 'node:fs'
import { asStorageError, StorageError } from '../errors.ts'
import type { Efficiency } from './types.ts'

/** Undefined: the rule is off. */
export interface CiRules {
  /** 0 to 1; fails below. */
  readonly lowestEfficiency: number | undefined
  /** Fails above. */
  readonly highestWastedBytes: number | undefined
  /** Wasted bytes over the bytes of all layers but the first, 0 to 1; fails above. */
  readonly highestUserWastedPercent: number | undefined
}

export type CiRuleName = keyof CiRules

export interface CiResult {
  readonly rule: CiRuleName
  readonly status: 'pass' | 'fail' | 'skip'
  readonly threshold?: number
  readonly actual: number
}

/** dive's own, where a file says nothing of a rule. */
export const defaultCiRules: CiRules = { lowestEfficiency: 0.9, highestWastedBytes: undefined, highestUserWastedPercent: 0.1 }

/** The names of dive's README, and those that dive 0.13 takes. */
const spellings: Readonly<Record<string, CiRuleName>> = {
  lowestefficiency: 'lowestEfficiency', 'lowest-efficiency-threshold': 'lowestEfficiency',
  highestwastedbytes: 'highestWastedBytes', 'highest-wasted-bytes': 'highestWastedBytes',
  highestuserwastedpercent: 'highestUserWastedPercent', 'highest-user-wasted-percent': 'highestUserWastedPercent',
}

/**
 * One rule's value: a ratio, or bytes as dive writes them (`20MB`, `1.5 GiB`); empty, `disabled`, `off` and `false` turn it off.
 * @throws INVALID_ARGUMENT
 */
export function parseCiRule(rule: CiRuleName, text: string): number | undefined {
  const value = text.trim()
  if (['', 'disabled', 'off', 'false'].includes(value.toLowerCase())) return undefined
  if (rule === 'highestWastedBytes') return parseBytes(rule, value)
  const ratio = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value) ? Number(value) : NaN
  if (!(ratio >= 0 && ratio <= 1)) throw new StorageError('INVALID_ARGUMENT', `invalid ${rule} ${JSON.stringify(text)}`, { key: rule, hint: 'a ratio from 0 to 1, or disabled' })
  return ratio
}

/** go-humanize's ParseBytes: kB and MB are powers of 1000, KiB and MiB of 1024; commas are allowed. */
function parseBytes(rule: string, text: string): number {
  const match = /^([\d,]*\.?\d+|[\d,]+\.?)\s*([kmgtpe]?)(i?)b?$/i.exec(text)
  const number = Number(match?.[1]?.replaceAll(',', ''))
  if (match === null || Number.isNaN(number)) throw new StorageError('INVALID_ARGUMENT', `invalid ${rule} ${JSON.stringify(text)}`, { key: rule, hint: 'a size such as 20MB, or disabled' })
  return Math.trunc(number * (match[3] === '' ? 1000 : 1024) ** ' kmgtpe'.indexOf((match[2] ?? '').toLowerCase() || ' '))
}

/**
 * Read the text of a `.dive-ci`: rules under `rules:`, or at the top. What it does not name keeps dive's default.
 * @throws INVALID_ARGUMENT for a value that is none, a rule that does not exist, and what is not such a file
 */
export function parseCiRules(text: string, name = '.dive-ci'): CiRules {
  const rules: Record<CiRuleName, number | undefined> = { ...defaultCiRules }
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    const bare = withoutComment(line)
    if (bare.trim() === '' || /^(---|\.\.\.)\s*$/.test(bare) || /^rules:\s*(\{\s*\})?\s*$/.test(bare)) continue
    const match = /^\s*(["']?)([\w-]+)\1\s*:(?:\s+(.*?))?\s*$/.exec(bare)
    const rule = spellings[match?.[2]?.toLowerCase() ?? '']
    if (rule === undefined) throw new StorageError('INVALID_ARGUMENT', `${name}, line ${i + 1}: ${JSON.stringify(line.trim())} is no rule`, { path: name, hint: `rules are ${Object.keys(defaultCiRules).join(', ')}` })
    rules[rule] = parseCiRule(rule, unquoted(match?.[3] ?? ''))
  }
  return rules
}

function withoutComment(line: string): string {
  return line.replace(/(^|\s)#.*$/, '')
}

function unquoted(value: string): string {
  return /^(["'])(.*)\1$/.exec(value)?.[2] ?? value
}

/** @throws NOT_FOUND, INVALID_ARGUMENT */
export function readCiRules(file: string): CiRules {
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    throw asStorageError(error, `reading the rules ${file}`, { path: file })
  }
  return parseCiRules(text, file)
}

/** Hold an image's figures against the rules. An image of one layer has no user bytes: nothing wasted of nothing passes. */
export function checkCiRules(figures: Efficiency, rules: CiRules): CiResult[] {
  const check = (rule: CiRuleName, actual: number, fails: (threshold: number) => boolean): CiResult => {
    const threshold = rules[rule]
    return threshold === undefined ? { rule, status: 'skip', actual } : { rule, status: fails(threshold) ? 'fail' : 'pass', threshold, actual }
  }
  const { efficiency, wastedBytes, wastedUserPercent } = figures
  return [
    check('highestUserWastedPercent', wastedUserPercent, most => wastedUserPercent > most),
    check('highestWastedBytes', wastedBytes, most => wastedBytes > most),
    check('lowestEfficiency', efficiency, least => efficiency < least),
  ]
}
