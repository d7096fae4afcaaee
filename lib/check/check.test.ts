// Roots that are damaged in every way that fixtures/damages.ts knows: check tells exactly that, repair makes it good or says what it left, and a second one has nothing to do.

import fs from 'node:fs'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { alone, app, damages, other, placeOf } from '../../fixtures/damages.ts'
import type { Damage, Place } from '../../fixtures/damages.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { mountImage, skipWithoutImage } from '../../fixtures/loop.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, bytesOf, driversHere } from '../../fixtures/storage.ts'
import { open, StorageError } from '../index.ts'
import type { Finding, Storage } from '../index.ts'

const test = suite('check')

export const openAt = (root: string, driver: string, readOnly = false): Promise<Storage> => open({ root, driver, durability: 'none', readOnly })

/** Three images, a container with changes and a volume, a volume with a label, a snapshot. Returns the archive that they came from. */
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
  const dry = await storage.repair()
  assert.equal(kindsOf(dry.steps.map(step => step.finding)).length + dry.remaining.length >= 0, true)
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

/** A fresh copy of the first root for each, or, where layers are subvolumes, a fresh root. */
async function forEachDamage(driver: string, base: string, from: boolean): Promise<void> {
  const wanted = damages.filter(damage => damage.drivers?.includes(driver) !== false && (process.env['ONLY'] === undefined || damage.name.includes(process.env['ONLY'])) && (!from || damage.heals === true))
  fs.mkdirSync(`${base}/first`)
  const first = await given(`${base}/first`, driver)
  const failures: string[] = []
  for (const [i, damage] of wanted.entries()) {
    const dir = `${base}/${i}`
    try {
      if (driver === 'btrfs') {
        fs.mkdirSync(dir)
        await damageAndRepair(damage, await given(dir, driver), from)
      } else {
        execFileSync('cp', ['-a', '--reflink=auto', `${base}/first`, dir])
        await damageAndRepair(damage, { ...first, place: { ...first.place, root: `${dir}/root` }, archive: `${dir}/images.tar` }, from)
      }
    } catch (error) {
      failures.push(`${driver}: ${damage.name}: ${(error as Error).stack}\n${JSON.stringify((error as { details?: string }).details ?? '')}`)
    }
  }
  assert.is(failures.length, 0, failures.join('\n\n'))
}

for (const driver of [...driversHere, 'btrfs']) {
  const skip = driver === 'btrfs' ? skipWithoutImage('btrfs') : false
  for (const from of [false, true]) {
    test(`${driver}: every damage is told, and repaired ${from ? 'from an archive' : 'without one'}`, { skip, timeoutMs: 240_000 }, async t => {
      let base = t.dir
      if (driver === 'btrfs') {
        const image = mountImage('btrfs')
        t.defer(() => image.close())
        base = image.dir
      }
      await forEachDamage(driver, base, from)
    })
  }
}
