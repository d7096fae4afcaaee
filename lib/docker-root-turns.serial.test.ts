// dockerd and layerstack take turns on one data root: each round either does something, and both see the same afterwards. Ten rounds on overlay2, three on the others;
// LAYERSTACK_FULL=1: ten on each.

import fs from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { assertInOrder, assertSameView, placeFor, rootfs, skipOn, viewOfDocker, viewOfStorage } from '../fixtures/docker-root.ts'
import type { RootView } from '../fixtures/docker-root.ts'
import type { Dockerd } from '../fixtures/dockerd.ts'
import { assert, suite } from '../fixtures/harness/index.ts'
import { makeTree } from '../fixtures/tree.ts'
import type { Storage } from './index.ts'

const test = suite('docker root, turns')
const full = Boolean(process.env['LAYERSTACK_FULL'])

/** What is there to be chosen from: always the same for the same round, so that a failure comes again. */
class Turn {
  readonly view: RootView
  readonly round: number
  readonly dir: string
  #next: number

  constructor(view: RootView, round: number, dir: string) {
    this.view = view
    this.round = round
    this.dir = dir
    this.#next = round
  }

  pick<T>(from: readonly T[]): T | undefined {
    this.#next += 7
    return from[this.#next % Math.max(from.length, 1)]
  }

  /** By name, since names come again where ids do not. */
  get tags(): string[] { return Object.values(this.view.images).flatMap(image => image['RepoTags'] as string[]).sort() }
  /** Without the one that all else is made from. */
  get spareTags(): string[] { return this.tags.filter(tag => tag !== 'base:1') }
  get containers(): string[] { return Object.values(this.view.containers).map(container => (container['Name'] as string).slice(1)).sort() }
  get volumes(): string[] { return Object.keys(this.view.volumes).sort() }
}

type Deed<Actor> = (actor: Actor, turn: Turn) => Promise<unknown>
const isMine = (error: unknown): boolean => /in use|is using|must be forced|must force|cannot be forced|dependent child|referenced in multiple/.test(String(error))
/** Refusals are Docker's business as much as ours. */
const unlessInUse = (work: Promise<unknown>): Promise<unknown> => work.catch(error => { if (!isMine(error)) throw error })

const theirs: readonly Deed<Dockerd['docker']>[] = [
  async (docker, { round, dir, tags }) => {
    const context = path.join(dir, `context-${round}`)
    makeTree(context, { Dockerfile: `FROM ${tags[round % tags.length]}\nRUN echo ${round} > /round-${round} && rm -f /etc/motd\nCOPY some /some-${round}\nENV ROUND=${round}\nVOLUME /v\n`, 'some/file': `${round}` })
    await docker(['build', '--network', 'none', '-t', `built:${round}`, context])
  },
  (docker, turn) => docker(['run', '--network', 'none', '--name', `ran-${turn.round}`, '-v', `shared:/shared`, turn.pick(turn.tags) ?? '', '/bin/sh', '-c', `echo ${turn.round} >> /shared/rounds; mkdir -p /etc; echo ${turn.round} > /etc/motd; rm -rf /some-${turn.round - 1}`]),
  async (docker, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await docker(['commit', '-m', `round ${turn.round}`, container, `theirs:${turn.round}`])
  },
  async (docker, turn) => {
    const tag = turn.pick(turn.spareTags)
    if (tag !== undefined) await unlessInUse(docker(['rmi', tag]))
  },
  async (docker, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await docker(['start', '-a', container])
  },
  (docker, turn) => docker(['volume', 'create', '--label', `round=${turn.round}`, `theirs-${turn.round}`]),
  async (docker, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await docker(['rm', '-v', container])
    // That may have taken the volume along.
    const volume = turn.pick(turn.volumes)
    if (volume !== undefined) await unlessInUse(docker(['volume', 'rm', volume])).catch((error: Error) => assert.match(error.message, /no such volume/))
  },
  async (docker, turn) => {
    fs.writeFileSync(path.join(turn.dir, 'copied'), `${turn.round}`)
    const container = turn.pick(turn.containers)
    if (container !== undefined) await docker(['cp', path.join(turn.dir, 'copied'), `${container}:/copied-${turn.round}`])
  },
]

const ours: readonly Deed<Storage>[] = [
  async (storage, turn) => {
    const name = `ours-${turn.round}`
    await storage.containers.create({ image: turn.pick(turn.tags) ?? '', name, config: { Cmd: ['/bin/sh', '-c', 'echo again >> /again'] }, mounts: { binds: [`shared:/shared`] } })
    await storage.containers.withMount(name, dir => makeTree(dir, { [`by-us-${turn.round}`]: 'x', 'etc/motd': 'ours', tmp: { type: 'absent' }, 'deep/er/': { mode: 0o700 } }))
  },
  async (storage, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await storage.containers.commit(container, { reference: `ours:${turn.round}`, message: `round ${turn.round}` })
  },
  async (storage, turn) => {
    const tag = turn.pick(turn.spareTags)
    if (tag !== undefined) await unlessInUse(storage.images.remove(tag))
  },
  async (storage, turn) => { await storage.images.tag(turn.pick(turn.tags) ?? '', `tagged:${turn.round}`) },
  async (storage, turn) => {
    await storage.volumes.create(`ours-${turn.round}`, { labels: { round: `${turn.round}`, by: 'layerstack' } })
    const volume = turn.pick(turn.volumes)
    if (volume !== undefined) await unlessInUse(storage.volumes.remove(volume))
  },
  async (storage, turn) => {
    const file = path.join(turn.dir, 'saved.tar')
    const tag = turn.pick(turn.spareTags)
    if (tag === undefined) return
    await pipeline(storage.images.save([tag]), fs.createWriteStream(file))
    await unlessInUse(storage.images.remove(tag))
    await storage.images.load(file)
  },
  async (storage, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await storage.containers.remove(container, { volumes: true })
  },
  async (storage, turn) => {
    const container = turn.pick(turn.containers)
    if (container !== undefined) await storage.containers.withMount(container, dir => makeTree(dir, { [`touched-${turn.round}`]: `${turn.round}` }))
  },
]

for (const [driver, rounds] of [['overlay2', 10], ['vfs', full ? 10 : 3], ['btrfs', full ? 10 : 3]] as const) {
  test(`${driver}: ${rounds} rounds of turns, and nothing is damaged or left over`, { skip: skipOn(driver), timeoutMs: 900_000 }, async t => {
    const place = placeFor(t, driver)
    let view: RootView
    {
      await using storage = await place.open()
      await storage.images.import(await rootfs(t), { reference: 'base:1', changes: ['CMD ["/bin/sh", "-c", "echo started >> /started"]'] })
      view = await viewOfStorage(storage)
    }
    for (let round = 0; round < rounds; round++) {
      const daemon = await place.dockerd()
      assertSameView(await viewOfDocker(daemon), view, `round ${round}: dockerd after us`)
      // Three deeds a round from a list of eight: after ten rounds each was done three or four times, next to others each time.
      for (const k of [0, 1, 2]) await theirs[(round * 3 + k) % theirs.length]?.(daemon.docker, new Turn(await viewOfDocker(daemon), round, t.dir))
      view = await viewOfDocker(daemon)
      await daemon.stop()

      await using storage = await place.open()
      assertSameView(await viewOfStorage(storage), view, `round ${round}: we after dockerd`)
      await assertInOrder(storage, `round ${round}: after dockerd`)
      for (const k of [0, 1, 2]) await ours[(round * 3 + k) % ours.length]?.(storage, new Turn(await viewOfStorage(storage), round, t.dir))
      await assertInOrder(storage, `round ${round}: after us`)
      view = await viewOfStorage(storage)
    }
    // All can be taken away, by either, and nothing stays.
    const daemon = await place.dockerd()
    assertSameView(await viewOfDocker(daemon), view, 'at the end')
    for (const container of new Turn(view, 0, t.dir).containers) await daemon.docker(['rm', '-v', container])
    await daemon.docker(['image', 'prune', '-af'])
    await daemon.stop()
    await using storage = await place.open()
    await storage.volumes.prune({ all: true })
    const left: string[] = []
    for await (const id of storage.driver.list()) left.push(id)
    for (const id of await storage.images.ids()) left.push(id)
    for (const { name } of storage.volumes.list()) left.push(name)
    assert.equal(left, [])
    await assertInOrder(storage, 'empty')
  })
}
