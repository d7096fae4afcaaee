// Making layers, comparing them and taking them back: what loading, building and committing cost. The snapshot workload is that of containerd's
// benchsuite, with its phases apart.

import fs from 'node:fs'
import path from 'node:path'
import { applyLayer, writeLayer } from '../../diff/index.ts'
import type { LayerId } from '../../ids.ts'
import { removeTreeSync } from '../../fs/remove-tree.ts'
import { performMounts, unmount } from '../../sys/mount.ts'
import { privileges } from '../../sys/privileges.ts'
import { NotHere } from '../visit.ts'
import type { Visit } from '../visit.ts'
import { fileName, fillTree, image, imageFiles, kib, mib, millis, noise, writeFile } from '../workload.ts'
import type { Workload } from '../workload.ts'

/** The tar of a tree of `files` files, made once. */
function archive(visit: Visit, files: number): Promise<Buffer> {
  return visit.once(`archive ${files}`, async () => {
    const dir = path.join(visit.stage.dir, `archive-${files}`)
    fs.mkdirSync(dir)
    try {
      fillTree(dir, files)
      const chunks: Buffer[] = []
      for await (const chunk of writeLayer(dir)) chunks.push(chunk)
      return Buffer.concat(chunks)
    } finally {
      removeTreeSync(dir)
    }
  })
}

async function* piecewise(tar: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < tar.length; at += mib) yield tar.subarray(at, at + mib)
}

const apply: Workload = {
  name: 'apply', title: 'Apply and remove a layer', group: 'layers',
  what: 'A tar is applied to a new layer on nothing: 4.6 kB a file on average. Then the layer is removed.',
  measures: [millis('apply', 'create and apply'), millis('remove', 'remove')], parameter: { title: 'files', unit: 'count' },
  parameters: quick => quick ? [100] : [100, 2000],
  async run(visit) {
    const { stage } = visit
    const tar = await archive(visit, visit.parameter)
    stage.settle()
    await visit.repeat(async () => {
      let id: LayerId | undefined
      await visit.time('apply', async () => {
        id = await stage.layer(undefined, async () => undefined)
        const content = await stage.driver.content(id)
        await applyLayer(piecewise(tar), content.path, content.kind === 'tree' ? { whiteouts: 'remove' } : { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix })
      })
      await visit.time('remove', () => stage.remove(id as LayerId))
    }, { most: 8 })
  },
}

/** Half of them changed, a quarter added, a quarter removed, spread over the first `files` files. */
function change(dir: string, count: number, files: number): void {
  const step = Math.max(1, Math.floor(files / count))
  for (let i = 0; i < count; i++) {
    const n = i * step % files
    if (i % 4 < 2) writeFile(dir, n, 7)
    else if (i % 4 === 2) fs.writeFileSync(path.join(dir, `${fileName(n)}-new`), noise.subarray(n, n + kib))
    else fs.unlinkSync(path.join(dir, fileName(n)))
  }
}

async function compareChanged(visit: Visit, base: LayerId, count: number, files: number): Promise<void> {
  const { stage } = visit
  const shown = await stage.mount(await stage.container(base))
  change(shown.dir, count, files)
  stage.unmount(shown)
  stage.settle()
  await visit.repeat(async () => {
    await visit.time('diff', () => stage.diff(shown.id, base))
    await visit.time('changes', () => stage.changes(shown.id, base))
  }, { most: 8 })
}

const comparing = [millis('diff', 'write the layer\'s tar'), millis('changes', 'list the changes')]

const diff: Workload = {
  name: 'diff', title: 'Incremental diff, by what changed', group: 'layers',
  what: 'A container on an image of 1,000 files, of which some were changed, added or removed: write the difference as a tar, and list it. Never the flattened tree.',
  measures: comparing, parameter: { title: 'changed files', unit: 'count' },
  parameters: quick => quick ? [10, 100] : [10, 100, 500],
  run: async visit => compareChanged(visit, await image(visit.stage), visit.parameter, imageFiles),
}

const diffBase: Workload = {
  name: 'diff-base', title: 'Incremental diff, by what is below', group: 'layers',
  what: 'Ten changes, on images of different size.',
  measures: comparing, parameter: { title: 'files in the image', unit: 'count' },
  parameters: quick => quick ? [100, 1000] : [100, 1000, 5000],
  async run(visit) {
    const base = await visit.stage.layer(undefined, dir => fillTree(dir, visit.parameter))
    await compareChanged(visit, base, 10, visit.parameter)
  },
}

const committedFiles = 500

const commit: Workload = {
  name: 'commit', title: 'Commit a container', group: 'layers',
  what: 'As docker create, commit and rmi do it: a container on an image of 500 files, a hundred of them changed; an image is made of it with all hashes, metadata and syncs, and removed again.',
  measures: [millis('commit', 'commit'), millis('create', 'create the container'), millis('remove', 'remove the image')],
  parameters: () => [0],
  async run(visit) {
    const { stage } = visit
    const { images, containers } = stage.storage
    const source = await images.import(piecewise(await archive(visit, committedFiles)), { reference: 'bench:base' })
    const made: string[] = []
    try {
      await visit.repeat(async () => {
        let id = ''
        await visit.time('create', async () => { ({ id } = await containers.create({ image: source })) })
        made.push(id)
        await containers.withMount(id, dir => change(dir, 100, committedFiles))
        stage.settle()
        let committed = ''
        await visit.time('commit', async () => { committed = (await containers.commit(id)).imageId })
        await visit.time('remove', () => images.remove(committed))
        await containers.remove(id)
        made.pop()
      }, { most: 4 })
    } finally {
      for (const id of made) await containers.remove(id)
      await images.remove(source, { force: true })
    }
  },
}

const snapshots: Workload = {
  name: 'snapshots', title: 'containerd\'s benchsuite', group: 'layers',
  what: 'Sixteen snapshots one on the other: prepare, write ten files of a megabyte through the mounts, commit. Per snapshot.',
  measures: [millis('prepare', 'prepare'), millis('write', 'write 10 files'), millis('commit', 'commit')],
  parameters: () => [0],
  needsBytes: () => 16 * 17 / 2 * 10 * mib,
  async run(visit) {
    if (!privileges().mount) throw new NotHere('needs root: mounts')
    const { stage, quick } = visit
    const { snapshots: store } = stage.storage
    const count = quick ? 4 : 16
    const names: string[] = []
    try {
      for (let layer = 0; layer < count; layer++) {
        visit.checkAborted()
        const key = `bench-${layer}`, name = `committed-${layer}`, target = path.join(stage.dir, key)
        let mounts: Awaited<ReturnType<typeof store.prepare>> = []
        await visit.time('prepare', async () => { mounts = await store.prepare(key, names.at(-1)) })
        fs.mkdirSync(target)
        const done = performMounts(mounts, target)
        try {
          visit.timeSync('write', () => { for (let i = 0; i < 10; i++) fs.writeFileSync(path.join(target, `file-${layer}-${i}`), noise.subarray(i * kib, i * kib + mib)) })
        } finally {
          for (const at of done) unmount(at)
          fs.rmdirSync(target)
        }
        await visit.time('commit', () => store.commit(name, key))
        names.push(name)
      }
    } finally {
      for (const name of names.reverse()) await store.remove(name)
    }
  },
}

export const layerWorkloads: readonly Workload[] = [apply, diff, diffBase, commit, snapshots]
