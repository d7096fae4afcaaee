import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { all, driversHere, openIn } from '../../fixtures/storage.ts'
import { StorageError } from '../index.ts'
import type { Storage } from '../index.ts'
import { mountTable } from '../sys/mount.ts'

const test = suite('crash')
const childFile = fileURLToPath(new URL('../../fixtures/crash-child.js', import.meta.url))

interface Child { readonly process: ChildProcess; readonly lines: string[]; readonly end: Promise<void> }

function start(root: string, driver: string, worker: number, dieBefore?: string): Child {
  const child = spawn(process.execPath, [childFile, root, driver, String(worker), ...(dieBefore === undefined ? [] : [dieBefore])], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: string[] = []
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
  })
  const end = new Promise<void>(resolve => child.once('close', () => resolve()))
  return { process: child, lines, end }
}

async function until(condition: () => boolean, ms: number): Promise<void> {
  for (const deadline = performance.now() + ms; !condition() && performance.now() < deadline;) await new Promise(resolve => setTimeout(resolve, 1))
}

/** What must be there, and what may be, by what the children said. */
class Expectation {
  readonly #sure = new Map<string, boolean>()

  hear(lines: readonly string[]): void {
    for (const line of lines) {
      const m = /^(ok )?([+-]) (image|container) (.*)$/.exec(line)
      if (m === null) continue
      const [, done, sign, kind, name] = m
      if (done === undefined) this.#sure.delete(`${kind} ${name}`)
      else this.#sure.set(`${kind} ${name}`, sign === '+')
    }
  }

  problems(there: ReadonlySet<string>): string[] {
    return [...this.#sure].flatMap(([what, expected]) => there.has(what) === expected ? [] : [`${what} was acknowledged as ${expected ? 'made' : 'removed'}`])
  }
}

async function inspect(storage: Storage, expected: Expectation): Promise<string[]> {
  const problems: string[] = []
  const root = storage.root, db = path.join(root, 'image', storage.driver.name, 'layerdb'), own = path.join(root, 'layerstack')
  problems.push(...storage.layers.unsettled.map(error => `unsettled: ${error.message}`))
  for (const dir of [path.join(db, 'tmp'), path.join(own, 'tmp'), path.join(own, 'intents', storage.driver.name)]) {
    for (const name of fs.readdirSync(dir)) problems.push(`left in ${dir}: ${name}`)
  }
  for (const name of fs.readdirSync(path.join(db, 'sha256'))) if (!/^[a-f0-9]{64}$/.test(name)) problems.push(`left in layerdb: ${name}`)
  const containers = path.join(root, 'containers')
  for (const name of fs.readdirSync(containers)) if (!/^[a-f0-9]{64}$/.test(name)) problems.push(`left in containers: ${name}`)
  assert.equal(fs.readdirSync(path.join(db, 'mounts')).sort(), storage.containers.list().map(record => record.id).sort(), 'container records and container layers')

  const layers = await all(storage.layers.list())
  const named = new Set<string>(layers.map(layer => layer.cacheId))
  for (const id of fs.readdirSync(path.join(db, 'mounts'))) {
    for (const file of ['mount-id', 'init-id']) named.add(fs.readFileSync(path.join(db, 'mounts', id, file), 'utf8'))
  }
  const there = new Set<string>(await all(storage.driver.list()))
  for (const id of there) if (!named.has(id)) problems.push(`the driver has ${id}, and nobody knows it`)
  for (const id of named) if (!there.has(id)) problems.push(`the driver lacks ${id}`)

  const used = new Set<string>()
  for (const id of await storage.images.ids()) for (const chainId of (await storage.images.get(id)).layers) used.add(chainId)
  for (const layer of layers) {
    if (!used.has(layer.chainId)) problems.push(`layer ${layer.chainId} has no user`)
    const hash = createHash('sha256')
    for await (const chunk of storage.layers.tar(layer.chainId)) hash.update(chunk)
    if (`sha256:${hash.digest('hex')}` !== layer.diffId) problems.push(`layer ${layer.chainId} is not what it was`)
  }
  const names = new Set((await storage.images.list({ all: true })).flatMap(image => image.RepoTags).map(name => `image ${name}`))
  for (const record of storage.containers.list()) names.add(`container ${record.name}`)
  return [...problems, ...expected.problems(names)]
}

async function rounds(t: Context, driver: string, workers: number, ms: number): Promise<void> {
  const root = path.join(t.dir, 'root')
  const children = new Set<Child>()
  t.defer(async () => {
    for (const child of children) { child.process.kill('SIGKILL'); await child.end }
    // A mount of a process that was killed stays until its container is removed.
    const storage = await openIn(t, driver)
    for (const record of storage.containers.list()) await storage.containers.remove(record.id, { force: true })
    assert.equal(mountTable().filter(mount => mount.target.startsWith(root)), [])
  })
  const expected = new Expectation()
  let count = 0, deeds = 0
  for (const deadline = performance.now() + ms; performance.now() < deadline; count++) {
    // Every second time, one of them ends itself between two changes.
    const dieBefore = count % 2 === 0 ? undefined : `${count % 7 === 0 ? 'o' : ''}${1 + Math.floor(Math.random() * 200)}`
    const started = Array.from({ length: workers }, (_, i) => start(root, driver, i, i === 0 ? dieBefore : undefined))
    for (const child of started) children.add(child)
    if (dieBefore === undefined) {
      await until(() => started.every(child => child.lines.length > 0), 10_000)
      await new Promise(resolve => setTimeout(resolve, Math.random() ** 2 * 400))
    } else await started[0]?.end
    for (const child of started) child.process.kill('SIGKILL')
    for (const child of started) { await child.end; children.delete(child) }
    for (const { lines } of started) {
      const error = lines.find(line => line.startsWith('error '))
      if (error !== undefined) throw new Error(`the child failed: ${lines.slice(lines.indexOf(error)).join('\n')}`)
      expected.hear(lines)
      deeds += lines.filter(line => line.startsWith('ok')).length
    }
    const storage = await openIn(t, driver)
    const problems = await inspect(storage, expected)
    assert.equal(problems, [], `round ${count}, after: ${started.map(child => child.lines.slice(-3).join(' | ')).join(' || ')}`)
    await storage.close()
  }
  console.log(`  ${driver}: ${count} kills of ${workers} at once, ${deeds} deeds acknowledged`)
  assert.ok(count >= 3 && deeds > 0)
}

for (const driver of driversHere) {
  test(`${driver}: killed at any moment, the store opens, keeps what it acknowledged and leaks nothing`, { timeoutMs: 90_000 }, t => rounds(t, driver, 1, 8_000))
  test(`${driver}: several processes at once, all killed`, { timeoutMs: 90_000 }, t => rounds(t, driver, 2, 6_000))
}

test('a damaged intent, or one that cannot be settled, does not keep the store from opening', async t => {
  const storage = await openIn(t, 'vfs')
  const dir = path.join(storage.root, 'layerstack', 'intents', 'vfs')
  fs.writeFileSync(path.join(dir, 'damaged'), 'nonsense\n')
  fs.writeFileSync(path.join(dir, 'outside'), 'path ../../etc\n')
  const again = await openIn(t, 'vfs')
  assert.is(again.layers.unsettled.length, 2)
  assert.ok(again.layers.unsettled.every(error => StorageError.is(error, 'CORRUPT')))
  assert.equal(fs.readdirSync(dir).sort(), ['damaged', 'outside'])
})
