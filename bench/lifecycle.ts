// A container's life in process: create, mount, unmount, remove, one after the other, on images of few and of many layers.

import fs from 'node:fs'
import path from 'node:path'
import { cannotMakeImage } from '../lib/bench/loop-image.ts'
import { mountImage } from '../fixtures/loop.ts'
import { tempBase } from '../fixtures/places.ts'
import { open } from '../lib/index.ts'
import type { Durability, Storage } from '../lib/index.ts'
import { median } from './measure.ts'

const steps = ['create', 'mount', 'unmount', 'remove', 'all'] as const
export interface Life {
  readonly driver: string
  readonly on: string
  readonly layers: number
  readonly durability: Durability
  /** Milliseconds of each life. */
  readonly samples: Readonly<Record<(typeof steps)[number], readonly number[]>>
}

export interface LifecycleOptions {
  /** Lives that count, for each line. */
  readonly count: number
  readonly out?: string | undefined
}

export async function benchLifecycle({ count, out }: LifecycleOptions): Promise<void> {
  const lives: Life[] = []
  const work = fs.mkdtempSync(path.join(tempBase(), 'ls-bench-'))
  try {
    lives.push(...await livesOn(path.join(work, 'overlay2'), 'overlay2', 'tmpfs', count))
  } finally {
    fs.rmSync(work, { recursive: true, force: true })
  }
  for (const [driver, kind] of [['overlay2', 'ext4'], ['btrfs', 'btrfs']] as const) {
    const reason = cannotMakeImage(kind)
    if (reason !== false) { console.log(`not on ${kind}: ${reason}`); continue }
    const image = mountImage(kind, { sizeBytes: 4 * 2 ** 30 })
    try {
      lives.push(...await livesOn(path.join(image.dir, 'root'), driver, kind, count))
    } finally {
      image.close()
    }
  }
  print(lives)
  if (out !== undefined) fs.writeFileSync(out, `${JSON.stringify(lives, null, 2)}\n`)
}

async function livesOn(root: string, driver: string, on: string, count: number): Promise<Life[]> {
  const lives: Life[] = []
  for (const durability of ['full', 'none'] as const) {
    const storage = await open({ root: `${root}-${durability}`, driver, durability })
    try {
      let image = '', layers = 0
      for (const wanted of [3, 100]) {
        for (; layers < wanted; layers++) image = await oneMore(storage, image, layers)
        lives.push({ driver, on, layers, durability, samples: await live(storage, image, count) })
      }
    } finally {
      await storage.close()
    }
  }
  return lives
}

async function oneMore(storage: Storage, image: string, n: number): Promise<string> {
  const container = await storage.containers.create(image === '' ? {} : { image })
  await storage.containers.withMount(container.id, root => { fs.writeFileSync(path.join(root, `layer-${n}`), String(n)) })
  const { imageId } = await storage.containers.commit(container.id)
  await storage.containers.remove(container.id)
  return imageId
}

async function live(storage: Storage, image: string, count: number): Promise<Life['samples']> {
  const samples: Record<(typeof steps)[number], number[]> = { create: [], mount: [], unmount: [], remove: [], all: [] }
  const warmUp = Math.ceil(count / 4)
  for (let i = 0; i < warmUp + count; i++) {
    const start = performance.now()
    const { id } = await storage.containers.create({ image })
    const created = performance.now()
    const mounted = await storage.containers.mount(id)
    const shown = performance.now()
    await mounted.unmount()
    const unmounted = performance.now()
    await storage.containers.remove(id)
    const end = performance.now()
    if (i < warmUp) continue
    for (const [step, ms] of [['create', created - start], ['mount', shown - created], ['unmount', unmounted - shown], ['remove', end - unmounted], ['all', end - start]] as const) samples[step].push(ms)
  }
  return samples
}

function print(lives: readonly Life[]): void {
  console.log('\na container\'s life in process, median ms')
  for (const { driver, on, layers, durability, samples } of lives) {
    console.log(`${`${driver} on ${on}, ${layers} layers, durability ${durability}`.padEnd(52)}${steps.map(step => `${step} ${median(samples[step]).toFixed(2)}`).join('  ')}`)
  }
}
