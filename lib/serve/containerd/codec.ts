// The messages of containerd.services.snapshots.v1 (api/services/snapshots/v1/snapshots.proto): field numbers, and how each becomes the
// library's own words. Both directions, for the server, its tests and a client.

import type { Mount, Usage } from '../../driver.ts'
import { StorageError } from '../../errors.ts'
import type { SnapshotInfo, SnapshotKind } from '../../snapshots/index.ts'
import { readMessage, Writer } from './wire.ts'
import type { Reader } from './wire.ts'

export type Labels = Readonly<Record<string, string>>

export interface MakeRequest { readonly snapshotter: string; readonly key: string; readonly parent: string; readonly labels: Labels }
export interface KeyRequest { readonly snapshotter: string; readonly key: string }
export interface CommitRequest { readonly snapshotter: string; readonly name: string; readonly key: string; readonly labels: Labels; readonly parent: string }
/** Of the info only what an update may look at is read. */
export interface UpdateRequest { readonly snapshotter: string; readonly name: string; readonly labels: Labels; readonly fieldPaths: readonly string[] }
export interface ListRequest { readonly snapshotter: string; readonly filters: readonly string[] }
export interface CleanupRequest { readonly snapshotter: string }

interface Codec<T> {
  encode(message: T): Buffer
  /** @throws INVALID_ARGUMENT */
  decode(bytes: Uint8Array): T
}

// ---- parts -------------------------------------------------------------------------------------------------------------------

const text = (set: (value: string) => void): { readonly type: 2; read(reader: Reader): void } => ({ type: 2, read: reader => set(reader.string()) })
const bytes = (set: (value: Buffer) => void): { readonly type: 2; read(reader: Reader): void } => ({ type: 2, read: reader => set(reader.bytes()) })

/** A map is a repeated message of key [1] and value [2]; of two with one key the last counts. */
function writeLabels(writer: Writer, number: number, labels: Labels): Writer {
  for (const [key, value] of Object.entries(labels)) writer.item(number, new Writer().string(1, key).string(2, value).finish())
  return writer
}

const labelsInto = (labels: Record<string, string>): { readonly type: 2; read(reader: Reader): void } => bytes(entry => {
  let key = '', value = ''
  readMessage(entry, { 1: text(v => { key = v }), 2: text(v => { value = v }) })
  // Not an assignment: a label may be called __proto__.
  Object.defineProperty(labels, key, { value, enumerable: true, configurable: true, writable: true })
})

const second = 1_000_000_000n

/** google.protobuf.Timestamp: seconds [1], nanos [2], which are never negative. */
function timestamp(ns: bigint): Buffer {
  const nanos = ((ns % second) + second) % second
  return new Writer().varint(1, (ns - nanos) / second).varint(2, nanos).finish()
}

function readTimestamp(message: Buffer): bigint {
  let seconds = 0n, nanos = 0
  readMessage(message, { 1: { type: 0, read: reader => { seconds = reader.int64() } }, 2: { type: 0, read: reader => { nanos = reader.int32() } } })
  return seconds * second + BigInt(nanos)
}

/** Kind: UNKNOWN 0, VIEW 1, ACTIVE 2, COMMITTED 3. */
const kindNumbers: Readonly<Record<SnapshotKind, number>> = { view: 1, active: 2, committed: 3 }
const kindNames: readonly (SnapshotKind | undefined)[] = [undefined, 'view', 'active', 'committed']

export const infoCodec: Codec<SnapshotInfo> = {
  encode: info => writeLabels(new Writer()
    .string(1, info.name).string(2, info.parent ?? '').varint(3, kindNumbers[info.kind])
    .item(4, timestamp(info.createdNs)).item(5, timestamp(info.updatedNs)), 6, info.labels).finish(),
  decode(message) {
    let name = '', parent = '', kind = 0, createdNs = 0n, updatedNs = 0n
    const labels: Record<string, string> = {}
    readMessage(message, {
      1: text(v => { name = v }), 2: text(v => { parent = v }), 3: { type: 0, read: reader => { kind = reader.int32() } },
      4: bytes(v => { createdNs = readTimestamp(v) }), 5: bytes(v => { updatedNs = readTimestamp(v) }), 6: labelsInto(labels),
    })
    const known = kindNames[kind]
    if (known === undefined) throw new StorageError('INVALID_ARGUMENT', `snapshot ${name} has the unknown kind ${kind}`, { op: 'decode' })
    return { name, kind: known, ...(parent === '' ? {} : { parent }), labels, createdNs, updatedNs }
  },
}

/** containerd.types.Mount: type [1], source [2], target [3], options [4]. */
export const mountCodec: Codec<Mount> = {
  encode(mount) {
    const writer = new Writer().string(1, mount.type).string(2, mount.source).string(3, mount.target ?? '')
    for (const option of mount.options) writer.item(4, Buffer.from(option))
    return writer.finish()
  },
  decode(message) {
    let type = '', source = '', target = ''
    const options: string[] = []
    readMessage(message, { 1: text(v => { type = v }), 2: text(v => { source = v }), 3: text(v => { target = v }), 4: text(v => { options.push(v) }) })
    return { type, source, options, ...(target === '' ? {} : { target }) }
  },
}

// ---- requests ----------------------------------------------------------------------------------------------------------------

/** PrepareSnapshotRequest and ViewSnapshotRequest. */
export const makeRequest: Codec<MakeRequest> = {
  encode: r => writeLabels(new Writer().string(1, r.snapshotter).string(2, r.key).string(3, r.parent), 4, r.labels).finish(),
  decode(message) {
    let snapshotter = '', key = '', parent = ''
    const labels: Record<string, string> = {}
    readMessage(message, { 1: text(v => { snapshotter = v }), 2: text(v => { key = v }), 3: text(v => { parent = v }), 4: labelsInto(labels) })
    return { snapshotter, key, parent, labels }
  },
}

/** MountsRequest, RemoveSnapshotRequest, StatSnapshotRequest and UsageRequest. */
export const keyRequest: Codec<KeyRequest> = {
  encode: r => new Writer().string(1, r.snapshotter).string(2, r.key).finish(),
  decode(message) {
    let snapshotter = '', key = ''
    readMessage(message, { 1: text(v => { snapshotter = v }), 2: text(v => { key = v }) })
    return { snapshotter, key }
  },
}

export const commitRequest: Codec<CommitRequest> = {
  encode: r => writeLabels(new Writer().string(1, r.snapshotter).string(2, r.name).string(3, r.key), 4, r.labels).string(5, r.parent).finish(),
  decode(message) {
    let snapshotter = '', name = '', key = '', parent = ''
    const labels: Record<string, string> = {}
    readMessage(message, { 1: text(v => { snapshotter = v }), 2: text(v => { name = v }), 3: text(v => { key = v }), 4: labelsInto(labels), 5: text(v => { parent = v }) })
    return { snapshotter, name, key, labels, parent }
  },
}

/** UpdateSnapshotRequest: info [2], update_mask [3] (google.protobuf.FieldMask: paths [1]). */
export const updateRequest: Codec<UpdateRequest> = {
  encode(r) {
    const writer = new Writer().string(1, r.snapshotter).item(2, writeLabels(new Writer().string(1, r.name), 6, r.labels).finish())
    if (r.fieldPaths.length === 0) return writer.finish()
    const mask = new Writer()
    for (const path of r.fieldPaths) mask.item(1, Buffer.from(path))
    return writer.item(3, mask.finish()).finish()
  },
  decode(message) {
    let snapshotter = '', name = ''
    const labels: Record<string, string> = {}, fieldPaths: string[] = []
    readMessage(message, {
      1: text(v => { snapshotter = v }),
      2: bytes(info => readMessage(info, { 1: text(v => { name = v }), 6: labelsInto(labels) })),
      3: bytes(mask => readMessage(mask, { 1: text(v => { fieldPaths.push(v) }) })),
    })
    return { snapshotter, name, labels, fieldPaths }
  },
}

export const listRequest: Codec<ListRequest> = {
  encode(r) {
    const writer = new Writer().string(1, r.snapshotter)
    for (const filter of r.filters) writer.item(2, Buffer.from(filter))
    return writer.finish()
  },
  decode(message) {
    let snapshotter = ''
    const filters: string[] = []
    readMessage(message, { 1: text(v => { snapshotter = v }), 2: text(v => { filters.push(v) }) })
    return { snapshotter, filters }
  },
}

export const cleanupRequest: Codec<CleanupRequest> = {
  encode: r => new Writer().string(1, r.snapshotter).finish(),
  decode(message) {
    let snapshotter = ''
    readMessage(message, { 1: text(v => { snapshotter = v }) })
    return { snapshotter }
  },
}

// ---- answers -----------------------------------------------------------------------------------------------------------------

/** PrepareSnapshotResponse, ViewSnapshotResponse and MountsResponse: mounts [1]. */
export const mountsResponse: Codec<readonly Mount[]> = {
  encode(mounts) {
    const writer = new Writer()
    for (const mount of mounts) writer.item(1, mountCodec.encode(mount))
    return writer.finish()
  },
  decode(message) {
    const mounts: Mount[] = []
    readMessage(message, { 1: bytes(v => { mounts.push(mountCodec.decode(v)) }) })
    return mounts
  },
}

/** ListSnapshotsResponse: info [1], repeated. StatSnapshotResponse and UpdateSnapshotResponse are the same with one. */
export const infosResponse: Codec<readonly SnapshotInfo[]> = {
  encode(infos) {
    const writer = new Writer()
    for (const info of infos) writer.item(1, infoCodec.encode(info))
    return writer.finish()
  },
  decode(message) {
    const infos: SnapshotInfo[] = []
    readMessage(message, { 1: bytes(v => { infos.push(infoCodec.decode(v)) }) })
    return infos
  },
}

/** UsageResponse: size [1], inodes [2], both int64. */
export const usageResponse: Codec<Usage> = {
  encode: usage => new Writer().varint(1, usage.sizeBytes).varint(2, usage.inodes).finish(),
  decode(message) {
    let sizeBytes = 0, inodes = 0
    readMessage(message, { 1: { type: 0, read: reader => { sizeBytes = Number(reader.int64()) } }, 2: { type: 0, read: reader => { inodes = Number(reader.int64()) } } })
    return { sizeBytes, inodes }
  },
}

/** google.protobuf.Empty. */
export const emptyResponse: Codec<void> = { encode: () => Buffer.alloc(0), decode: () => undefined }
