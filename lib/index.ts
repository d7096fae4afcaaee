// The public entry: re-exports, and `open` with the built-in drivers bound to it.

import overlay2 from '../drivers/overlay2/index.ts'
import vfs from '../drivers/vfs/index.ts'
import type { DriverModule } from './driver.ts'
import { openStorage } from './storage.ts'
import type { OpenOptions, Storage } from './storage.ts'

export { applyLayer, listChanges, writeLayer } from './diff/index.ts'
export type { ApplyLayerOptions, ApplyOutcome, ChangesOptions, WriteLayerOptions, WriteOutcome } from './diff/index.ts'
export { defineDriver } from './driver.ts'
export type { Change, CreateOptions, Driver, DriverModule, LayerContent, Mount, OpenDriverOptions, ProbeResult, StatusEntry, Supports, Usage } from './driver.ts'
export { StorageError, exitStatus, grpcStatus } from './errors.ts'
export type { Code, ErrorInfo } from './errors.ts'
export { chainIdOf, isDigest, parseDigest, parseLayerId } from './ids.ts'
export type { ChainId, Digest, LayerId } from './ids.ts'
export { readTar } from './tar/read-tar.ts'
export type { TarEntry } from './tar/read-tar.ts'
export type { SparseRegion, TarHeader, TarLimits } from './tar/types.ts'
export type { CommitOptions, CommitResult, ContainerConfig, ContainerRecord, ContainerStore, CreateContainerOptions, MountedContainer } from './containers/index.ts'
export type { ImageStore } from './images/index.ts'
export type { Durability, Layer, LayerStore } from './layers/index.ts'
export { parseFilters, Snapshotter } from './snapshots/index.ts'
export type { CommitSnapshotOptions, SnapshotFilter, SnapshotInfo, SnapshotKind, SnapshotOptions, WalkOptions } from './snapshots/index.ts'
export { performMount, unmount } from './sys/mount.ts'
export { defaultRoot, Storage } from './storage.ts'
export type { OpenOptions, StorageInfo } from './storage.ts'
export type { ContainerUsage, DiskUsage, ImageUsage, UsageRow } from './usage.ts'

/** The drivers that come with the package, by name. */
export const drivers: Readonly<Record<'overlay2' | 'vfs', DriverModule>> = { overlay2: overlay2 as DriverModule, vfs: vfs as DriverModule }

/**
 * Open a data root. `await using storage = await open({ root: '/var/lib/layerstack' })`.
 * @throws NOT_SUPPORTED and its kin when no driver works here, FAILED_PRECONDITION when the root holds several drivers' layers, PERMISSION_DENIED, CORRUPT
 */
export function open(options: OpenOptions = {}): Promise<Storage> {
  const own = options.drivers ?? []
  const builtIn = Object.values(drivers).filter(driver => !own.some(other => other.name === driver.name))
  return openStorage({ ...options, drivers: [...own, ...builtIn] })
}
