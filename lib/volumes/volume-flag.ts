// The `-v` flag: the engine's grammar, the command line's own splitter, and `--volumes-from`. Sources: moby volume/mounts/linux_parser.go
// (ParseMountRaw, ParseVolumesFrom), docker/cli internal/volumespec. Pure.

import path from 'node:path'
import { StorageError } from '../errors.ts'
import { cut } from './go-text.ts'
import { mountPointOf, propagations } from './mount-config.ts'
import type { MountPoint, MountSpec } from './types.ts'

const classes: readonly (readonly string[])[] = [['rw', 'ro'], ['z', 'Z'], propagations, ['nocopy'], ['consistent', 'cached', 'delegated']]

/** A comma list with at most one word of each class; case matters, and the empty mode is valid. */
function isValidMode(mode: string): boolean {
  if (mode === '') return true
  const words = mode.split(',')
  return words.every(word => classes.some(group => group.includes(word))) && classes.every(group => words.filter(word => group.includes(word)).length <= 1)
}

const invalidMode = (mode: string): StorageError => new StorageError('INVALID_ARGUMENT', `invalid mode: ${mode}`)

export interface VolumeFlagOptions {
  /** The driver of `--volume-driver`, which goes with every volume that is not a bind. */
  readonly volumeDriver?: string
}

/**
 * The engine's reading of `-v`: `TARGET`, `SOURCE:TARGET` or `SOURCE:TARGET:MODE`, as the mount point that dockerd makes of it.
 * @throws INVALID_ARGUMENT `invalid volume specification: '…'`, `invalid mode: …`
 */
export function parseVolumePoint(text: string, options: VolumeFlagOptions = {}): MountPoint {
  const refuse = (why?: string): StorageError => new StorageError('INVALID_ARGUMENT', `invalid volume specification: '${text}'${why === undefined ? '' : `: ${why}`}`)
  const parts = text.split(':')
  const [first = '', second = '', mode = ''] = parts
  if (first === '' || parts.length > 3) throw refuse()
  // A destination and a mode are no volume: /foo:rw.
  if (parts.length === 2 && isValidMode(second)) throw refuse()
  if (!isValidMode(mode)) throw invalidMode(mode)
  const source = parts.length === 1 ? '' : first, target = parts.length === 1 ? first : second
  const words = mode.split(',')
  const isBind = source.startsWith('/')
  const propagation = propagations.find(word => words.includes(word))
  const driver = isBind || !options.volumeDriver ? {} : { DriverConfig: { Name: options.volumeDriver } }
  const noCopy = words.includes('nocopy') ? { NoCopy: true } : {}
  const hasVolumeOptions = 'DriverConfig' in driver || 'NoCopy' in noCopy
  const mount: MountSpec = {
    Type: isBind ? 'bind' : 'volume', ...(source === '' ? {} : { Source: source }), ...(target === '' ? {} : { Target: target }),
    ...(words.includes('ro') ? { ReadOnly: true } : {}),
    ...(propagation === undefined ? {} : { BindOptions: { Propagation: propagation } }),
    ...(hasVolumeOptions ? { VolumeOptions: { ...noCopy, ...driver } } : {}),
  }
  try {
    return mountPointOf(mount, { exists: false, mode })
  } catch (error) {
    if (!StorageError.is(error, 'INVALID_ARGUMENT')) throw error
    throw refuse(error.message)
  }
}

/**
 * The engine's reading of `-v`, as a mount object of Docker's API. What an API mount has no word for (`z`, `Z`, `cached`) is checked and dropped;
 * `parseVolumePoint` keeps it.
 * @throws INVALID_ARGUMENT as parseVolumePoint
 */
export function parseVolumeFlag(text: string, options: VolumeFlagOptions = {}): MountSpec {
  return parseVolumePoint(text, options).Spec
}

/** The `-v` text that parses to this mount. @throws INVALID_ARGUMENT for a mount that `-v` cannot say */
export function formatVolumeFlag(mount: MountSpec, options: VolumeFlagOptions = {}): string {
  const { Source: source, Target: target = '', ReadOnly: readOnly } = mount
  const mode = [...readOnly === true ? ['ro'] : [], ...mount.BindOptions?.Propagation ? [mount.BindOptions.Propagation] : [], ...mount.VolumeOptions?.NoCopy === true ? ['nocopy'] : []]
  const text = source === undefined && mode.length === 0 ? target : `${source ?? ''}:${target}${mode.length === 0 ? '' : `:${mode.join(',')}`}`
  let back: MountSpec | undefined
  try {
    back = parseVolumeFlag(text, options)
  } catch (error) {
    if (!StorageError.is(error, 'INVALID_ARGUMENT')) throw error
  }
  if (back === undefined || !sameMount(back, mount)) {
    throw new StorageError('INVALID_ARGUMENT', `-v cannot say this mount: ${JSON.stringify(mount)}`, { hint: 'use --mount' })
  }
  return text
}

/** Equal but for the order of keys. */
function sameMount(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every(key => sameMount((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]))
}

/**
 * `--volumes-from CONTAINER[:MODE]`. No propagation and no copy mode: the volumes keep their own.
 * @throws INVALID_ARGUMENT `invalid mode: …`, `volumes-from specification cannot be an empty string`
 */
export function parseVolumesFrom(text: string): { readonly container: string; readonly mode: string } {
  if (text === '') throw new StorageError('INVALID_ARGUMENT', 'volumes-from specification cannot be an empty string')
  const [container, mode] = cut(text, ':')
  if (mode === '') return { container, mode: 'rw' }
  const words = mode.split(',')
  if (!isValidMode(mode) || words.includes('nocopy') || propagations.some(word => words.includes(word))) throw invalidMode(mode)
  return { container, mode }
}

/** What docker's command line makes of `-v` before the engine sees it: only to tell binds from volumes, and to make `./x` absolute. */
export interface CliVolume {
  readonly type: 'bind' | 'volume'
  readonly source?: string
  readonly target?: string
  readonly read_only?: boolean
  readonly bind?: { readonly propagation: string }
  readonly volume?: { readonly nocopy: boolean }
}

/** @throws INVALID_ARGUMENT `invalid spec: …: empty section between colons`, `…: too many colons`, `invalid empty volume spec` */
export function splitVolumeFlag(text: string): CliVolume {
  if (text === '') throw new StorageError('INVALID_ARGUMENT', 'invalid empty volume spec')
  if (Buffer.byteLength(text) <= 2) return { type: 'volume', target: text }
  const refuse = (why: string): StorageError => new StorageError('INVALID_ARGUMENT', `invalid spec: ${text}: ${why}`)
  const sections = sectionsOf(text)
  let source: string | undefined, target: string | undefined, options: string | undefined
  for (const [i, section] of sections.entries()) {
    const last = i === sections.length - 1
    if (section === '') throw refuse('empty section between colons')
    if (source === undefined && last) target = section
    else if (source === undefined) source = section
    else if (target === undefined) target = section
    else if (!last) throw refuse('too many colons')
    else options = section
  }
  const words = options?.split(',') ?? []
  const propagation = words.findLast(word => propagations.includes(word as typeof propagations[number]))
  const readOnly = words.findLast(word => word === 'ro' || word === 'rw') === 'ro'
  return {
    type: source !== undefined && isFilePath(source) ? 'bind' : 'volume',
    ...(source === undefined ? {} : { source }), ...(target === undefined ? {} : { target }), ...(readOnly ? { read_only: true } : {}),
    ...(propagation === undefined ? {} : { bind: { propagation } }), ...(words.includes('nocopy') ? { volume: { nocopy: true } } : {}),
  }
}

/** Split at colons, but not at that of a drive letter (`C:\x`), whatever the platform. */
function sectionsOf(text: string): readonly string[] {
  const sections: string[] = []
  let section = ''
  for (const char of text) {
    if (char === ':' && !isDriveLetter(section)) {
      sections.push(section)
      section = ''
    } else section += char
  }
  sections.push(section)
  return sections
}

function isDriveLetter(section: string): boolean {
  return /^\p{L}$/u.test(section)
}

function isFilePath(source: string): boolean {
  if (/^[./~]/.test(source) || source.startsWith('\\\\')) return true
  const [first = '', ...rest] = source
  return isDriveLetter(first) && rest[0] === ':'
}

/**
 * The text that docker's command line sends to the engine for `-v`: relative sources are made absolute against `cwd`.
 * @throws INVALID_ARGUMENT as splitVolumeFlag
 */
export function resolveVolumeFlag(text: string, cwd: string = process.cwd()): string {
  const { type, source } = splitVolumeFlag(text)
  if (source === undefined || type !== 'bind') return text
  const [host, rest, found] = cut(text, ':')
  return found && host.startsWith('.') ? `${path.resolve(cwd, host)}:${rest}` : text
}
