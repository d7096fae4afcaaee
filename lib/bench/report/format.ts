// Numbers as people read them. Pure.

import type { Interval } from '../statistics.ts'
import type { Unit, WorkloadInfo } from '../types.ts'

/** Three digits: `1.23 ms`, `45.6 µs`, `7.89 s`, `12.3 MB`. */
export function formatValue(value: number, unit: Unit): string {
  if (!Number.isFinite(value)) return '–'
  if (unit === 'bytes') return formatBytes(value, 1000, ['B', 'kB', 'MB', 'GB', 'TB'])
  const micros = unit === 'ms' ? value * 1000 : value
  if (micros < 999.5) return `${digits(micros)} µs`
  return micros < 999_500 ? `${digits(micros / 1000)} ms` : `${digits(micros / 1e6)} s`
}

export function formatParameter(value: number, parameter: WorkloadInfo['parameter']): string {
  if (parameter === undefined) return ''
  return parameter.unit === 'bytes' ? formatBytes(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']) : value.toLocaleString('en-US')
}

/** `1 GiB`, `16 layers`, `1 layer`. */
export function describeParameter(value: number, parameter: WorkloadInfo['parameter']): string {
  const text = formatParameter(value, parameter)
  if (parameter?.unit !== 'count') return text
  return `${text} ${value === 1 ? parameter.title.replace(/s$/, '') : parameter.title}`
}

function formatBytes(value: number, step: number, units: readonly string[]): string {
  let size = value, unit = 0
  while ((step === 1000 ? Number(size.toPrecision(3)) : size) >= step && unit < units.length - 1) {
    size /= step
    unit++
  }
  return `${digits(size)} ${units[unit]}`
}

function digits(value: number): string {
  if (value === 0) return '0'
  // toPrecision falls back to exponents from 1e3 on.
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)))
}

/** Half the interval as a part of the median: `±4 %`; nothing for a single round, which has none. */
export function formatSpread({ median, low, high, count }: Interval): string {
  return median === 0 || count < 2 ? '' : `±${Math.round((high - low) / 2 / median * 100)} %`
}

/** `1.00`, `0.87`, `12.3`. */
export function formatRatio(ratio: number): string {
  return ratio >= 100 ? Math.round(ratio).toLocaleString('en-US') : ratio >= 10 ? ratio.toFixed(1) : ratio.toFixed(2)
}

/** For a sentence: `by 12 %`. */
export function formatChange(ratio: number): string {
  return `${Math.round(Math.abs(ratio - 1) * 100)} %`
}

export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  return whole < 60 ? `${whole}s` : `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, '0')}s`
}
