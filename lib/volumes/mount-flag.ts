// The `--mount` flag of docker's command line, in the dialects of version 28 and of 29. Sources: docker/cli opts/mount.go, opts/mount_utils.go
// (28.5, 29). Pure but for the working directory, which the caller may give.

import path from 'node:path'
import { StorageError } from '../errors.ts'
import { formatCsvRecord, parseCsvRecord } from './csv.ts'
import { cut, goQuote, goTrim, parseBool, parseOctal, ramInBytes } from './go-text.ts'
import type { MountSpec } from './types.ts'

export interface MountFlagOptions {
  /** Docker's command line 28 (the default) or 29, which is stricter: no blanks, no empty values, four spellings of a boolean. */
  readonly dialect?: 28 | 29
  /** What a relative source is relative to. Default: the process's. */
  readonly cwd?: string
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }
interface Draft {
  Type: string
  Source: string
  Target: string
  ReadOnly: boolean
  Consistency: string
  bind: { Propagation: string; NonRecursive: boolean; CreateMountpoint: boolean; ReadOnlyNonRecursive: boolean; ReadOnlyForceRecursive: boolean } | undefined
  volume: { NoCopy: boolean; Labels: Record<string, string>; driver: { Name: string; Options: Record<string, string> } | undefined; Subpath: string } | undefined
  image: { Subpath: string } | undefined
  tmpfs: { SizeBytes: number; Mode: number } | undefined
}

const invalid = (message: string): StorageError => new StorageError('INVALID_ARGUMENT', message)
const bareBooleans: Readonly<Record<28 | 29, readonly string[]>> = {
  28: ['readonly', 'ro', 'volume-nocopy', 'bind-nonrecursive'],
  29: ['readonly', 'ro', 'volume-nocopy', 'bind-nonrecursive', 'bind-create-src'],
}

/**
 * Read `--mount` as docker's command line does: one CSV record of `key=value`. What the engine objects to is left to `validateMount`.
 * @throws INVALID_ARGUMENT in the dialect's words
 */
export function parseMountFlag(text: string, options: MountFlagOptions = {}): MountSpec {
  const { dialect = 28, cwd = process.cwd() } = options
  const trimmed = dialect === 29 ? goTrim(text) : text
  if (dialect === 29 && trimmed === '') throw invalid('value is empty')
  const draft: Draft = { Type: 'volume', Source: '', Target: '', ReadOnly: false, Consistency: '', bind: undefined, volume: undefined, image: undefined, tmpfs: undefined }
  for (const field of parseCsvRecord(trimmed)) {
    const [rawKey, value, hasValue] = cut(field, '=')
    if (dialect === 29) mustBeTidy(rawKey, value, hasValue, field)
    const key = rawKey.toLowerCase()
    if (!hasValue && !bareBooleans[dialect].includes(key)) throw invalid(`invalid field '${field}' must be a key=value pair`)
    setField(draft, { key, value, hasValue, field, dialect, cwd })
  }
  if (draft.Type === '') throw invalid('type is required')
  if (dialect === 28 && draft.Target === '') throw invalid('target is required')
  checkFamilies(draft, dialect)
  checkRecursion(draft)
  return mountOf(draft, dialect)
}

function mustBeTidy(key: string, value: string, hasValue: boolean, field: string): void {
  const tidyKey = goTrim(key)
  if (tidyKey !== key) throw invalid(`invalid option '${tidyKey}' in '${field}': option should not have whitespace`)
  if (!hasValue) return
  const tidy = goTrim(value)
  if (tidy === '') throw invalid(`invalid value for '${key}': value is empty`)
  if (tidy !== value) throw invalid(`invalid value for '${key}' in '${field}': value should not have whitespace`)
}

interface Field {
  /** Lower case. */
  readonly key: string
  readonly value: string
  readonly hasValue: boolean
  /** As it stands in the record. */
  readonly field: string
  readonly dialect: 28 | 29
  readonly cwd: string
}

function setField(draft: Draft, field: Field): void {
  const { key, value, dialect } = field
  const badValue = (): StorageError => invalid(`invalid value for ${key}: ${value}`)
  const bind = (): NonNullable<Draft['bind']> =>
    draft.bind ??= { Propagation: '', NonRecursive: false, CreateMountpoint: false, ReadOnlyNonRecursive: false, ReadOnlyForceRecursive: false }
  const volume = (): NonNullable<Draft['volume']> => draft.volume ??= { NoCopy: false, Labels: {}, driver: undefined, Subpath: '' }
  const driver = (): NonNullable<NonNullable<Draft['volume']>['driver']> => volume().driver ??= { Name: '', Options: {} }
  switch (key) {
    case 'type': draft.Type = value.toLowerCase(); return
    case 'source': case 'src': draft.Source = value.startsWith('.') ? path.resolve(field.cwd, value) : value; return
    case 'target': case 'dst': case 'destination': draft.Target = value; return
    case 'readonly': case 'ro': draft.ReadOnly = booleanOf(field); return
    case 'consistency': draft.Consistency = value.toLowerCase(); return
    case 'bind-propagation': bind().Propagation = value.toLowerCase(); return
    case 'bind-nonrecursive':
      if (dialect === 29) throw invalid('bind-nonrecursive is deprecated, use bind-recursive=disabled instead')
      bind().NonRecursive = booleanOf(field)
      return
    case 'bind-recursive':
      if (value === 'disabled') bind().NonRecursive = true
      else if (value === 'writable') bind().ReadOnlyNonRecursive = true
      else if (value === 'readonly') bind().ReadOnlyForceRecursive = true
      else if (value !== 'enabled') throw invalid(`invalid value for ${key}: ${value} (must be "enabled", "disabled", "writable", or "readonly")`)
      return
    case 'volume-subpath': volume().Subpath = value; return
    case 'volume-nocopy': volume().NoCopy = booleanOf(field); return
    case 'volume-label': setPair(volume().Labels, value); return
    case 'volume-driver': driver().Name = value; return
    case 'volume-opt': setPair(driver().Options, value); return
    case 'image-subpath': (draft.image ??= { Subpath: '' }).Subpath = value; return
    case 'tmpfs-size': {
      let sizeBytes: number
      try {
        sizeBytes = ramInBytes(value)
      } catch (error) {
        if (!StorageError.is(error, 'INVALID_ARGUMENT')) throw error
        throw badValue()
      }
      (draft.tmpfs ??= { SizeBytes: 0, Mode: 0 }).SizeBytes = sizeBytes
      return
    }
    case 'tmpfs-mode': {
      const mode = parseOctal(value)
      if (mode === undefined) throw badValue()
      ;(draft.tmpfs ??= { SizeBytes: 0, Mode: 0 }).Mode = mode
      return
    }
    case 'bind-create-src':
      if (dialect === 29) { bind().CreateMountpoint = booleanOf(field); return }
  }
  throw invalid(dialect === 28 ? `unexpected key '${key}' in '${field.field}'` : `unknown option '${key}' in '${field.field}'`)
}

function booleanOf({ key, value, hasValue, dialect }: Field): boolean {
  if (!hasValue) return true
  const parsed = dialect === 28 || ['1', 'true', '0', 'false'].includes(value) ? parseBool(value) : undefined
  if (parsed !== undefined) return parsed
  throw invalid(dialect === 28 ? `invalid value for ${key}: ${value}`
    : `invalid value for '${key}': invalid boolean value (${goQuote(value)}): must be one of "true", "1", "false", or "0" (default "true")`)
}

/** `key=value` or `key`; without a key nothing is set. */
function setPair(target: Record<string, string>, text: string): void {
  const [key, value] = cut(text, '=')
  if (key !== '') Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true })
}

function checkFamilies(draft: Draft, dialect: 28 | 29): void {
  const wrong: Readonly<Record<string, boolean>> = {
    volume: draft.volume !== undefined && draft.Type !== 'volume', image: draft.image !== undefined && draft.Type !== 'image',
    bind: draft.bind !== undefined && draft.Type !== 'bind', tmpfs: draft.tmpfs !== undefined && draft.Type !== 'tmpfs',
  }
  const order = dialect === 28 ? ['volume', 'image', 'bind', 'tmpfs'] : ['bind', 'volume', 'image', 'tmpfs']
  const family = order.find(name => wrong[name])
  if (family !== undefined) throw invalid(`cannot mix '${family}-*' options with mount type '${draft.Type}'`)
}

function checkRecursion({ bind, ReadOnly: readOnly }: Draft): void {
  const needs = (option: string, what: string): StorageError => invalid(`option 'bind-recursive=${option}' requires '${what}' to be specified in conjunction`)
  if (bind?.ReadOnlyNonRecursive === true && !readOnly) throw needs('writable', 'readonly')
  if (bind?.ReadOnlyForceRecursive !== true) return
  if (!readOnly) throw needs('readonly', 'readonly')
  if (bind.Propagation !== 'rprivate') throw needs('readonly', 'bind-propagation=rprivate')
}

/** Drop what Go's omitempty drops: empty strings, zeros, false, empty maps. */
function omitEmpty<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, item]) =>
    item !== undefined && item !== '' && item !== 0 && item !== false && !(typeof item === 'object' && item !== null && Object.keys(item).length === 0))) as Partial<T>
}

function mountOf(draft: Draft, dialect: 28 | 29): MountSpec {
  const { bind, volume, image, tmpfs, ...plain } = draft
  const mount: Writable<MountSpec> = omitEmpty(plain)
  if (bind !== undefined) mount.BindOptions = omitEmpty(bind)
  if (volume !== undefined) {
    const { driver, ...rest } = volume
    // Version 28 makes an empty DriverConfig with the first volume option of any kind.
    const config = driver === undefined && dialect === 29 ? {} : { DriverConfig: driver === undefined ? {} : omitEmpty(driver) }
    mount.VolumeOptions = { ...omitEmpty(rest), ...config }
  }
  if (image !== undefined) mount.ImageOptions = omitEmpty(image)
  if (tmpfs !== undefined) mount.TmpfsOptions = omitEmpty(tmpfs)
  return mount
}

/** The `--mount` text that parses to this mount in the same dialect. @throws INVALID_ARGUMENT for a mount that `--mount` cannot say */
export function formatMountFlag(mount: MountSpec, options: MountFlagOptions = {}): string {
  const { dialect = 28 } = options
  const { BindOptions: bind, VolumeOptions: volume, ImageOptions: image, TmpfsOptions: tmpfs } = mount
  const fields: string[] = [`type=${mount.Type ?? ''}`]
  const add = (key: string, value: string | undefined): void => { if (value) fields.push(`${key}=${value}`) }
  const addIf = (key: string, on: boolean | undefined): void => { if (on === true) fields.push(key) }
  add('source', mount.Source)
  add('target', mount.Target)
  addIf('readonly', mount.ReadOnly)
  add('consistency', mount.Consistency)
  if (bind !== undefined) {
    add('bind-propagation', bind.Propagation)
    addIf('bind-recursive=disabled', bind.NonRecursive)
    addIf('bind-recursive=writable', bind.ReadOnlyNonRecursive)
    addIf('bind-recursive=readonly', bind.ReadOnlyForceRecursive)
    if (dialect === 29) fields.push(`bind-create-src=${bind.CreateMountpoint === true}`)
    else if (Object.keys(bind).length === 0) fields.push('bind-nonrecursive=false')
  }
  if (volume !== undefined) {
    fields.push(`volume-nocopy=${volume.NoCopy === true}`)
    for (const [key, value] of Object.entries(volume.Labels ?? {})) fields.push(`volume-label=${key}=${value}`)
    add('volume-driver', volume.DriverConfig?.Name)
    for (const [key, value] of Object.entries(volume.DriverConfig?.Options ?? {})) fields.push(`volume-opt=${key}=${value}`)
    add('volume-subpath', volume.Subpath)
  }
  if (image !== undefined) fields.push(`image-subpath=${image.Subpath ?? ''}`)
  if (tmpfs !== undefined) {
    fields.push(`tmpfs-size=${BigInt(tmpfs.SizeBytes ?? 0)}`)
    fields.push(`tmpfs-mode=${(tmpfs.Mode ?? 0).toString(8)}`)
  }
  return formatCsvRecord(fields)
}
