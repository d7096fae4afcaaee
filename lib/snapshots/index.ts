// Snapshots: containerd's Snapshotter over any driver.

export { parseFilters } from './filter.ts'
export type { SnapshotFilter } from './filter.ts'
export { bytes, labelsInto, readInfo, text, varint, writeInfo, writeLabels } from './info-codec.ts'
export type { Labels } from './info-codec.ts'
export { snapshotIdPrefix } from './session.ts'
export { Snapshotter } from './snapshotter.ts'
export type { SnapshotterParts } from './snapshotter.ts'
export type { CommitSnapshotOptions, SnapshotInfo, SnapshotKind, SnapshotOptions, WalkOptions } from './types.ts'
export { Reader, readMessage, Writer } from './wire.ts'
