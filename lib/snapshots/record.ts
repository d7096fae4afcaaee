// The bytes of the catalogue: how a snapshot's key becomes a database key, and a record a value. Owns the format; knows no database.

import { createHash } from 'node:crypto'
import { StorageError } from '../errors.ts'
import type { LayerId } from '../ids.ts'
import { readInfo, text, varint, writeInfo } from './info-codec.ts'
import type { SnapshotRecord } from './types.ts'
import { readMessage, Writer } from './wire.ts'

// LMDB takes keys of up to 1,978 bytes; snapshot keys are as long as their maker likes (containerd's may be paths).
const inlineKeyBytes = 1024

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

/**
 * The value of a record: the length of our own part in two bytes, that part, then the snapshot's Info as containerd's API has it. Ours: id [1],
 * own layer [2], the parent's reference [3], usage in bytes [4] and inodes [5], both one too many, so that 0 is "not counted".
 */
export function encodeRecord(record: SnapshotRecord): Buffer {
  const { usage } = record
  const own = new Writer().string(1, record.id).varint(2, record.ownLayer ? 1 : 0).string(3, record.parentRef)
  if (usage !== undefined) own.varint(4, usage.sizeBytes + 1).varint(5, usage.inodes + 1)
  const length = Buffer.allocUnsafe(2)
  length.writeUInt16BE(own.length)
  return writeInfo(new Writer().raw(length).raw(own.finish()), record).finish()
}

/** The Info part, not copied. */
export function infoBytes(value: Uint8Array): Buffer {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  return bytes.subarray(2 + bytes.readUInt16BE(0))
}

/** @throws CORRUPT */
export function decodeRecord(value: Uint8Array): SnapshotRecord {
  try {
    const info = infoBytes(value)
    let id = '', ownLayer = false, parentRef = '', sizeBytes = 0, inodes = 0
    readMessage(value.subarray(2, value.length - info.length), {
      1: text(v => { id = v }), 2: varint(reader => { ownLayer = reader.int32() === 1 }), 3: text(v => { parentRef = v }),
      4: varint(reader => { sizeBytes = Number(reader.int64()) }), 5: varint(reader => { inodes = Number(reader.int64()) }),
    })
    return {
      ...readInfo(info), id: id as LayerId, ownLayer, parentRef, ...(inodes === 0 ? {} : { usage: { sizeBytes: sizeBytes - 1, inodes: inodes - 1 } }),
    }
  } catch (error) {
    throw new StorageError('CORRUPT', `the snapshot catalogue holds a record that cannot be read: ${(error as Error).message}`, { op: 'snapshots' }, { cause: error })
  }
}
