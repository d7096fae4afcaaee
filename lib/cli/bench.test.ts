// `layerstack bench` as its users run it: reports of kept results, Ctrl-C in the middle, and a kill whose remains the next run clears away.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { skipWithoutImage } from '../../fixtures/loop.ts'
import { benchWorkloads } from '../index.ts'
import type { BenchResult } from '../index.ts'
import { mountTable } from '../sys/mount.ts'
import { BenchLine } from './bench-progress.ts'

const test = suite('layerstack bench')
const bin = path.join(import.meta.dirname, 'main.js')

function bench(args: readonly string[], cwd: string): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, 'bench', ...args], { encoding: 'utf8', cwd })
}

/** Mounts in `dir`, and loop devices whose file lies or lay there. */
function remains(dir: string): string[] {
  const loops = fs.readdirSync('/sys/block').filter(name => name.startsWith('loop')).flatMap(name => {
    try {
      return [fs.readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim()]
    } catch {
      return []
    }
  }).filter(file => file.startsWith(dir))
  return [...mountTable().map(({ target }) => target).filter(target => target.startsWith(`${dir}/`)), ...loops]
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(20)
}

test('measures, keeps, reports and compares', { timeoutMs: 120_000 }, t => {
  const args = ['--drivers', 'vfs', '--backing', t.dir, '--dir', t.dir, '--workload', 'apply', '--quick', '--rounds', '4']
  const first = bench([...args, '--out', 'a.json'], t.dir)
  assert.is(`${first.status} ${first.stderr}`, '0 ')
  assert.match(first.stdout, /Apply and remove a layer: create and apply, 100 files +[\d.,]+ [mµ]?s/)
  const second = bench([...args, '--out', 'b.json', '--compare', 'a.json', '--html', 'b.html'], t.dir)
  assert.is(`${second.status} ${second.stderr}`, '0 ')
  assert.match(second.stdout, /among 2 figures|of 2 figures/)
  assert.match(fs.readFileSync(path.join(t.dir, 'b.html'), 'utf8'), /<h2 id="compared">/)
  const again = bench(['--from', 'b.json', '--compare', 'a.json'], t.dir)
  assert.is(again.stdout, second.stdout)
  assert.is((JSON.parse(bench(['--from', 'b.json', '--json'], t.dir).stdout) as BenchResult).roundCount, 4)
  assert.equal(fs.readdirSync(t.dir).sort(), ['a.json', 'b.html', 'b.json'])
})

test('mistakes are told before anything is measured', t => {
  fs.writeFileSync(path.join(t.dir, 'x.json'), '{"format":"else"}')
  fs.writeFileSync(path.join(t.dir, 'y.json'), '{')
  for (const [args, status, message] of [
    [['--drivers', 'zfs'], 1, /there is no driver "zfs"/], [['--workload', 'nonsense'], 1, /there is no workload "nonsense"/], [['--compare', 'x.json'], 1, /it is no result/],
    [['--from', 'y.json'], 1, /it is not JSON/], [['--from', 'none.json'], 1, /reading none.json/], [['--out', 'none/a.json'], 1, /does not exist/], [['--rounds', 'many'], 2, /above 0/],
  ] as const) {
    const result = bench([...args, '--dir', t.dir], t.dir)
    assert.is(result.status, status, `${args.join(' ')}: ${result.stderr}`)
    assert.match(result.stderr, message)
    assert.is(result.stdout, '')
  }
  assert.equal(fs.readdirSync(t.dir).sort(), ['x.json', 'y.json'])
})

test('the line on the terminal', () => {
  let written = ''
  const screen = { isTTY: true, columns: 70, write: (text: string) => { written += text } }
  const now = { round: 3, rounds: 12, done: 0.5, remainingMs: 130_400, backing: 'xfs', driver: 'overlay2', workload: 'copy-up', parameter: 2 ** 30 }
  const line = new BenchLine(benchWorkloads, screen)
  line.update(now)
  line.update(now)
  const plain = written.replace(/\x1b\[[?\d]*[a-zA-Z]/g, '')
  assert.is(plain, '\rRound 3     ━━━━━━━━━━━━              2m10s left  overlay2 on xfs: Fi', 'drawn once, and cut at the edge')
  line.stop()
  line.stop()
  assert.ok(written.endsWith('\r\x1b[K\x1b[?25h'))
  written = ''
  const wide = new BenchLine(benchWorkloads, { ...screen, columns: 200 })
  wide.update({ ...now, round: 0 })
  wide.stop()
  assert.match(written, /Warming up .*overlay2 on xfs: First write to a lower file, 1 GiB/)
  written = ''
  new BenchLine(benchWorkloads, { ...screen, isTTY: false }).update(now)
  assert.is(written, '')
})

const loops = needsRoot || skipWithoutImage('ext4')
const long = ['bench', '--drivers', 'overlay2,vfs', '--backing', 'ext4,tmpfs', '--workload', 'start,copy-up', '--quick', '--rounds', '100000']

test('Ctrl-C keeps what was measured and leaves nothing behind', { skip: loops, timeoutMs: 120_000 }, async t => {
  const out = path.join(t.dir, 'kept.json'), html = path.join(t.dir, 'kept.html')
  const child = spawn(process.execPath, [bin, ...long, '--dir', t.dir, '--out', out, '--html', html], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = '', stderr = ''
  child.stdout.on('data', (chunk: Buffer) => { stdout += chunk.toString() })
  child.stderr.on('data', (chunk: Buffer) => { stderr += chunk.toString() })
  const closed = new Promise<number | null>(resolve => child.once('close', resolve))
  t.defer(() => child.kill('SIGKILL'))
  await until(() => fs.existsSync(out) || child.exitCode !== null)
  child.kill('SIGINT')
  assert.is(await closed, 130, stderr)
  assert.is(stderr, 'layerstack: interrupted\n')
  assert.match(stdout, /Start a container/)
  const result = JSON.parse(fs.readFileSync(out, 'utf8')) as BenchResult
  assert.is(result.complete, false)
  assert.ok(result.cells.some(cell => cell.workload === 'copy-up' && cell.driver === 'overlay2' && cell.backing === 'ext4'))
  assert.match(fs.readFileSync(html, 'utf8'), /stopped before the end/)
  assert.equal(remains(t.dir), [])
  assert.equal(fs.readdirSync(t.dir).sort(), ['kept.html', 'kept.json'])
})

test('what a killed run left, the next one clears away', { skip: loops, timeoutMs: 120_000 }, async t => {
  const out = path.join(t.dir, 'kept.json')
  const child = spawn(process.execPath, [bin, ...long, '--dir', t.dir, '--out', out], { stdio: 'ignore' })
  const closed = new Promise(resolve => child.once('close', resolve))
  t.defer(() => child.kill('SIGKILL'))
  await until(() => fs.existsSync(out) && remains(t.dir).length > 0 || child.exitCode !== null)
  child.kill('SIGKILL')
  await closed
  assert.ok(fs.readdirSync(t.dir).length > 1, 'there is something to clear away')
  const next = bench(['--drivers', 'vfs', '--backing', t.dir, '--dir', t.dir, '--workload', 'apply', '--quick', '--rounds', '1'], t.dir)
  assert.is(`${next.status} ${next.stderr}`, '0 ')
  // The kernel frees a loop device a moment after its last mount.
  for (let i = 0; i < 100 && remains(t.dir).length > 0; i++) await sleep(50)
  assert.equal(remains(t.dir), [])
  assert.equal(fs.readdirSync(t.dir), ['kept.json'])
})
