// `node dist/bench/explore.js [--rounds N] [--image SOURCE]`: how long the page of `image explore` takes in Debian's chromium: from opening to the first rows,
// a search, and the frames of a scroll. 100,000 made-up entries unless a source is named. Milliseconds: minimum, median, maximum.

import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { needsBrowser, openBrowser, openPage } from '../fixtures/browser.ts'
import { syntheticSource } from '../fixtures/synthetic-source.ts'
import { exploreImage } from '../lib/index.ts'
import { median } from './measure.ts'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '9' }, image: { type: 'string' } } })
const figures = ['unpacked', 'decoded', 'first rows', 'all ready', 'search', 'scroll, longest frame'] as const

/** Text, since the project's own code has no browser's types. */
const measureInPage = `(async () => {
  const frame = () => new Promise(requestAnimationFrame)
  while (document.documentElement.dataset.ready !== 'true') await frame()
  const marks = ['unpacked', 'decoded', 'rendered', 'ready'].map(name => performance.getEntriesByName('layerstack:' + name)[0].startTime)
  const search = document.getElementById('search'), status = document.getElementById('status')
  const before = status.textContent
  search.value = 'e'
  const began = performance.now()
  // Enter searches at once, where typing waits for more.
  search.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }))
  while (status.textContent === before) await frame()
  await frame()
  const searched = performance.now() - began
  const tree = document.getElementById('tree')
  let longest = 0
  await frame()
  for (let i = 0, last = performance.now(); i < 60; i++) {
    tree.scrollTop += 1500
    await frame()
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
  }
  return [...marks, searched, longest]
})()`

if (needsBrowser !== false) {
  console.error(needsBrowser)
  process.exitCode = 1
} else {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ls-bench-'))
  const undo: (() => unknown)[] = [() => fs.rmSync(dir, { recursive: true, force: true })]
  try {
    const began = performance.now()
    const page = await exploreImage(values.image ?? syntheticSource({ entries: 100_000 }))
    const file = path.join(dir, 'page.html')
    fs.writeFileSync(file, page)
    console.log(`${values.image ?? '100,000 entries'}: ${(page.length / 1e6).toFixed(2)} MB, made in ${Math.round(performance.now() - began)} ms`)
    const browser = await openBrowser({ dir, defer: f => undo.push(f), skip: reason => { throw new Error(reason) } })
    const samples: number[][] = []
    // The first round warms up and is dropped.
    for (let round = 0; round <= Number(values.rounds); round++) {
      const { page: opened } = await openPage(browser, file, { viewport: { width: 1400, height: 900 } })
      const sample = await opened.evaluate(measureInPage) as number[]
      if (round > 0) samples.push(sample)
      await opened.close()
    }
    for (const [i, figure] of figures.entries()) {
      const times = samples.map(sample => sample[i] ?? NaN)
      console.log(`${figure.padEnd(22)} ${[Math.min(...times), median(times), Math.max(...times)].map(ms => ms.toFixed(0).padStart(6)).join(' ')}`)
    }
  } finally {
    for (const f of undo.reverse()) await f()
  }
}
