// The homes of drivers that cannot mount on every machine: aufs by its layout, which needs no kernel for that, and fuse-overlayfs.

import fs from 'node:fs'
import { openUnprobed } from '../../drivers/aufs/index.ts'
import { supportsHere } from '../../drivers/aufs/probe.ts'
import { damages } from '../../fixtures/damages.ts'
import type { Place } from '../../fixtures/damages.ts'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, bytesOf } from '../../fixtures/storage.ts'
import type { DriverModule } from '../driver.ts'
import { drivers, open } from '../index.ts'
import type { Storage } from '../index.ts'

const test = suite('check/homes')

// A kernel without aufs can still lay it out, apply to it and read it.
const aufs: DriverModule = {
  ...drivers.aufs, async probe() { return { ok: true, supports: supportsHere } },
  open: options => options.readOnly === true ? drivers.aufs.open(options) : openUnprobed(options.home, true),
}
const openAt = (root: string, driver: string, readOnly = false): Promise<Storage> => open({ root, driver, drivers: [aufs], durability: 'none', readOnly })

interface Filled { readonly root: string; readonly layers: readonly string[]; readonly mountId: string; readonly saved: Buffer }

async function fill(dir: string, driver: string): Promise<Filled> {
  const root = `${dir}/root`
  await using storage = await openAt(root, driver)
  await storage.images.load(write(dir, 'a.tar', makeTar(oldDockerArchive([makeImage()]))))
  const { id } = await storage.containers.create({ image: 'app:1', name: 'box' })
  assert.equal(await all(storage.check()), [])
  const layers = await Promise.all((await storage.images.get('app:1')).layers.map(async chain => (await storage.layers.get(chain)).cacheId))
  return { root, layers, mountId: fs.readFileSync(`${root}/image/${driver}/layerdb/mounts/${id}/mount-id`, 'utf8'), saved: await bytesOf(storage.images.save(['app:1'])) }
}

async function repaired({ root, saved }: Filled, driver: string, kinds: readonly string[]): Promise<void> {
  const looking = await openAt(root, driver, true)
  assert.equal((await all(looking.check())).map(finding => finding.kind).sort(), [...kinds].sort())
  await looking.close()
  await using storage = await openAt(root, driver)
  const { remaining } = await storage.repair({ apply: true })
  assert.equal(remaining, [])
  assert.equal(await all(storage.check()), [])
  assert.ok(saved.equals(await bytesOf(storage.images.save(['app:1']))))
}

test('aufs: ancestors, mount points, and what kills leave', { skip: needsRoot }, async t => {
  const filled = await fill(t.dir, 'aufs')
  const { root, layers: [base = '', top = ''], mountId } = filled
  const home = `${root}/aufs`, orphan = 'ab'.repeat(32)
  fs.rmSync(`${home}/layers/${top}`)
  fs.truncateSync(`${home}/layers/${mountId}`, 0)
  fs.rmdirSync(`${home}/mnt/${base}`)
  for (const folder of ['diff', 'mnt']) fs.mkdirSync(`${home}/${folder}/${orphan}`)
  fs.writeFileSync(`${home}/layers/${orphan}`, '')
  fs.mkdirSync(`${home}/diff/${'cd'.repeat(32)}`)
  fs.mkdirSync(`${home}/diff/${'ef'.repeat(32)}-removing`)
  // dockerd has no layer without its file of ancestors; its branch is there all the same.
  await repaired(filled, 'aufs', ['lower-damaged', 'lower-damaged', 'layer-incomplete', 'driver-orphan', 'half-made', 'half-removed'])
})

test('fuse-overlayfs: the same as overlay2', { skip: needsRoot }, async t => {
  const probe = await drivers['fuse-overlayfs'].probe(`${t.dir}/probe`)
  if (!probe.ok) t.skip(probe.reason)
  const filled = await fill(t.dir, 'fuse-overlayfs')
  const place = { root: filled.root, driver: 'fuse-overlayfs', app: [...filled.layers, filled.layers[1] ?? ''], alone: '', mountId: filled.mountId } as unknown as Place
  const names = ['an orphaned directory, as a kill leaves it', 'an empty link file (power cut)', 'a lower file of the container that is gone', 'a short link that is gone', 'no work directory']
  const chosen = damages.filter(damage => names.includes(damage.name))
  for (const damage of chosen) damage.inflict(place)
  await repaired(filled, 'fuse-overlayfs', chosen.flatMap(damage => damage.finds))
})
