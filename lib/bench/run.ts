// The benchmark: rounds over all workloads, drivers and backings, each round on file systems and stores of its own, everything recorded. Prints
// nothing, writes no file; whatever it makes is gone when it ends, however it ends.

import fs from 'node:fs'
import path from 'node:path'
import type { DriverModule } from '../driver.ts'
import { asStorageError, StorageError } from '../errors.ts'
import { scratchBase } from '../fs/scratch.ts'
import type { Durability } from '../layers/index.ts'
import { Place, backingMissing, describeBacking, isDirectory } from './place.ts'
import { describeMachine } from './machine.ts'
import { Schedule } from './schedule.ts'
import { Stage } from './stage.ts'
import { cellKey, plain } from './types.ts'
import type { Absence, BackingInfo, BenchResult, Cell, WorkloadInfo } from './types.ts'
import { NotHere, Visit } from './visit.ts'
import { gib, mib } from './workload.ts'
import type { Workload } from './workload.ts'
import { containerWorkloads } from './workloads/containers.ts'
import { layerWorkloads } from './workloads/layers.ts'
import { spaceWorkloads } from './workloads/space.ts'

/** All of them, in the order in which a round makes them. */
const workloads: readonly Workload[] = [...spaceWorkloads, ...containerWorkloads, ...layerWorkloads]
const reference = 'reference'
/** What a file system that is made must be able to grow to, for the workloads that say nothing. */
const leastBytes = 512 * mib

/** What can be asked for by name. */
export const benchWorkloads: readonly WorkloadInfo[] = workloads.map(infoOf)

export interface BenchProgress {
  /** 0 while warming up. */
  readonly round: number
  readonly rounds: number
  /** 0…1 of the whole. */
  readonly done: number
  /** Absent until every visit has been made once. */
  readonly remainingMs?: number
  readonly backing: string
  readonly driver: string
  readonly workload: string
  readonly parameter?: number
}

export interface BenchOptions {
  /** Drivers to compare; those that do not work on a backing are reported as absent there. */
  readonly drivers: readonly DriverModule[]
  /** `ext4`, `xfs`, `btrfs`, `tmpfs` (made for each round; needs root), or directories. Default: the folder `dir` itself. */
  readonly backings?: readonly string[]
  /** Names of `benchWorkloads`. Default: all. */
  readonly workloads?: readonly string[]
  /** Smaller parameters: nothing beyond 64 MiB and 64 layers. Default false. */
  readonly quick?: boolean
  /** Time for all, in minutes. What is dear is then measured in fewer rounds, but in three at least. Default: no limit when `rounds` is given, else 8; quick: 1.5. */
  readonly minutes?: number
  /** Most rounds, after one to warm up. Default 12; quick: 6. */
  readonly rounds?: number
  /** Of the stores, as in `open`. Default `full`. */
  readonly durability?: Durability
  /** Where images and stores are made. Default: TMPDIR, else /dev/shm, else the system's folder. */
  readonly dir?: string
  /** Version of the package that is measured, for the record. */
  readonly version?: string
  /** Ends the run; what was measured until then is the result, with `complete: false`. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: BenchProgress) => void
  /** After each round, with what is known so far. */
  readonly onRound?: (result: BenchResult) => Promise<void> | void
}

interface PlannedVisit {
  readonly workload: Workload
  readonly parameter: number
  readonly backing: string
  readonly driver: string
  readonly key: string
}

/**
 * Measure. @throws INVALID_ARGUMENT (an unknown workload or backing), NOT_SUPPORTED (nothing works anywhere), PERMISSION_DENIED and NO_SPACE for `dir`; what one
 * workload throws makes it absent, with the reason, and the others go on
 */
export async function runBench(options: BenchOptions): Promise<BenchResult> {
  return await new Run(options).run()
}

class Run {
  readonly #options: BenchOptions
  readonly #quick: boolean
  readonly #rounds: number
  readonly #minutes: number | undefined
  readonly #place: Place
  readonly #base: string
  readonly #schedule: Schedule
  readonly #chosen: readonly Workload[]
  readonly #backings: string[] = []
  readonly #backingInfo = new Map<string, BackingInfo>()
  readonly #sizes = new Map<string, number>()
  readonly #absent = new Map<string, Absence>()
  readonly #cells = new Map<string, { cell: Omit<Cell, 'rounds'>; rounds: number[][] }>()
  readonly #cache = new Map<string, unknown>()
  readonly #programs = new Set<string>()
  readonly #startedAt = new Date()
  readonly #beganMs = performance.now()
  #roundCount = 0
  #complete = false

  constructor(options: BenchOptions) {
    this.#options = options
    this.#quick = options.quick === true
    this.#minutes = options.minutes ?? (options.rounds === undefined ? this.#quick ? 1.5 : 8 : undefined)
    this.#rounds = options.rounds ?? (this.#quick ? 6 : 12)
    if (!(this.#rounds >= 1) || !(this.#minutes === undefined || this.#minutes > 0)) throw new TypeError('rounds and minutes are positive')
    this.#schedule = new Schedule(this.#rounds, this.#minutes)
    this.#base = baseOf(options.dir ?? scratchBase())
    const names = options.workloads ?? workloads.map(({ name }) => name)
    for (const name of names) {
      if (!workloads.some(workload => workload.name === name)) throw new StorageError('INVALID_ARGUMENT', `there is no workload ${JSON.stringify(name)}`, { op: 'bench', hint: workloads.map(workload => workload.name).join(', ') })
    }
    // The machine itself is always measured, for comparisons.
    this.#chosen = workloads.filter(({ name }) => names.includes(name) || name === reference)
    for (const name of new Set(options.backings ?? [this.#base])) {
      const reason = backingMissing(name)
      if (reason === false) this.#backings.push(name)
      else for (const driver of options.drivers) this.#missing({ backing: name, driver: driver.name, reason })
    }
    this.#place = new Place(this.#base)
  }

  async run(): Promise<BenchResult> {
    try {
      await this.#probe()
      for (let round = 0; round <= this.#rounds; round++) {
        if (!await this.#round(round)) return this.#result()
        if (round > 0) {
          this.#roundCount = round
          await this.#options.onRound?.(this.#result())
        }
        if (this.#timeIsUp(round)) break
      }
      this.#complete = true
      return this.#result()
    } finally {
      this.#place.close()
    }
  }

  #timeIsUp(round: number): boolean {
    return round > 0 && this.#minutes !== undefined && this.#spentMs() > this.#minutes * 60_000
  }

  #spentMs(): number { return performance.now() - this.#beganMs }

  #missing(absence: Absence): void {
    const { backing, driver, workload, parameter } = absence
    this.#absent.set(cellKey({ backing, driver, workload: workload ?? '', ...(parameter === undefined ? {} : { parameter }), measure: '' }), absence)
  }

  #isMissing(backing: string, driver: string): boolean {
    return this.#absent.has(cellKey({ backing, driver, workload: '', measure: '' }))
  }

  /** Which drivers work where; and how big the file systems may be. */
  async #probe(): Promise<void> {
    for (const name of this.#backings) {
      const made = this.#backings.filter(other => !isDirectory(other)).length
      const { bavail, bsize } = fs.statfsSync(isDirectory(name) ? name : this.#base)
      const share = bavail * bsize / Math.max(1, made)
      if (!isDirectory(name) && share < leastBytes) {
        throw new StorageError('NO_SPACE', `too little space in ${this.#base}: ${made} file systems need ${made * leastBytes / mib} MiB, and ${Math.floor(bavail * bsize / mib)} MiB are free`,
          { op: 'bench', path: this.#base, hint: 'name another place with --dir' })
      }
      // The files are sparse, and drivers take turns: what is written at a time is bounded by `needsBytes`.
      this.#sizes.set(name, Math.max(gib, Math.min(8 * gib, Math.floor(share * 0.8 / gib) * gib)))
      const dir = this.#make(name)
      try {
        this.#backingInfo.set(name, describeBacking(name, dir, this.#base))
        if (!isDirectory(name) && name !== 'tmpfs') this.#programs.add(`mkfs.${name}`)
        for (const module of this.#options.drivers) {
          const probed = await module.probe(path.join(dir, `probe-${module.name}`))
          if (!probed.ok) this.#missing({ backing: name, driver: module.name, reason: probed.reason })
          else if (module.name === 'fuse-overlayfs') this.#programs.add(module.name)
        }
      } finally {
        this.#place.unmake(dir)
      }
    }
    if (!this.#backings.some(backing => this.#options.drivers.some(driver => !this.#isMissing(backing, driver.name)))) {
      const [first] = this.#absent.values()
      throw new StorageError('NOT_SUPPORTED', `nothing can be measured: ${first === undefined ? 'no driver and no backing' : `${first.driver} on ${first.backing}: ${first.reason}`}`, { op: 'bench' })
    }
  }

  #make(name: string): string {
    return this.#place.make({ name, sizeBytes: this.#sizes.get(name) ?? gib })
  }

  /** False: it was stopped. Round 0 warms up, with small parameters, and is not recorded. */
  async #round(round: number): Promise<boolean> {
    const dirs = new Map<string, string>()
    const stages = new Map<string, Stage>()
    try {
      for (const backing of this.#backings) dirs.set(backing, this.#make(backing))
      for (const backing of this.#backings) {
        for (const module of this.#options.drivers) {
          if (this.#isMissing(backing, module.name)) continue
          stages.set(`${backing} ${module.name}`, await Stage.open({ dir: dirs.get(backing) ?? '', module, modules: this.#options.drivers, durability: this.#options.durability ?? 'full' }))
        }
      }
      const due = this.#schedule.plan(Math.max(1, round), this.#spentMs())
      for (const visit of this.#visits(round, stages)) {
        if (round > 0 && !due(visit.key)) continue
        if (this.#options.signal?.aborted === true) return false
        if (this.#timeIsUp(round)) {
          if (round > 1) break
          const { workload, parameter, backing, driver } = visit
          this.#missing({ backing, driver: workload.name === reference ? plain : driver, workload: workload.name, ...(workload.parameter === undefined ? {} : { parameter }), reason: 'there was no time left for it' })
          continue
        }
        this.#tell(round, visit)
        if (!await this.#visit(round, visit, stages)) return false
      }
      return true
    } catch (error) {
      // Ctrl-C reaches mkfs and mount as well, since they are in the same process group.
      if (this.#options.signal?.aborted === true) return false
      throw error
    } finally {
      for (const stage of stages.values()) await stage.close().catch(() => undefined)
      for (const dir of dirs.values()) this.#place.unmake(dir)
    }
  }

  /** All visits of a round: the drivers and backings that are compared follow each other, beginning with another one each time. */
  *#visits(round: number, stages: ReadonlyMap<string, Stage>): Generator<PlannedVisit> {
    const pairs = [...stages.keys()].map(key => { const at = key.lastIndexOf(' '); return [key.slice(0, at), key.slice(at + 1)] as const })
    const turn = round % Math.max(1, pairs.length)
    const turned = [...pairs.slice(turn), ...pairs.slice(0, turn)]
    for (const workload of this.#chosen) {
      const parameters = workload.parameters(this.#quick || round === 0)
      // Round 0 needs no more than the smallest, to compile and to cache; the rest is learned from round 1.
      for (const parameter of round === 0 ? parameters.slice(0, 1) : parameters) {
        const seen = new Set<string>()
        for (const [backing, driver] of turned) {
          // The machine itself is measured once on each backing; and code that is warm on one is so on all.
          const once = workload.name === reference ? backing : round === 0 ? driver : undefined
          if (once !== undefined && seen.has(once)) continue
          if (once !== undefined) seen.add(once)
          const name = workload.name === reference ? plain : driver
          const key = cellKey({ workload: workload.name, measure: '', backing, driver: name, ...(workload.parameter === undefined ? {} : { parameter }) })
          if (!this.#absent.has(key)) yield { workload, parameter, backing, driver, key }
        }
      }
    }
  }

  /** False: it was stopped meanwhile, and nothing of it is kept. */
  async #visit(round: number, { workload, parameter, backing, driver, key }: PlannedVisit, stages: ReadonlyMap<string, Stage>): Promise<boolean> {
    const stage = stages.get(`${backing} ${driver}`) as Stage
    const withParameter = workload.parameter === undefined ? {} : { parameter }
    const began = performance.now()
    const visit = new Visit({ stage, parameter, quick: this.#quick || round === 0, measures: workload.measures, cache: this.#cache, signal: this.#options.signal })
    try {
      const needs = workload.needsBytes?.(parameter) ?? 0
      // An image that cannot grow fails writes that its file system has promised.
      const free = Math.min(...[stage.dir, ...isDirectory(backing) ? [] : [this.#base]].map(dir => { const { bavail, bsize } = fs.statfsSync(dir); return bavail * bsize }))
      if (needs > free) throw new NotHere(`needs ${(needs / gib).toFixed(1)} GiB, and there are ${(free / gib).toFixed(1)}`)
      try {
        await workload.run(visit)
      } finally {
        await stage.clear()
      }
    } catch (error) {
      if (this.#options.signal?.aborted === true) return false
      this.#missing({ backing, driver: workload.name === reference ? plain : driver, workload: workload.name, ...withParameter, reason: (error as Error).message })
      this.#schedule.dropped(key)
      return true
    }
    if (round > 0) this.#schedule.took(key, performance.now() - began, false)
    if (round > 0) {
      for (const [measure, samples] of visit.samples) {
        const cell = { workload: workload.name, measure, ...withParameter, backing, driver: workload.name === reference ? plain : driver }
        const known = this.#cells.get(cellKey(cell)) ?? { cell, rounds: [] }
        known.rounds.push(samples.map(value => Number(value.toPrecision(4))))
        this.#cells.set(cellKey(cell), known)
      }
    }
    return true
  }

  #tell(round: number, { workload, parameter, backing, driver }: PlannedVisit): void {
    const spentMs = this.#spentMs()
    // What is left of this round counts half, as it is not known how far it has come.
    const remainingMs = round < 2 ? undefined : this.#schedule.remainingMs(round, spentMs)
    const done = remainingMs !== undefined ? spentMs / (spentMs + remainingMs) : Math.min(0.99, spentMs / ((this.#minutes ?? this.#rounds) * 60_000))
    this.#options.onProgress?.({
      round, rounds: this.#rounds, done, backing, driver, workload: workload.name, ...(workload.parameter === undefined ? {} : { parameter }),
      ...(remainingMs === undefined ? {} : { remainingMs }),
    })
  }

  #result(): BenchResult {
    const { quick, durability, version, drivers } = { ...this.#options, quick: this.#quick, durability: this.#options.durability ?? 'full' }
    return {
      format: 'layerstack-bench', version: 1, layerstack: version ?? '', startedAt: this.#startedAt.toISOString(), seconds: Math.round(this.#spentMs() / 1000),
      roundCount: this.#roundCount, complete: this.#complete,
      settings: {
        quick, durability, place: this.#base, ...(this.#minutes === undefined ? {} : { minutes: this.#minutes }),
        ...(this.#options.rounds === undefined ? {} : { rounds: this.#rounds }),
      },
      machine: describeMachine(this.#programs), drivers: drivers.map(({ name }) => name), backings: [...this.#backingInfo.values()],
      workloads: this.#chosen.map(infoOf), absent: [...this.#absent.values()],
      cells: [...this.#cells.values()].map(({ cell, rounds }) => ({ ...cell, rounds })),
    }
  }
}

function baseOf(dir: string): string {
  try {
    return fs.realpathSync(dir)
  } catch (error) {
    throw asStorageError(error, `making a folder to measure in below ${dir}`, { op: 'bench', path: dir })
  }
}

function infoOf({ name, title, what, group, measures, parameter }: Workload): WorkloadInfo {
  return { name, title, what, group, measures, ...(parameter === undefined ? {} : { parameter }) }
}
