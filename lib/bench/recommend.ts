// From figures to advice: which driver for which use on this machine, in sentences that say by how much, and when it is a draw. Pure.
//
// A use is a set of cells. In each cell a candidate's time is taken as a multiple of the best candidate's; its score is the geometric mean of those
// multiples, 1 being best at everything. The interval of a score is made of the intervals of its cells.

import { medianInterval, typical } from './statistics.ts'
import type { Interval } from './statistics.ts'
import { plain } from './types.ts'
import type { BenchResult, Cell } from './types.ts'

export interface Candidate {
  readonly driver: string
  readonly backing: string
}

export interface Score extends Candidate {
  /** Times the best candidate's, as a geometric mean over the use's cells; 1 is best. */
  readonly score: number
  readonly low: number
  readonly high: number
}

export interface UseScores {
  readonly use: string
  /** e.g. `starting containers`. */
  readonly title: string
  /** Best first; who lacks much of the use is not in it. */
  readonly scores: readonly Score[]
}

export interface Advice {
  /** Sentences, most important first. */
  readonly overall: readonly string[]
  readonly backings: readonly { readonly backing: string; readonly sentences: readonly string[]; readonly uses: readonly UseScores[] }[]
  /** All drivers on all backings side by side. */
  readonly uses: readonly UseScores[]
}

interface Use { readonly use: string; readonly title: string; readonly cells: readonly (readonly [workload: string, measure: string])[] }

export const uses: readonly Use[] = [
  { use: 'start', title: 'starting containers', cells: [['start', 'total'], ['start-many', 'total'], ['deep', 'start']] },
  { use: 'change', title: 'changing big files of the image', cells: [['copy-up', 'total'], ['chmod', 'total']] },
  { use: 'write', title: 'writing many small files', cells: [['small-files', 'write'], ['small-files', 'delete'], ['hard-links', 'link'], ['xattrs', 'set']] },
  { use: 'read', title: 'reading through many layers', cells: [['deep', 'lookup'], ['deep', 'missing'], ['deep', 'read'], ['deep', 'readdir']] },
  { use: 'load', title: 'loading and removing layers', cells: [['apply', 'apply'], ['apply', 'remove']] },
  { use: 'build', title: 'building and committing', cells: [['diff', 'diff'], ['diff', 'changes'], ['diff-base', 'diff'], ['commit', 'commit'], ['snapshots', 'prepare'], ['snapshots', 'write'], ['snapshots', 'commit']] },
  { use: 'space', title: 'saving space', cells: [['disk', 'used'], ['sparse', 'used']] },
]

/** What a cell's rounds say: the median of the rounds' typical samples. */
export function cellInterval(cell: Cell): Interval {
  return medianInterval(cell.rounds.map(typical))
}

/** Differences smaller than this are no reason to choose. */
const clear = 1.1

export function recommend(result: BenchResult): Advice {
  const all = candidatesOf(result)
  const scored = uses.map(use => scoresOf(result, use, all)).filter(({ scores }) => scores.length > 0)
  const backings = result.backings.map(({ name }) => name).filter(name => all.some(({ backing }) => backing === name)).map(backing => {
    const own = uses.map(use => scoresOf(result, use, all.filter(candidate => candidate.backing === backing))).filter(({ scores }) => scores.length > 0)
    return { backing, uses: own, sentences: sentencesFor(own, backing) }
  })
  return { overall: overallSentences(scored, result), backings, uses: scored }
}

function candidatesOf({ cells }: BenchResult): Candidate[] {
  const seen = new Map<string, Candidate>()
  for (const { driver, backing } of cells) if (driver !== plain) seen.set(`${backing} ${driver}`, { driver, backing })
  return [...seen.values()]
}

function scoresOf({ cells }: BenchResult, { use, title, cells: wanted }: Use, candidates: readonly Candidate[]): UseScores {
  const parts = new Map<string, Map<string, Interval>>()
  for (const cell of cells) {
    if (!wanted.some(([workload, measure]) => cell.workload === workload && cell.measure === measure)) continue
    if (!candidates.some(candidate => candidate.driver === cell.driver && candidate.backing === cell.backing)) continue
    const key = `${cell.workload} ${cell.measure} ${cell.parameter ?? ''}`
    const part = parts.get(key) ?? new Map<string, Interval>()
    part.set(`${cell.backing} ${cell.driver}`, cellInterval(cell))
    parts.set(key, part)
  }
  // Who took part in less than half is not compared; then only what all who are left have.
  const present = candidates.filter(({ backing, driver }) => [...parts.values()].filter(part => part.has(`${backing} ${driver}`)).length * 2 > parts.size)
  const common = [...parts.values()].filter(part => present.every(({ backing, driver }) => part.has(`${backing} ${driver}`)))
  if (common.length === 0) return { use, title, scores: [] }
  // The floor is for space: a clone may take nothing at all.
  const floor = 4096
  const positive = (value: number): number => use === 'space' ? Math.max(floor, value) : value
  const scores = present.map((candidate): Score => {
    const multiples = (pick: (interval: Interval) => number): number => Math.exp(common.reduce((sum, part) => {
      const best = Math.min(...present.map(({ backing, driver }) => positive(part.get(`${backing} ${driver}`)?.median ?? Infinity)))
      return sum + Math.log(positive(pick(part.get(`${candidate.backing} ${candidate.driver}`) as Interval)) / best)
    }, 0) / common.length)
    return { ...candidate, score: multiples(interval => interval.median), low: multiples(interval => interval.low), high: multiples(interval => interval.high) }
  })
  return { use, title, scores: scores.sort((a, b) => a.score - b.score) }
}

/** Those that the best one does not clearly beat, the best first. */
function best(scores: readonly Score[]): readonly Score[] {
  const [first] = scores
  return first === undefined ? [] : scores.filter(score => score.score / first.score < clear || score.low <= first.high && score.score / first.score < 1.25)
}

function sentencesFor(own: readonly UseScores[], backing: string): string[] {
  const drivers = new Set(own.flatMap(({ scores }) => scores.map(({ driver }) => driver)))
  if (drivers.size === 1) return [`On ${backing} only ${[...drivers].join('')} was measured.`]
  const [winner, second] = ranking(own)
  if (winner === undefined || second === undefined) return []
  const name = ({ driver }: Candidate): string => driver
  const sentences = [winner.score * clear < second.score
    ? `On ${backing}: ${name(winner)}, ${times(second.score / winner.score)} as fast as ${name(second)} over all uses.`
    : `On ${backing}: ${name(winner)} or ${name(second)}, whose difference over all uses is below a tenth.`]
  for (const use of own) {
    const leaders = best(use.scores)
    const [first] = leaders, mine = use.scores.find(({ driver }) => driver === winner.driver)
    if (first === undefined || mine === undefined || leaders.includes(mine)) continue
    sentences.push(`For ${use.title}: ${list(leaders, name)}, ${advantage(use, mine.score / first.score, name(winner))}.`)
  }
  return sentences
}

function overallSentences(scored: readonly UseScores[], { backings }: BenchResult): string[] {
  const durable = new Set(backings.filter(({ fileSystem }) => fileSystem !== 'tmpfs' && fileSystem !== 'ramfs').map(({ name }) => name))
  // What lies in memory is gone with the power, so it is nobody's advice unless there is nothing else.
  const kept = scored.map(use => ({ ...use, scores: durable.size === 0 ? use.scores : use.scores.filter(({ backing }) => durable.has(backing)) })).filter(({ scores }) => scores.length > 0)
  const ranked = ranking(kept)
  const [winner, second] = ranked
  if (winner === undefined) return []
  if (second === undefined) return [`Only ${label(winner)} was measured.`]
  const sentences = [winner.score * clear < second.score
    ? `For most uses on this machine: ${label(winner)}, ${times(second.score / winner.score)} as fast as the next, ${label(second)}.`
    : `For most uses on this machine: ${label(winner)} or ${label(second)}, which differ by less than a tenth.`]
  for (const use of kept) {
    const leaders = best(use.scores)
    const [first] = leaders, mine = use.scores.find(({ driver, backing }) => driver === winner.driver && backing === winner.backing)
    if (first === undefined || mine === undefined || leaders.includes(mine)) continue
    sentences.push(`For ${use.title}: ${list(leaders, label)}, ${advantage(use, mine.score / first.score, label(winner))}.`)
  }
  // Else advice for big images would be taken from small ones.
  if (sentences.some(text => /\bvfs\b/.test(text))) sentences.push('vfs copies the whole image for each container: what that takes, in time and space, grows with the image, which is small here.')
  return sentences
}

/** Over all uses that all of them have, each use counting the same. */
function ranking(scored: readonly UseScores[]): { readonly driver: string; readonly backing: string; readonly score: number }[] {
  const most = Math.max(0, ...scored.map(({ scores }) => scores.length))
  const full = scored.filter(({ scores }) => scores.length === most)
  return (full[0]?.scores ?? []).map(({ driver, backing }) => {
    const own = full.map(({ scores }) => scores.find(score => score.driver === driver && score.backing === backing)?.score ?? NaN)
    return { driver, backing, score: Math.exp(own.reduce((sum, score) => sum + Math.log(score), 0) / own.length) }
  }).filter(({ score }) => !Number.isNaN(score)).sort((a, b) => a.score - b.score)
}

function label({ driver, backing }: Candidate): string {
  return `${driver} on ${backing}`
}

function advantage({ use }: UseScores, ratio: number, over: string): string {
  return use === 'space' ? `which takes ${times(ratio)} less than ${over}` : `${times(ratio)} as fast as ${over}`
}

function list(candidates: readonly Candidate[], text: (candidate: Candidate) => string): string {
  const shown = candidates.slice(0, 3).map(text)
  return shown.length < 2 ? shown.join('') : `${shown.slice(0, -1).join(', ')} or ${shown.at(-1)}`
}

/** `1.4 times`, `23 times`. */
export function times(ratio: number): string {
  return `${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString('en-US')} times`
}
