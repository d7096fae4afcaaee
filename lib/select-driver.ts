// Which driver a data root gets: the one asked for, the one that was there before, or the first that works here. Docker's rules (moby
// daemon/graphdriver/driver.go), with every decision's reason kept.

import fs from 'node:fs'
import path from 'node:path'
import { driverModule } from './driver.ts'
import type { DriverModule, DriverSource, ProbeFailure } from './driver.ts'
import { isErrno, StorageError } from './errors.ts'

/** Docker's order (23.0, the last line that still named them all). */
export const driverPriority: readonly string[] = ['overlay2', 'fuse-overlayfs', 'btrfs', 'zfs', 'aufs', 'overlay', 'devicemapper', 'vfs']

/** Drivers that exist in the field and not here, and what to use instead. */
const absentHints: Readonly<Record<string, string>> = {
  devicemapper: 'use overlay2; Docker removed devicemapper in 25.0',
  windowsfilter: 'layerstack runs on Linux; use overlay2',
  zfs: 'use overlay2, or btrfs for snapshots',
}

export interface DriverChoice {
  readonly name: string
  readonly module: DriverModule
  /** Why this one, as a sentence. */
  readonly reason: string
  /** The others, and why not they. They are tried when asked for: a store that is opened does not wait for it. */
  others(): Promise<readonly OtherDriver[]>
}

export interface OtherDriver { readonly name: string; readonly reason: string }

export interface SelectOptions {
  readonly root: string
  /** Loaded when they are tried or chosen. */
  readonly modules: readonly (DriverModule | DriverSource)[]
  /** Asked for by the caller or its configuration. */
  readonly driver?: string | undefined
  /** The environment's DOCKER_DRIVER. It wins over nothing but the automatic choice. */
  readonly environment?: string | undefined
  /** What a daemon.json names, which comes after the environment, as in dockerd. */
  readonly configured?: string | undefined
  /** Nothing is tried, as trying writes: the root tells which driver it belongs to. Default false. */
  readonly readOnly?: boolean
}

/** @throws NOT_SUPPORTED, PREREQUISITE_MISSING, INCOMPATIBLE_FILESYSTEM, FAILED_PRECONDITION (several drivers were used here) */
export async function selectDriver(options: SelectOptions): Promise<DriverChoice> {
  const byName = new Map(options.modules.map(driver => [driver.name, driver]))
  const home = (name: string): string => path.join(options.root, name)
  const asked = options.driver ?? (options.environment || options.configured)
  if (asked !== undefined && asked !== '') {
    const module = await driverModule(byName.get(asked) ?? absent(asked))
    if (options.readOnly !== true) await mustWork(module, home(asked))
    const reason = options.driver !== undefined ? `${asked} was asked for` : options.environment ? `the environment variable DOCKER_DRIVER names ${asked}` : `the daemon.json names ${asked}`
    return { name: asked, module, reason, others: () => reasonsAgainst(options, home, asked) }
  }

  const order = [...driverPriority, ...byName.keys()].filter((name, i, all) => all.indexOf(name) === i)
  // vfs is never counted: its folder is also what a fallback leaves behind.
  const prior = order.filter(name => name !== 'vfs' && isUsed(home(name)))
  if (prior.length > 1) {
    throw new StorageError('FAILED_PRECONDITION', `${options.root} contains several valid graphdrivers: ${prior.join(', ')}; cleanup or explicitly choose storage driver (-s <DRIVER>)`,
      { op: 'open', path: options.root, hint: `choose one of them: --driver ${prior[0]}` })
  }
  const [before] = prior
  if (before !== undefined) {
    const module = await driverModule(byName.get(before) ?? absent(before))
    if (options.readOnly !== true) await mustWork(module, home(before))
    return { name: before, module, reason: `${home(before)} holds layers already`, others: () => reasonsAgainst(options, home, before) }
  }
  if (options.readOnly === true) {
    const vfs = isUsed(home('vfs')) ? byName.get('vfs') : undefined
    if (vfs === undefined) throw new StorageError('NOT_FOUND', `${options.root} holds no layers of any driver`, { op: 'open', path: options.root, hint: 'open it for writing once, or name the driver' })
    return { name: 'vfs', module: await driverModule(vfs), reason: `${home('vfs')} is the only one that holds layers`, others: () => reasonsAgainst(options, home, 'vfs') }
  }

  const others: OtherDriver[] = []
  for (const name of order) {
    const driver = byName.get(name)
    if (driver === undefined) continue
    const module = await driverModule(driver)
    const probe = await module.probe(home(name))
    if (!probe.ok) { others.push({ name, reason: probe.reason }); continue }
    const passed = order.slice(order.indexOf(name) + 1).filter(other => byName.has(other))
    return {
      name, module, reason: others.length === 0 ? `${name} is the first choice and works here` : `${name} is the first that works here`,
      others: async () => [...others, ...passed.map(other => ({ name: other, reason: `${name} comes first` }))],
    }
  }
  throw new StorageError('NOT_SUPPORTED', `no supported storage driver found: ${others.map(({ name, reason }) => `${name}: ${reason}`).join('; ')}`, { op: 'open', path: options.root })
}

function absent(name: string): never {
  const hint = absentHints[name]
  if (hint === undefined) throw new StorageError('NOT_SUPPORTED', `driver not supported: ${name}`, { driver: name, hint: `known drivers: ${driverPriority.join(', ')}` })
  throw new StorageError('NOT_SUPPORTED', `the ${name} storage-driver is not part of layerstack`, { driver: name, hint })
}

async function mustWork(module: DriverModule, home: string): Promise<void> {
  const probe = await module.probe(home)
  if (!probe.ok) throw new StorageError(probe.code satisfies ProbeFailure, `${module.name}: ${probe.reason}`, { driver: module.name, path: home, hint: probe.hint })
}

async function reasonsAgainst({ modules, readOnly }: SelectOptions, home: (name: string) => string, chosen: string): Promise<OtherDriver[]> {
  const others: OtherDriver[] = []
  for (const driver of modules) {
    const { name } = driver
    if (name === chosen) continue
    if (readOnly === true) { others.push({ name, reason: 'not tried, as the root is open read-only' }); continue }
    const probe = await (await driverModule(driver)).probe(home(name))
    others.push({ name, reason: probe.ok ? `would work, but ${chosen} was given` : probe.reason })
  }
  return others
}

/** Not empty, or not readable, which Docker counts as not empty too. */
function isUsed(dir: string): boolean {
  try {
    return fs.readdirSync(dir).length > 0
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false
    if (isErrno(error, 'EACCES', 'EPERM')) return true
    throw error
  }
}
