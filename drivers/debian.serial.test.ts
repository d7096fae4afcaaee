// The same work on a real image gives the same bytes on every driver: load, container, a thousand changes, diff, commit, save. All of them on one btrfs
// image, where vfs's copies share their blocks; each root is removed before the next is made. Prints what each step took.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { debianImage, debianImageTag, skipWithoutDebianImage } from '../fixtures/debian-image.ts'
import { assert, suite } from '../fixtures/harness/index.ts'
import { mountImage, skipWithoutImage } from '../fixtures/loop.ts'
import { walk } from '../lib/fs/walk.ts'
import { setTimes } from '../lib/sys/files.ts'
import { drivers, open } from '../lib/index.ts'

const test = suite('drivers on Debian')
const skip = skipWithoutDebianImage() || skipWithoutImage('btrfs')

interface Outcome { readonly changes: readonly string[]; readonly diffIds: readonly string[]; readonly archive: string }

const when = 1_700_000_000_000_000_000n

/** 400 files rewritten, 300 deleted, 300 made: chosen by name, so that they are the same everywhere, and with times set. */
function change(root: string): void {
  const at = `${root}/usr/share`
  const all: string[] = []
  walk(at, { enter({ relative, stat }) { if (stat.isFile() && stat.nlink === 1n) all.push(relative.toString()) } })
  all.sort()
  assert.ok(all.length > 1000)
  const touched = new Set<string>()
  const above = (name: string): void => { for (let i = name.lastIndexOf('/'); i > 0; i = name.lastIndexOf('/', i - 1)) touched.add(name.slice(0, i)) }
  for (const [i, name] of all.entries()) {
    const path = `${at}/${name}`
    if (i % 3 === 0 && i < 1200) { fs.writeFileSync(path, `changed ${i}`); setTimes(path, when, when) }
    else if (i % 3 === 1 && i < 900) fs.rmSync(path)
    else if (i % 3 === 2 && i < 900) { fs.writeFileSync(`${path}.new`, `new ${i}`); setTimes(`${path}.new`, when, when) }
    else continue
    above(`usr/share/${name}`)
  }
  // A directory's time is written with the changes in it, and the last deletion set it. Deepest first.
  for (const dir of [...touched].sort().reverse()) setTimes(`${root}/${dir}`, when, when)
}

async function work(driver: keyof typeof drivers, root: string): Promise<Outcome> {
  const times: string[] = []
  let began = performance.now()
  const lap = (what: string): void => { times.push(`${what} ${Math.round(performance.now() - began)}`); began = performance.now() }
  const storage = await open({ root, driver, durability: 'none' })
  try {
    await storage.images.load(await debianImage({ format: 'docker' }))
    lap('load')
    const { id } = await storage.containers.create({ image: debianImageTag, name: 'box' })
    lap('create')
    await storage.containers.withMount(id, change)
    lap('change')
    const changes: string[] = []
    for await (const { kind, path } of storage.containers.diff(id)) changes.push(`${kind} ${path.toString('latin1')}`)
    lap('diff')
    const { imageId } = await storage.containers.commit(id, { reference: 'made:1', created: '2025-01-01T00:00:00Z' })
    lap('commit')
    // Docker writes the container's random id into the config; without it, everything must be the same.
    const { configBytes, config: { diffIds } } = await storage.images.get(imageId)
    const { container: _, config: __, ...neutral } = JSON.parse(configBytes.toString()) as Record<string, unknown>
    await storage.layers.operation('rename', operation => storage.images.create(Buffer.from(JSON.stringify(neutral)), { operation, reference: 'made:2' }))
    const hash = createHash('sha256')
    for await (const chunk of storage.images.save(['made:2', debianImageTag])) hash.update(chunk)
    lap('save')
    console.log(`  ${driver}: ${times.join(', ')} ms`)
    return { changes, diffIds, archive: hash.digest('hex') }
  } finally {
    await storage.close()
  }
}

let first: Outcome | undefined
for (const name of ['overlay2', 'vfs', 'btrfs', 'fuse-overlayfs'] as const) {
  test(`${name}: the same changes, diffIDs and archive as the others`, { skip, timeoutMs: 240_000 }, async t => {
    const image = mountImage('btrfs', { sizeBytes: 4 * 2 ** 30 })
    t.defer(() => image.close())
    const probe = await drivers[name].probe(`${image.dir}/probe`)
    if (!probe.ok) t.skip(probe.reason)
    const outcome = await work(name, `${image.dir}/root`)
    assert.ok(outcome.changes.filter(line => !line.startsWith('C')).length >= 600 && outcome.changes.length >= 1000)
    assert.is(outcome.diffIds.length, 4)
    first ??= outcome
    // Thousands of lines: only those that differ.
    const [mine, theirs] = [new Set(outcome.changes), new Set(first.changes)]
    assert.equal([...outcome.changes.filter(line => !theirs.has(line)), ...first.changes.filter(line => !mine.has(line)).map(line => `missing: ${line}`)].slice(0, 10), [])
    assert.equal(outcome.changes.length, first.changes.length)
    assert.equal(outcome.diffIds, first.diffIds)
    assert.is(outcome.archive, first.archive)
  })
}

test('btrfs: ten changes in a container of it are found without a look at the rest', { skip, timeoutMs: 120_000 }, async t => {
  const image = mountImage('btrfs', { sizeBytes: 4 * 2 ** 30 })
  t.defer(() => image.close())
  const storage = await open({ root: `${image.dir}/root`, driver: 'btrfs', durability: 'none' })
  t.defer(() => storage.close())
  await storage.images.load(await debianImage({ format: 'docker' }))
  const { id } = await storage.containers.create({ image: debianImageTag })
  await storage.containers.withMount(id, root => { for (let i = 0; i < 10; i++) fs.writeFileSync(`${root}/etc/new-${i}`, 'x') })
  const { driver } = storage
  const timed = async (): Promise<{ readonly lines: string[]; readonly ms: number }> => {
    const began = performance.now()
    const lines: string[] = []
    for await (const { kind, path } of storage.containers.diff(id)) lines.push(`${kind} ${path}`)
    return { lines, ms: performance.now() - began }
  }
  const quick = [await timed(), await timed(), await timed()]
  driver.changedPaths = async () => undefined
  const whole = [await timed(), await timed(), await timed()]
  const median = (runs: typeof quick): number => runs.map(run => run.ms).sort((a, b) => a - b)[1] ?? 0
  for (const run of [...quick, ...whole]) assert.equal(run.lines, whole[0]?.lines)
  console.log(`  ten changes: ${median(quick).toFixed(1)} ms; two whole trees: ${median(whole).toFixed(0)} ms`)
  assert.ok(median(whole) >= 20 * median(quick), `${median(whole)} ms is not 20 times ${median(quick)} ms`)
})
