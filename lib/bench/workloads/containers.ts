// Starting containers, writing in them and looking into deep stacks: what an engine and its containers feel.

import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../../errors.ts'
import type { LayerId } from '../../ids.ts'
import { getXattr, setXattr, xattrAvailable } from '../../sys/xattr.ts'
import type { Shown, Stage } from '../stage.ts'
import { NotHere } from '../visit.ts'
import type { Visit } from '../visit.ts'
import { fileName, gib, image, imageFiles, kib, micros, mib, millis, noise, smallImage, writeBig } from '../workload.ts'
import type { Workload } from '../workload.ts'
import { overwrite } from './space.ts'

const start: Workload = {
  name: 'start', title: 'Start a container', group: 'start',
  what: 'On an image of 1,000 files: create the writable layer, mount it, stat a file in it; then unmount and remove it.',
  measures: [millis('total', 'until the first stat'), millis('create', 'create'), millis('mount', 'mount'), micros('stat', 'first stat'), millis('unmount', 'unmount'), millis('remove', 'remove')],
  parameters: () => [0],
  async run(visit) {
    const { stage } = visit
    const base = await image(stage)
    stage.settle()
    await visit.repeat(async () => {
      let id: LayerId | undefined, shown: Shown | undefined
      const createMs = await visit.time('create', async () => { id = await stage.container(base) })
      const mountMs = await visit.time('mount', async () => { shown = await stage.mount(id as LayerId) })
      const { dir } = shown as Shown
      const statMs = visit.timeSync('stat', () => { fs.statSync(path.join(dir, fileName(42))) })
      visit.record('total', createMs + mountMs + statMs)
      visit.timeSync('unmount', () => stage.unmount(shown as Shown))
      await visit.time('remove', () => stage.remove(id as LayerId))
    })
  },
}

const startMany: Workload = {
  name: 'start-many', title: 'Start containers at once', group: 'start',
  what: 'The same for many containers at the same time, on an image of three layers and 60 files: all of them created, mounted and looked into; then all unmounted and removed.',
  measures: [millis('total', 'start all'), millis('remove', 'remove all')], parameter: { title: 'containers', unit: 'count' },
  parameters: quick => quick ? [10] : [10, 100],
  async run(visit) {
    const { stage } = visit
    const base = await smallImage(stage)
    stage.settle()
    await visit.repeat(async () => {
      const shown: Shown[] = []
      await visit.time('total', () => Promise.all(Array.from({ length: visit.parameter }, async () => {
        const one = await stage.mount(await stage.container(base))
        fs.statSync(path.join(one.dir, fileName(42)))
        shown.push(one)
      })))
      await visit.time('remove', () => Promise.all(shown.map(async one => {
        stage.unmount(one)
        await stage.remove(one.id)
      })))
    }, { most: 6 })
  },
}

const copyUp: Workload = {
  name: 'copy-up', title: 'First write to a lower file', group: 'write',
  what: 'Four kilobytes are written in the middle of a file that the image holds, and then again elsewhere. Drivers of branches copy the file up at the first write; drivers of complete trees pay when the container is created.',
  measures: [millis('first-write', 'first write'), millis('second-write', 'second write'), millis('total', 'create, mount, first write')],
  parameter: { title: 'size of the file', unit: 'bytes' },
  parameters: quick => [4 * kib, mib, quick ? 64 * mib : gib],
  needsBytes: size => 3 * size,
  async run(visit) {
    const size = visit.parameter
    await onBigFile(visit, (file, startMs) => {
      const firstMs = visit.timeSync('first-write', () => overwrite(file, Math.floor(size / 8192) * 4096))
      visit.timeSync('second-write', () => overwrite(file, 0))
      visit.record('total', startMs + firstMs)
    })
  },
}

const chmodLarge: Workload = {
  name: 'chmod', title: 'chmod of a large lower file', group: 'write',
  what: 'Only the mode of a file changes, which the image holds. A driver that copies whole files copies all of it.',
  measures: [millis('first', 'first chmod'), millis('total', 'create, mount, chmod')], parameter: { title: 'size of the file', unit: 'bytes' },
  parameters: () => [mib, 64 * mib],
  needsBytes: size => 3 * size,
  run: visit => onBigFile(visit, (file, startMs) => { visit.record('total', startMs + visit.timeSync('first', () => fs.chmodSync(file, 0o600))) }),
}

async function onBigFile(visit: Visit, act: (file: string, startMs: number) => void): Promise<void> {
  const { stage, parameter: size } = visit
  const base = await stage.layer(undefined, dir => writeBig(path.join(dir, 'file'), size))
  stage.settle()
  await visit.repeat(async () => {
    const began = performance.now()
    const shown = await stage.mount(await stage.container(base))
    act(path.join(shown.dir, 'file'), performance.now() - began)
    await discard(stage, shown)
  }, { most: 10 })
}

async function discard(stage: Stage, shown: Shown): Promise<void> {
  stage.unmount(shown)
  await stage.remove(shown.id)
}

/** A container on the image of 1,000 files for the whole visit. */
async function inContainer(visit: Visit, work: (dir: string) => Promise<void>): Promise<void> {
  const { stage } = visit
  const shown = await stage.mount(await stage.container(await image(stage)))
  stage.settle()
  try {
    await work(shown.dir)
  } finally {
    stage.unmount(shown)
  }
}

const smallFiles: Workload = {
  name: 'small-files', title: 'Many small files', group: 'write',
  what: 'In a container: new files of one kilobyte in a new directory; and lower files deleted, each of which leaves a whiteout. Per file.',
  measures: [micros('write', 'write a new file'), micros('delete', 'delete a lower file')], parameter: { title: 'files', unit: 'count' },
  parameters: quick => quick ? [100] : [100, 1000],
  run: visit => inContainer(visit, async dir => {
    const lowerPerRun = Math.min(100, visit.parameter)
    await visit.repeat(i => {
      visit.timeSync('write', () => {
        fs.mkdirSync(path.join(dir, `new-${i}`))
        for (let n = 0; n < visit.parameter; n++) fs.writeFileSync(path.join(dir, `new-${i}`, `file-${n}`), noise.subarray(n, n + kib))
      }, visit.parameter)
      visit.timeSync('delete', () => { for (let n = 0; n < lowerPerRun; n++) fs.unlinkSync(path.join(dir, fileName(i * 100 + n))) }, lowerPerRun)
    }, { most: 9 })
  }),
}

const hardLinks: Workload = {
  name: 'hard-links', title: 'Many hard links', group: 'write',
  what: 'In a container: a thousand new names for one lower file. Per link.',
  measures: [micros('link', 'make a link')],
  parameters: () => [0],
  run: visit => inContainer(visit, async dir => {
    await visit.repeat(i => {
      fs.mkdirSync(path.join(dir, `links-${i}`))
      visit.timeSync('link', () => { for (let n = 0; n < 1000; n++) fs.linkSync(path.join(dir, fileName(i)), path.join(dir, `links-${i}`, `link-${n}`)) }, 1000)
    }, { most: 6 })
  }),
}

const xattrs: Workload = {
  name: 'xattrs', title: 'Extended attributes', group: 'write',
  what: 'In a container: an attribute of 32 bytes is set on lower files, set again, and read. Per file.',
  measures: [micros('set', 'set on a lower file'), micros('again', 'set again'), micros('get', 'read')],
  parameters: () => [0],
  async run(visit) {
    if (!xattrAvailable) throw new NotHere('native calls are absent')
    await inContainer(visit, async dir => {
      const value = noise.subarray(0, 32)
      const files = (i: number): string[] => Array.from({ length: 100 }, (_, n) => path.join(dir, fileName(i * 100 + n)))
      try {
        setXattr(path.join(dir, fileName(imageFiles - 1)), 'user.layerstack', value)
      } catch (error) {
        if (StorageError.is(error) && error.info.errno === 'EOPNOTSUPP') throw new NotHere('the file system has no user attributes')
        throw error
      }
      await visit.repeat(i => {
        const all = files(i)
        visit.timeSync('set', () => { for (const file of all) setXattr(file, 'user.layerstack', value) }, all.length)
        visit.timeSync('again', () => { for (const file of all) setXattr(file, 'user.layerstack', value) }, all.length)
        visit.timeSync('get', () => { for (const file of all) getXattr(file, 'user.layerstack') }, all.length)
      }, { most: 9 })
    })
  },
}

const bottomFiles = 20, wideFiles = 20

const deep: Workload = {
  name: 'deep', title: 'Deep stacks', group: 'read',
  what: `A container on many layers, freshly mounted for each sample: look up ${bottomFiles} files of the lowest layer, and as many names that no layer has; read those files; list a directory to which every layer contributes.`,
  measures: [micros('lookup', 'look up a file'), millis('start', 'create and mount'), micros('missing', 'look up a missing name'), micros('read', 'open and read a file'), micros('readdir', 'list the directory')],
  parameter: { title: 'layers', unit: 'count' },
  parameters: quick => quick ? [1, 16, 64] : [1, 16, 64, 125, 400],
  async run(visit) {
    const { stage, parameter: depth } = visit
    const { maxDepth } = stage.driver.supports
    if (depth > maxDepth) throw new NotHere(`it carries ${maxDepth} layers`)
    const top = await stack(visit, depth)
    stage.settle()
    await visit.repeat(async () => {
      const began = performance.now()
      const shown = await stage.mount(await stage.container(top))
      visit.record('start', performance.now() - began)
      const names = Array.from({ length: bottomFiles }, (_, i) => path.join(shown.dir, 'bottom', `file-${i}`))
      visit.timeSync('lookup', () => { for (const name of names) fs.statSync(name) }, bottomFiles)
      visit.timeSync('missing', () => { for (const name of names) fs.existsSync(`${name}-not`) }, bottomFiles)
      visit.timeSync('read', () => { for (const name of names) fs.readFileSync(name) }, bottomFiles)
      visit.timeSync('readdir', () => { fs.readdirSync(path.join(shown.dir, 'wide')) })
      await discard(stage, shown)
    }, { most: 10 })
  },
}

async function stack(visit: Visit, depth: number): Promise<LayerId> {
  const { stage } = visit
  let top = await stage.layer(undefined, dir => {
    for (const name of ['bottom', 'wide']) fs.mkdirSync(path.join(dir, name))
    for (let i = 0; i < bottomFiles; i++) fs.writeFileSync(path.join(dir, 'bottom', `file-${i}`), noise.subarray(i, i + kib))
  })
  for (let layer = 1; layer < depth; layer++) {
    visit.checkAborted()
    top = await stage.layer(top, dir => {
      fs.mkdirSync(path.join(dir, 'wide'), { recursive: true })
      // A bounded number of names, or drivers of complete trees would copy ever more.
      fs.writeFileSync(path.join(dir, 'wide', `file-${layer % wideFiles}`), `layer ${layer}\n`)
    })
  }
  return top
}

export const containerWorkloads: readonly Workload[] = [start, startMany, copyUp, chmodLarge, smallFiles, hardLinks, xattrs, deep]
