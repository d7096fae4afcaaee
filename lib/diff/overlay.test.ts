// Overlay branches read without mounting, against the kernel: random changes through real mounts, where what the mount shows is the truth.
// Listing changes, writing them as a layer, and applying that layer again are all held against it.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { applyBy, layerBytes } from '../../fixtures/layers.ts'
import { changeKinds, changesOfDumps, parseDump, Stages } from '../../fixtures/overlay-stages.ts'
import type { Change } from '../../fixtures/overlay-stages.ts'
import { dumpTree, escapeName } from '../../fixtures/tree.ts'
import { listChanges } from './index.ts'
import type { ChangesOptions } from './index.ts'

const test = suite('overlay branches')
const runs = Number(process.env['LAYERSTACK_RUNS'] ?? 0) || 12

const change: fc.Arbitrary<Change> = fc.record({
  kind: fc.constantFrom(...changeKinds), a: fc.nat(30), b: fc.nat(30), name: fc.nat(6), value: fc.nat(7),
})
/** The base gets directories to work on; the rest is chance. */
const stages = fc.tuple(
  fc.array(fc.oneof(change, change.map(c => ({ ...c, kind: 'mkdir' as const })), change.map(c => ({ ...c, kind: 'write' as const }))), { minLength: 12, maxLength: 40 }),
  fc.array(fc.array(change, { maxLength: 14 }), { minLength: 1, maxLength: 3 }),
)

async function listed(upper: string, lower: string | readonly string[], options: ChangesOptions = {}): Promise<string[]> {
  const found: string[] = []
  for await (const { kind, path: at } of listChanges(upper, lower, options)) found.push(`${kind} ${at.length === 1 ? '/' : `/${escapeName(at.subarray(1))}`}`)
  return found
}

/** Lines without the times of directories that the changes do not name, which nobody records, and without links. */
function comparable(lines: readonly string[], changes: readonly string[]): string[] {
  const named = new Set(changes.map(line => line.slice(3)))
  return [...parseDump(lines)].map(([name, { type, rest }]) => `${name} ${type === 'dir' && !named.has(name === '.' ? '' : name) ? rest.replace(/ mtime=\S+/, '') : rest.replace(/ linked=\S+/, '')}`)
}

/** The names of each inode. What a copy-up of an unchanged file tears apart may stay together. */
function assertLinks(found: readonly string[], wanted: readonly string[], what: string): void {
  const groupsOf = (lines: readonly string[]): [name: string, group: string][] =>
    [...parseDump(lines)].flatMap(([name, { rest }]) => { const group = / linked=(\S+)/.exec(rest)?.[1]; return group === undefined ? [] : [[name, group]] })
  const groups = new Map(groupsOf(found))
  for (const [name, first] of groupsOf(wanted)) assert.is(groups.get(name), groups.get(first), `${what}: ${name} and ${first} are one file`)
}

function copy(from: string, to: string): void {
  execFileSync('cp', ['-a', from, to])
}

/** Differences rather than two lists of fifty lines. */
function same(found: readonly string[], wanted: readonly string[], what: string): void {
  const extra = found.filter(line => !wanted.includes(line)), missing = wanted.filter(line => !found.includes(line))
  if (extra.length + missing.length > 0) throw new Error(`${what}:\n${extra.map(l => `  found ${l}`).join('\n')}\n${missing.map(l => `  wants ${l}`).join('\n')}`)
  assert.equal(found, wanted, what)
}

async function holds(base: string, options: string, [first, more]: readonly [readonly Change[], readonly (readonly Change[])[]]): Promise<void> {
  const made = new Stages(base, options)
  made.stage(first)
  copy(made.layers[0] ?? '', path.join(base, 'copy0'))
  for (const [i, changes] of more.entries()) {
    const below = path.join(base, `copy${i}`), above = path.join(base, `copy${i + 1}`)
    made.stage(changes, merged => copy(merged, above))
    const [upper = '', ...lowers] = made.layers
    const truth = changesOfDumps(made.before, made.shown)
    same(await listed(upper, lowers), truth, 'changes of the branch')
    // Two complete trees show a rewrite with the old size and time to nobody who does not read them whole.
    const rewritten = changes.some(c => c.kind === 'rewrite')
    if (!rewritten) same(await listed(above, below, { whiteouts: 'none' }), truth, 'changes of the two trees')

    const layer = await layerBytes(upper, lowers)
    assert.equal(layer.skipped, [])
    if (!rewritten) {
      const other = await layerBytes(above, below, { whiteouts: 'none' })
      same((await tarLines(other.tar)), await tarLines(layer.tar), 'the layer of the two trees')
      assert.is(other.diffId, layer.diffId)
    }
    const wanted = comparable(made.shown, truth)
    for (const way of ['thread', 'direct'] as const) {
      const applied = path.join(base, `${way}${i}`)
      copy(below, applied)
      await applyBy(way, layer.tar, applied)
      const found = dumpTree(applied)
      same(comparable(found, truth), wanted, `the layer applied to a tree (${way})`)
      assertLinks(found, made.shown, `the layer applied to a tree (${way})`)
    }
    const branch = path.join(base, `branch${i}`)
    fs.mkdirSync(branch)
    await applyBy('thread', layer.tar, branch, 'overlay')
    // The branch's root has an entry only where it changed.
    if (!truth.includes('C /')) copyRoot(lowers[0] ?? '', branch)
    const shown = made.mounted(`index=off,redirect_dir=on,metacopy=on,lowerdir=${[branch, ...lowers].join(':')}`, merged => dumpTree(merged))
    same(comparable(shown, truth), wanted, 'the layer mounted as a branch')
    assertLinks(shown, made.shown, 'the layer mounted as a branch')
    assert.is((await layerBytes(branch, lowers)).diffId, layer.diffId, 'the layer of the layer')
  }
}

function copyRoot(from: string, to: string): void {
  execFileSync('cp', ['-a', '--attributes-only', '-T', from, `${to}/.root`])
  execFileSync('chmod', ['--reference', from, to])
  execFileSync('chown', ['--reference', from, to])
  fs.rmSync(`${to}/.root`, { recursive: true })
}

async function tarLines(tar: Buffer): Promise<string[]> {
  return execFileSync('tar', ['--full-time', '--xattrs', '--xattrs-include=*', '-tvvf', '-'], { input: tar, encoding: 'utf8', maxBuffer: 1 << 26 }).split('\n')
}

for (const options of ['redirect_dir=off,metacopy=off', 'redirect_dir=on,metacopy=off', 'redirect_dir=on,metacopy=on']) {
  test(`random changes through a mount with ${options}`, { skip: needsRoot, timeoutMs: 240_000 }, async t => {
    let n = 0
    await fc.assert(fc.asyncProperty(stages, async changes => {
      const base = path.join(t.dir, String(n++))
      fs.mkdirSync(base)
      try { await holds(base, options, changes) } finally { fs.rmSync(base, { recursive: true }) }
    }), { numRuns: runs, interruptAfterTimeLimit: 120_000, endOnFailure: true })
  })
}

test('names of a moved file that lie where nothing changed stay its names', { skip: needsRoot }, async t => {
  const mk = (kind: Change['kind'], a: number, b: number, name: number): Change => ({ kind, a, b, name, value: 1 })
  // b/a, with further names before and after what it is moved to: `a`, `c`, and one in a directory that nobody mentions.
  const first = [mk('mkdir', 0, 0, 1), mk('write', 1, 0, 0), mk('mkdir', 0, 0, 5), mk('link', 0, 0, 0), mk('link', 0, 0, 2), mk('link', 1, 0, 3)]
  await holds(t.dir, 'redirect_dir=on,metacopy=off', [first, [[mk('rename', 0, 3, 4)]]])
})

test('a directory moved over another one: files of the same size and time are read', { skip: needsRoot }, async t => {
  const [lower, upper, work] = ['lower', 'upper', 'work'].map(name => path.join(t.dir, name)) as [string, string, string]
  for (const dir of [`${lower}/x`, `${lower}/y`, upper, work]) fs.mkdirSync(dir, { recursive: true })
  for (const [dir, text] of [['x', 'one'], ['y', 'two']] as const) {
    for (const name of ['same', 'other']) fs.writeFileSync(`${lower}/${dir}/${name}`, name === 'same' ? 'same' : text)
    for (const name of ['same', 'other', '']) fs.utimesSync(`${lower}/${dir}/${name}`, 1000, 1000)
  }
  new Stages(t.dir, '').mounted(`redirect_dir=on,lowerdir=${lower},upperdir=${upper},workdir=${work}`, merged => {
    fs.rmSync(`${merged}/y`, { recursive: true })
    fs.renameSync(`${merged}/x`, `${merged}/y`)
  })
  assert.equal(await listed(upper, [lower]), ['D /x', 'C /y', 'C /y/other'])
})
