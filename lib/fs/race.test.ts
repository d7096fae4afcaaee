// Copies and removals of trees that somebody else writes to (CVE-2018-15664): a process exchanges directories and files for links to the host meanwhile. What is behind
// the links is never read, made, changed or removed.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { swapping } from '../../fixtures/swapper.ts'
import type { Swap } from '../../fixtures/swapper.ts'
import { dumpTree, makeTree } from '../../fixtures/tree.ts'
import type { TreeSpec } from '../../fixtures/tree.ts'
import { isErrno, StorageError } from '../errors.ts'
import { copyTree } from './copy.ts'
import { removeTree } from './remove-tree.ts'

const test = suite('trees that change')
const secret = 'the secret of the host'
const files = (content: string): TreeSpec => Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`f${i}`, { content, mode: 0o640 }]))
const below = (name: string, spec: TreeSpec): TreeSpec => Object.fromEntries(Object.entries(spec).map(([key, node]) => [`${name}/${key}`, node]))

function host(dir: string): { readonly at: string; readonly assertSame: () => void } {
  const at = path.join(dir, 'host')
  makeTree(at, { ...files(secret), 'sub/deep/f': secret, 'd/f0': secret })
  const before = dumpTree(at)
  return { at, assertSame: () => assert.equal(dumpTree(at), before) }
}

test('a copy never reads what a swapped link leads to', { skip: needsNative, timeoutMs: 60_000 }, async t => {
  const { at, assertSame } = host(t.dir), from = path.join(t.dir, 'from')
  makeTree(from, { ...below('d', files('harmless')), ...below('d/sub/deep', files('harmless')), 'link': { type: 'symlink', to: at }, 'file': 'harmless', 'flink': { type: 'symlink', to: path.join(at, 'f0') } })
  await swapping(t, from, [['d', 'link'], ['file', 'flink']])
  let asDirectory = 0, otherwise = 0
  for (let i = 0; i < 40; i++) {
    const to = path.join(t.dir, `to${i}`)
    await copyTree(from, to, { changing: true })
    const found = dumpTree(to).map(line => line.split(' ')[0] ?? '')
    for (const name of found) {
      const file = path.join(to, name)
      if (fs.lstatSync(file).isFile()) assert.not.match(fs.readFileSync(file, 'utf8'), secret, `run ${i}: ${name}`)
    }
    if (found.includes('d/f0')) asDirectory++
    else otherwise++
  }
  assertSame()
  assert.ok(asDirectory > 0 && otherwise > 0, `${asDirectory} ${otherwise}`)
})

// What is swapped lies side by side: a swapper that went through its own link would itself be in the host's tree.
const attacks: Readonly<Record<string, (host: string) => readonly Swap[]>> = {
  'its root': at => [{ appearing: 'to', link: at }],
  'directories and files in it': at => [{ appearing: 'to/d', link: at }, { appearing: 'to/sub', link: path.join(at, 'sub') }, { appearing: 'to/f0', link: path.join(at, 'f1') }],
}
for (const [what, swaps] of Object.entries(attacks)) {
  test(`a copy never writes to what a swapped link leads to: ${what}`, { skip: needsNative, timeoutMs: 60_000 }, async t => {
    const { at, assertSame } = host(t.dir), from = path.join(t.dir, 'from'), shared = path.join(t.dir, 'shared')
    makeTree(from, { ...below('d', files('ours')), ...below('d/sub', files('ours')), 'sub/deep/f': { content: 'ours', mode: 0o777 }, 'f0': { content: 'ours', mode: 0o666 } })
    fs.mkdirSync(shared)
    await swapping(t, shared, swaps(at))
    let disturbed = 0
    // On until a swap was met: which of them is, is the scheduler's doing.
    for (let i = 0; i < 30 || disturbed === 0; i++) {
      const to = path.join(shared, 'to')
      try {
        await copyTree(from, to, { changing: true })
        if (['.', 'd', 'sub', 'f0'].some(name => fs.lstatSync(path.join(to, name), { throwIfNoEntry: false })?.isSymbolicLink() !== false)) disturbed++
      } catch (error) {
        assert.ok(StorageError.is(error), String(error))
        disturbed++
      }
      assertSame()
      try {
        // Only root's removal is jailed, and so safe from swaps.
        if (needsRoot === false) await removeTree(to, { changing: true })
        else fs.renameSync(to, path.join(t.dir, `done${i}`))
      } catch (error) {
        assert.ok(StorageError.is(error) || isErrno(error, 'ENOENT', 'ENOTEMPTY', 'ENOTDIR', 'EEXIST', 'ELOOP'), String(error))
      }
      assertSame()
    }
  })
}

test('a removal never removes what a swapped link leads to', { skip: needsRoot, timeoutMs: 60_000 }, async t => {
  const { at, assertSame } = host(t.dir), tree = path.join(t.dir, 'tree')
  fs.mkdirSync(tree)
  makeTree(tree, { 'link': { type: 'symlink', to: at }, 'link2': { type: 'symlink', to: at } })
  await swapping(t, tree, [['v/d', 'link'], ['v/sub', 'link2']])
  for (let i = 0; i < 50; i++) {
    // Made where the process does not reach, so that only the removal races with it.
    const made = path.join(t.dir, `made${i}`)
    makeTree(made, { ...below('d', files('x')), ...below('sub/deep', files('x')) })
    fs.renameSync(made, path.join(tree, 'v'))
    try {
      await removeTree(path.join(tree, 'v'), { changing: true })
    } catch (error) {
      assert.ok(StorageError.is(error) || isErrno(error, 'ENOTEMPTY', 'ENOTDIR', 'ELOOP'), String(error))
      fs.renameSync(path.join(tree, 'v'), path.join(t.dir, `left${i}`))
    }
    assertSame()
  }
})
