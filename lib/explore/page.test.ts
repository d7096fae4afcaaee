// The page in a real browser: what it loads, what it says, how it is used without a mouse, how it looks, and what hostile names do to it (nothing).

import fs from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { needsBrowser, openBrowser, openPage } from '../../fixtures/browser.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { entry, sourceOf, syntheticSource } from '../../fixtures/synthetic-source.ts'
import type { SyntheticEntry } from '../../fixtures/synthetic-source.ts'
import { exploreImage } from './index.ts'

const test = suite('explore: page')
const options = { skip: needsBrowser, timeoutMs: 120_000 }

const hostile: readonly SyntheticEntry[] = [
  { path: 'hostile/</script><img src=x onerror="window.owned=1">', sizeBytes: 1 },
  { path: 'hostile/"><svg onload=window.owned=1>', sizeBytes: 2, uname: '<b>root' },
  { path: Buffer.from([...Buffer.from('hostile/bytes-'), 0xff, 0xfe]), sizeBytes: 3 },
  { path: 'hostile/invoice\u202egpj.exe', sizeBytes: 4 },
  { path: 'hostile/line\nbreak\u001b[31m\u0007', sizeBytes: 5 },
  { path: 'hostile/link', type: 'symlink', linkname: 'javascript:window.owned=1//</span><script>window.owned=1</script>' },
]

const small: readonly { readonly command: string; readonly entries: readonly SyntheticEntry[] }[] = [
  { command: '/bin/sh -c #(nop) ADD file:0 in /', entries: [{ path: 'etc', type: 'directory' }, { path: 'etc/conf', sizeBytes: 1000 }, { path: 'opt/old', sizeBytes: 500 }, { path: 'readme', sizeBytes: 10 }] },
  { command: '/bin/sh -c make && make install', entries: [{ path: 'etc/conf', sizeBytes: 3000, mode: 0o600 }, { path: 'etc/extra', sizeBytes: 50 }, { path: 'usr/bin/tool', sizeBytes: 7000 }] },
  { command: '/bin/sh -c rm -r /opt', entries: [{ path: 'opt', mark: 'whiteout' }, { path: 'etc/extra', sizeBytes: 60 }] },
]

let browser: Browser
let dir = '', largeFile = '', smallFile = ''
const undo: (() => unknown)[] = []

test.before(async () => {
  if (needsBrowser !== false) return
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'layerstack-test-'))
  undo.push(() => fs.rmSync(dir, { recursive: true, force: true }))
  // One browser for all: its start is most of what a test takes.
  const context: Context = { dir, defer: f => undo.push(f), skip: reason => { throw new Error(reason) } }
  browser = await openBrowser(context)
  largeFile = path.join(dir, 'large.html')
  smallFile = path.join(dir, 'small.html')
  const commands = ['RUN echo "</script><script>window.owned=1</script>" \u202e && true']
  fs.writeFileSync(largeFile, await exploreImage(syntheticSource({ entries: 100_000, extra: hostile, commands }), { title: 'x</title><script>window.owned=1</script>' }))
  fs.writeFileSync(smallFile, await exploreImage(sourceOf('small:1', small.map(({ command, entries }) => ({ command, entries: entries.map(entry) })))))
})
test.after(async () => { for (const f of undo.reverse()) await f() })

async function ready(file: string, how: BrowserContextOptions = {}): Promise<{ page: Page; problems: readonly string[] }> {
  const opened = await openPage(browser, file, { viewport: { width: 1300, height: 800 }, ...how })
  await until(opened.page, 'document.documentElement.dataset.ready === "true"')
  return opened
}

/** The rows in sight as a screen reader has them: level, `v` open or `>` closed, name. */
async function rows(page: Page): Promise<string[]> {
  return await page.evaluate(`[...document.querySelectorAll('[role=treeitem]')]
    .sort((a, b) => parseFloat(a.style.transform.slice(11)) - parseFloat(b.style.transform.slice(11)))
    .map(row => row.ariaLevel + ({ true: 'v', false: '>' }[row.ariaExpanded] ?? '') + ' ' + (${spoken})(row))`)
}
const spoken = `row => { const copy = row.cloneNode(true); copy.querySelectorAll('[aria-hidden=true]').forEach(part => part.remove()); return copy.textContent }`

async function active(page: Page): Promise<string> {
  return await page.evaluate(`(${spoken})(document.getElementById(document.getElementById('tree').getAttribute('aria-activedescendant')))`)
}

/** Playwright's own waiting evaluates text, which the page's policy forbids. */
async function until(page: Page, expression: string, what = expression): Promise<void> {
  const end = Date.now() + 60_000
  while (await page.evaluate(expression) !== true) {
    if (Date.now() > end) throw new Error(`never came: ${what}`)
    await new Promise(resolve => { setTimeout(resolve, 20) })
  }
}

async function status(page: Page, expected: RegExp): Promise<void> {
  const text = `document.getElementById('status').textContent`
  await until(page, `new RegExp(${JSON.stringify(expected.source)}).test(${text})`, `${expected}`)
    .catch(async (error: unknown) => { throw new Error(`${(error as Error).message}; it is: ${await page.evaluate(text)}`) })
}

async function textOf(page: Page, selector: string): Promise<string> {
  return await page.textContent(selector) ?? ''
}

test('100,000 entries open without errors or network, and few are in the document', options, async () => {
  const { page, problems } = await ready(largeFile)
  await status(page, /^9\d,\d{3} paths after layer 5$/)
  assert.ok(await page.locator('[role=treeitem]').count() < 80)
  // All directories at two levels, then the far end, then the middle: always a screenful.
  await page.focus('#tree')
  for (const key of ['*', 'ArrowDown', '*', 'End']) await page.keyboard.press(key)
  assert.ok(await page.locator('[role=treeitem]').count() < 80)
  assert.match(await active(page), /directory|kB|B/)
  await page.fill('#search', 'e')
  await status(page, /^[4-9]\d,\d{3} paths found/)
  await page.evaluate('document.getElementById("tree").scrollTop = 500000')
  await until(page, '[...document.querySelectorAll("[role=treeitem]")].filter(row => { const { top } = row.getBoundingClientRect(); return top > 300 && top < 700 }).length > 10')
  assert.ok(await page.locator('[role=treeitem]').count() < 80)
  assert.equal(problems, [])
  await page.close()
})

test('names and commands stay text, and what cannot be seen is written out', options, async () => {
  const { page, problems } = await ready(largeFile)
  await page.focus('#tree')
  await page.keyboard.press('h')
  await page.keyboard.press('ArrowRight')
  const names = (await rows(page)).filter(row => /^2>? /.test(row)).map(row => row.replace(/^2>? /, '').replace(/(\/, directory|, symbolic link)?(, added)(, 1 change inside)?(, \d B)?$/, ''))
  // A name cannot hold a slash: the first is a directory `<` with something in it.
  assert.equal(names, ['"><svg onload=window.owned=1>', '<', 'bytes-\\xff\\xfe', 'invoice\\u{202e}gpj.exe', 'line\\nbreak\\x1b[31m\\x07', 'link'])
  await page.fill('#search', 'onerror')
  await status(page, /^1 path found/)
  await page.keyboard.press('Enter')
  assert.match(await textOf(page, '#details'), /script><img src=x onerror="window\.owned=1">/)
  assert.is(await page.evaluate('window.owned'), undefined)
  assert.is(await page.locator('img, svg:not(.bar), main b').count(), 0)
  assert.match(await textOf(page, '.stack li'), /echo "<\/script><script>window\.owned=1<\/script>" \\u\{202e\}/)
  assert.is(await textOf(page, 'h1'), 'x</title><script>window.owned=1</script>')
  assert.equal(problems, [])
  // And if markup got in all the same, the policy would hold.
  const refused = await page.evaluate(`(() => { try { document.body.innerHTML = '<img src=x onerror="window.owned=1">'; return 'taken' } catch (error) { return error.name } })()`)
  assert.is(refused, 'TypeError')
  await page.close()
})

test('the tree is used by keyboard', options, async () => {
  const { page, problems } = await ready(smallFile)
  await page.focus('#search')
  for (let i = 0; i < 8 && await page.evaluate('document.activeElement.id') !== 'tree'; i++) await page.keyboard.press('Tab')
  assert.is(await page.evaluate('document.activeElement.id'), 'tree')
  assert.equal(await rows(page), ['1> etc/, directory, 1 change inside, 3.06 kB', '1> opt/, directory, removed, 500 B', '1 readme, 10 B', '1> usr/, directory, 7 kB'])
  await page.keyboard.press('ArrowRight')
  assert.equal((await rows(page)).slice(0, 3), ['1v etc/, directory, 1 change inside, 3.06 kB', '2 conf, stored 2 times, 3 kB', '2 extra, changed, stored 2 times, 60 B'])
  assert.is(await page.evaluate(`(row => [row.ariaPosInSet, row.ariaSetSize, row.ariaSelected].join())(document.querySelectorAll('[role=treeitem]')[0])`), '1,4,true')
  await page.keyboard.press('ArrowRight')
  assert.match(await active(page), /^conf/)
  await page.keyboard.press('ArrowLeft')
  assert.match(await active(page), /^etc/)
  await page.keyboard.press('ArrowLeft')
  assert.is((await rows(page)).length, 4)
  await page.keyboard.press('End')
  assert.match(await active(page), /^usr/)
  await page.keyboard.press('Home')
  assert.match(await active(page), /^etc/)
  await page.keyboard.press('r')
  assert.match(await active(page), /^readme/)
  await page.keyboard.press('Enter')
  assert.is(await page.evaluate('document.activeElement.textContent'), '/readme')
  await page.keyboard.press('Escape')
  assert.is(await page.evaluate('document.activeElement.id'), 'tree')
  await page.keyboard.press('/')
  assert.is(await page.evaluate('document.activeElement.id'), 'search')
  // The focus is seen.
  await page.focus('#tree')
  await page.keyboard.press('ArrowDown')
  assert.is(await page.evaluate(`getComputedStyle(document.querySelector('.row[aria-selected=true]')).outlineStyle`), 'solid')
  assert.equal(problems, [])
  await page.close()
})

test('search finds, says how many, and leads there', options, async () => {
  const { page } = await ready(smallFile)
  await page.fill('#search', 'conf')
  await status(page, /^1 path found after layer 3$/)
  assert.equal(await rows(page), ['1v etc/, directory, 1 change inside, 3.06 kB', '2 conf, stored 2 times, 3 kB'])
  assert.is(await textOf(page, '[role=treeitem] mark'), 'conf')
  await page.keyboard.press('Enter')
  assert.is(await page.evaluate('document.activeElement.id'), 'tree')
  assert.match(await active(page), /^conf/)
  assert.match(await textOf(page, '#details'), /Stored 2 times: 4 kB/)
  await page.fill('#search', '/usr/**/t*l')
  await status(page, /^1 path found/)
  await page.check('#layer-0', { force: true })
  await status(page, /^Nothing found after layer 1, 1 more in other layers$/)
  assert.equal(await rows(page), [])
  await page.focus('#search')
  await page.keyboard.press('Escape')
  await status(page, /^5 paths after layer 1$/)
  assert.is(await page.getAttribute('#status', 'role'), 'status')
  await page.close()
})

test('layers, kinds of change, versions', options, async () => {
  const { page } = await ready(smallFile)
  await page.focus('#layer-2')
  await page.keyboard.press('ArrowUp')
  await status(page, /^9 paths after layer 2$/)
  assert.match(await textOf(page, 'li:has(:checked) .more'), /RUN make\n +&& make install/)
  assert.equal(await rows(page), ['1> etc/, directory, 2 changes inside, 3.05 kB', '1> opt/, directory, 500 B', '1 readme, 10 B', '1> usr/, directory, added, 2 changes inside, 7 kB'])
  assert.equal(await page.locator('#chips button').allTextContents(), ['+4 added', '~1 changed', '−0 removed'])
  await page.click('#chips button:has-text("changed")')
  await status(page, /^1 path found after layer 2$/)
  assert.is(await page.getAttribute('#chips button:has-text("changed")', 'aria-pressed'), 'true')
  assert.equal(await rows(page), ['1v etc/, directory, 2 changes inside, 3.05 kB', '2 conf, changed, stored 2 times, 3 kB'])
  // Shape and text, not only colour.
  assert.is(await textOf(page, '.row .mark.modified'), '~')
  await page.click('.row:has-text("conf")')
  const details = await textOf(page, '#details')
  assert.match(details, /Layer 1added.*1 kB \(1,000 B\).*Layer 2changeddiffers in content, size, mode.*3 kB \(3,000 B\) was 1 kB.*-rw------- 0600 was -rw-r--r-- 0644/)
  await page.click('#chips button:has-text("changed")')
  await page.check('[name=scope][value=layer]', { force: true })
  await status(page, /in layer 2 alone$/)
  assert.equal(await rows(page), ['1> etc/, directory, 2 changes inside, 3.05 kB', '1> usr/, directory, added, 2 changes inside, 7 kB'])
  await page.close()
})

test('waste is sorted by its heads and leads to the tree', options, async () => {
  const { page } = await ready(smallFile)
  await page.focus('#files-tab')
  await page.keyboard.press('ArrowRight')
  assert.is(await page.isVisible('#waste'), true)
  assert.is(await page.isVisible('#files'), false)
  const paths = (): Promise<string[]> => page.locator('#waste tbody .path').allTextContents()
  assert.equal(await paths(), ['/etc/conf', '/etc/extra'])
  await page.click('th[data-column=path] button')
  await page.click('th[data-column=path] button')
  assert.is(await page.getAttribute('th[data-column=path]', 'aria-sort'), 'descending')
  assert.equal(await paths(), ['/etc/extra', '/etc/conf'])
  await page.click('#waste tbody .path >> nth=1')
  assert.is(await page.isVisible('#files'), true)
  assert.match(await active(page), /^conf/)
  await page.close()
})

test('light, dark, print and narrow', options, async () => {
  const background = (page: Page): Promise<string> => page.evaluate('getComputedStyle(document.body).backgroundColor')
  const { page } = await ready(smallFile, { colorScheme: 'dark' })
  const dark = await background(page)
  await page.click('#theme')
  const light = await background(page)
  assert.is.not(light, dark)
  await page.emulateMedia({ colorScheme: 'light' })
  assert.is(await background(page), light)
  await page.click('#theme')
  assert.is(await background(page), dark)
  await page.emulateMedia({ media: 'print' })
  assert.is(await background(page), 'rgb(255, 255, 255)')
  assert.equal(await Promise.all(['#files', '#details', '.views', '#waste', '#waste tbody tr', '.figures'].map(part => page.isVisible(part))), [false, false, false, true, true, true])
  assert.equal(await page.locator('.more').evaluateAll(parts => parts.map(part => (part as unknown as { offsetHeight: number }).offsetHeight > 0)), [true, true, true])
  assert.ok((await page.pdf({ format: 'A4' })).length > 5000)
  await page.close()
  for (const width of [320, 390, 760, 1000]) {
    const { page: narrow } = await ready(smallFile, { viewport: { width, height: 700 } })
    assert.ok(await narrow.evaluate('document.documentElement.scrollWidth <= innerWidth'), `nothing sticks out at ${width} px`)
    await narrow.click('.row:has-text("etc")')
    assert.match(await textOf(narrow, '#details .path'), /etc/)
    await narrow.close()
  }
})

test('axe finds nothing to object to', options, async () => {
  const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
  for (const colorScheme of ['light', 'dark'] as const) {
    // Only the check itself is let past the page's policy.
    const { page } = await ready(smallFile, { colorScheme, bypassCSP: true })
    await page.check('#layer-1', { force: true })
    await page.focus('#tree')
    for (const key of ['ArrowRight', 'ArrowDown']) await page.keyboard.press(key)
    await page.evaluate(axe)
    for (const view of ['#files-tab', '#waste-tab']) {
      await page.click(view)
      const found = await page.evaluate(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', ')))`)
      assert.equal(found, [], `${colorScheme}, ${view}`)
    }
    await page.close()
  }
})

test('without a script the essentials stand', options, async () => {
  const { page, problems } = await openPage(browser, smallFile, { javaScriptEnabled: false })
  const text = await page.innerText('body')
  assert.match(text, /small:1[^]*Stored\s+11\.6 kB[^]*ADD file:0 in \/[^]*RUN make/)
  assert.match(text, /this browser runs none/)
  assert.equal(problems, [])
  await page.close()
})
