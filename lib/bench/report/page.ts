// The report as one HTML file: no script, nothing loaded, plots as SVG, the figures as tables below them. Made from the result alone.

import type { Comparison } from '../compare.ts'
import { cellInterval, recommend } from '../recommend.ts'
import type { Advice, UseScores } from '../recommend.ts'
import { plain } from '../types.ts'
import type { BenchResult, Cell, Measure, WorkloadInfo } from '../types.ts'
import { dotPanel, escape, linePanel, marker, rangeOf, ratioPanel } from './chart.ts'
import type { DotRow, Point, Series } from './chart.ts'
import { compareSentences, nameOfCell } from './compare-text.ts'
import { formatParameter, formatRatio, formatSeconds, formatSpread, formatValue } from './format.ts'
import { style } from './style.ts'

/** Looks stay with their drivers, so that two reports can be laid side by side. */
const looks: Readonly<Record<string, number>> = { overlay2: 1, 'fuse-overlayfs': 2, btrfs: 3, vfs: 4, aufs: 5, overlay: 6 }

const groupTitles: Readonly<Record<WorkloadInfo['group'], string>> = {
  start: 'Starting containers', write: 'Writing in containers', read: 'Reading through layers', layers: 'Making and comparing layers', space: 'Space',
}

export interface ReportOptions {
  /** With an older result, as `compareBench` gives it. */
  readonly comparison?: Comparison
}

/** The whole page, ready to be written to a file. */
export function renderHtml(result: BenchResult, options: ReportOptions = {}): string {
  return new Page(result).render(options.comparison)
}

class Page {
  readonly #result: BenchResult
  readonly #cells: readonly Cell[]
  readonly #backings: readonly string[]
  readonly #drivers: readonly string[]

  constructor(result: BenchResult) {
    this.#result = result
    this.#cells = result.cells.filter(({ driver }) => driver !== plain)
    this.#backings = result.backings.map(({ name }) => name).filter(name => this.#cells.some(({ backing }) => backing === name))
    this.#drivers = result.drivers.filter(name => this.#cells.some(({ driver }) => driver === name))
  }

  #look(driver: string): number {
    return looks[driver] ?? this.#drivers.indexOf(driver) % 6 + 1
  }

  render(comparison: Comparison | undefined): string {
    const { machine, startedAt, complete } = this.#result
    const advice = recommend(this.#result)
    const groups = (Object.keys(groupTitles) as WorkloadInfo['group'][]).map(group => ({ group, works: this.#result.workloads.filter(work => work.group === group && this.#cells.some(({ workload }) => workload === work.name)) }))
      .filter(({ works }) => works.length > 0)
    const date = startedAt.slice(0, 16).replace('T', ' ')
    return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Storage drivers on this machine · layerstack bench</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>Storage drivers on this machine</h1>
<p class="soft">${escape(machine.cpu)}, ${machine.cpus} processors, Linux ${escape(machine.kernel)} · ${date} UTC · ${this.#rounds()}${complete ? '' : ', stopped before the end'}</p>
<nav aria-label="Contents"><a href="#advice">In short</a>${comparison === undefined ? '' : '<a href="#compared">Compared</a>'}<a href="#glance">At a glance</a>${groups.map(({ group }) => `<a href="#${group}">${groupTitles[group]}</a>`).join('')}<a href="#how">How it was measured</a></nav>
</header>
<main>
${this.#advice(advice)}
${comparison === undefined ? '' : this.#comparison(comparison)}
${this.#glance(advice)}
${groups.map(({ group, works }) => `<section aria-labelledby="${group}"><h2 id="${group}">${groupTitles[group]}</h2>${works.map(work => this.#work(work)).join('')}</section>`).join('\n')}
${this.#how()}
</main>
<footer class="soft">Made by layerstack ${escape(this.#result.layerstack)}. Each mark is the median over the rounds, each of which counts with the lower quartile of its samples; whiskers are 95 % intervals of that median. Point at a mark for its figures.</footer>
</body>
</html>
`
  }

  /** Dear workloads have fewer. */
  #rounds(): string {
    const counts = this.#cells.map(({ rounds }) => rounds.length)
    const least = Math.min(...counts), most = Math.max(0, ...counts)
    return `${least < most ? `${least} to ${most}` : most} round${most === 1 ? '' : 's'}`
  }

  #advice({ overall, backings }: Advice): string {
    const [lead, ...rest] = overall
    return `<section aria-labelledby="advice"><h2 id="advice">In short</h2>${lead === undefined ? '<p>Nothing was measured.</p>' : `<p class="lead">${escape(lead)}</p>`}
${rest.map(text => `<p>${escape(text)}</p>`).join('')}
<div class="cards">${backings.map(({ backing, sentences }) => `<div class="card"><h3>${escape(backing)}</h3>${sentences.map(text => `<p>${escape(text)}</p>`).join('')}</div>`).join('')}</div></section>`
  }

  #glance({ uses }: Advice): string {
    const columns = this.#backings.flatMap(backing => this.#drivers.filter(driver => this.#cells.some(cell => cell.backing === backing && cell.driver === driver)).map(driver => ({ backing, driver })))
    const row = ({ title, scores }: UseScores): string => {
      const least = scores[0]?.score ?? 1
      return `<tr><th scope="row">${escape(title)}</th>${columns.map(({ backing, driver }) => {
        const score = scores.find(other => other.backing === backing && other.driver === driver)
        if (score === undefined) return '<td>–</td>'
        return `<td${score.score < least * 1.1 ? ' class="best"' : ''}>${formatRatio(score.score)}</td>`
      }).join('')}</tr>`
    }
    const spans = this.#backings.map(backing => `<th scope="colgroup" colspan="${columns.filter(column => column.backing === backing).length}" style="text-align:center">${escape(backing)}</th>`).join('')
    return `<section aria-labelledby="glance"><h2 id="glance">At a glance</h2><div class="scroll"><table class="tight">
<caption>How many times the best one's time, or space, each takes: the geometric mean over the workloads of a use. 1.00 is best at all of them; what comes within a tenth of the best is marked.</caption>
<thead><tr><td></td>${spans}</tr><tr><th scope="col">use</th>${columns.map(({ driver }) => `<th scope="col">${escape(driver)}</th>`).join('')}</tr></thead>
<tbody>${uses.map(row).join('')}</tbody></table></div></section>`
  }

  #work(work: WorkloadInfo): string {
    const cells = this.#cells.filter(({ workload }) => workload === work.name)
    const measures = work.measures.filter(measure => cells.some(cell => cell.measure === measure.name))
    const many = new Set(cells.map(({ parameter }) => parameter)).size > 1
    return `<section class="work" aria-labelledby="w-${work.name}"><h3 id="w-${work.name}">${escape(work.title)}</h3><p class="soft">${escape(work.what)}</p>
${many ? this.#legend(cells) + measures.map(measure => this.#lines(work, measure, cells.filter(cell => cell.measure === measure.name), measures.length > 1)).join('') : `<div class="panels">${measures.map(measure => this.#dots(work, measure, cells.filter(cell => cell.measure === measure.name))).join('')}</div>`}
${this.#table(work, measures, cells)}</section>`
  }

  #legend(cells: readonly Cell[]): string {
    const present = this.#drivers.filter(driver => cells.some(cell => cell.driver === driver))
    return `<ul class="legend">${present.map(driver => `<li><svg viewBox="0 0 34 14" aria-hidden="true"><path class="l s${this.#look(driver)}" d="M1 7H33"/>${marker(this.#look(driver), 17, 7)}</svg>${escape(driver)}</li>`).join('')}</ul>`
  }

  #lines(work: WorkloadInfo, measure: Measure, cells: readonly Cell[], titled: boolean): string {
    const range = rangeOf(cells.flatMap(cell => { const { low, high, median } = cellInterval(cell); return [low, median, high] }))
    const panels = this.#backings.flatMap(backing => {
      const series = this.#drivers.map((driver): Series => ({
        name: driver, look: this.#look(driver),
        points: cells.filter(cell => cell.backing === backing && cell.driver === driver).map(cell => pointOf(cell)).sort((a, b) => a.x - b.x),
      })).filter(({ points }) => points.length > 0)
      if (series.length === 0) return []
      const formatX = (value: number): string => formatParameter(value, work.parameter)
      const panel = linePanel({
        title: `${work.title}, ${measure.title}, on ${backing}`, description: describe(series, measure, formatX), series,
        xTitle: work.parameter?.title ?? '', formatX, unit: measure.unit, range,
      })
      return [`<figure><figcaption>${escape(backing)}</figcaption>${panel}</figure>`]
    })
    return `${titled ? `<h4>${escape(sentence(measure.title))}</h4>` : ''}<div class="panels">${panels.join('')}</div>`
  }

  #dots(work: WorkloadInfo, measure: Measure, cells: readonly Cell[]): string {
    const rows = this.#backings.flatMap(backing => this.#drivers.flatMap((driver): DotRow[] => cells.filter(cell => cell.backing === backing && cell.driver === driver)
      .map(cell => ({ group: backing, name: driver, look: this.#look(driver), point: pointOf(cell) }))))
    const description = rows.map(({ group, name, point }) => `${name} on ${group} ${formatValue(point.median, measure.unit)}`).join('; ')
    return `<figure><figcaption>${escape(sentence(measure.title))}</figcaption>${dotPanel({ title: `${work.title}, ${measure.title}`, description, rows, unit: measure.unit })}</figure>`
  }

  #table(work: WorkloadInfo, measures: readonly Measure[], cells: readonly Cell[]): string {
    const rows = new Map<string, { head: readonly string[]; cells: Cell[] }>()
    for (const backing of this.#backings) {
      for (const driver of this.#drivers) {
        for (const cell of cells.filter(other => other.backing === backing && other.driver === driver).sort((a, b) => (a.parameter ?? 0) - (b.parameter ?? 0))) {
          const key = `${backing} ${driver} ${cell.parameter ?? ''}`
          const row = rows.get(key) ?? { head: [backing, driver, ...work.parameter === undefined ? [] : [formatParameter(cell.parameter ?? 0, work.parameter)]], cells: [] }
          row.cells.push(cell)
          rows.set(key, row)
        }
      }
    }
    const body = [...rows.values()].map(row => `<tr>${row.head.map((text, i) => i === 1 ? `<th scope="row" class="name">${escape(text)}</th>` : `<td${i === 0 ? ' class="name"' : ''}>${escape(text)}</td>`).join('')}${measures.map(measure => {
      const cell = row.cells.find(other => other.measure === measure.name)
      if (cell === undefined) return '<td>–</td>'
      const interval = cellInterval(cell)
      return `<td>${formatValue(interval.median, measure.unit)} <small>${formatSpread(interval)}</small></td>`
    }).join('')}<td>${Math.max(...row.cells.map(cell => cell.rounds.length))}</td></tr>`).join('')
    const heads = ['backing', 'driver', ...work.parameter === undefined ? [] : [work.parameter.title]]
    return `<details><summary>The figures</summary><div class="scroll"><table><caption>${escape(work.title)}: medians over the rounds, with half the 95 % interval</caption><thead><tr>${heads.map((text, i) => `<th scope="col"${i < 2 ? ' class="name"' : ''}>${escape(text)}</th>`).join('')}${measures.map(({ title }) => `<th scope="col">${escape(title)}</th>`).join('')}<th scope="col">rounds</th></tr></thead><tbody>${body}</tbody></table></div></details>`
  }

  #comparison(comparison: Comparison): string {
    const real = comparison.cells.filter(({ verdict }) => verdict !== 'same' && verdict !== 'unclear').sort((a, b) => Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio)))
    const marks = comparison.cells.map(compared => ({ name: nameOfCell(compared.cell, this.#result.workloads), ratio: compared.ratio, low: compared.low, high: compared.high, real: real.includes(compared) }))
    const rows = real.map(compared => `<tr><th scope="row">${escape(nameOfCell(compared.cell, this.#result.workloads))}</th><td>${formatValue(compared.before, compared.unit)}</td><td>${formatValue(compared.after, compared.unit)}</td><td>${formatRatio(compared.ratio)} × <small>${formatRatio(compared.low)} to ${formatRatio(compared.high)}</small></td><td>${compared.verdict}</td></tr>`).join('')
    return `<section aria-labelledby="compared"><h2 id="compared">Compared with the older result</h2>${compareSentences(comparison).map(text => `<p>${escape(text)}</p>`).join('')}
<figure class="work">${ratioPanel({ title: 'All ratios with their 95 % intervals', description: `${real.length} of ${marks.length} differences are real`, marks })}</figure>
${real.length === 0 ? '' : `<div class="scroll"><table><caption>What is really different</caption><thead><tr><th scope="col">figure</th><th scope="col">before</th><th scope="col">now</th><th scope="col">ratio</th><th scope="col"></th></tr></thead><tbody>${rows}</tbody></table></div>`}</section>`
  }

  #how(): string {
    const { machine, settings, seconds, backings, absent } = this.#result
    const facts: readonly (readonly [string, string])[] = [
      ['machine', `${machine.cpu}, ${machine.cpus} processors, ${(machine.memoryBytes / 2 ** 30).toFixed(1)} GiB`], ['kernel', machine.kernel], ['Node', machine.node],
      ...Object.entries(machine.programs), ['durability', settings.durability], ['parameters', settings.quick ? 'quick: the small ones' : 'all'],
      ['time', `${formatSeconds(seconds)}, ${this.#rounds()} after one to warm up`],
      ...backings.map(({ name, fileSystem, how }) => [name, `${fileSystem}: ${how}`] as const),
    ]
    const missing = [...new Set(absent.map(({ backing, driver, workload, parameter, reason }) => `${driver} on ${backing}${workload === undefined ? '' : `, ${workload}`}${parameter === undefined ? '' : ` (${parameter})`}: ${reason.replaceAll(settings.place, '…')}`))]
    return `<section aria-labelledby="how"><h2 id="how">How it was measured</h2>
<p>Each round makes its file systems, stores and layers anew and visits all workloads; drivers and backings take turns within each. What takes long is visited in fewer rounds. The first round does not count.</p>
<dl class="facts">${facts.map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(value)}</dd>`).join('')}</dl>
${missing.length === 0 ? '' : `<h3>Not measured</h3><ul>${missing.map(text => `<li class="soft">${escape(text)}</li>`).join('')}</ul>`}</section>`
  }
}

function pointOf(cell: Cell): Point {
  const { median, low, high } = cellInterval(cell)
  return { x: cell.parameter ?? 0, median, low, high, rounds: cell.rounds.length }
}

function describe(series: readonly Series[], measure: Measure, formatX: (value: number) => string): string {
  return series.map(({ name, points }) => `${name}: ${points.map(point => `${formatX(point.x)} ${formatValue(point.median, measure.unit)}`).join(', ')}`).join('; ')
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
