// The benchmark itself, at its smallest: what it measures, what it says is absent, and that it leaves nothing.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { failure } from '../../fixtures/storage.ts'
import { skipWithoutImage } from '../../fixtures/loop.ts'
import { benchWorkloads, drivers, runBench } from '../index.ts'
import type { BenchProgress } from '../index.ts'
import { mountTable, performMount, unmount } from '../sys/mount.ts'

const test = suite('bench')
const { vfs, overlay2, btrfs } = drivers

test('measures in a directory, without privileges', { timeoutMs: 120_000 }, async t => {
  const progress: BenchProgress[] = []
  const rounds: number[] = []
  const result = await runBench({
    drivers: [vfs], dir: t.dir, workloads: ['start', 'start-many', 'apply'], quick: true, rounds: 2, version: '1.2.3', durability: 'none',
    onProgress: one => progress.push(one), onRound: ({ roundCount }) => { rounds.push(roundCount) },
  })
  assert.equal(fs.readdirSync(t.dir), [])
  assert.equal([result.complete, result.roundCount, result.layerstack, result.settings.quick], [true, 2, '1.2.3', true])
  assert.equal(rounds, [1, 2])
  assert.equal(result.absent, [])
  for (const workload of result.workloads) {
    const cells = result.cells.filter(cell => cell.workload === workload.name)
    assert.equal([...new Set(cells.map(({ measure }) => measure))].sort(), workload.measures.map(({ name }) => name).sort(), workload.name)
    for (const { rounds: samples, backing } of cells) {
      assert.is(backing, t.dir)
      assert.is(samples.length, 2)
      assert.ok(samples.every(list => list.length > 0 && list.every(value => value > 0)), `${workload.name}: ${JSON.stringify(samples)}`)
    }
  }
  assert.ok(result.workloads.some(({ name }) => name === 'reference'), 'the machine itself is always measured')
  assert.ok(progress.some(({ round }) => round === 0) && progress.some(({ remainingMs }) => remainingMs !== undefined))
  assert.ok(progress.every(({ done }) => done >= 0 && done <= 1))
})

test('drivers and backings, and what is not there', { skip: needsRoot || skipWithoutImage('btrfs') || skipWithoutImage('ext4'), timeoutMs: 240_000 }, async t => {
  const result = await runBench({
    drivers: [overlay2, btrfs], dir: t.dir, backings: ['ext4', 'btrfs'], quick: true, rounds: 1,
    workloads: ['disk', 'start', 'copy-up', 'xattrs', 'commit', 'snapshots'],
  })
  assert.equal(fs.readdirSync(t.dir), [])
  assert.equal(mountTable().map(({ target }) => target).filter(target => target.startsWith(t.dir)), [])
  assert.is(result.absent.length, 1, JSON.stringify(result.absent))
  assert.equal([result.absent[0]?.backing, result.absent[0]?.driver, result.absent[0]?.workload], ['ext4', 'btrfs', undefined])
  const pairs = [...new Set(result.cells.filter(({ driver }) => driver !== 'plain').map(({ backing, driver }) => `${driver} ${backing}`))].sort()
  assert.equal(pairs, ['btrfs btrfs', 'overlay2 btrfs', 'overlay2 ext4'])
  const value = (workload: string, measure: string, backing: string, driver: string, parameter?: number): number =>
    result.cells.find(cell => cell.workload === workload && cell.measure === measure && cell.backing === backing && cell.driver === driver && cell.parameter === parameter)?.rounds[0]?.[0] ?? NaN
  // What a copy-up is: the whole megabyte on ext4, and shared blocks with btrfs's own snapshots.
  assert.ok(value('disk', 'used', 'ext4', 'overlay2', 10) > 1_048_576)
  assert.ok(value('disk', 'used', 'btrfs', 'btrfs', 10) < 500_000)
  assert.equal(result.backings.map(({ fileSystem }) => fileSystem), ['extfs', 'btrfs'])
  assert.ok(Object.keys(result.machine.programs).includes('mkfs.ext4'))
})

test('a workload that fails is absent with its reason, and the others go on', { timeoutMs: 60_000 }, async t => {
  const broken = { ...vfs, name: 'broken', open: async (options: Parameters<typeof vfs.open>[0]) => {
    const driver = await vfs.open(options)
    return new Proxy(driver, { get: (target, name) => {
      if (name === 'name') return 'broken'
      if (name === 'mounts') return () => Promise.reject(new Error('no mounts today'))
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) as unknown : value
    } })
  } }
  const { absent, cells } = await runBench({ drivers: [broken], dir: t.dir, workloads: ['start', 'apply'], quick: true, rounds: 1, durability: 'none' })
  assert.equal(absent.map(({ workload, reason }) => `${workload}: ${reason}`), ['start: no mounts today'])
  assert.ok(cells.some(({ workload }) => workload === 'apply'))
  assert.not(cells.some(({ workload }) => workload === 'start'))
  assert.equal(fs.readdirSync(t.dir), [])
})

test('stopped, it gives what it has', { timeoutMs: 60_000 }, async t => {
  const stop = new AbortController()
  const result = await runBench({
    drivers: [vfs], dir: t.dir, workloads: ['apply'], quick: true, rounds: 1000, durability: 'none', signal: stop.signal, onRound: ({ roundCount }) => { if (roundCount === 2) stop.abort() },
  })
  assert.equal([result.complete, result.roundCount], [false, 2])
  assert.is(result.cells.find(({ workload }) => workload === 'apply')?.rounds.length, 2)
  assert.equal(fs.readdirSync(t.dir), [])
})

test('too little space is told before anything is made', { skip: needsRoot }, async t => {
  const small = path.join(t.dir, 'small')
  fs.mkdirSync(small)
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['size=64m'] }, small)
  try {
    const error = await failure(() => runBench({ drivers: [vfs], dir: small, backings: ['tmpfs'], workloads: ['start'] }))
    assert.is(error.code, 'NO_SPACE')
    assert.match(error.message, /need 512 MiB, and \d\d MiB are free/)
    assert.equal(fs.readdirSync(small), [])
  } finally {
    unmount(small)
  }
})

test('what cannot be', async t => {
  const known = benchWorkloads.map(({ name }) => name)
  assert.ok(known.includes('copy-up'))
  assert.is((await failure(() => runBench({ drivers: [vfs], dir: t.dir, workloads: ['nonsense'] }))).code, 'INVALID_ARGUMENT')
  assert.is((await failure(() => runBench({ drivers: [vfs], dir: t.dir, backings: ['ntfs'] }))).code, 'INVALID_ARGUMENT')
  assert.is((await failure(() => runBench({ drivers: [vfs], dir: t.dir, backings: [path.join(t.dir, 'none')] }))).code, 'NOT_SUPPORTED')
  assert.is((await failure(() => runBench({ drivers: [vfs], dir: path.join(t.dir, 'none') }))).code, 'NOT_FOUND')
  assert.instance(await failure(() => runBench({ drivers: [vfs], dir: t.dir, rounds: 0 })), TypeError)
  assert.equal(fs.readdirSync(t.dir), [])
})
