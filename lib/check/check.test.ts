// Roots that are damaged in every way that fixtures/damages.ts knows: check tells exactly that, repair makes it good or says what it left, and a second one has nothing to do.

import fs from 'node:fs'
import { execFileSync } from 'node:child_process'
import { createHash, randomInt } from 'node:crypto'
import { alone, app, contentOf, damages, other, placeOf } from '../../fixtures/damages.ts'
import type { Damage, Place } from '../../fixtures/damages.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { listingOf, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, bytesOf, driversHere } from '../../fixtures/storage.ts'
import { isErrno } from '../errors.ts'
import { randomId } from '../ids.ts'
import { open, StorageError } from '../index.ts'
import type { Finding, Storage } from '../index.ts'

const test = suite('check')

const openAt = (root: string, driver: string, readOnly = false): Promise<Storage> => open({ root, driver, durability: 'none', readOnly })

/** Three images from `images.tar`, a container with changes and a volume, a volume with a label. */
async function fill(dir: string, driver: string): Promise<Place> {
  await using storage = await openAt(`${dir}/root`, driver)
  await storage.images.load(write(dir, 'images.tar', makeTar(oldDockerArchive([app, other, alone]))))
  const { id } = await storage.containers.create({ image: 'app:1', name: 'box', mounts: { binds: ['data:/data'] } })
  await storage.containers.withMount(id, at => fs.writeFileSync(`${at}/mine`, 'mine'))
  await storage.volumes.create('vol', { labels: { keep: 'me' } })
  return await placeOf(storage)
}

/** What images save as; undefined for one that is not there. */
async function saved(storage: Storage): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const name of ['app:1', 'other:1', 'alone:1']) {
    try {
      found[name] = createHash('sha256').update(await bytesOf(storage.images.save([name]))).digest('hex')
    } catch (error) {
      if (!StorageError.is(error)) throw error
    }
  }
  return found
}

async function changesOfBox(storage: Storage): Promise<string> {
  return (await all(storage.containers.diff('box'))).map(({ kind, path: name }) => `${kind} ${name}`).join(' ')
}

const kindsOf = (findings: readonly Finding[]): string[] => findings.map(finding => finding.kind).sort()

async function inspect(root: string, driver: string): Promise<Finding[]> {
  await using storage = await openAt(root, driver, true)
  return await all(storage.check())
}

interface Given { readonly place: Place; readonly before: Readonly<Record<string, string>>; readonly changes: string; readonly archive: string }

async function given(dir: string, driver: string): Promise<Given> {
  const place = await fill(dir, driver)
  await using storage = await openAt(place.root, driver, true)
  assert.equal(await all(storage.check()), [], 'an untouched root')
  return { place, before: await saved(storage), changes: await changesOfBox(storage), archive: `${dir}/images.tar` }
}

async function damageAndRepair(damage: Damage, { place, before, changes, archive }: Given, from: boolean): Promise<void> {
  const { root, driver } = place
  damage.inflict(place)
  const found = await inspect(root, driver)
  assert.equal(kindsOf(found), [...damage.finds].sort(), damage.name)
  const loses = from && damage.heals === true ? [] : damage.loses ?? []
  const remains = from && damage.heals === true ? [] : damage.remains ?? []
  await using storage = await openAt(root, driver)
  const result = await storage.repair({ apply: true, ...(from ? { from: [archive] } : {}) })
  assert.equal(result.reload, loses, `${damage.name}: what needs loading again`)
  const after = kindsOf((await all(storage.check())).filter(finding => finding.severity !== 'notice'))
  assert.equal(after, [...remains].sort(), `${damage.name}: after the repair; steps ${JSON.stringify(result.steps, undefined, 1)}`)
  const now = await saved(storage)
  for (const [name, digest] of Object.entries(before)) {
    // What was left damaged shows as such, and not as something else.
    if (loses.includes(name) || now[name] === undefined && remains.length > 0) continue
    assert.is(now[name], digest, `${damage.name}: ${name} saves as before`)
  }
  if (damage.losesContainer === true) assert.equal(storage.containers.list(), [])
  else if (!remains.some(kind => kind === 'content-missing')) assert.is(await changesOfBox(storage), changes, `${damage.name}: the container's changes`)
  const again = await storage.repair({ apply: true, ...(from ? { from: [archive] } : {}) })
  assert.equal(again.steps.filter(step => step.outcome === 'done'), [], `${damage.name}: a second repair`)
}

/** Copies of one filled root, or, where layers are subvolumes, roots filled anew. */
async function roots(t: Context, driver: string): Promise<(name: string) => Promise<Given>> {
  let base = t.dir
  if (driver === 'btrfs') {
    const image = mountImage('btrfs')
    t.defer(() => image.close())
    base = image.dir
    return async name => {
      fs.mkdirSync(`${base}/${name}`)
      return await given(`${base}/${name}`, driver)
    }
  }
  fs.mkdirSync(`${base}/first`)
  const first = await given(`${base}/first`, driver)
  return async name => {
    const dir = `${base}/${name}`
    execFileSync('cp', ['-a', '--reflink=auto', `${base}/first`, dir])
    return { ...first, place: { ...first.place, root: `${dir}/root` }, archive: `${dir}/images.tar` }
  }
}

const damagesOf = (driver: string): Damage[] => damages.filter(damage => damage.drivers?.includes(driver) !== false)
const full = process.env['LAYERSTACK_FULL'] === '1'
const skipOf = (driver: string): string | false => driver === 'btrfs' ? skipWithoutImage('btrfs') : false
/** Of the drivers here, the one that has most to damage. */
const [main = 'vfs'] = [...driversHere].reverse()

const seedsOf: Readonly<Record<string, readonly number[]>> = { vfs: [544178849, 7], overlay2: [1896248489, 2031956112, 1406090281], btrfs: [827248043] }

for (const driver of [...driversHere, 'btrfs']) {
  for (const from of [false, true]) {
    if (driver !== main && !full) continue
    test(`${driver}: every damage is told, and repaired ${from ? 'from an archive' : 'without one'}`, { skip: skipOf(driver), timeoutMs: 600_000 }, async t => {
      const fresh = await roots(t, driver)
      const failures: string[] = []
      for (const [i, damage] of damagesOf(driver).filter(one => !from || one.heals === true).entries()) {
        try {
          await damageAndRepair(damage, await fresh(`${i}`), from)
        } catch (error) {
          failures.push(`${driver}: ${damage.name}: ${(error as Error).stack}\n${(error as { details?: string }).details ?? ''}`)
        }
      }
      assert.is(failures.length, 0, failures.join('\n\n'))
    })
  }

  test(`${driver}: any row of damages is repaired, and what was whole is whole`, { skip: skipOf(driver), timeoutMs: 600_000 }, async t => {
    const fresh = await roots(t, driver)
    const healing = damagesOf(driver).filter(damage => (damage.remains ?? []).length === 0 || damage.heals === true)
    // Drawn anew in a long run; else those that have found something.
    const seeds = full ? Array.from({ length: 40 }, () => randomInt(2 ** 31)) : seedsOf[driver] ?? []
    for (const [row, seed] of seeds.entries()) {
      const random = numbersFrom(seed)
      const chosen = Array.from({ length: 2 + Math.floor(random() * 6) }, () => healing[Math.floor(random() * healing.length)] as Damage)
      const what = `seed ${seed}: ${chosen.map(damage => damage.name).join('; ')}`
      await rowOfDamages(await fresh(`row-${row}`), chosen, what)
    }
  })
}

async function rowOfDamages({ place, before, archive }: Given, chosen: readonly Damage[], what: string): Promise<void> {
  const inflicted = chosen.filter(damage => {
    // One may have taken away, or torn, what another would damage.
    try {
      damage.inflict(place)
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EEXIST') || error instanceof SyntaxError) return false
      throw error
    }
    return true
  })
  const found = await inspect(place.root, place.driver)
  assert.ok(found.length > 0 || inflicted.length === 0, what)
  await using storage = await openAt(place.root, place.driver)
  const result = await storage.repair({ apply: true, from: [archive] })
  // With both records of a volume's options destroyed, nobody knows them; and a volume's data comes from no archive.
  const lost = chosen.some(damage => damage.name.startsWith('a metadata.db')) ? ['container-volume-missing', 'volume-damaged'] : ['container-volume-missing']
  const after = (await all(storage.check())).filter(finding => finding.severity !== 'notice' && !lost.includes(finding.kind))
  assert.equal(kindsOf(after), [], `${what}: ${JSON.stringify({ after, steps: result.steps.map(({ finding: { kind, path }, outcome, why }) => `${kind} ${path} ${outcome} ${why}`) }, undefined, 1)}`)
  const now = await saved(storage)
  for (const [name, digest] of Object.entries(before)) if (now[name] !== undefined) assert.is(now[name], digest, `${what}: ${name}`)
  // Whatever went, its name went as well, and the archive brings it back.
  assert.equal(Object.keys(before).filter(name => now[name] === undefined), result.reload.filter(name => name in before), what)
  await storage.images.load(archive)
  assert.equal(await saved(storage), before, `${what}: loaded again`)
  assert.equal((await storage.repair({ apply: true, quick: true })).steps.filter(step => step.outcome === 'done'), [], `${what}: a second repair`)
}

/** mulberry32. */
function numbersFrom(seed: number): () => number {
  let a = seed >>> 0
  return () => {
    a = a + 0x6d2b79f5 >>> 0
    let t = Math.imul(a ^ a >>> 15, 1 | a)
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32
  }
}

test('an untouched root: a repair changes nothing', async t => {
  const { root, driver } = await fill(t.dir, main)
  const before = listingOf(root)
  await using storage = await openAt(root, driver)
  assert.equal(await storage.repair({ apply: true, from: [`${t.dir}/images.tar`] }), { steps: [], remaining: [], reload: [], gainBytes: 0 })
  assert.equal(listingOf(root), before)
})

test('a dry run changes nothing, and tells each step with its gain', async t => {
  const place = await fill(t.dir, main)
  for (const damage of damagesOf(main).filter(({ name }) => /orphaned directory|empty tar-split|write-set|name of an image/.test(name))) damage.inflict(place)
  const before = listingOf(place.root)
  await using storage = await openAt(place.root, main, true)
  const told: string[] = []
  const { steps, gainBytes, reload, remaining } = await storage.repair({ from: [`${t.dir}/images.tar`], onStep: step => told.push(step.finding.kind) })
  assert.equal(steps.map(step => `${step.finding.kind} ${step.outcome}`), ['write-set planned', 'tar-split-damaged planned', 'name-without-image planned', 'driver-orphan planned'])
  assert.equal(told, steps.map(step => step.finding.kind))
  assert.equal([reload, remaining], [['alone:1', 'ghost:1'], []])
  assert.is(gainBytes, steps.reduce((sum, step) => sum + step.finding.gainBytes, 0))
  assert.ok(gainBytes > 0)
  assert.equal(listingOf(place.root), before)
  const refused = await storage.repair({ apply: true }).catch((error: unknown) => error)
  assert.ok(StorageError.is(refused, 'READ_ONLY'))
})

test('what others are at work on is not wrong: an intent that is held, and what it names', async t => {
  const { root, driver } = await fill(t.dir, main)
  await using storage = await openAt(root, driver)
  await storage.layers.run('test', async operation => {
    const id = randomId()
    operation.intent.note('layer', [id])
    await storage.driver.create(id)
    const draft = `${root}/image/${driver}/layerdb/tmp/write-set-1`
    operation.intent.note('path', [draft])
    fs.mkdirSync(draft)
    assert.equal(await all(storage.check()), [])
  })
  assert.equal(await all(storage.check()), [])
})

test('only some areas, an abort, and areas that there are not', async t => {
  const place = await fill(t.dir, main)
  for (const damage of damages.filter(({ name }) => /write-set|metadata of an image|half removed/.test(name))) damage.inflict(place)
  await using storage = await openAt(place.root, main, true)
  assert.equal(kindsOf(await all(storage.check({ only: ['images', 'volumes'] }))), ['image-metadata-orphan', 'volume-half-made'])
  const aborted = await all(storage.check({ signal: AbortSignal.abort() })).catch((error: unknown) => error)
  assert.ok(StorageError.is(aborted, 'ABORTED'))
  const wrong = await all(storage.check({ only: ['nowhere' as 'images'] })).catch((error: unknown) => error)
  assert.ok(wrong instanceof TypeError)
})

test('a snapshot: known to check while it stands, and what it stands on is not taken away', async t => {
  const place = await fill(t.dir, main)
  await using storage = await openAt(place.root, main)
  const [chain = ''] = (await storage.images.get('alone:1')).layers
  await storage.snapshots.prepare('work', chain)
  assert.equal(await all(storage.check()), [])
  fs.writeFileSync(`${contentOf(place, place.alone)}/alone`, 'other')
  const { steps, remaining } = await storage.repair({ apply: true })
  assert.equal(steps.map(({ outcome, why }) => [outcome, /a snapshot .* stands on it/.test(why ?? '')]), [['left', true]])
  assert.equal(kindsOf(remaining), ['content-damaged'])
  await storage.repair({ apply: true, from: [`${t.dir}/images.tar`] })
  assert.equal(await all(storage.check()), [])
})

test('an archive that has another layer under the name heals nothing, and says so', async t => {
  const place = await fill(t.dir, main)
  fs.writeFileSync(`${contentOf(place, place.alone)}/alone`, 'other')
  const lie = { ...alone, layers: [makeTar([{ path: 'alone', type: 'file', content: 'lie' }])] }
  await using storage = await openAt(place.root, main)
  const { steps } = await storage.repair({ apply: true, from: [write(t.dir, 'lie.tar', makeTar(oldDockerArchive([lie])))] })
  assert.equal(steps.map(({ outcome, why }) => [outcome, /invalid diffID/.test(why ?? '')]), [['left', true]])
  assert.equal(kindsOf(await all(storage.check())), ['content-damaged'])
})

test('what was set aside keeps its bytes until prune removes it', async t => {
  const place = await fill(t.dir, main)
  fs.writeFileSync(`${contentOf(place, place.alone)}/alone`, 'c'.repeat(8192))
  await using storage = await openAt(place.root, main)
  assert.equal((await storage.repair({ apply: true })).reload, ['alone:1'])
  assert.is(fs.readFileSync(`${contentOf(place, place.alone)}/alone`, 'utf8'), 'c'.repeat(8192))
  const notices = await all(storage.check())
  assert.equal(kindsOf(notices), ['set-aside', 'set-aside'])
  const dry = await storage.prune({ dryRun: true })
  assert.ok(dry.reclaimedBytes >= 8192)
  assert.equal(await storage.prune(), { ...dry, leftovers: dry.leftovers })
  assert.is(fs.existsSync(contentOf(place, place.alone)), false)
  assert.equal(await all(storage.check()), [])
})
