// `system df` against what it is measured by: du over the same files, and `docker system df` where both mean the same. With BuildKit's cache, whose layers no
// layer database knows.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { api, assertInOrder, assertSameView, placeFor, rootfs, skipOn, viewOfDocker, viewOfStorage } from '../fixtures/docker-root.ts'
import type { Dockerd } from '../fixtures/dockerd.ts'
import { assert, suite } from '../fixtures/harness/index.ts'
import type { Context } from '../fixtures/harness/index.ts'
import { makeTar, makeTree } from '../fixtures/tree.ts'
import type { DiskUsage, UsageRow, UsageType } from './index.ts'

const test = suite('docker root, usage')

/** Allocated bytes of everything in the places; none: 0. */
function du(...places: readonly string[]): number {
  if (places.length === 0) return 0
  const lines = execFileSync('du', ['-scB1', '--', ...places], { encoding: 'utf8' }).trim().split('\n')
  return Number(lines.at(-1)?.split('\t')[0])
}

/** Apparent bytes of files, each inode once: what Docker calls a layer's size. */
function bytesOfFiles(dir: string): number {
  const inodes = new Map(execFileSync('find', [dir, '-type', 'f', '-printf', '%i %s\n'], { encoding: 'utf8' }).trim().split('\n').map(line => line.split(' ') as [string, string]))
  return [...inodes.values()].reduce((sum, size) => sum + Number(size), 0)
}

function rowsOf({ rows }: DiskUsage): (type: UsageType) => UsageRow {
  return type => rows.find(row => row.type === type) ?? { type, total: 0, active: 0, sizeBytes: 0, reclaimableBytes: 0 }
}

interface DockerDf {
  readonly LayersSize: number
  readonly Images: readonly { readonly Id: string; readonly Size: number; readonly SharedSize: number; readonly Containers: number }[]
  readonly Containers: readonly { readonly Id: string }[]
  readonly Volumes: readonly { readonly Name: string; readonly UsageData: { readonly RefCount: number } }[]
  readonly BuildCache: readonly { readonly Shared: boolean; readonly Size: number }[] | null
}

/** Build with BuildKit, without a client of its own: dockerd fetches the context from here. */
async function buildKit(t: Context, daemon: Dockerd, tag: string, dockerfile: string): Promise<void> {
  const context = makeTar([{ path: 'Dockerfile', type: 'file', content: dockerfile }, { path: 'file', type: 'file', content: 'x'.repeat(5000) }])
  const server = http.createServer((_, response) => { response.setHeader('content-type', 'application/x-tar').end(context) })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.defer(() => server.close())
  const remote = encodeURIComponent(`http://127.0.0.1:${(server.address() as AddressInfo).port}/context.tar`)
  await api(daemon, `/build?version=2&networkmode=none&t=${tag}&remote=${remote}`, { method: 'POST' })
  server.close()
}

test('overlay2: the figures are those of du, and docker\'s where both mean the same; build cache is nobody\'s orphan', { skip: skipOn('overlay2'), timeoutMs: 240_000 }, async t => {
  const place = placeFor(t, 'overlay2')
  let daemon = await place.dockerd()
  await daemon.docker(['import', await rootfs(t), 'host:1'])
  const context = path.join(t.dir, 'context')
  makeTree(context, { Dockerfile: 'FROM host:1\nCOPY big /big\nRUN ln /big /linked && echo x > /x\nCMD ["/bin/sh", "-c", "echo out; echo 12345 > /made; mkdir /d; echo v > /v/f"]\nVOLUME /v\n', big: 'b'.repeat(300_000) })
  await daemon.docker(['build', '--network', 'none', '-t', 'app:1', context])
  makeTree(context, { Dockerfile: 'FROM app:1\nRUN echo other > /other\n' })
  await daemon.docker(['build', '--network', 'none', '-t', 'other:1', context])
  await daemon.docker(['run', '--network', 'none', '--name', 'ran', '-v', 'named:/named', 'app:1'])
  await daemon.docker(['volume', 'create', 'unused'])
  await buildKit(t, daemon, 'cached:1', 'FROM host:1\nRUN echo kit > /kit\nCOPY file /file\n')
  const theirs = await api<DockerDf>(daemon, '/system/df')
  await daemon.stop()

  const storage = await place.open()
  await storage.containers.withMount('ran', dir => makeTree(dir, { sparse: { sparse: { sizeBytes: 1 << 30, runs: [[1 << 29, 'x']] } } }))
  makeTree(storage.volumes.get('unused').mountpoint, { hole: { sparse: { sizeBytes: 1 << 30, runs: [[4096, 'x']] } } })
  const usage = await storage.diskUsage()
  const row = rowsOf(usage)
  const overlay = (id: string): string => path.join(place.root, 'overlay2', id, 'diff')
  const layers = path.join(place.root, 'image/overlay2/layerdb/sha256'), mounts = path.join(place.root, 'image/overlay2/layerdb/mounts')
  const cacheIds = fs.readdirSync(layers).map(name => fs.readFileSync(path.join(layers, name, 'cache-id'), 'utf8'))
  const [container = ''] = fs.readdirSync(mounts)
  const own = fs.readFileSync(path.join(mounts, container, 'mount-id'), 'utf8'), init = fs.readFileSync(path.join(mounts, container, 'init-id'), 'utf8')

  // What du says. Docker's sizes of images are apparent ones.
  assert.is(row('Images').sizeBytes, cacheIds.reduce((sum, id) => sum + bytesOfFiles(overlay(id)), 0))
  assert.is(row('Containers').sizeBytes, du(overlay(own)))
  assert.is(row('Container init layers').sizeBytes, du(overlay(init)))
  assert.is(row('Local Volumes').sizeBytes, storage.volumes.list().reduce((sum, { mountpoint }) => sum + du(mountpoint), 0))
  assert.is(row('Container logs').sizeBytes, du(path.join(place.root, 'containers', container, `${container}-json.log`)))
  assert.ok((row('Container logs').sizeBytes ?? 0) > 0)
  assert.is(row('Tar-split').sizeBytes, du(...fs.readdirSync(layers).map(name => path.join(layers, name, 'tar-split.json.gz'))))
  const kept = fs.readdirSync(path.join(place.root, 'overlay2')).filter(name => name !== 'l' && name !== own && name !== init && !cacheIds.includes(name))
  assert.equal(usage.buildCache.map(({ id }) => id as string).sort(), kept.sort())
  assert.ok(kept.length >= 2, 'BuildKit has layers that the database does not know')
  assert.equal([usage.orphans, row('Layers without image').total], [[], 0])

  // What docker said: images and their shares, whose container uses what, links of volumes, what the cache has for itself.
  const byId = <T extends { readonly Id?: string; readonly id?: string }>(a: T, b: T): number => (a.Id ?? a.id ?? '') < (b.Id ?? b.id ?? '') ? -1 : 1
  assert.is(row('Images').sizeBytes, theirs.LayersSize)
  assert.equal([...usage.images].sort(byId).map(image => [image.id, image.sizeBytes, image.sharedBytes, image.containers]),
    [...theirs.Images].sort(byId).map(image => [image.Id, image.Size, image.SharedSize, image.Containers]))
  assert.equal(usage.containers.map(({ id }) => id), theirs.Containers.map(({ Id }) => Id))
  assert.equal(usage.volumes.map(({ name, links }) => `${name} ${links}`).sort(), theirs.Volumes.map(volume => `${volume.Name} ${volume.UsageData.RefCount}`).sort())
  assert.is(usage.buildCache.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0), theirs.BuildCache?.reduce((sum, record) => sum + (record.Shared ? 0 : record.Size), 0))
  // And where docker is wrong (cli#1798): what app:1, which a container uses, shares with others is not to be had by removing those.
  const inUse = usage.images.find(image => image.references.includes('app:1'))
  assert.is(row('Images').reclaimableBytes, (row('Images').sizeBytes ?? 0) - (inUse?.sizeBytes ?? 0))
  const formula = theirs.LayersSize - theirs.Images.reduce((sum, image) => image.Containers > 0 ? sum + image.Size - image.SharedSize : sum, 0)
  assert.ok((row('Images').reclaimableBytes ?? 0) < formula)
  for (const { sizeBytes = -1, reclaimableBytes = -1 } of usage.rows) assert.ok(reclaimableBytes >= 0 && sizeBytes >= reclaimableBytes)

  // What is on record alone: no file counted, the same figures where there are any.
  const stored = await storage.diskUsage({ storedOnly: true })
  for (const item of stored.rows) assert.ok(item.sizeBytes === undefined || item.sizeBytes === row(item.type).sizeBytes, item.type)
  assert.equal(stored.rows.filter(item => item.sizeBytes === undefined).map(item => item.type), ['Containers', 'Local Volumes', 'Container init layers'])

  // As dockerd, we keep what builds may use again; its own records are its business.
  await storage.images.remove('cached:1')
  assert.ok(rowsOf(await storage.diskUsage())('Layers without image').total === 2)
  const view = await viewOfStorage(storage)
  await storage.close()
  daemon = await place.dockerd()
  assertSameView(await viewOfDocker(daemon), view, 'dockerd after us')
  await buildKit(t, daemon, 'cached:2', 'FROM host:1\nRUN echo kit > /kit\nCOPY file /file\n')
  assert.is(await daemon.docker(['run', '--rm', '--network', 'none', 'cached:2', '/bin/cat', '/kit']), 'kit\n')
  await daemon.docker(['builder', 'prune', '-af'])
  await daemon.stop()

  // A directory that nobody knows, a layer without an image, a container's image forced away.
  const again = await place.open()
  fs.mkdirSync(path.join(place.root, 'overlay2', 'f'.repeat(64), 'diff'), { recursive: true })
  fs.writeFileSync(path.join(place.root, 'overlay2', 'f'.repeat(64), 'diff', 'lost'), Buffer.alloc(100_000))
  await again.images.remove('app:1', { force: true })
  const after = await again.diskUsage()
  assert.equal(after.orphans.map(({ id, sizeBytes }) => [id, sizeBytes]), [['f'.repeat(64), du(overlay('f'.repeat(64)))]])
  assert.equal(after.buildCache, [])
  for (const { type, sizeBytes = -1, reclaimableBytes = -1 } of after.rows) assert.ok(reclaimableBytes >= 0 && sizeBytes >= reclaimableBytes, type)
  fs.rmSync(path.join(place.root, 'overlay2', 'f'.repeat(64)), { recursive: true })
  await assertInOrder(again, 'at the end')
  await again.close()
})
