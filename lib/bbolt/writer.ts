// Lays out buckets as the pages of one bbolt transaction: copy on write, into pages that the current state does not use, so that writing
// them and then a meta page is a commit. Writes no file.

import { BoltBucket } from './bucket.ts'
import { branchElementBytes, bucketElement, bucketHeaderBytes, encodeMeta, flags, freelistMany, leafElementBytes, pageHeaderBytes, writeHeader } from './format.ts'

export interface Commit {
  /** Whole pages by the id of their first; written and synced before the meta. */
  readonly pages: readonly { readonly id: number; readonly bytes: Buffer }[]
  readonly meta: { readonly id: number; readonly bytes: Buffer }
  /** The file needs this many bytes at least. */
  readonly fileBytes: number
}

interface Base {
  readonly pageSize: number
  readonly highWater: number
  readonly txid: bigint
  readonly used: ReadonlySet<number>
}

/** What a new file begins from. */
export function emptyBase(pageSize: number): Base {
  return { pageSize, highWater: 2, txid: -1n, used: new Set([0, 1]) }
}

interface Item { readonly key: Buffer; readonly value: Buffer; readonly flags: number }
interface Child { readonly key: Buffer; readonly id: number }

class Layout {
  readonly pages: { id: number; bytes: Buffer }[] = []
  readonly #pageSize: number
  #highWater: number
  readonly #free: number[]

  constructor(base: Base) {
    this.#pageSize = base.pageSize
    this.#highWater = base.highWater
    this.#free = []
    for (let id = 2; id < base.highWater; id++) if (!base.used.has(id)) this.#free.push(id)
  }

  get highWater(): number { return this.#highWater }

  /** Ids that neither state uses now. */
  get free(): readonly number[] { return this.#free }

  /** Room for `bytes` in pages that follow each other. */
  allocate(bytes: number): { id: number; page: Buffer; overflow: number } {
    const count = Math.max(1, Math.ceil(bytes / this.#pageSize))
    const page = Buffer.alloc(count * this.#pageSize)
    let id = this.#highWater
    const at = this.#free.findIndex((first, i) => this.#free[i + count - 1] === first + count - 1)
    if (at >= 0) id = this.#free.splice(at, count)[0] ?? id
    else this.#highWater += count
    this.pages.push({ id, bytes: page })
    return { id, page, overflow: count - 1 }
  }

  /** Lay out a bucket's tree; returns the id of its root page. */
  tree(bucket: BoltBucket): number {
    const items = this.#items(bucket)
    let level = group(items, item => leafElementBytes + item.key.length + item.value.length, this.#pageSize)
      .map((part): Child => ({ key: part[0]?.key ?? Buffer.alloc(0), id: this.#leaf(part) }))
    while (level.length > 1) {
      level = group(level, child => branchElementBytes + child.key.length, this.#pageSize)
        .map((part): Child => ({ key: part[0]?.key ?? Buffer.alloc(0), id: this.#branch(part) }))
    }
    return level[0]?.id ?? this.#leaf([])
  }

  #items(bucket: BoltBucket): Item[] {
    return [...bucket.entries()].map(([key, value]) => value instanceof BoltBucket ? { key, value: this.#bucketValue(value), flags: bucketElement } : { key, value, flags: 0 })
  }

  #bucketValue(bucket: BoltBucket): Buffer {
    const header = Buffer.alloc(bucketHeaderBytes)
    header.writeBigUInt64LE(bucket.sequence, 8)
    const inline = inlineItems(bucket, this.#pageSize)
    if (inline === undefined) {
      header.writeBigUInt64LE(BigInt(this.tree(bucket)), 0)
      return header
    }
    const page = Buffer.alloc(leafBytes(inline))
    writeLeaf(page, 0, 0, inline)
    return Buffer.concat([header, page])
  }

  #leaf(items: readonly Item[]): number {
    const { id, page, overflow } = this.allocate(leafBytes(items))
    writeLeaf(page, id, overflow, items)
    return id
  }

  #branch(children: readonly Child[]): number {
    const bytes = children.reduce((sum, child) => sum + branchElementBytes + child.key.length, pageHeaderBytes)
    const { id, page, overflow } = this.allocate(bytes)
    writeHeader(page, id, flags.branch, children.length, overflow)
    let dataAt = pageHeaderBytes + branchElementBytes * children.length
    for (const [i, child] of children.entries()) {
      const at = pageHeaderBytes + i * branchElementBytes
      page.writeUInt32LE(dataAt - at, at)
      page.writeUInt32LE(child.key.length, at + 4)
      page.writeBigUInt64LE(BigInt(child.id), at + 8)
      dataAt += child.key.copy(page, dataAt)
    }
    return id
  }
}

/** A small bucket of values alone lies in its own value (bucket.go, inlineable: a quarter of a page at most). */
function inlineItems(bucket: BoltBucket, pageSize: number): Item[] | undefined {
  const items: Item[] = []
  for (const [key, value] of bucket.entries()) {
    if (value instanceof BoltBucket) return undefined
    items.push({ key, value, flags: 0 })
  }
  return leafBytes(items) <= pageSize / 4 ? items : undefined
}

function leafBytes(items: readonly Item[]): number {
  return items.reduce((sum, item) => sum + leafElementBytes + item.key.length + item.value.length, pageHeaderBytes)
}

function writeLeaf(page: Buffer, id: number, overflow: number, items: readonly Item[]): void {
  writeHeader(page, id, flags.leaf, items.length, overflow)
  let dataAt = pageHeaderBytes + leafElementBytes * items.length
  for (const [i, item] of items.entries()) {
    const at = pageHeaderBytes + i * leafElementBytes
    page.writeUInt32LE(item.flags, at)
    page.writeUInt32LE(dataAt - at, at + 4)
    page.writeUInt32LE(item.key.length, at + 8)
    page.writeUInt32LE(item.value.length, at + 12)
    dataAt += item.key.copy(page, dataAt)
    dataAt += item.value.copy(page, dataAt)
  }
}

/** Parts that fill a page each; of two or more parts each has two members at least, as bbolt's own splits have (minKeysPerPage). */
function group<T>(items: readonly T[], bytesOf: (item: T) => number, pageSize: number): T[][] {
  const parts: T[][] = []
  let room = 0
  for (const item of items) {
    const bytes = bytesOf(item), part = parts.at(-1)
    if (part === undefined || part.length >= 2 && bytes > room) {
      parts.push([item])
      room = pageSize - pageHeaderBytes - bytes
    } else {
      part.push(item)
      room -= bytes
    }
  }
  const last = parts.at(-1), before = parts.at(-2)
  if (last?.length === 1 && before !== undefined) {
    const moved = before.length > 2 ? before.pop() : undefined
    if (moved !== undefined) last.unshift(moved)
    else { before.push(...last); parts.pop() }
  }
  return parts
}

/** The pages that make `root` the state after `base`. */
export function layOutCommit(root: BoltBucket, base: Base): Commit {
  const { pageSize } = base
  const layout = new Layout(base)
  const rootId = layout.tree(root)
  const taken = new Set(layout.pages.flatMap(({ id, bytes }) => Array.from({ length: bytes.length / pageSize }, (_, i) => id + i)))
  // The old state's pages are free after this commit; bbolt holds them back itself while somebody reads. The list cannot have more entries
  // than there are pages, its own among them.
  const most = layout.highWater + 2
  const bound = pageHeaderBytes + 8 * (most + Math.ceil(8 * most / pageSize) + 1)
  const list = layout.allocate(bound)
  for (let i = 0; i <= list.overflow; i++) taken.add(list.id + i)
  const free: number[] = []
  for (let id = 2; id < layout.highWater; id++) if (!taken.has(id)) free.push(id)
  const many = free.length >= freelistMany
  writeHeader(list.page, list.id, flags.freelist, many ? freelistMany : free.length, list.overflow)
  const entries = many ? [free.length, ...free] : free
  for (const [i, id] of entries.entries()) list.page.writeBigUInt64LE(BigInt(id), pageHeaderBytes + 8 * i)
  const txid = base.txid + 1n
  const meta = encodeMeta({ pageSize, root: rootId, sequence: root.sequence, freelist: BigInt(list.id), highWater: layout.highWater, txid })
  return { pages: layout.pages, meta: { id: Number(txid % 2n), bytes: meta }, fileBytes: layout.highWater * pageSize }
}
