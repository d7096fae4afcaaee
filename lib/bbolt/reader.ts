// Reads a bbolt file, given whole, into buckets, and tells which pages it uses. Trusts nothing: a page out of bounds, of the wrong kind or
// reached twice is CORRUPT, and so are elements that share bytes, which would make gigabytes of a small file, and trees too deep for the stack.

import { BoltBucket } from './bucket.ts'
import { branchElementBytes, bucketElement, bucketHeaderBytes, corrupt, currentMeta, flags, leafElementBytes, noFreelist, pageHeaderBytes, pageId } from './format.ts'
import type { Meta } from './format.ts'

export interface BoltSnapshot {
  readonly meta: Meta
  readonly root: BoltBucket
  /** Pages that the tree and the freelist occupy, the metas among them. */
  readonly used: ReadonlySet<number>
}

/** Branches over 2^16 keys a page and buckets in buckets: dockerd's have four levels. */
const deepest = 200

/** @throws CORRUPT */
export function readBolt(file: Buffer): BoltSnapshot {
  const meta = currentMeta(file)
  // bbolt grows the file before it uses a page; a number of pages that nobody has would be counted through when the file is written.
  if (meta.highWater * meta.pageSize > file.length) throw corrupt(`${meta.highWater} pages are in use, and the file is shorter`)
  const reader = new Reader(file, meta)
  const root = new BoltBucket()
  root.sequence = meta.sequence
  reader.fill(root, meta.root)
  if (meta.freelist !== noFreelist) reader.page(pageId(meta.freelist), flags.freelist)
  return { meta, root, used: reader.used }
}

class Reader {
  readonly used = new Set<number>([0, 1])
  readonly #file: Buffer
  readonly #meta: Meta
  #depth = 0

  constructor(file: Buffer, meta: Meta) {
    this.#file = file
    this.#meta = meta
  }

  /** A page with its overflow, marked as used. */
  page(id: number, ...kinds: readonly number[]): Buffer {
    const { pageSize, highWater } = this.#meta
    const start = id * pageSize
    if (id < 2 || id >= highWater || start + pageSize > this.#file.length) throw corrupt(`page ${id} lies outside the file`)
    const kind = this.#file.readUInt16LE(start + 8), overflow = this.#file.readUInt32LE(start + 12)
    if (!kinds.includes(kind)) throw corrupt(`page ${id} has the flags ${kind}, and ${kinds.join(' or ')} was expected`)
    if (this.#file.readBigUInt64LE(start) !== BigInt(id)) throw corrupt(`page ${id} says it is another`)
    const end = start + (overflow + 1) * pageSize
    if (id + overflow >= highWater || end > this.#file.length) throw corrupt(`page ${id} runs over the end of the file`)
    for (let i = id; i <= id + overflow; i++) {
      if (this.used.has(i)) throw corrupt(`page ${i} is used twice`)
      this.used.add(i)
    }
    return this.#file.subarray(start, end)
  }

  fill(bucket: BoltBucket, root: number): void {
    this.#descend(() => this.#node(bucket, this.page(root, flags.leaf, flags.branch)))
  }

  #descend(work: () => void): void {
    if (++this.#depth > deepest) throw corrupt(`the tree is deeper than ${deepest} levels`)
    work()
    this.#depth--
  }

  #node(bucket: BoltBucket, page: Buffer): void {
    if (page.readUInt16LE(8) === flags.leaf) { this.#leaf(bucket, page); return }
    const count = page.readUInt16LE(10)
    for (let i = 0; i < count; i++) this.fill(bucket, pageId(slice(page, pageHeaderBytes + i * branchElementBytes, branchElementBytes).readBigUInt64LE(8)))
  }

  #leaf(bucket: BoltBucket, page: Buffer): void {
    const count = slice(page, 0, pageHeaderBytes).readUInt16LE(10)
    let left = page.length - pageHeaderBytes - count * leafElementBytes
    for (let i = 0; i < count; i++) {
      const at = pageHeaderBytes + i * leafElementBytes
      const element = slice(page, at, leafElementBytes)
      const keyAt = at + element.readUInt32LE(4), keyBytes = element.readUInt32LE(8)
      const key = slice(page, keyAt, keyBytes), value = slice(page, keyAt + keyBytes, element.readUInt32LE(12))
      left -= key.length + value.length
      if (left < 0) throw corrupt('elements of a page overlap')
      bucket.adopt(key, (element.readUInt32LE(0) & bucketElement) === 0 ? Buffer.from(value) : this.#bucket(value))
    }
  }

  #bucket(value: Buffer): BoltBucket {
    const bucket = new BoltBucket()
    const header = slice(value, 0, bucketHeaderBytes)
    bucket.sequence = header.readBigUInt64LE(8)
    const root = pageId(header.readBigUInt64LE(0))
    // Root 0: the bucket's one leaf page follows in the value.
    if (root === 0) this.#descend(() => this.#leaf(bucket, slice(value, bucketHeaderBytes, value.length - bucketHeaderBytes)))
    else this.fill(bucket, root)
    return bucket
  }
}

function slice(page: Buffer, at: number, length: number): Buffer {
  if (at < 0 || length < 0 || at + length > page.length) throw corrupt('an element lies outside its page')
  return page.subarray(at, at + length)
}
