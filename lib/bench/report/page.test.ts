// The report in a real browser: no errors, no network, light, dark and on paper, wide and narrow; and what it says to those who do not see it.

import fs from 'node:fs'
import path from 'node:path'
import { madeResult } from '../../../fixtures/bench-result.ts'
import { needsBrowser, openBrowser, openPage } from '../../../fixtures/browser.ts'
import { assert, suite } from '../../../fixtures/harness/index.ts'
import { compareBench, recommendDrivers, renderBenchHtml, renderBenchText } from '../../index.ts'
import type { BenchCell, BenchResult } from '../../index.ts'

const test = suite('report')

/** As fast, but for the first writes of overlay2, which take twice as long. */
function slower(result: BenchResult): BenchResult {
  return { ...result, cells: result.cells.map(cell => cell.driver === 'overlay2' && cell.measure === 'first-write' ? { ...cell, rounds: cell.rounds.map(samples => samples.map(value => value * 2)) } : cell) }
}

test('opens without errors and network; dark, narrow and on paper', { skip: needsBrowser, timeoutMs: 120_000 }, async t => {
  const result = madeResult(12)
  const file = path.join(t.dir, 'report.html')
  fs.writeFileSync(file, renderBenchHtml(slower(result), { comparison: compareBench(result, slower(result)) }))
  const browser = await openBrowser(t)
  const colors: string[] = []
  for (const colorScheme of ['light', 'dark'] as const) {
    const { page, problems } = await openPage(browser, file, { colorScheme, viewport: { width: 1280, height: 900 } })
    assert.equal(problems, [])
    const seen = await page.evaluate(`(() => {
      const plots = [...document.querySelectorAll('figure svg')]
      const text = plots.map(svg => svg.querySelector('text')).find(Boolean)
      return {
        ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color, axis: getComputedStyle(text).fill,
        wide: document.documentElement.scrollWidth <= 1280, plots: plots.length, empty: plots.filter(svg => svg.querySelectorAll('.m, .q, .r').length === 0).length,
        unnamed: plots.filter(svg => !document.getElementById(svg.getAttribute('aria-labelledby').split(' ')[0]) || svg.querySelector('desc').textContent === '').length,
        ids: [...document.querySelectorAll('[id]')].length - new Set([...document.querySelectorAll('[id]')].map(element => element.id)).size,
        outside: plots.flatMap(svg => [...svg.querySelectorAll('text, .m')].filter(mark => {
          const a = mark.getBoundingClientRect(), b = svg.getBoundingClientRect()
          return a.left < b.left - 1 || a.right > b.right + 6 || a.top < b.top - 1 || a.bottom > b.bottom + 1
        })).map(mark => mark.outerHTML).slice(0, 3),
        headings: [...document.querySelectorAll('h2')].map(heading => heading.textContent), links: [...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href'))).length,
        tables: document.querySelectorAll('table caption').length - document.querySelectorAll('table').length,
      }
    })()`) as Readonly<Record<string, unknown>>
    const { ground, ink, axis, plots, ...rest } = seen
    colors.push(`${ground as string} ${ink as string} ${axis as string}`)
    assert.ok(contrast(ground as string, ink as string) > 10, `${colorScheme}: text`)
    assert.ok(contrast(ground as string, axis as string) > 4.5, `${colorScheme}: axes`)
    assert.ok((plots as number) > 60, `${plots as number} plots`)
    assert.equal(rest, { wide: true, empty: 0, unnamed: 0, ids: 0, outside: [], links: 0, tables: 0, headings: ['In short', 'Compared with the older result', 'At a glance', 'Starting containers', 'Writing in containers', 'Reading through layers', 'Making and comparing layers', 'Space', 'How it was measured'] })
    // The figures open by keyboard.
    await page.focus('summary')
    await page.keyboard.press('Enter')
    assert.is(await page.locator('details[open] table').count(), 1)
    await page.emulateMedia({ media: 'print', colorScheme })
    const paper = await page.evaluate(`[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('nav')).display, getComputedStyle(document.querySelector('details')).display]`)
    assert.equal(paper, ['rgb(255, 255, 255)', 'none', 'none'])
    await page.setViewportSize({ width: 700, height: 900 })
    assert.ok(await page.evaluate('document.documentElement.scrollWidth') as number <= 700, 'nothing is cut off on paper')
    await page.context().close()
  }
  assert.not.equal(colors[0], colors[1])
  const { page, problems } = await openPage(browser, file, { viewport: { width: 390, height: 800 } })
  assert.ok(await page.evaluate('document.documentElement.scrollWidth') as number <= 390, 'nothing but tables scrolls sideways')
  const paper = await page.pdf({ format: 'A4' })
  const pages = paper.toString('latin1').match(/\/Type\s*\/Page\b/g)?.length ?? 0
  assert.ok(pages >= 5 && pages <= 25, `${pages} pages`)
  assert.equal(problems, [])
})

/** WCAG's ratio of two colours as `rgb(r, g, b)`. */
function contrast(a: string, b: string): number {
  const luminance = (color: string): number => {
    const [r = 0, g = 0, blue = 0] = (color.match(/[\d.]+/g) ?? []).map(text => { const v = Number(text) / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 })
    return 0.2126 * r + 0.7152 * g + 0.0722 * blue
  }
  const [x, y] = [luminance(a), luminance(b)]
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05)
}

test('is one file that loads nothing, with foreign text made harmless', () => {
  const html = renderBenchHtml(madeResult())
  assert.not.match(html, /<script|<link|<img|@import|url\(|https?:/)
  assert.match(html, /A processor &#60;of&#62; &#34;some&#34; &#38; kind/)
  assert.ok(html.length < 1_500_000, `${html.length} bytes`)
})

test('says what the figures say', () => {
  const result = madeResult()
  const fixed = (cell: BenchCell): BenchCell => ({ ...cell, rounds: cell.rounds.map(() => [cell.driver === 'overlay2' ? 2 : cell.driver === 'vfs' && ['copy-up', 'chmod'].includes(cell.workload) ? 1 : 10]) })
  const clear: BenchResult = { ...result, backings: result.backings.slice(0, 1), cells: result.cells.filter(({ backing }) => backing === 'ext4').map(fixed) }
  const { overall, backings } = recommendDrivers(clear)
  assert.match(overall[0] ?? '', /^For most uses on this machine: overlay2 on ext4, \d\.\d times as fast as the next, vfs on ext4\.$/)
  assert.equal(overall.slice(1), ['For changing big files of the image: vfs on ext4, 2.0 times as fast as overlay2 on ext4.', 'vfs copies the whole image for each container: what that takes, in time and space, grows with the image, which is small here.'])
  assert.is(backings.length, 1)
  const text = renderBenchText(clear)
  assert.match(text, /^ext4 \(extfs\)\n +overlay2 +fuse-overlayfs +vfs\n/)
  assert.match(text, /First write to a lower file: first write, 1 GiB +2 ms +±0 % +10 ms +±0 % +1 ms +±0 %\n/)
  assert.match(text, /For most uses on this machine: overlay2/)
  const compared = renderBenchText(slower(result), { comparison: compareBench(result, slower(result)) })
  assert.match(compared, /of \d+ figures are really different/)
  assert.match(compared, /slower: overlay2 on ext4: First write to a lower file, first write, 1 GiB/)
  assert.not.match(compared, /(slower|faster): (vfs|btrfs|fuse)/)
})

test('nothing measured is no error', () => {
  const empty: BenchResult = { ...madeResult(), cells: [], backings: [], complete: false, roundCount: 0 }
  assert.match(renderBenchHtml(empty), /Nothing was measured/)
  assert.type(renderBenchText(empty), 'string')
})
