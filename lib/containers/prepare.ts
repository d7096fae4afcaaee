// Makes a container's mounts ready for whoever performs them: volumes with a device are mounted, subpaths pinned, missing sources of binds made.
// What was prepared to last (for a runtime that is started later) is written down, and given back with `release`.

import fs from 'node:fs'
import path from 'node:path'
import type { Mount } from '../driver.ts'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import { bootId } from '../layers/mount-counts.ts'
import { makeDirectories } from '../fs/make-directories.ts'
import { mountTable } from '../sys/mount.ts'
import type { VolumeStore } from '../volumes/index.ts'
import { describeMounts, notDone } from './describe-mounts.ts'
import type { ContainerMounts, MountPointRecord } from './mount-points.ts'

export interface PreparedMounts extends AsyncDisposable {
  /** What to mount in the container, shorter targets first. */
  readonly mounts: readonly Mount[]
  /** What was asked for and is not done. */
  readonly notDone: readonly string[]
  /** Give all back, once nothing is mounted from it any more. */
  release(): Promise<void>
}

/** What lasting preparations hold; `boot`: mounts, and so the holds on them, end with the boot. */
interface Kept { readonly boot: string; readonly volumes: readonly string[]; readonly pins: readonly string[]; readonly mounts: readonly Mount[] }

export async function prepareMounts(container: { readonly id: string; readonly dir: string }, mounts: ContainerMounts, volumes: VolumeStore, persistent: boolean): Promise<PreparedMounts> {
  const file = path.join(container.dir, keptName)
  const kept = persistent ? readKept(file) : undefined
  if (kept !== undefined) return prepared(kept.mounts, mounts, () => releaseKept(container.dir, volumes))
  const held: string[] = [], pins: string[] = []
  const giveBack = async (): Promise<void> => {
    for (const pin of pins.splice(0)) volumes.unpin(pin)
    for (const name of held.splice(0)) await volumes.unmount(name, { persistent })
  }
  try {
    const sources = new Map<string, string>()
    for (const point of Object.values(mounts.points)) {
      if (point.Type === 'bind') {
        makeSource(point)
        mustSpread(point)
      }
      if (point.Type !== 'volume') continue
      const mounted = await volumes.mount(point.Name, { persistent })
      held.push(point.Name)
      const subpath = point.Spec.VolumeOptions?.Subpath
      if (!subpath) sources.set(point.Destination, mounted.path)
      else {
        const pin = volumes.pin(point.Name, subpath, persistent ? container.id : undefined)
        pins.push(pin)
        sources.set(point.Destination, pin)
      }
    }
    const described = describeMounts(mounts, point => sources.get(point.Destination) ?? point.Source)
    if (!persistent) return prepared(described, mounts, giveBack)
    const keep: Kept = { boot: bootId(), volumes: held, pins, mounts: described }
    atomicWriteSync(file, JSON.stringify(keep), { mode: 0o600, sync: false })
    return prepared(described, mounts, () => releaseKept(container.dir, volumes))
  } catch (error) {
    await giveBack()
    throw error
  }
}

function prepared(described: readonly Mount[], mounts: ContainerMounts, release: () => Promise<void>): PreparedMounts {
  let held = true
  const once = async (): Promise<void> => {
    if (!held) return
    held = false
    await release()
  }
  return { mounts: described, notDone: notDone(mounts), release: once, [Symbol.asyncDispose]: once }
}

/** dockerd makes a missing source of `-v` a directory. */
function makeSource(point: MountPointRecord): void {
  if (point.SkipMountpointCreation || fs.existsSync(point.Source)) return
  try {
    makeDirectories(point.Source, 0o755)
  } catch (error) {
    throw asStorageError(error, `error while creating mount source path '${point.Source}'`, { op: 'mount', path: point.Source })
  }
}

/** What shall spread from or to the host must lie on a mount that spreads; else it would silently not. Source: moby daemon/oci_linux.go, ensureShared. */
function mustSpread({ Source: source, Propagation: propagation = '' }: MountPointRecord): void {
  if (!/^r?(shared|slave)$/.test(propagation)) return
  const real = fs.realpathSync.native(source)
  // The longest mount point above it; of several on one place the last.
  const mount = mountTable().filter(({ target }) => target === '/' || real === target || real.startsWith(`${target}/`)).reduce((best, next) => next.target.length >= best.target.length ? next : best)
  const spreads = (kind: string): boolean => mount.propagation.some(field => field.startsWith(kind))
  const needs = propagation.endsWith('shared') ? 'shared' : 'shared or slave'
  if (spreads('shared:') || needs === 'shared or slave' && spreads('master:')) return
  throw new StorageError('FAILED_PRECONDITION', `path ${source} is mounted on ${mount.target} but it is not a ${needs} mount`,
    { op: 'mount', path: source, hint: `mount --make-shared ${mount.target}` })
}

// Beside the container's record, so that it goes with it.
const keptName = 'layerstack-mounts.json'

function readKept(file: string): Kept | undefined {
  // Few have one, and to learn that from an exception costs 20 µs.
  if (!fs.existsSync(file)) return undefined
  try {
    const kept = JSON.parse(fs.readFileSync(file, 'utf8')) as Kept
    return kept.boot === bootId() ? kept : undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

/** Is anything prepared to last? */
export function isPrepared(dir: string): boolean {
  return readKept(path.join(dir, keptName)) !== undefined
}

/** Give back what was prepared to last; nothing is fine. */
export async function releaseKept(dir: string, volumes: VolumeStore): Promise<void> {
  const file = path.join(dir, keptName)
  const kept = readKept(file)
  if (kept === undefined) return
  // First the note: a hold that nobody knows of ends with the boot, but one given back twice would be another's.
  fs.rmSync(file, { force: true })
  for (const pin of kept.pins) volumes.unpin(pin)
  for (const name of kept.volumes) await volumes.unmount(name, { persistent: true })
}
