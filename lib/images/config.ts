// Image configs: what Docker's and OCI's image JSON mean to a store, checked; and configs written in Docker's order of keys. Bytes that came
// from elsewhere are never written anew, since their digest is the image's id.

import { StorageError } from '../errors.ts'
import type { Code } from '../errors.ts'
import { chainIdOf, isDigest, sha256 } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import { Fields, goJson, parseJson, sortKeys } from './json.ts'

export interface HistoryEntry {
  /** RFC 3339. */
  readonly created?: string
  readonly createdBy?: string
  readonly author?: string
  readonly comment?: string
  /** True for a step that made no layer. */
  readonly emptyLayer: boolean
}

/** The parts of an image's config that the store works with. */
export interface ImageConfig {
  /** The whole of it, as it was parsed. */
  readonly raw: Readonly<Record<string, unknown>>
  readonly architecture: string
  readonly variant?: string
  /** `linux` when the config says nothing. */
  readonly os: string
  /** RFC 3339; absent when the config says nothing. */
  readonly created?: string
  readonly comment: string
  readonly author: string
  readonly dockerVersion: string
  /** The runtime defaults (Env, Cmd, …): what Docker knows has Docker's types, other keys are as they came. */
  readonly config: Readonly<Record<string, unknown>>
  /** Base first. */
  readonly diffIds: readonly Digest[]
  readonly history: readonly HistoryEntry[]
}

/** @throws `code` (default INVALID_ARCHIVE), in Docker's words where it has some */
export function decodeConfig(bytes: Uint8Array, code: Code = 'INVALID_ARCHIVE'): ImageConfig {
  const raw = parseJson(bytes, 'invalid image JSON', code)
  const fields = new Fields(raw, 'invalid image JSON', code)
  const rootfs = fields.object('rootfs')
  if (rootfs === undefined) throw new StorageError(code, 'invalid image JSON, no RootFS key')
  const diffIds = rootfs.strings('diff_ids').map(id => {
    if (!isDigest(id)) throw new StorageError(code, `invalid image JSON, diff ID ${JSON.stringify(id)} is not a sha256 digest`)
    return id
  })
  const history = fields.each('history').map(entry => historyEntry(entry))
  const layered = history.filter(entry => !entry.emptyLayer).length
  if (layered > diffIds.length) throw new StorageError(code, 'too many non-empty layers in History section')
  const created = fields.string('created'), variant = fields.string('variant')
  const runtime = fields.object('config')
  return {
    raw: raw as Record<string, unknown>,
    architecture: fields.string('architecture') ?? '', os: fields.string('os') || 'linux',
    ...(variant ? { variant } : {}), ...(created === undefined ? {} : { created }),
    comment: fields.string('comment') ?? '', author: fields.string('author') ?? '', dockerVersion: fields.string('docker_version') ?? '',
    config: runtime === undefined ? {} : checkedRuntime(runtime),
    diffIds, history,
  }
}

const texts = ['Hostname', 'Domainname', 'User', 'Image', 'WorkingDir', 'MacAddress', 'StopSignal']
const switches = ['AttachStdin', 'AttachStdout', 'AttachStderr', 'Tty', 'OpenStdin', 'StdinOnce', 'ArgsEscaped', 'NetworkDisabled']

/** dockerd decodes a config into Go's container.Config, and refuses one that does not fit; `Cmd` and its kin may be one string (strslice.StrSlice). */
function checkedRuntime(config: Fields): Record<string, unknown> {
  for (const key of texts) config.string(key)
  for (const key of switches) config.boolean(key)
  for (const key of ['Env', 'OnBuild']) config.strings(key)
  config.map('Labels')
  for (const key of ['ExposedPorts', 'Volumes']) {
    const set = config.object(key)
    for (const name of set?.keys() ?? []) set?.object(name)
  }
  config.object('Healthcheck')?.strings('Test')
  const commands = ['Cmd', 'Entrypoint', 'Shell'].flatMap(key => {
    if (typeof config.raw(key) === 'string') return [[key, [config.raw(key)]]]
    config.strings(key)
    return []
  })
  return Object.fromEntries([...config.keys().map(key => [key, config.raw(key)]), ...commands]) as Record<string, unknown>
}

function historyEntry(entry: Fields): HistoryEntry {
  const created = entry.string('created'), createdBy = entry.string('created_by'), author = entry.string('author'), comment = entry.string('comment')
  return {
    emptyLayer: entry.boolean('empty_layer'),
    ...(created === undefined ? {} : { created }), ...(createdBy === undefined ? {} : { createdBy }),
    ...(author === undefined ? {} : { author }), ...(comment === undefined ? {} : { comment }),
  }
}

/** The chain ids of an image's layers, base first. */
export function chainIdsOf(diffIds: readonly Digest[]): ChainId[] {
  const chain: ChainId[] = []
  for (const diffId of diffIds) chain.push(chainIdOf(chain.at(-1), diffId))
  return chain
}

export function imageIdOf(configBytes: Uint8Array): Digest {
  return sha256(configBytes)
}

/**
 * Encode a new config as Docker does (moby image.Image.MarshalJSON): the top level sorted by key, below that the order of Go's
 * structs, which is the caller's order here.
 */
export function encodeConfig(config: Readonly<Record<string, unknown>>): Buffer {
  return Buffer.from(goJson(sortKeys(config)))
}

/** Keys of Go's container.Config in its order; the value stands where the config says nothing, undefined means that the key is then left out. */
const runtimeKeys: readonly (readonly [string, unknown])[] = [
  ['Hostname', ''], ['Domainname', ''], ['User', ''], ['AttachStdin', false], ['AttachStdout', false], ['AttachStderr', false],
  ['ExposedPorts', undefined], ['Tty', false], ['OpenStdin', false], ['StdinOnce', false], ['Env', null], ['Cmd', null],
  ['Healthcheck', undefined], ['ArgsEscaped', undefined], ['Image', ''], ['Volumes', null], ['WorkingDir', ''], ['Entrypoint', null],
  ['NetworkDisabled', undefined], ['MacAddress', undefined], ['OnBuild', null], ['Labels', null], ['StopSignal', undefined],
  ['StopTimeout', undefined], ['Shell', undefined],
]

/** Bring the runtime part of a config into the form that Docker writes; keys that Docker does not know go to the end. */
export function runtimeConfig(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const known = new Set(runtimeKeys.map(([key]) => key))
  const out: [string, unknown][] = []
  for (const [key, otherwise] of runtimeKeys) {
    const value = (Object.hasOwn(config, key) ? config[key] : undefined) ?? otherwise
    if (value === undefined) continue
    const isMap = typeof value === 'object' && value !== null && !Array.isArray(value) && (key === 'ExposedPorts' || key === 'Volumes' || key === 'Labels')
    out.push([key, isMap ? sortKeys(value as Record<string, unknown>) : value])
  }
  for (const [key, value] of Object.entries(config)) if (!known.has(key)) out.push([key, value])
  // Not by assignment: a config may have a key __proto__.
  return Object.fromEntries(out)
}
