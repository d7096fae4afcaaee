// The benchmark's words and its result, which is also the JSON that is kept: what was measured where, with every sample. Pure types.
//
// A workload visits one driver on one backing with one parameter and yields samples of its measures. All visits together are a round; a round has file
// systems and stores of its own, so that what differs between two runs by chance differs between two rounds as well.

export type Unit = 'ms' | 'µs' | 'bytes'

/** What a workload times, or counts. */
export interface Measure {
  readonly name: string
  /** A few words, e.g. `first write`. */
  readonly title: string
  readonly unit: Unit
}

export interface WorkloadInfo {
  /** e.g. `copy-up`. */
  readonly name: string
  readonly title: string
  /** What happens, and what is timed, in a sentence or two. */
  readonly what: string
  readonly group: 'start' | 'write' | 'read' | 'layers' | 'space'
  readonly measures: readonly Measure[]
  readonly parameter?: { readonly title: string; readonly unit: 'bytes' | 'count' }
}

export interface MachineInfo {
  readonly cpu: string
  readonly cpus: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly node: string
  /** Programs that take part, e.g. `mkfs.xfs` → `6.1.0`. */
  readonly programs: Readonly<Record<string, string>>
}

export interface BackingInfo {
  /** As it was asked for: `ext4`, or a directory. */
  readonly name: string
  /** In Docker's words, e.g. `extfs`. */
  readonly fileSystem: string
  /** How it was made. */
  readonly how: string
}

/** What could not be measured, and why. */
export interface Absence {
  readonly backing: string
  readonly driver: string
  readonly workload?: string
  readonly parameter?: number
  readonly reason: string
}

export interface Cell {
  readonly workload: string
  readonly measure: string
  readonly parameter?: number
  readonly backing: string
  /** A driver's name, or `plain`: an ordinary directory on the same file system, the floor. */
  readonly driver: string
  /** The samples of each round, in the measure's unit, four digits. */
  readonly rounds: readonly (readonly number[])[]
}

export interface BenchResult {
  readonly format: 'layerstack-bench'
  readonly version: 1
  /** The package's version. */
  readonly layerstack: string
  /** RFC 3339. */
  readonly startedAt: string
  readonly seconds: number
  /** Whole rounds that were run after the one to warm up. */
  readonly roundCount: number
  /** False: it was stopped before its rounds, or its time, were over. */
  readonly complete: boolean
  readonly settings: { readonly quick: boolean; readonly durability: string; readonly minutes?: number; readonly rounds?: number; readonly place: string }
  readonly machine: MachineInfo
  readonly drivers: readonly string[]
  readonly backings: readonly BackingInfo[]
  readonly workloads: readonly WorkloadInfo[]
  readonly absent: readonly Absence[]
  readonly cells: readonly Cell[]
}

/** The pseudo-driver of an ordinary directory. */
export const plain = 'plain'

export function cellKey(cell: Pick<Cell, 'workload' | 'measure' | 'parameter' | 'backing' | 'driver'>): string {
  return [cell.backing, cell.driver, cell.workload, cell.parameter ?? '', cell.measure].join('|')
}
