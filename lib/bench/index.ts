// Driver benchmarks, for everybody: measure any drivers on any file systems, compare with an older result, read it as a page or as text. The names say
// `bench` here, since they stand among the library's others.

export { compareBench } from './compare.ts'
export type { ComparedCell as ComparedBenchCell, CompareOptions as CompareBenchOptions, Comparison as BenchComparison, Verdict as BenchVerdict } from './compare.ts'
export { recommend as recommendDrivers } from './recommend.ts'
export type { Advice as DriverAdvice, Candidate as DriverCandidate, Score as DriverScore, UseScores as DriverUseScores } from './recommend.ts'
export { renderHtml as renderBenchHtml } from './report/page.ts'
export type { ReportOptions as BenchReportOptions } from './report/page.ts'
export { renderText as renderBenchText } from './report/terminal.ts'
export type { TextOptions as BenchTextOptions } from './report/terminal.ts'
export { benchWorkloads, runBench } from './run.ts'
export type { BenchOptions, BenchProgress } from './run.ts'
export type {
  Absence as BenchAbsence, BackingInfo as BenchBacking, BenchResult, Cell as BenchCell, MachineInfo as BenchMachine, Measure as BenchMeasure, Unit as BenchUnit, WorkloadInfo as BenchWorkload,
} from './types.ts'
