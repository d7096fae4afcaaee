// bbolt files, in which dockerd keeps the labels of volumes: read beside a live dockerd, written when none is running.

export { BoltBucket } from './bucket.ts'
export { BoltFile } from './file.ts'
export type { BoltUpdateOptions } from './file.ts'
export { readBolt } from './reader.ts'
export type { BoltSnapshot } from './reader.ts'
