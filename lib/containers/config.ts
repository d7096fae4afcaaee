// A container's files in Docker's layout: `containers/<id>/config.v2.json` and `hostconfig.json`. Owns their
// shape; knows no layer.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError, told } from '../errors.ts'
import { writeNew } from '../fs/atomic.ts'
import { isDigest, randomBytesOf } from '../ids.ts'
import type { Digest } from '../ids.ts'
import type { MountHostConfig, MountPointRecord } from './mount-points.ts'
import { never, stateOf } from './state.ts'
import type { ContainerState } from './state.ts'

/** What a container runs with, in the words of Docker's API (container.Config); only what storage needs or commit carries on. */
export interface ContainerConfig {
  readonly Hostname?: string
  readonly User?: string
  readonly Env?: readonly string[] | null
  readonly Cmd?: readonly string[] | null
  readonly Entrypoint?: readonly string[] | null
  readonly WorkingDir?: string
  readonly Labels?: Readonly<Record<string, string>> | null
  readonly ExposedPorts?: Readonly<Record<string, object>>
  readonly Volumes?: Readonly<Record<string, object>> | null
  readonly StopSignal?: string
  readonly [key: string]: unknown
}

export interface ContainerRecord {
  readonly id: string
  /** Without the leading slash that Docker's files have. */
  readonly name: string
  /** RFC 3339 with nanoseconds. */
  readonly created: string
  /** Absent for a container without an image. */
  readonly imageId?: Digest
  readonly driver: string
  readonly config: ContainerConfig
  readonly running: boolean
  /** As dockerd left it; a container that only layerstack knows was never started. */
  readonly state: ContainerState
}

/** moby's rule: at least two characters. */
const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/

/** @throws INVALID_ARGUMENT in Docker's words */
export function checkContainerName(name: string): void {
  if (!namePattern.test(name)) {
    throw new StorageError('INVALID_ARGUMENT', `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`, { key: name })
  }
}

const firsts = ['amber', 'brisk', 'calm', 'clever', 'deep', 'eager', 'early', 'frosty', 'gentle', 'golden', 'happy', 'hidden', 'keen', 'lively', 'lucid', 'mellow', 'nimble', 'patient', 'quiet', 'rapid', 'sandy', 'silent', 'solid', 'steady', 'stony', 'sunny', 'tidy', 'vivid', 'warm', 'wild']
const seconds = ['basalt', 'chalk', 'clay', 'cliff', 'delta', 'dune', 'fjord', 'flint', 'gneiss', 'granite', 'gravel', 'gypsum', 'lava', 'ledge', 'lime', 'loam', 'marble', 'mesa', 'moraine', 'onyx', 'opal', 'peat', 'quartz', 'ridge', 'schist', 'shale', 'silt', 'slate', 'strata', 'terrace']

/** A name nobody has to remember; made of strata rather than scientists. */
export function randomName(): string {
  const bytes = randomBytesOf(4)
  return `${firsts[(bytes[0] ?? 0) % firsts.length]}_${seconds[(bytes[1] ?? 0) % seconds.length]}_${bytes.readUInt16BE(2).toString(36)}`
}

/** Now, as Go writes it (RFC3339Nano, UTC); the clock gives microseconds at best. */
export function timestamp(): string {
  const us = Math.round((performance.timeOrigin + performance.now()) * 1000)
  const base = new Date(Math.floor(us / 1000)).toISOString().slice(0, 19)
  // Go leaves out the zeros at the end, and so does whoever compares with what dockerd prints.
  const fraction = String(us % 1_000_000).padStart(6, '0').replace(/0+$/, '')
  return `${base}${fraction === '' ? '' : `.${fraction}`}Z`
}

export function readContainer(dir: string): ContainerRecord | undefined {
  const file = path.join(dir, 'config.v2.json')
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw told(error, `reading container ${path.basename(dir)}`)
  }
  const corrupt = (what: string): StorageError => new StorageError('CORRUPT', `container ${path.basename(dir)}: ${what}`, { path: file })
  let json: Record<string, unknown>
  try {
    json = JSON.parse(text) as Record<string, unknown>
  } catch (error) {
    throw corrupt(`config.v2.json is not JSON (${(error as Error).message})`)
  }
  const { ID: id, Name: name, Created: created, Image: image, Driver: driver, Config: config, State: state } = json
  if (typeof id !== 'string' || id !== path.basename(dir)) throw corrupt('its ID is not the name of its folder')
  return {
    id, name: typeof name === 'string' ? name.replace(/^\//, '') : '', created: typeof created === 'string' ? created : '',
    driver: typeof driver === 'string' ? driver : '', config: isObject(config) ? config as ContainerConfig : {},
    running: isObject(state) && state['Running'] === true, state: stateOf(state),
    ...(isDigest(image) ? { imageId: image } : {}),
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The files of a container that was never started. */
export const containerFiles: readonly string[] = ['config.v2.json', 'hostconfig.json']

/** What the files say of mounts. */
export interface WrittenMounts {
  readonly points: Readonly<Record<string, MountPointRecord>>
  readonly hostConfig: MountHostConfig
}

/** Write both files of a new container into its folder, which nobody sees yet. Field for field what dockerd 20.10 to 28 read back without complaint. */
export function writeContainer(dir: string, record: ContainerRecord, storageOptions: Readonly<Record<string, string>> | undefined, sync: boolean, mounts?: WrittenMounts): void {
  const command = [...record.config.Entrypoint ?? [], ...record.config.Cmd ?? []]
  const config = {
    StreamConfig: {},
    State: { Running: false, Paused: false, Restarting: false, OOMKilled: false, RemovalInProgress: false, Dead: false, Pid: 0, ExitCode: 0, Error: '', StartedAt: never, FinishedAt: never, Health: null },
    ID: record.id, Created: record.created, Managed: false, Path: command[0] ?? '', Args: command.slice(1),
    Config: {
      Domainname: '', User: '', AttachStdin: false, AttachStdout: false, AttachStderr: false, Tty: false, OpenStdin: false, StdinOnce: false,
      Env: null, Cmd: null, Image: '', Volumes: null, WorkingDir: '', Entrypoint: null, OnBuild: null, Labels: {}, ...record.config,
      Hostname: record.config.Hostname || record.id.slice(0, 12),
    },
    Image: record.imageId ?? '',
    NetworkSettings: { Bridge: '', SandboxID: '', HairpinMode: false, LinkLocalIPv6Address: '', LinkLocalIPv6PrefixLen: 0, Networks: {}, Service: null, Ports: null, SandboxKey: '', SecondaryIPAddresses: null, SecondaryIPv6Addresses: null, IsAnonymousEndpoint: false, HasSwarmEndpoint: false },
    LogPath: '', Name: `/${record.name}`, Driver: record.driver, OS: 'linux', MountLabel: '', ProcessLabel: '', RestartCount: 0,
    HasBeenStartedBefore: false, HasBeenManuallyStopped: false, MountPoints: mounts?.points ?? {}, SecretReferences: null, ConfigReferences: null,
    AppArmorProfile: '', HostnamePath: '', HostsPath: '', ShmPath: '', ResolvConfPath: '', SeccompProfile: '', NoNewPrivileges: false,
  }
  const host = {
    Binds: null, ContainerIDFile: '', LogConfig: { Type: 'json-file', Config: {} }, NetworkMode: 'none', PortBindings: {}, RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
    AutoRemove: false, VolumeDriver: '', VolumesFrom: null, CapAdd: null, CapDrop: null, Dns: [], DnsOptions: [], DnsSearch: [], ExtraHosts: null, GroupAdd: null, IpcMode: 'private', Cgroup: '',
    Links: null, OomScoreAdj: 0, PidMode: '', Privileged: false, PublishAllPorts: false, ReadonlyRootfs: false, SecurityOpt: null, ...(storageOptions === undefined ? {} : { StorageOpt: storageOptions }),
    UTSMode: '', UsernsMode: '', ShmSize: 67108864, Runtime: 'runc', Isolation: '', ...mounts?.hostConfig,
  }
  for (const [name, value] of [['hostconfig.json', host], ['config.v2.json', config]] as const) {
    const fd = writeNew(`${dir}/${name}`, JSON.stringify(value), 0o600)
    try {
      if (sync) fs.fdatasyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  }
}
