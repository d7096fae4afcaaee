// The bytes of the catalogue: how a snapshot's key becomes a database key, and a record a value. Owns the format; knows no database.

import { createHash } from 'node:crypto'
import { StorageError } from '../errors.ts'
import type { LayerId } from '../ids.ts'
import type { SnapshotKind, SnapshotRecord } from './types.ts'

// LMDB takes keys of up to 1,978 bytes; snapshot keys are as long as their maker likes (containerd's may be paths).
const inlineKeyBytes = 1024

const kindLetters = { active: 'a', view: 'v', committed: 'c' } as const
const kinds: Readonly<Record<string, SnapshotKind>> = { a: 'active', v: 'view', c: 'committed' }

/** `s`, then `k` and the key itself, or `h` and its digest where it is too long. */
export function snapshotKey(key: string): Buffer {
  if (key.length <= inlineKeyBytes / 3 || Buffer.byteLength(key) <= inlineKeyBytes) return Buffer.from(`sk${key}`)
  return Buffer.from(`sh${createHash('sha256').update(key).digest('hex')}`)
}

/** One entry for each snapshot under its parent's reference: the children of a parent are a range of keys. */
export function childKey(parentRef: string, id: LayerId): Buffer {
  return Buffer.from(`c${parentRef}\0${id}`)
}

/** What is to be deleted: a driver layer, or an image layer that may have lost its last user. */
export function trashKey(what: string): Buffer {
  return Buffer.from(`t${what}`)
}

/** The range of all keys that begin with `prefix`. */
export function prefixRange(prefix: string): { readonly start: Buffer; readonly end: Buffer } {
  // 0xff occurs in no UTF-8.
  return { start: Buffer.from(prefix), end: Buffer.concat([Buffer.from(prefix), Buffer.from([0xff])]) }
}

/** The value of a record, JSON with short names: k kind, i id, o own layer, p parent, r its reference, l labels, c and u times, s usage, n name. */
export function encodeRecord(record: SnapshotRecord): Buffer {
  const { usage } = record
  return Buffer.from(JSON.stringify({
    n: record.name, k: kindLetters[record.kind], i: record.id, o: record.ownLayer ? 1 : 0,
    ...(record.parent === undefined ? {} : { p: record.parent }), r: record.parentRef, l: record.labels,
    c: String(record.createdNs), u: String(record.updatedNs), ...(usage === undefined ? {} : { s: [usage.sizeBytes, usage.inodes] }),
  }))
}

interface Stored {
  readonly n: string; readonly k: string; readonly i: LayerId; readonly o: 0 | 1; readonly p?: string; readonly r: string
  readonly l: Readonly<Record<string, string>>; readonly c: string; readonly u: string; readonly s?: readonly [number, number]
}

/** @throws CORRUPT */
export function decodeRecord(value: Uint8Array): SnapshotRecord {
  try {
    const stored = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString()) as Stored
    const kind = kinds[stored.k]
    if (kind === undefined) throw new TypeError(`no kind ${JSON.stringify(stored.k)}`)
    return {
      name: stored.n, kind, id: stored.i, ownLayer: stored.o === 1, parentRef: stored.r, labels: stored.l,
      createdNs: BigInt(stored.c), updatedNs: BigInt(stored.u),
      ...(stored.p === undefined ? {} : { parent: stored.p }),
      ...(stored.s === undefined ? {} : { usage: { sizeBytes: stored.s[0], inodes: stored.s[1] } }),
    }
  } catch (error) {
    throw new StorageError('CORRUPT', `the snapshot catalogue holds a record that cannot be read: ${(error as Error).message}`, { op: 'snapshots' }, { cause: error })
  }
}
