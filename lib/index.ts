// The public entry: re-exports, and `open` with the built-in drivers bound to it.

import aufs from '../drivers/aufs/index.ts'
import btrfs from '../drivers/btrfs/index.ts'
import fuseOverlayfs from '../drivers/fuse-overlayfs/index.ts'
import overlay from '../drivers/overlay/index.ts'
import overlay2 from '../drivers/overlay2/index.ts'
import vfs from '../drivers/vfs/index.ts'
import type { DriverModule } from './driver.ts'
import { openStorage } from './storage.ts'
import type { OpenOptions, Storage } from './storage.ts'

export {
  analyzeImage, checkCiRules, compareImages, comparisonJson, defaultCiRules, differenceJson, efficiencyOf, entryJson, openImageSource, parseCiRule, parseCiRules, readCiRules,
  sharedLayers, walkMerged,
} from './compare/index.ts'
export type {
  AnalyzedLayer, AnalyzeOptions, Aspect, CiResult, CiRuleName, CiRules, ComparedSide, CompareOptions, ConfigDifference, Difference, Efficiency, EntriesOptions,
  ImageAnalysis, ImageComparison, ImageSource, Inode, LayerDifference, LayerEntry, LayerFacts, MergedNode, OpenSourceOptions, PathVersion, SharedLayer, SourceKind,
  SourceLayer, TreeDifference, WastedPath,
} from './compare/index.ts'
export { applyLayer, listChanges, writeLayer } from './diff/index.ts'
export type { ApplyLayerOptions, ApplyOutcome, ChangesOptions, WriteLayerOptions, WriteOutcome } from './diff/index.ts'
export { defineDriver } from './driver.ts'
export type { Change, CreateOptions, Driver, DriverModule, LayerContent, Mount, OpenDriverOptions, ProbeResult, StatusEntry, Supports, Usage, WhiteoutFormat } from './driver.ts'
export { layerSize, parseSize, splitPair } from './driver-options.ts'
export { StorageError, exitStatus, grpcStatus } from './errors.ts'
export type { Code, ErrorInfo } from './errors.ts'
export { copyTree } from './fs/copy.ts'
export { removeTree } from './fs/remove-tree.ts'
export { treeUsage } from './fs/usage.ts'
export { chainIdOf, isDigest, isLayerId, parseDigest, parseLayerId } from './ids.ts'
export type { ChainId, Digest, LayerId } from './ids.ts'
export { readTar } from './tar/read-tar.ts'
export type { TarEntry } from './tar/read-tar.ts'
export type { SparseRegion, TarHeader, TarLimits } from './tar/types.ts'
export type { CommitOptions, CommitResult, ContainerConfig, ContainerMountOptions, ContainerMounts, ContainerRecord, ContainerState, ContainerStatus, ContainerStore, CreateContainerOptions, MountedContainer, MountPointRecord, PreparedMounts, SpecOptions } from './containers/index.ts'
export type { ImageStore } from './images/index.ts'
export type { Durability, Layer, LayerStore } from './layers/index.ts'
export { serveContainerd } from './serve/containerd/index.ts'
export type { ContainerdServer, ServeOptions as ServeContainerdOptions } from './serve/containerd/index.ts'
export { parseFilters, Snapshotter } from './snapshots/index.ts'
export type { CommitSnapshotOptions, SnapshotFilter, SnapshotInfo, SnapshotKind, SnapshotOptions, WalkOptions } from './snapshots/index.ts'
export { serveVolumes } from './serve/volumes/index.ts'
export type { ServeVolumesOptions, VolumeServer } from './serve/volumes/index.ts'
export type { IdMap, IdRange } from './sys/idmap.ts'
export { performMount, performMounts, unmount } from './sys/mount.ts'
export { defaultRoot, Storage } from './storage.ts'
export type { MigrateStorageOptions, OpenOptions, StorageInfo } from './storage.ts'
export type { MigrateProgress, MigrateResult } from './check/migrate.ts'
export { checkAreas } from './check/check.ts'
export type { RepairOptions, RepairResult, RepairStep } from './check/repair.ts'
export { findingKinds } from './check/types.ts'
export type { CheckArea, CheckOptions, CheckProgress, Finding, FindingKind, Severity } from './check/types.ts'
export {
  checkVolumeName, formatMountFlag, formatVolumeFlag, mergeTmpfsOptions, mountPointOf, parseMountFlag, parseVolumeFlag, parseVolumePoint, parseVolumesFrom,
  resolveVolumeFlag, splitVolumeFlag, tmpfsData, validateMount, VolumeStore,
} from './volumes/index.ts'
export type {
  BindOptions, CreateVolumeOptions, DriverConfig, DriverVolume, HoldOptions, ImageOptions, MountedVolume, MountFlagOptions, MountPoint, MountSpec, Propagation,
  PruneVolumesOptions, TmpfsOptions, ValidateMountOptions, Volume, VolumeDriver, VolumeFilters, VolumeFlagOptions, VolumeInspect, VolumeOptions,
} from './volumes/index.ts'
export type { BuildCacheUsage, ContainerUsage, DiskUsage, DiskUsageOptions, ImageUsage, OrphanUsage, UsageRow, UsageType, VolumeUsage } from './usage.ts'

/** The drivers that come with the package, by name. */
export const drivers: Readonly<Record<'overlay2' | 'fuse-overlayfs' | 'btrfs' | 'aufs' | 'overlay' | 'vfs', DriverModule>> = {
  overlay2: overlay2 as DriverModule, 'fuse-overlayfs': fuseOverlayfs as DriverModule, btrfs: btrfs as DriverModule,
  aufs: aufs as DriverModule, overlay: overlay as DriverModule, vfs: vfs as DriverModule,
}

/**
 * Open a data root. `await using storage = await open({ root: '/var/lib/layerstack' })`.
 * @throws NOT_SUPPORTED and its kin when no driver works here, FAILED_PRECONDITION when the root holds several drivers' layers, PERMISSION_DENIED, CORRUPT
 */
export function open(options: OpenOptions = {}): Promise<Storage> {
  const own = options.drivers ?? []
  const builtIn = Object.values(drivers).filter(driver => !own.some(other => other.name === driver.name))
  return openStorage({ ...options, drivers: [...own, ...builtIn] })
}
