import { setTimeout as sleep } from 'node:timers/promises'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { Progress } from './progress.ts'
import type { Screen } from './progress.ts'

const test = suite('cli: progress')

function screen(isTTY: boolean, size: { columns?: number; rows?: number } = {}): Screen & { text: string } {
  return { isTTY, text: '', ...size, write(text: string) { this.text += text } }
}
const bare = (text: string): string => text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '')

test('says nothing in a pipe, nor about what is quick', async () => {
  const pipe = screen(false), terminal = screen(true)
  const silent = new Progress('Loading', pipe), quick = new Progress('Loading', terminal)
  silent.update('a', 'a', 1, 2)
  quick.update('a', 'a', 1, 2)
  quick.stop()
  await sleep(600)
  silent.stop()
  assert.is(pipe.text, '')
  assert.is(terminal.text, '')
})

test('shows the whole and its parts with rate and time left, and leaves the terminal as it was', async () => {
  const terminal = screen(true, { columns: 90 })
  const listeners = process.listenerCount('exit')
  const progress = new Progress('Loading', terminal)
  progress.update('a', 'layer-a', 0, 4_000_000)
  progress.update('b', 'layer-b', 500_000, 1_000_000)
  progress.update('c', 'layer-c', 7, 7)
  progress.update('a', 'layer-a', 1_000_000, 4_000_000)
  await sleep(450)
  const shown = bare(terminal.text)
  assert.ok(terminal.text.startsWith('\x1b[?25l'), 'the cursor is not hidden')
  assert.match(shown, /^Loading +━+ +1\.5MB\/5MB  [\d.]+MB\/s  \d+s left\n  layer-a +━━━━━ +1MB\/4MB  [\d.]+MB\/s  \d+s left\n  layer-b +━+ +500kB\/1MB/)
  assert.not.match(shown, /layer-c/, 'a part that is done is shown')
  progress.stop()
  assert.ok(terminal.text.endsWith('\x1b[3A\r\x1b[J\x1b[?25h'), 'the lines are not wiped or the cursor not shown')
  const length = terminal.text.length
  progress.stop()
  progress.update('a', 'layer-a', 2_000_000, 4_000_000)
  await sleep(250)
  assert.is(terminal.text.length, length, 'it draws after the end')
  assert.is(process.listenerCount('exit'), listeners)
})

test('never writes a line wider than the terminal, nor more lines than fit', async () => {
  const terminal = screen(true, { columns: 30, rows: 6 })
  const progress = new Progress('Loading', terminal)
  for (let i = 0; i < 20; i++) progress.update(`${i}`, `layer-${i}`, 10, 100_000_000)
  await sleep(400)
  progress.stop()
  const lines = bare(terminal.text).split(/[\r\n]+/).filter(line => line !== '')
  assert.ok(lines.length > 0)
  for (const line of lines) assert.ok([...line].length < 30, line)
  assert.match(terminal.text, /\x1b\[4A/)
})

test('a total that nobody knows: bytes and rate alone; without bytes, the time', async () => {
  const terminal = screen(true)
  const progress = new Progress('Saving', terminal)
  await sleep(350)
  assert.match(bare(terminal.text), /^Saving +\ds\n/)
  progress.update('x', 'x', 2_000_000)
  await sleep(250)
  progress.stop()
  assert.match(bare(terminal.text), /Saving +2MB  [\d.]+MB\/s\n/)
})
