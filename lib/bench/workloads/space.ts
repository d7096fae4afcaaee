// What containers and sparse files really take on disk: the backing's own count, after it has settled. First in a round, while nothing removed waits
// to be given back.

import fs from 'node:fs'
import path from 'node:path'
import type { Visit } from '../visit.ts'
import { bytes, image, kib, millis, mib, noise } from '../workload.ts'
import type { Workload } from '../workload.ts'

const disk: Workload = {
  name: 'disk', title: 'Disk used by containers', group: 'space',
  what: 'Containers on an image of 1,000 files; in each, four kilobytes of a lower file of one megabyte are overwritten. What the backing lost in free space, per container.',
  measures: [bytes('used', 'per container')], parameter: { title: 'containers', unit: 'count' },
  parameters: () => [1, 10],
  needsBytes: containers => (containers + 1) * 12 * mib,
  async run(visit) {
    const { stage } = visit
    const base = await image(stage)
    const before = stage.usedBytes()
    for (let i = 0; i < visit.parameter; i++) {
      const shown = await stage.mount(await stage.container(base))
      overwrite(path.join(shown.dir, 'big'), 0)
      stage.unmount(shown)
    }
    visit.record('used', Math.max(0, stage.usedBytes() - before) / visit.parameter)
  },
}

const pieces = 16

const sparse: Workload = {
  name: 'sparse', title: 'First write to a sparse file', group: 'space',
  what: 'A lower file that looks like 256 megabytes and holds one. Creating a container on it, the first write to it, and the disk that both took.',
  measures: [millis('first-write', 'first write'), millis('create', 'create and mount'), bytes('used', 'disk used')],
  parameters: () => [0],
  async run(visit) {
    const { stage } = visit
    const apparent = 256 * mib
    const base = await stage.layer(undefined, dir => {
      const fd = fs.openSync(path.join(dir, 'sparse'), 'w')
      for (let i = 0; i < pieces; i++) fs.writeSync(fd, noise, 0, 64 * kib, i * apparent / pieces)
      fs.ftruncateSync(fd, apparent)
      fs.closeSync(fd)
    })
    const before = stage.usedBytes()
    const began = performance.now()
    const shown = await stage.mount(await stage.container(base))
    visit.record('create', performance.now() - began)
    visit.timeSync('first-write', () => overwrite(path.join(shown.dir, 'sparse'), 0))
    visit.record('used', Math.max(0, stage.usedBytes() - before))
    stage.unmount(shown)
  },
}

/** Four kilobytes, or what a smaller file has, written over. */
export function overwrite(file: string, at: number, sizeBytes = 4 * kib): void {
  const fd = fs.openSync(file, 'r+')
  fs.writeSync(fd, noise, 0, sizeBytes, at)
  fs.closeSync(fd)
}

/** No driver at all: what the machine and the file system do by themselves. Tells a run's drift from a change of the code. */
const reference: Workload = {
  name: 'reference', title: 'The machine itself', group: 'read',
  what: 'No driver: the processor hashing a megabyte, and files made, written and deleted in an ordinary directory. It tells whether the machine was slower in one run than in the other.',
  measures: [millis('hash', 'hash 1 MiB'), millis('files', '100 files'), millis('write', 'write 8 MiB and sync')],
  parameters: () => [0],
  async run(visit) {
    const { createHash } = await import('node:crypto')
    const dir = path.join(visit.stage.dir, 'reference')
    fs.mkdirSync(dir)
    await visit.repeat(() => {
      visit.timeSync('hash', () => { createHash('sha256').update(noise.subarray(0, mib)).digest() })
      visit.timeSync('files', () => { hundredFiles(dir) })
    })
    await repeatWrite(visit, path.join(dir, 'written'))
    fs.rmSync(dir, { recursive: true })
  },
}

function hundredFiles(dir: string): void {
  for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(dir, `file-${i}`), noise.subarray(0, kib))
  for (let i = 0; i < 100; i++) fs.unlinkSync(path.join(dir, `file-${i}`))
}

async function repeatWrite(visit: Visit, file: string): Promise<void> {
  for (let i = 0; i < 4; i++) {
    visit.timeSync('write', () => {
      const fd = fs.openSync(file, 'w')
      for (let n = 0; n < 8; n++) fs.writeSync(fd, noise, 0, mib)
      fs.fsyncSync(fd)
      fs.closeSync(fd)
    })
    fs.unlinkSync(file)
  }
}

export const spaceWorkloads: readonly Workload[] = [disk, sparse, reference]
