// The public entry: re-exports and nothing else.

export { benchWorkloads, compareBench, recommendDrivers, renderBenchHtml, renderBenchText, runBench } from './bench/index.ts'
export type {
  BenchAbsence, BenchBacking, BenchCell, BenchComparison, BenchMachine, BenchMeasure, BenchOptions, BenchProgress, BenchReportOptions, BenchResult, BenchTextOptions, BenchUnit,
  BenchVerdict, BenchWorkload, CompareBenchOptions, ComparedBenchCell, DriverAdvice, DriverCandidate, DriverScore, DriverUseScores,
} from './bench/index.ts'
export {
  analyzeImage, checkCiRules, compareImages, comparisonJson, defaultCiRules, differenceJson, efficiencyOf, entryJson, findLayer, flattenImage, openImageSource, parseCiRule,
  parseCiRules, pathJson, readCiRules, rebaseImage, sharedLayers, squashImage, storeImage, walkMerged, writeImageArchive,
} from './compare/index.ts'
export type {
  AnalyzedLayer, AnalyzeOptions, Aspect, CiResult, CiRuleName, CiRules, CombineOptions, CombineOutcome, ComparedSide, CompareOptions, ConfigDifference, ConflictKind,
  Difference, Efficiency, EntriesOptions, ImageAnalysis, ImageComparison, ImageSource, Inode, LayerDifference, LayerEntry, LayerFacts, MergedNode, OpenSourceOptions,
  PathVersion, RebaseConflict, RebaseOptions, RebaseResult, SharedLayer, SourceKind, SourceLayer, SquashOptions, TreeDifference, WastedPath, WriteArchiveOptions,
} from './compare/index.ts'
export { applyLayer, listChanges, writeLayer } from './diff/index.ts'
export type { ApplyLayerOptions, ApplyOutcome, ChangesOptions, WriteLayerOptions, WriteOutcome } from './diff/index.ts'
export { defineDriver } from './driver.ts'
export type { Change, CreateOptions, Driver, DriverModule, LayerContent, Mount, OpenDriverOptions, ProbeResult, StatusEntry, Supports, Usage, WhiteoutFormat } from './driver.ts'
export { layerSize, parseSize, splitPair } from './driver-options.ts'
export { StorageError, exitStatus, grpcStatus } from './errors.ts'
export type { Code, ErrorInfo } from './errors.ts'
export { exploreImage } from './explore/index.ts'
export type { ExploreOptions } from './explore/index.ts'
export { copyTree } from './fs/copy.ts'
export { removeTree } from './fs/remove-tree.ts'
export { treeUsage } from './fs/usage.ts'
export { chainIdOf, isDigest, isLayerId, parseDigest, parseLayerId } from './ids.ts'
export type { ChainId, Digest, LayerId } from './ids.ts'
export { readTar } from './tar/read-tar.ts'
export type { TarEntry } from './tar/read-tar.ts'
export type { ArchiveLimits, SparseRegion, TarHeader, TarLimits } from './tar/types.ts'
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
export type { PruneOptions, PruneResult } from './check/prune.ts'
export type { RepairOptions, RepairResult, RepairStep } from './check/repair.ts'
export { checkAreas, findingKinds } from './check/types.ts'
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
export { drivers } from './built-in-drivers.ts'
export { open } from './open.ts'
