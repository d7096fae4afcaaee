// The pages of a bbolt file, version 2, little-endian. Source: go.etcd.io/bbolt page.go (page, branchPageElement, leafPageElement), db.go
// (meta, sum64), bucket.go (bucket). Numbers and the meta page only.

import { StorageError } from '../errors.ts'

export const pageHeaderBytes = 16, branchElementBytes = 16, leafElementBytes = 16, bucketHeaderBytes = 16
export const flags = { branch: 0x01, leaf: 0x02, meta: 0x04, freelist: 0x10 } as const
/** A leaf element whose value is a bucket. */
export const bucketElement = 0x01
/** The freelist is not kept in the file (NoFreelistSync). */
export const noFreelist = 0xffffffffffffffffn
/** A freelist of more entries than 16 bits count keeps the number in its first entry. */
export const freelistMany = 0xffff

const magic = 0xed0cdaed, version = 2
const metaBytes = 64

export interface Meta {
  readonly pageSize: number
  readonly root: number
  readonly sequence: bigint
  readonly freelist: bigint
  /** The first page id never used. */
  readonly highWater: number
  readonly txid: bigint
}

/** FNV-1a, 64 bits (hash/fnv New64a). */
function fnv64a(bytes: Buffer): bigint {
  let hash = 0xcbf29ce484222325n
  for (const byte of bytes) hash = (hash ^ BigInt(byte)) * 0x100000001b3n & 0xffffffffffffffffn
  return hash
}

export function corrupt(what: string): StorageError {
  return new StorageError('CORRUPT', `bbolt: ${what}`)
}

function readMeta(file: Buffer, at: number): Meta | undefined {
  if (file.length < at + pageHeaderBytes + metaBytes) return undefined
  const meta = file.subarray(at + pageHeaderBytes, at + pageHeaderBytes + metaBytes)
  if (meta.readUInt32LE(0) !== magic || meta.readUInt32LE(4) !== version) return undefined
  // Files of the first boltdb have no checksum.
  const checksum = meta.readBigUInt64LE(56)
  if (checksum !== 0n && checksum !== fnv64a(meta.subarray(0, 56))) return undefined
  const pageSize = meta.readUInt32LE(8)
  if (pageSize < 1024 || (pageSize & pageSize - 1) !== 0 || pageSize > 65536) return undefined
  return {
    pageSize, root: pageId(meta.readBigUInt64LE(16)), sequence: meta.readBigUInt64LE(24), freelist: meta.readBigUInt64LE(32),
    highWater: pageId(meta.readBigUInt64LE(40)), txid: meta.readBigUInt64LE(48),
  }
}

export function pageId(id: bigint): number {
  if (id > 0xffffffffn) throw corrupt(`page id ${id} is out of range`)
  return Number(id)
}

/** The meta page that counts: the valid one of the later transaction. @throws CORRUPT */
export function currentMeta(file: Buffer): Meta {
  const first = readMeta(file, 0)
  // Without the first its page size is unknown: the second lies at one of these (bbolt getPageSizeFromSecondMeta).
  const sizes = first === undefined ? Array.from({ length: 7 }, (_, i) => 1024 << i) : [first.pageSize]
  const second = sizes.map(size => readMeta(file, size)).find((meta, i) => meta?.pageSize === sizes[i])
  const meta = first === undefined || second !== undefined && second.txid > first.txid ? second : first
  if (meta === undefined) throw corrupt('no valid meta page: not a bbolt database, or a damaged one')
  return meta
}

/** Both metas alike, to see whether a file has changed. */
export function metaState(file: Buffer): string {
  const { txid, root, highWater } = currentMeta(file)
  return `${txid} ${root} ${highWater}`
}

export function writeHeader(page: Buffer, id: number, kind: number, count: number, overflow: number): void {
  page.writeBigUInt64LE(BigInt(id), 0)
  page.writeUInt16LE(kind, 8)
  page.writeUInt16LE(count, 10)
  page.writeUInt32LE(overflow, 12)
}

export function encodeMeta(meta: Meta): Buffer {
  const page = Buffer.alloc(meta.pageSize)
  writeHeader(page, Number(meta.txid % 2n), flags.meta, 0, 0)
  const body = page.subarray(pageHeaderBytes)
  body.writeUInt32LE(magic, 0)
  body.writeUInt32LE(version, 4)
  body.writeUInt32LE(meta.pageSize, 8)
  body.writeBigUInt64LE(BigInt(meta.root), 16)
  body.writeBigUInt64LE(meta.sequence, 24)
  body.writeBigUInt64LE(meta.freelist, 32)
  body.writeBigUInt64LE(BigInt(meta.highWater), 40)
  body.writeBigUInt64LE(meta.txid, 48)
  body.writeBigUInt64LE(fnv64a(body.subarray(0, 56)), 56)
  return page
}
