// The snapshots' metadata: one LMDB file that several processes share, every change one transaction, every look-up one descent. Owns the
// order of checks and their codes (containerd's snapshots/storage/bolt.go); knows no driver and deletes nothing on disk.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import type { RootDatabase } from 'lmdb'
import type { Usage } from '../driver.ts'
import { codeForErrno, StorageError } from '../errors.ts'
import { isDigest } from '../ids.ts'
import type { ChainId, LayerId } from '../ids.ts'
import { errnoName } from '../sys/native.ts'
import { childKey, decodeRecord, encodeRecord, infoBytes, prefixRange, snapshotKey, trashKey } from './record.ts'
import type { CommitSnapshotOptions, SnapshotRecord } from './types.ts'

const require = createRequire(import.meta.url)

const empty = Buffer.alloc(0)
const versionKey = Buffer.from('version')
const formatVersion = '1'
/** Records per read: a walk holds neither the file's old pages nor the event loop for longer (about 1 ms). */
const pageSize = 256
// Address space only; the file grows as it is filled. 100,000 snapshots take some 50 MB.
const mapBytes = 1 << 30

export interface Trash {
  /** A driver layer without a snapshot. */
  readonly layers: readonly LayerId[]
  /** Image layers whose last snapshot was removed. */
  readonly images: readonly ChainId[]
}

export interface CatalogueOptions {
  /** Every transaction is on the device before its caller hears of it. */
  readonly sync: boolean
  readonly readOnly: boolean
}

export class Catalogue {
  readonly #open: RootDatabase<Buffer, Buffer>
  readonly #decoded = new Map<string, { readonly value: Buffer; readonly record: SnapshotRecord }>()
  #closed = false
  #broken = false

  constructor(db: RootDatabase<Buffer, Buffer>) { this.#open = db }

  get #db(): RootDatabase<Buffer, Buffer> {
    // LMDB does not look: a call on a closed file ends the process.
    if (this.#closed) throw new StorageError('CLOSED', 'the snapshotter is closed', { op: 'snapshots' })
    return this.#open
  }

  /**
   * Open the catalogue in `dir`, made when missing. Undefined when it is to be read only and there is none.
   * @throws PREREQUISITE_MISSING without the package lmdb, CORRUPT for a file of another format
   */
  static open(dir: string, options: CatalogueOptions): Catalogue | undefined {
    if (options.readOnly && !fs.existsSync(path.join(dir, 'data.mdb'))) return undefined
    let lmdb: typeof import('lmdb')
    try {
      lmdb = require('lmdb') as typeof import('lmdb')
    } catch (error) {
      throw new StorageError('PREREQUISITE_MISSING', `opening the snapshot catalogue ${dir}: the package lmdb cannot be loaded: ${(error as Error).message.split('\n')[0]}`,
        { op: 'snapshots', path: dir, hint: 'install the npm package lmdb' }, { cause: error })
    }
    readHeader(path.join(dir, 'data.mdb'))
    const db = opened(() => lmdb.open<Buffer, Buffer>({
      path: dir, noSubdir: false, keyEncoding: 'binary', encoding: 'binary', cache: false, mapSize: mapBytes,
      readOnly: options.readOnly, noSync: !options.sync,
      // Its default makes a transaction visible before it is on the device, and promises the rest for later.
      overlappingSync: false,
    }))
    const catalogue = new Catalogue(db)
    try {
      catalogue.#checkVersion(dir, options.readOnly)
      // The slots of readers that were killed would keep old pages from being used again.
      db.readerCheck()
    } catch (error) {
      void db.close()
      throw error
    }
    return catalogue
  }

  #checkVersion(dir: string, readOnly: boolean): void {
    const found = this.#fresh(versionKey)?.toString()
    if (found === formatVersion) return
    if (found !== undefined) {
      throw new StorageError('CORRUPT', `the snapshot catalogue ${dir} has format ${JSON.stringify(found)}, and this version of layerstack knows ${formatVersion}`,
        { op: 'snapshots', path: dir, hint: 'use the version of layerstack that wrote it' })
    }
    if (!readOnly) this.#transaction(() => { if (this.#db.get(versionKey) === undefined) this.#db.putSync(versionKey, Buffer.from(formatVersion)) })
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  find(key: string): SnapshotRecord | undefined {
    this.#db.resetReadTxn()
    return this.#read(key)
  }

  /** A snapshot's Info as bytes. */
  findInfo(key: string): Buffer | undefined {
    const value = this.findValue(key)
    return value === undefined ? undefined : infoBytes(value)
  }

  /** A record as it is stored: two that are equal say the same. */
  findValue(key: string): Buffer | undefined {
    return this.#fresh(snapshotKey(key))
  }

  /** All records, read in pages: one that is there all the while comes once; others may or may not. */
  *records(): Generator<SnapshotRecord> {
    for (const value of this.#values()) yield decodeRecord(value)
  }

  /** `records`, each one's Info as bytes. */
  *infoBytes(): Generator<Buffer> {
    for (const value of this.#values()) yield infoBytes(value)
  }

  *#values(): Generator<Buffer> {
    let { start, end } = prefixRange('s')
    for (;;) {
      this.#db.resetReadTxn()
      const page = [...this.#db.getRange({ start, end, limit: pageSize })]
      for (const { value } of page) yield value
      const last = page.at(-1)
      if (last === undefined || page.length < pageSize) return
      start = Buffer.concat([last.key, Buffer.from([0])])
    }
  }

  hasChildren(ref: string): boolean {
    this.#db.resetReadTxn()
    return this.#hasChildren(ref)
  }

  /** The image layers that snapshots stand on. */
  heldImages(): ChainId[] {
    this.#db.resetReadTxn()
    const held: ChainId[] = []
    let { start, end } = prefixRange('csha256:')
    for (;;) {
      // One step per image layer, however many snapshots stand on it.
      const [key] = [...this.#db.getKeys({ start, end, limit: 1 })]
      if (key === undefined) return held
      const ref = key.subarray(1, key.indexOf(0)).toString()
      if (isDigest(ref)) held.push(ref as ChainId)
      start = prefixRange(`c${ref}\0`).end
    }
  }

  /** The ids of all snapshots, from the index of children. */
  *ids(): Generator<LayerId> {
    this.#db.resetReadTxn()
    for (const key of [...this.#db.getKeys(prefixRange('c'))]) yield key.subarray(key.indexOf(0) + 1).toString() as LayerId
  }

  trash(): Trash {
    this.#db.resetReadTxn()
    const layers: LayerId[] = [], images: ChainId[] = []
    for (const key of this.#db.getKeys(prefixRange('t'))) {
      const what = key.subarray(1).toString()
      if (isDigest(what)) images.push(what as ChainId)
      else layers.push(what as LayerId)
    }
    return { layers, images }
  }

  // ---- changing --------------------------------------------------------------------------------------------------------------

  /** Everything that can be said against a new snapshot, in containerd's order. Also used alone, before a layer is made for nothing. */
  checkNew(record: Pick<SnapshotRecord, 'name' | 'parent'>, external: (key: string) => boolean): SnapshotRecord | undefined {
    this.#db.resetReadTxn()
    return this.#checkNew(record, external)
  }

  #checkNew({ name, parent }: Pick<SnapshotRecord, 'name' | 'parent'>, external: (key: string) => boolean): SnapshotRecord | undefined {
    const above = parent === undefined ? undefined : this.#read(parent)
    if (parent !== undefined && above === undefined && !external(parent)) throw notFound(parent, 'parent snapshot')
    if (above !== undefined && above.kind !== 'committed') throw notCommitted(parent ?? '', 'INVALID_ARGUMENT')
    if (this.#read(name) !== undefined || external(name)) throw alreadyExists(name)
    return above
  }

  /**
   * Insert a snapshot whose layer is there.
   * Returns the record as it is stored.
   * @throws NOT_FOUND (parent), INVALID_ARGUMENT (parent not committed), ALREADY_EXISTS; then nothing has changed
   */
  create(record: SnapshotRecord, external: (key: string) => boolean): Buffer {
    return this.#transaction(() => {
      const above = this.#checkNew(record, external)
      // Removed and made again under the same name while the layer was laid out: the layer stands on what is gone.
      if (above !== undefined && above.id !== record.parentRef) throw notFound(record.parent ?? '', 'parent snapshot')
      return this.#put(record)
    })
  }

  /** `create` for a snapshot without a layer of its own, on whatever its parent's name stands for now. @throws as `create` */
  createOnParent(draft: Omit<SnapshotRecord, 'parentRef'>, external: (key: string) => boolean): { readonly record: SnapshotRecord; readonly value: Buffer } {
    return this.#transaction(() => {
      const above = this.#checkNew(draft, external)
      // An image layer that shows up this very moment: then the name was not there when the caller looked.
      if (above === undefined) throw notFound(draft.parent ?? '', 'parent snapshot')
      const record = { ...draft, parentRef: above.id }
      return { record, value: this.#put(record) }
    })
  }

  /**
   * Turn an active snapshot into a committed one under a new name. Labels are replaced, times begin anew, the usage is to be counted.
   * @throws ALREADY_EXISTS (name), NOT_FOUND (key or parent), FAILED_PRECONDITION (not active; parent not committed), INVALID_ARGUMENT (another parent), NOT_SUPPORTED (rebase)
   */
  commit(name: string, key: string, options: CommitSnapshotOptions, nowNs: bigint, external: (key: string) => boolean): SnapshotRecord {
    return this.#transaction(() => {
      const active = this.#checkCommit(name, key, options, external)
      const { usage: _, ...kept } = active
      const committed: SnapshotRecord = { ...kept, name, kind: 'committed', labels: options.labels ?? {}, createdNs: nowNs, updatedNs: nowNs }
      this.#db.removeSync(snapshotKey(key))
      this.#put(committed)
      return committed
    })
  }

  /** The checks of `commit`, before its data are synced for nothing. */
  checkCommit(name: string, key: string, options: CommitSnapshotOptions, external: (key: string) => boolean): SnapshotRecord {
    this.#db.resetReadTxn()
    return this.#checkCommit(name, key, options, external)
  }

  #checkCommit(name: string, key: string, { parent }: CommitSnapshotOptions, external: (key: string) => boolean): SnapshotRecord {
    if (this.#read(name) !== undefined || external(name)) throw alreadyExists(name)
    const active = this.#read(key)
    if (active === undefined) throw notFound(key)
    if (active.kind !== 'active') throw new StorageError('FAILED_PRECONDITION', `snapshot ${key} is not active: it is ${active.kind}`, { op: 'commit', key })
    if (parent === undefined || parent === '') return active
    if (active.parent !== undefined && active.parent !== parent) {
      throw new StorageError('INVALID_ARGUMENT', `snapshot ${key} has the parent ${active.parent}, so it cannot be committed on ${parent}`, { op: 'commit', key })
    }
    const above = this.#read(parent)
    if (above === undefined && !external(parent)) throw notFound(parent, 'parent snapshot')
    if (above !== undefined && above.kind !== 'committed') throw notCommitted(parent, 'FAILED_PRECONDITION')
    if (active.parent === undefined) {
      throw new StorageError('NOT_SUPPORTED', `snapshot ${key} was made without a parent and cannot be moved onto ${parent}`,
        { op: 'commit', key, hint: 'prepare it on its parent; the rebase capability is not offered' })
    }
    return active
  }

  /**
   * Forget a snapshot; what it leaves on disk is noted as trash in the same transaction.
   * @throws NOT_FOUND, FAILED_PRECONDITION `cannot remove snapshot with child`
   */
  remove(key: string): SnapshotRecord {
    return this.#transaction(() => {
      const record = this.#read(key)
      if (record === undefined) throw notFound(key)
      if (record.kind === 'committed' && this.#hasChildren(record.id)) {
        throw new StorageError('FAILED_PRECONDITION', `cannot remove snapshot ${key}: it has a child`, { op: 'remove', key, hint: 'remove the snapshots made on it first' })
      }
      this.#db.removeSync(snapshotKey(key))
      this.#db.removeSync(childKey(record.parentRef, record.id))
      if (record.ownLayer) this.#db.putSync(trashKey(record.id), empty)
      if (isDigest(record.parentRef) && !this.#hasChildren(record.parentRef)) this.#db.putSync(trashKey(record.parentRef), empty)
      return record
    })
  }

  /** Replace the labels by what `change` makes of them. @throws NOT_FOUND */
  update(key: string, nowNs: () => bigint, change: (labels: Readonly<Record<string, string>>) => Readonly<Record<string, string>>): SnapshotRecord {
    return this.#transaction(() => {
      const record = this.#read(key)
      if (record === undefined) throw notFound(key)
      const updated = { ...record, labels: change(record.labels), updatedNs: nowNs() }
      this.#put(updated)
      return updated
    })
  }

  /** Keep what was counted for a committed snapshot, if it still is there. */
  setUsage(key: string, id: LayerId, usage: Usage): void {
    this.#transaction(() => {
      const record = this.#read(key)
      if (record?.id === id && record.kind === 'committed') this.#db.putSync(snapshotKey(key), encodeRecord({ ...record, usage }))
    })
  }

  /** What was trash is gone. One transaction for all, as each waits for the device. */
  forgetTrash(gone: readonly string[]): void {
    if (gone.length > 0) this.#transaction(() => { for (const what of gone) this.#db.removeSync(trashKey(what)) })
  }

  /** A transaction failed on its way to the device, after which LMDB refuses all others: to be opened anew. */
  get broken(): boolean { return this.#broken }

  #transaction<T>(work: () => T): T {
    try {
      return this.#db.transactionSync(work)
    } catch (error) {
      if (StorageError.is(error)) throw error
      this.#broken = true
      throw deviceError(error, 'writing the snapshot catalogue')
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#open.close()
  }

  // ---- inside a transaction or after a reset -----------------------------------------------------------------------------------

  /** As of now: without the reset, a read transaction of this turn of the event loop might not see what another process has just written. */
  #fresh(key: Buffer): Buffer | undefined {
    this.#db.resetReadTxn()
    return this.#db.get(key)
  }

  #read(key: string): SnapshotRecord | undefined {
    const value = this.#db.get(snapshotKey(key))
    return value === undefined ? undefined : this.#decode(key, value)
  }

  /** A parent is looked at twice for every child: decoding costs 7 µs, comparing bytes next to nothing. */
  #decode(key: string, value: Buffer): SnapshotRecord {
    const known = this.#decoded.get(key)
    if (known?.value.equals(value) === true) return known.record
    const record = decodeRecord(value)
    if (this.#decoded.size >= 256) this.#decoded.clear()
    this.#decoded.set(key, { value, record })
    return record
  }

  #put(record: SnapshotRecord): Buffer {
    const value = encodeRecord(record)
    this.#db.putSync(snapshotKey(record.name), value)
    this.#db.putSync(childKey(record.parentRef, record.id), Buffer.from(record.name))
    return value
  }

  #hasChildren(ref: string): boolean {
    return this.#db.getKeysCount({ ...prefixRange(`c${ref}\0`), limit: 1 }) > 0
  }
}

function opened<T>(open: () => T): T {
  try {
    return open()
  } catch (error) {
    throw deviceError(error, 'opening the snapshot catalogue')
  }
}

/** LMDB's errors carry the kernel's number, without its name. */
function deviceError(error: unknown, what: string): unknown {
  const number = (error as { code?: unknown }).code
  if (typeof number !== 'number' || number <= 0) return error
  const name = errnoName(number)
  return new StorageError(codeForErrno(name), `${what}: ${(error as Error).message}`, { op: 'snapshots', errno: name }, { cause: error })
}

/** lmdb-js 3.5 ends the process with a segmentation fault when the device cannot read its file's header: found with injected EIO. */
function readHeader(file: string): void {
  if (!fs.existsSync(file)) return
  const fd = fs.openSync(file, 'r')
  try {
    fs.readSync(fd, Buffer.alloc(8192), 0, 8192, 0)
  } finally {
    fs.closeSync(fd)
  }
}

export function notFound(key: string, what = 'snapshot'): StorageError {
  return new StorageError('NOT_FOUND', `${what} ${key} does not exist`, { key })
}

export function alreadyExists(key: string): StorageError {
  return new StorageError('ALREADY_EXISTS', `snapshot ${key} already exists`, { key })
}

function notCommitted(key: string, code: 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION'): StorageError {
  return new StorageError(code, `parent ${key} is not committed`, { key, hint: 'commit it first' })
}
