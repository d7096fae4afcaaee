// Snapshots: containerd's Snapshotter over any driver.

export { parseFilters } from './filter.ts'
export type { SnapshotFilter } from './filter.ts'
export { snapshotIdPrefix } from './session.ts'
export { Snapshotter } from './snapshotter.ts'
export type { SnapshotterParts } from './snapshotter.ts'
export type { CommitSnapshotOptions, SnapshotInfo, SnapshotKind, SnapshotOptions, WalkOptions } from './types.ts'
