// `npm run bench -- [CASE…|peers] [--rounds N] [--dir DIR] [--out FILE]`: measures on a tmpfs unless told otherwise, prints tables with ratios, and writes
// the samples as JSON. `npm run bench -- snapshots [--rounds N] [--count N] [--out FILE]`: the snapshot service beside containerd's. `npm run bench --
// lives [--count N] [--out FILE]`: a container's life in process. `npm run bench -- drivers …`: what `layerstack bench` does. Installs nothing; says which peers it did not find.

import fs from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { tempBase } from '../fixtures/places.ts'
import { commit, diff, diffLarge, save, vfs } from './cases/image.ts'
import { loadGzip, loadLayers, loadSingle, loadZstd } from './cases/load.ts'
import type { Prepared } from './contestants.ts'
import { benchLifecycle } from './lifecycle.ts'
import { compete, machine, median } from './measure.ts'
import type { Result } from './measure.ts'
import { benchSnapshots } from './snapshots.ts'

type Prepare = (work: string) => Promise<Prepared>
const cases: Readonly<Record<string, Prepare>> = { load: loadLayers, 'load-single': loadSingle, 'load-gzip': loadGzip, 'load-zstd': loadZstd, save, diff, 'diff-large': diffLarge, commit, vfs }

/** After the step under way, so that the peers' daemons end and nothing stays mounted. Once more ends it at once. */
const interrupted = new AbortController()

if (process.argv[2] === 'drivers') {
  process.argv.splice(2, 1, 'bench')
  await import('../lib/cli/main.ts')
} else await peers()

async function peers(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { rounds: { type: 'string', default: '5' }, count: { type: 'string', default: '1000' }, dir: { type: 'string' }, out: { type: 'string' } },
  })
  const rounds = Number(values.rounds), count = Number(values.count)
  const alone = positionals.length === 1 ? positionals[0] : undefined, snapshots = alone === 'snapshots', lives = alone === 'lives'
  const names = positionals.length === 0 || positionals.includes('peers') ? Object.keys(cases) : positionals
  if (!Number.isInteger(rounds) || rounds < 1 || !Number.isInteger(count) || count < 1 || !snapshots && !lives && names.some(name => cases[name] === undefined)) {
    console.error(`usage: npm run bench -- [peers|${Object.keys(cases).join('|')}]… [--rounds N] [--dir DIR] [--out FILE]\n       npm run bench -- snapshots [--rounds N] [--count N] [--out FILE]\n       npm run bench -- lives [--count N] [--out FILE]\n       npm run bench -- drivers [OPTIONS OF layerstack bench]`)
    process.exitCode = 2
  } else if (lives) await benchLifecycle({ count, out: values.out })
  else if (snapshots) await benchSnapshots({ rounds, count, out: values.out })
  else {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort(new Error(`interrupted by ${name}`)))
    const report = []
    try {
      for (const name of names) report.push({ case: name, ...await measure(cases[name] as Prepare, rounds, values.dir) })
    } catch (error) {
      if (!interrupted.signal.aborted) throw error
      console.error((interrupted.signal.reason as Error).message)
      process.exitCode = 130
    }
    if (values.out !== undefined) fs.writeFileSync(values.out, `${JSON.stringify({ machine: machine(), cases: report }, null, 2)}\n`)
  }
}

async function measure(prepare: Prepare, rounds: number, dir: string | undefined): Promise<{ what: string; results: readonly Result[] }> {
  const work = fs.mkdtempSync(path.join(dir ?? tempBase(), 'ls-bench-'))
  try {
    const prepared = await prepare(work)
    try {
      console.log(`\n${prepared.what}; ${rounds} rounds after one to warm up, in ${path.dirname(work)}`)
      for (const reason of new Set(prepared.absent)) console.log(`not here: ${reason}`)
      const results = await compete(prepared.contestants, rounds, round => { if (process.stderr.isTTY) process.stderr.write(`\rround ${round} of ${rounds} `) }, interrupted.signal)
      print(results)
      return { what: prepared.what, results }
    } finally {
      await prepared.close()
    }
  } finally {
    fs.rmSync(work, { recursive: true, force: true })
  }
}

/** Seconds as minimum, median and maximum; the first contestant's time as a ratio of each other's, within rounds. */
function print(results: readonly Result[]): void {
  const [first] = results
  const seconds = (ms: number): string => (ms / 1000).toFixed(2)
  const rows = [['', 'min s', 'median s', 'max s', 'peak MB', `${first?.name} takes`], ...results.map(({ name, samples }) => {
    const times = samples.map(sample => sample.wallMs)
    const ratios = samples.map((sample, i) => (first?.samples[i]?.wallMs ?? NaN) / sample.wallMs)
    return [name, seconds(Math.min(...times)), seconds(median(times)), seconds(Math.max(...times)),
      (Math.max(...samples.map(sample => sample.peakBytes)) / 1e6).toFixed(0), `${median(ratios).toFixed(2)} ×`]
  })]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0))) ?? []
  for (const row of rows) console.log(row.map((cell, column) => column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)).join('  '))
}
