// dive's figures: images whose values were worked out by hand, and random ones against a second implementation on plain lists of paths.

import { assert, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { diveOracle } from '../../fixtures/dive-oracle.ts'
import type { ListedEntry } from '../../fixtures/dive-oracle.ts'
import { randomLayers } from '../../fixtures/random-layers.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { analyzeImage, openImageSource } from './index.ts'
import type { ImageAnalysis } from './index.ts'

const test = suite('compare/efficiency')

const dir = (path: string): TarEntrySpec => ({ path: `${path}/`, type: 'dir' })
const file = (path: string, sizeBytes: number): TarEntrySpec => ({ path, type: 'file', content: 'x'.repeat(sizeBytes) })
const whiteout = (path: string): TarEntrySpec => file(path.replace(/([^/]+)$/, '.wh.$1'), 0)

async function analyzed(t: Context, layers: readonly (readonly TarEntrySpec[])[]): Promise<ImageAnalysis> {
  const source = await openImageSource(write(t.dir, 'image.tar', makeTar(oldDockerArchive([makeImage({ layers })]))))
  try {
    return await analyzeImage(source)
  } finally {
    await source.close()
  }
}

/** [efficiency as a fraction, wasted bytes, bytes of all layers but the first, wasteful paths] */
type Figures = readonly [smallest: number, all: number, wasted: number, user: number, paths: readonly (readonly [path: string, count: number, bytes: number])[]]

const byHand: readonly (readonly [name: string, layers: readonly (readonly TarEntrySpec[])[], figures: Figures])[] = [
  ['one layer wastes nothing', [[dir('a'), file('a/x', 100), file('y', 50)]], [150, 150, 0, 0, []]],
  ['no bytes at all', [[dir('a')], [dir('a')]], [1, 1, 0, 0, [['a', 2, 0]]]],
  ['a file is written again, larger', [[file('x', 100)], [file('x', 300), file('y', 50)]], [150, 450, 400, 350, [['x', 2, 400]]]],
  ['a file is removed: its whiteout counts 0, and so the smallest is 0', [[file('x', 100), file('keep', 60)], [whiteout('x')]], [60, 160, 100, 0, [['x', 2, 100]]]],
  // The directory is no leaf below, so its whiteout is the only leaf of that name: counted, but not wasteful. What was in it is counted twice.
  ['a directory is removed', [[dir('d'), file('d/a', 100), file('d/b', 20)], [file('z', 10), whiteout('d')]], [250, 250, 0, 10, []]],
  ['an empty directory is a leaf', [[dir('d')], [file('d/a', 40), dir('d')], [dir('d')]], [40, 40, 0, 40, [['d', 2, 0]]]],
  ['a file comes back', [[file('x', 100)], [whiteout('x')], [file('x', 30)]], [0, 130, 130, 30, [['x', 3, 130]]]],
  ['a hard link has no bytes', [[file('x', 100), { path: 'y', type: 'hardlink', linkname: 'x' }], [file('y', 100)]], [100, 200, 100, 100, [['y', 2, 100]]]],
  // dive passes over opaque marks, and does not see that a/x is hidden.
  ['an opaque mark hides nothing for dive', [[dir('a'), file('a/x', 100)], [dir('a'), file('a/.wh..wh..opq', 0), file('a/y', 5)], [whiteout('a')], [file('a', 50)]], [155, 260, 155, 55, [['a', 2, 155]]]],
  // A layer that names a/b without a/ makes dive forget that `a` is a directory: its whiteout then counts 0.
  ['a directory without an entry is forgotten', [[dir('a'), file('a/x', 100)], [file('a/y', 5)], [whiteout('a')], [file('a', 50)]], [105, 155, 50, 55, [['a', 2, 50]]]],
  ['whiteout and entry of one name in one layer are two leaves', [[file('x', 100)], [whiteout('x'), file('x', 100)]], [0, 200, 200, 100, [['x', 3, 200]]]],
  ['a whiteout of nothing counts nothing, and what follows is still read', [[file('a', 10)], [whiteout('b'), file('z', 30)], [file('z', 30)]], [40, 70, 60, 60, [['z', 2, 60]]]],
]

for (const [name, layers, [smallest, all, wasted, user, paths]] of byHand) {
  test(`by hand: ${name}`, async t => {
    const found = await analyzed(t, layers)
    assert.is(found.efficiency, smallest / all)
    assert.is(found.wastedBytes, wasted)
    assert.is(found.userSizeBytes, user)
    assert.is(String(found.wastedUserPercent), String(wasted / user)) // NaN is one of them
    assert.equal(found.wasted.map(({ path, count, sizeBytes }) => [path.toString(), count, sizeBytes]), paths.map(row => [...row]))
  })
}

const types: Readonly<Record<string, string>> = { dir: 'd', hardlink: 'h', symlink: 'l', fifo: 'p', file: '-' }

test('random images: as a second implementation says', async t => {
  let wasteful = 0
  for (let seed = 1; seed <= 60; seed++) {
    const layers = randomLayers(seed, { layers: 5 })
    const lists = layers.map(entries => entries.map((entry): ListedEntry => ({
      path: (entry.path as Buffer).toString('latin1'), type: types[entry.type] ?? '?', sizeBytes: entry.type === 'file' ? Buffer.from(entry.content ?? '').length : 0,
    })))
    const found = await analyzed(t, layers), expected = diveOracle(lists)
    assert.equal({ efficiency: found.efficiency, wastedBytes: found.wastedBytes, sizeBytes: found.sizeBytes, userSizeBytes: found.userSizeBytes },
      { efficiency: expected.efficiency, wastedBytes: expected.wastedBytes, sizeBytes: expected.sizeBytes, userSizeBytes: expected.userSizeBytes }, `seed ${seed}`)
    assert.equal(found.wasted.map(row => `${row.path.toString('latin1')} ${row.count} ${row.sizeBytes}`).sort(), expected.wasted, `seed ${seed}`)
    wasteful += found.wastedBytes > 0 ? 1 : 0
  }
  assert.ok(wasteful > 20, `only ${wasteful} of the images waste anything`)
})

test('what a layer hides, and what squashing saves', async t => {
  const found = await analyzed(t, [
    [dir('d'), file('d/a', 100), file('d/b', 20), { path: 'd/c', type: 'hardlink', linkname: 'd/b' }],
    [dir('d'), whiteout('d/a'), whiteout('d/b'), file('e', 7)],
    [file('e', 3), dir('d'), whiteout('d/c')],
  ])
  // d/b is still shown as d/c until layer 2 removes that too.
  assert.equal(found.layers.map(({ hiddenBytes, hidesBytes, squashSavesBytes, sizeBytes }) => [sizeBytes, hiddenBytes, hidesBytes, squashSavesBytes]),
    [[120, 120, 0, 127], [7, 7, 100, 7], [3, 0, 27, 0]])
  assert.is(found.visibleBytes, 3)
  assert.equal(found.layers.map(({ added, modified, removed, unmodified }) => [added, modified, removed, unmodified]), [[4, 0, 0, 0], [1, 0, 2, 1], [0, 1, 1, 1]])
})
