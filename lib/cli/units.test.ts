import { assert, suite } from '../../fixtures/harness/index.ts'
import { parseFilters } from './filters.ts'
import { rowsOf } from './image/ls.ts'
import { pairs } from './options.ts'
import { table } from './table.ts'
import { ago, ellipsis, humanDuration, humanSize, printable, shortId } from './units.ts'
import type { ImageSummary } from '../images/index.ts'

const test = suite('cli: words')

test('sizes as docker/go-units prints them', () => {
  for (const [bytes, text] of [
    [0, '0B'], [1, '1B'], [999, '999B'], [1000, '1kB'], [1024, '1.024kB'], [1_000_000, '1MB'], [1_048_576, '1.049MB'], [2_000_000, '2MB'],
    [3.42 * 1e9, '3.42GB'], [5.372 * 1e12, '5.372TB'], [2.22 * 1e15, '2.22PB'], [1e18, '1EB'],
  ] as const) assert.is(humanSize(bytes), text)
  assert.is(humanSize(72_780_000, 3), '72.8MB')
  assert.is(humanSize(1_049_000_000, 3), '1.05GB')
  assert.is(humanSize(999_999, 3), '1MB', 'where go-units says 1e+03kB')
  assert.is(humanSize(2e30, 3), '2000000YB', 'there is no unit above')
})

test('durations as docker/go-units prints them', () => {
  const second = 1000, minute = 60 * second, hour = 60 * minute, day = 24 * hour, week = 7 * day, month = 30 * day, year = 365 * day
  for (const [ms, text] of [
    [450, 'Less than a second'], [second, '1 second'], [45 * second, '45 seconds'], [46 * second, '46 seconds'], [59 * second, '59 seconds'],
    [minute, 'About a minute'], [90 * second, 'About a minute'], [3 * minute, '3 minutes'], [35 * minute, '35 minutes'], [59 * minute + 59 * second, '59 minutes'],
    [hour, 'About an hour'], [hour + 29 * minute, 'About an hour'], [hour + 31 * minute, '2 hours'], [3 * hour, '3 hours'], [47 * hour, '47 hours'], [48 * hour, '2 days'],
    [6 * day, '6 days'], [week, '7 days'], [2 * week, '2 weeks'], [month, '4 weeks'], [59 * day, '8 weeks'], [2 * month, '2 months'], [23 * month, '23 months'],
    [2 * year, '2 years'], [10 * year, '10 years'],
  ] as const) assert.is(humanDuration(ms), text)
  assert.is(ago(undefined), 'N/A')
  assert.is(ago(0), 'N/A')
  assert.is(ago(Number.NaN), 'N/A')
  assert.is(ago(1000, 6000), '5 seconds ago')
})

test('ids, cut texts, and texts that would drive the terminal', () => {
  assert.is(shortId(`sha256:${'a1'.repeat(32)}`), 'a1a1a1a1a1a1')
  assert.is(shortId('<missing>'), '<missing>')
  assert.is(shortId('sha256:ff', false), 'sha256:ff')
  assert.is(ellipsis('abcdef', 6), 'abcdef')
  assert.is(ellipsis('abcdef', 5), 'abcd…')
  assert.is(ellipsis('ééééé', 3), 'éé…')
  assert.is(printable('a\u001b]0;title\u0007b\n'), 'a\\x1b]0;title\\x07b\\x0a')
})

test('tables: ten columns at least, three between, the last one as it is', () => {
  assert.is(table(['A', 'LONG HEADING', 'LAST'], [['x', 'y', 'z'], ['twelve chars', '', 'a\u001b']]), [
    'A              LONG HEADING   LAST\n',
    'x              y              z\n',
    'twelve chars                  a\\x1b\n',
  ].join(''))
  assert.is(table(['A', 'B'], []), 'A         B\n')
})

test('filters in Docker\'s grammar', () => {
  const now = Date.parse('2025-06-01T00:00:00Z')
  assert.equal(parseFilters([]), {})
  assert.equal(parseFilters(['dangling=true', 'reference=a*', 'reference=b', 'label=k=v', 'before=x', 'since=y'], now),
    { reference: ['a*', 'b'], label: ['k=v'], dangling: true, before: 'x', since: 'y' })
  assert.equal(parseFilters(['until=1h30m'], now), { until: new Date(now - 5_400_000) })
  assert.equal(parseFilters(['until=2025-01-01'], now), { until: new Date('2025-01-01') })
  assert.equal(parseFilters(['until=1735689600'], now), { until: new Date('2025-01-01') })
  for (const [filter, text] of [
    ['nonsense', /bad format of filter/], ['size=1', /invalid filter 'size'/], ['dangling=perhaps', /invalid filter 'dangling=perhaps'/], ['until=soon', /invalid filter 'until=soon'/],
  ] as const) assert.throws(() => parseFilters([filter]), text)
  assert.throws(() => parseFilters(['before=a', 'before=b']), /can be given once/)
})

test('key and value pairs', () => {
  assert.equal(pairs('bare keys')('a=b=c', { x: 'y' }), { x: 'y', a: 'b=c' })
  assert.equal(pairs('bare keys')('a', undefined), { a: '' })
  assert.throws(() => pairs('no bare keys')('a', undefined), /KEY=VALUE/)
  assert.throws(() => pairs('bare keys')('=a', undefined), /KEY=VALUE/)
})

test('rows of an image list: tags, digests, ports in names, and neither', () => {
  const image = (RepoTags: string[], RepoDigests: string[]): ImageSummary =>
    ({ Id: `sha256:${'0'.repeat(64)}` as ImageSummary['Id'], ParentId: '', RepoTags, RepoDigests, Created: 0, Size: 0, SharedSize: -1, Labels: null, Containers: -1 })
  const rows = (tags: string[], digests: string[], withDigests: boolean): string[] =>
    rowsOf(image(tags, digests), withDigests).map(({ repository, tag, digest }) => `${repository} ${tag} ${digest}`)
  assert.equal(rows(['a:1', 'a:2', 'host:5000/b:3'], [], false), ['a 1 <none>', 'a 2 <none>', 'host:5000/b 3 <none>'])
  assert.equal(rows(['a:1'], ['a@sha256:f', 'b@sha256:e'], true), ['a 1 sha256:f', 'b <none> sha256:e'])
  assert.equal(rows(['a:1'], ['a@sha256:f', 'b@sha256:e', 'b@sha256:d'], false), ['a 1 <none>', 'b <none> sha256:e'])
  assert.equal(rows([], [], true), ['<none> <none> <none>'])
})
