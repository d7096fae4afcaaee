// kill -9 of the server in the middle of random operations, twenty times over one root: each restart opens, what was acknowledged is there,
// what was not is there whole or not at all, and nothing is left on disk that no snapshot owns.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsRoot, suite } from '../../../fixtures/harness/index.ts'
import { Client } from '../../../fixtures/containerd/client.ts'
import { random } from '../../../fixtures/torture/random.ts'
import type { Random } from '../../../fixtures/torture/random.ts'
import { startServer } from '../../../fixtures/containerd/harness.ts'
import { open } from '../../index.ts'

const test = suite('containerd service crash')

type State = ReadonlyMap<string, string>

/** One client's snapshots as acknowledged (name → kind, parent and label), and the state that the operation under way will lead to. */
class Player {
  state: State = new Map()
  pending: State | undefined
  done = 0
  readonly #name: string
  readonly #below: Random
  #next = 0

  constructor(name: string, seed: number) {
    this.#name = name
    this.#below = random(seed)
  }

  async step(client: Client): Promise<void> {
    const names = [...this.state.keys()]
    const pick = (list: readonly string[]): string | undefined => list[this.#below(Math.max(1, list.length))]
    const of = (kind: string): string[] => names.filter(name => this.state.get(name)?.startsWith(kind))
    const fresh = `${this.#name}/${++this.#next}`
    const parent = this.#below(4) === 0 ? '' : pick(of('committed')) ?? ''
    // About sixty snapshots each: enough for chains, few enough to compare twenty times.
    const move = names.length > 60 ? 9 : this.#below(10)
    const active = pick(of('active')), any = pick(names)
    if (move < 4 || any === undefined) await this.#do(new Map(this.state).set(fresh, `active ${parent} 1`), () => client.make('Prepare', { key: fresh, parent, labels: { l: '1' } }))
    else if (move < 5) await this.#do(new Map(this.state).set(fresh, `view ${parent} 2`), () => client.make('View', { key: fresh, parent, labels: { l: '2' } }))
    else if (move < 7 && active !== undefined) {
      const after = new Map(this.state).set(fresh, `committed ${this.state.get(active)?.split(' ')[1] ?? ''} 3`)
      after.delete(active)
      await this.#do(after, () => client.commit({ name: fresh, key: active, labels: { l: '3' } }))
    } else if (move < 8) {
      const [kind, its] = this.state.get(any)?.split(' ') ?? []
      await this.#do(new Map(this.state).set(any, `${kind} ${its} ${this.#next}`), () => client.update(any, { l: String(this.#next) }, ['labels.l']))
    } else {
      const parents = new Set([...this.state.values()].map(what => what.split(' ')[1]))
      const bare = pick(names.filter(name => !parents.has(name)))
      if (bare === undefined) return
      const after = new Map(this.state)
      after.delete(bare)
      await this.#do(after, () => client.remove(bare))
    }
  }

  async #do(after: State, call: () => Promise<unknown>): Promise<void> {
    this.pending = after
    await call()
    this.state = after
    this.pending = undefined
    this.done++
  }
}

const text = (state: State): string => [...state].map(([name, what]) => `${name}: ${what}`).sort().join('\n')

for (const driver of needsRoot === false ? ['overlay2', 'vfs'] : ['vfs']) {
  test(`${driver}: killed twenty times`, { timeoutMs: 600_000 }, async t => {
    const root = path.join(t.dir, 'root'), socket = path.join(t.dir, 's.sock')
    const players = Array.from({ length: 4 }, (_, i) => new Player(`p${i}`, 1000 + i))
    const below = random(7)
    let undecided = 0, became = 0
    for (let round = 0; round < 20; round++) {
      const server = await startServer(driver, root, socket, { durability: 'metadata' })
      t.defer(() => server.child.kill('SIGKILL'))
      const client = new Client(socket)
      const before = players.reduce((sum, player) => sum + player.done, 0)
      const killAt = 100 + below(900)
      let killed = false
      await Promise.all(players.map(async player => {
        for (let i = 0; i < 1000 && !killed; i++) {
          try {
            await player.step(client)
          } catch (error) {
            // 14 UNAVAILABLE: the server is gone; anything else is wrong.
            if (!killed || ![14, 1].includes((error as { code?: number }).code ?? 0)) throw error
            return
          }
          const done = players.reduce((sum, one) => sum + one.done, 0) - before
          if (done >= killAt && !killed) {
            killed = true
            // While the other three are under way.
            server.child.kill('SIGKILL')
          }
        }
      }))
      client.close()
      assert.is(await server.end('SIGKILL'), 'SIGKILL', server.stderr())

      const storage = await open({ root, driver })
      try {
        await storage.snapshots.cleanup()
        const found = new Map([...storage.snapshots.walkSync()].map(info => [info.name, `${info.kind} ${info.parent ?? ''} ${info.labels['l']}`]))
        for (const [i, player] of players.entries()) {
          const mine = new Map([...found].filter(([name]) => name.startsWith(`p${i}/`)))
          if (player.pending !== undefined) {
            undecided++
            if (text(mine) === text(player.pending)) { became++; player.state = player.pending }
          }
          assert.is(text(mine), text(player.state), `round ${round}, player ${i}: what was acknowledged`)
          player.pending = undefined
        }
        for (const info of storage.snapshots.walkSync(['kind==active'])) await storage.snapshots.mounts(info.name)
        const withLayer = new Set([...storage.snapshots.walkSync()].filter(info => info.kind !== 'view' || info.parent === undefined).map(info => info.name))
        const home = path.join(root, driver)
        const folders = driver === 'vfs' ? ['dir', 'layerstack/new', 'layerstack/gone'] : ['.']
        const onDisk = folders.flatMap(folder => fs.readdirSync(path.join(home, folder))).filter(name => name.includes('sn-'))
        assert.is(onDisk.length, withLayer.size, `round ${round}: ${onDisk.length} layers on disk, ${withLayer.size} owned: ${onDisk.join(' ')}`)
        if (driver === 'overlay2') assert.is(fs.readdirSync(path.join(home, 'l')).length, withLayer.size, 'short links')
        assert.equal(fs.readdirSync(path.join(root, 'layerstack', 'snapshots', driver, 'sessions')).length, 0, 'sessions of the dead')
      } finally {
        await storage.close()
      }
    }
    console.log(`  ${driver}: ${players.reduce((sum, player) => sum + player.done, 0)} operations acknowledged, ${undecided} under way at a kill, of which ${became} had been done`)
  })
}
