// What the conformance groups share: a fresh driver per test in an empty root, layers shown by real mounts that always go away again, and
// the gates that turn a missing ability into a counted skip. Knows no driver and no test runner.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import path from 'node:path'
import type { Driver, LayerContent, ProbeResult, Supports, WhiteoutFormat } from '../driver.ts'
import { applyLayer, listChanges, writeLayer } from '../diff/index.ts'
import { removeTreeSync } from '../fs/remove-tree.ts'
import { scratchBase } from '../fs/scratch.ts'
import { parseLayerId } from '../ids.ts'
import type { LayerId } from '../ids.ts'
import { nativeReason } from '../sys/native.ts'
import { privileges } from '../sys/privileges.ts'
import { showLayer } from './show.ts'

/** The caller's test runner: uvu, node:test, mocha, … behind three arguments. A `skip` is a reason to be shown and counted. */
export type Runner = (name: string, options: { readonly skip?: string; readonly timeoutMs?: number }, run: () => Promise<void>) => void

export interface ConformanceOptions {
  readonly test: Runner
  /** Begins every test's name, e.g. `overlay2 {}`. */
  readonly label: string
  /** The answer of the driver's `probe()`. Not ok: every test is skipped with its reason, and that is the only way to skip all. */
  readonly probe: ProbeResult
  /** Open the driver with its home at `home`, which does not exist yet, in an empty folder of its own. */
  readonly open: (home: string) => Promise<Driver>
  /** Where the roots are made. Default: TMPDIR, else /dev/shm, else the system's. */
  readonly tempBase?: string
  /**
   * Show stacked layers without mounting them: written out into a plain directory, and what is changed there written back, all by the library. For a driver
   * whose file system this kernel has not; what only mounts can show is skipped. Default false.
   */
  readonly withoutMounts?: boolean
  /** Tests that this driver is known to fail, by their name without the label, each with the reason. Shown and counted. */
  readonly skip?: Readonly<Record<string, string>>
}

/** What a single test works with. */
export interface Case {
  readonly driver: Driver
  /** The driver's home. */
  readonly home: string
  /** A folder beside it, for the test's own things. */
  readonly work: string
  /** Open the same home once more, as a second process would. */
  reopen(): Promise<Driver>
  /** Open another home; the caller closes it. */
  openAt(home: string): Promise<Driver>
  /** Show a layer, give its path to `use`, and take it away again whatever happens. */
  show: Show
  /** `show` for another driver. */
  showWith(driver: Driver): Show
}

export type Show = <T>(id: LayerId, access: 'rw' | 'ro', use: (dir: string) => T | Promise<T>) => Promise<T>

export interface Gate {
  /** Needs owners and devices as they are: `supports.ownership`. */
  readonly ownership?: boolean
  /** Needs native calls (koffi). */
  readonly native?: boolean
  /** Needs mounts that this process may perform. */
  readonly mounts?: boolean
  readonly quota?: boolean
  readonly independentLayers?: boolean
  /** Needs mounts that carry this many layers. */
  readonly depth?: number
  readonly timeoutMs?: number
}

export interface Suite {
  readonly supports: Supports
  /** Register one test. */
  test(name: string, gate: Gate, run: (c: Case) => Promise<void>): void
}

export function makeSuite(options: ConformanceOptions): Suite {
  const { probe, label } = options
  const supports: Supports = probe.ok ? probe.supports
    : { nativeMounts: false, independentLayers: false, maxDepth: 0, quota: false, ownership: false }
  const skipAll = probe.ok ? undefined : `${label}: ${probe.reason}`
  return {
    supports,
    test(name, gate, run) {
      const skip = skipAll ?? missing(gate, supports, options.withoutMounts === true) ?? options.skip?.[name]
      options.test(`${label}: ${name}`, { ...(skip === undefined ? {} : { skip }), timeoutMs: gate.timeoutMs ?? 60_000 }, () => runCase(options, run))
    },
  }
}

function missing(gate: Gate, supports: Supports, withoutMounts: boolean): string | undefined {
  if (gate.ownership === true && !supports.ownership) return 'the driver does not keep owners and devices here'
  if (gate.native === true && nativeReason !== undefined) return `native calls are absent: ${nativeReason}`
  if (gate.mounts === true && withoutMounts) return 'the layers are shown without mounts'
  if (gate.mounts === true && !privileges().mount) return 'this process may not mount'
  if (gate.quota === true && !supports.quota) return 'the driver has no quota here'
  if (gate.independentLayers === true && !supports.independentLayers) return 'the driver\'s layers depend on their parents'
  if (gate.depth !== undefined && gate.depth > supports.maxDepth) return `the driver carries ${supports.maxDepth} layers`
  return undefined
}

async function runCase(options: ConformanceOptions, run: (c: Case) => Promise<void>): Promise<void> {
  const root = fs.mkdtempSync(path.join(options.tempBase ?? scratchBase(), 'layerstack-conformance-'))
  const home = path.join(root, 'home'), work = path.join(root, 'work')
  fs.mkdirSync(work)
  const opened: Driver[] = []
  const open = async (): Promise<Driver> => {
    const driver = await options.open(home)
    opened.push(driver)
    return driver
  }
  try {
    const driver = await open()
    const showWith = (which: Driver): Show => (id, access, use) => showLayer({ driver: which, root, without: options.withoutMounts === true }, id, access, use)
    await run({ driver, home, work, reopen: open, openAt: options.open, show: showWith(driver), showWith })
  } catch (error) {
    // The runner shows the message only; the tree is what one wants to see.
    if (process.env['LAYERSTACK_CONFORMANCE_KEEP']) console.error(`kept: ${root}`)
    throw error
  } finally {
    for (const driver of opened) await driver.close()
    if (!process.env['LAYERSTACK_CONFORMANCE_KEEP']) removeTreeSync(root)
  }
}

let next = 0
/** A new layer id, readable in a listing of the home. */
export function newId(name = 'layer'): LayerId {
  return parseLayerId(`${name}-${++next}`)
}

/** Create a layer and change it through a writable mount. */
export async function makeLayer(c: Case, parent: LayerId | undefined, change: (dir: string) => void | Promise<void>, name = 'layer'): Promise<LayerId> {
  const id = newId(name)
  await c.driver.create(id, parent === undefined ? {} : { parent })
  await c.show(id, 'rw', change)
  return id
}

/** Create a layer from a tar, as an image layer is made. */
export async function applyTar(c: Case, parent: LayerId | undefined, tar: AsyncIterable<Uint8Array>): Promise<LayerId> {
  const id = newId('applied')
  await c.driver.create(id, parent === undefined ? {} : { parent })
  const content = await c.driver.content(id)
  if (content.kind === 'tree') await applyLayer(tar, content.path, { whiteouts: 'remove' })
  else await applyLayer(tar, content.path, { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix })
  return id
}

/** The trees to compare for a layer's own changes, the parent's tree given where the driver does not know it. */
async function sides(c: Case, id: LayerId, parent: LayerId | undefined): Promise<{ content: LayerContent; lower: string | readonly string[] | undefined }> {
  const content = await c.driver.content(id)
  if (content.kind === 'branch') return { content, lower: content.lowers.length === 0 ? undefined : content.lowers }
  const below = parent === undefined ? undefined : await c.driver.content(parent)
  return { content, lower: below?.path }
}

function formatOf(content: LayerContent): { whiteouts: WhiteoutFormat | 'none'; xattrPrefix?: 'trusted.overlay.' | 'user.overlay.' } {
  return content.kind === 'tree' ? { whiteouts: 'none' } : { whiteouts: content.whiteouts, xattrPrefix: content.xattrPrefix }
}

/** The layer's changes against its parent as a tar. */
export async function diffOf(c: Case, id: LayerId, parent: LayerId | undefined): Promise<AsyncIterable<Buffer>> {
  const { content, lower } = await sides(c, id, parent)
  return writeLayer(content.path, lower, { ...formatOf(content), only: lower === undefined ? undefined : await c.driver.changedPaths?.(id) })
}

/** `A /path` lines of a layer's changes against its parent, sorted. A driver that names where they are must not leave one out. */
export async function changesIn(c: Case, id: LayerId, parent: LayerId | undefined): Promise<string[]> {
  const { content, lower } = await sides(c, id, parent)
  const list = async (only: readonly Buffer[] | undefined): Promise<string[]> => {
    const lines: string[] = []
    for await (const change of listChanges(content.path, lower, { ...formatOf(content), only })) lines.push(`${change.kind} ${change.path.toString('latin1')}`)
    return lines.sort()
  }
  const all = await list(undefined)
  const named = lower === undefined ? undefined : await c.driver.changedPaths?.(id)
  if (named === undefined) return all
  // More than the whole comparison finds it may: a file rewritten within one tick of the clock.
  const found = await list(named)
  assert.deepEqual(all.filter(line => !found.includes(line)), [], 'changedPaths() left out something that changed')
  return found
}

export async function listed(driver: Driver): Promise<string[]> {
  const ids: string[] = []
  for await (const id of driver.list()) ids.push(id)
  return ids.sort()
}
