// TmpfsOptions of Docker's API as mount(2)'s data string, and the options of `--tmpfs`. Pure.

import { StorageError } from '../errors.ts'
import type { TmpfsOptions } from './types.ts'

const suffixes = [['g', 30n], ['m', 20n], ['k', 10n]] as const

/**
 * The data string: `ro,mode=1777,size=64k,noexec`. Source: moby volume/mounts/linux_parser.go, ConvertTmpfsOptions.
 * @throws INVALID_ARGUMENT `invalid option: X`, `invalid option array length`
 */
export function tmpfsData(options: TmpfsOptions | null | undefined, readOnly: boolean): string {
  const data: string[] = readOnly ? ['ro'] : []
  if (options?.Mode) data.push(`mode=${options.Mode.toString(8)}`)
  if (options?.SizeBytes) data.push(`size=${sizeText(options.SizeBytes)}`)
  for (const option of options?.Options ?? []) {
    const [name, value] = option
    if (name === undefined || option.length > 2) throw new StorageError('INVALID_ARGUMENT', 'invalid option array length')
    if (name !== 'exec' && name !== 'noexec') throw new StorageError('INVALID_ARGUMENT', `invalid option: ${name}`)
    data.push(value === undefined ? name : `${name}=${value}`)
  }
  return data.join(',')
}

/** With the largest suffix that divides evenly. */
function sizeText(sizeBytes: number): string {
  const size = BigInt(sizeBytes)
  const [suffix, shift] = suffixes.find(([, bits]) => size % (1n << bits) === 0n) ?? ['', 0n]
  // Division, not a shift: Go divides, and so rounds negatives towards zero.
  return `${size / (1n << shift)}${suffix}`
}

const groups: readonly (readonly string[])[] = [
  ['ro', 'rw'], ['exec', 'noexec'], ['suid', 'nosuid'], ['dev', 'nodev'], ['sync', 'async'], ['dirsync'], ['remount'], ['mand', 'nomand'],
  ['atime', 'noatime'], ['diratime', 'nodiratime'], ['bind', 'rbind'], ['unbindable'], ['runbindable'], ['private'], ['rprivate'], ['shared'], ['rshared'],
  ['slave'], ['rslave'], ['relatime', 'norelatime'], ['strictatime', 'nostrictatime'],
]
const valued = ['mode', 'uid', 'gid', 'size', 'nr_inodes', 'nr_blocks', 'mpol']

/**
 * Options of `--tmpfs TARGET:options` over the defaults (noexec, nosuid, nodev): of two that contradict each other the later one counts.
 * Source: moby pkg/mount/flags.go, MergeTmpfsOptions.
 * @throws INVALID_ARGUMENT `invalid tmpfs option "x"`, `invalid tmpfs option: "x"`
 */
export function mergeTmpfsOptions(text: string, defaults: readonly string[] = ['noexec', 'nosuid', 'nodev']): string[] {
  const kept: string[] = []
  const taken = new Set<string>()
  const all = [...defaults, ...text === '' ? [] : text.split(',')]
  for (const option of all.reverse()) {
    if (option === 'defaults') continue
    const group = groups.find(names => names.includes(option))
    const [key, value] = option.split('=', 2) as [string, string | undefined]
    if (group === undefined) {
      if (value === undefined) throw new StorageError('INVALID_ARGUMENT', `Invalid tmpfs option ${JSON.stringify(option)}`)
      if (!valued.includes(key)) throw new StorageError('INVALID_ARGUMENT', `Invalid tmpfs option ${JSON.stringify(key)}`)
    }
    const slot = group?.[0] ?? key
    if (taken.has(slot)) continue
    taken.add(slot)
    kept.push(option)
  }
  return kept.reverse()
}
