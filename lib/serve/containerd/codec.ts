// The messages of containerd.services.snapshots.v1 (api/services/snapshots/v1/snapshots.proto): field numbers, and how each becomes the
// library's own words. Both directions, for the server, its tests and a client.

import type { Mount, Usage } from '../../driver.ts'
import { bytes, labelsInto, readInfo, readMessage, text, varint, writeInfo, writeLabels, Writer } from '../../snapshots/index.ts'
import type { Labels, SnapshotInfo } from '../../snapshots/index.ts'

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

export const infoCodec: Codec<SnapshotInfo> = { encode: info => writeInfo(new Writer(), info).finish(), decode: readInfo }

/** containerd.types.Mount: type [1], source [2], target [3], options [4]. */
function writeMount(writer: Writer, mount: Mount): Writer {
  writer.string(1, mount.type).string(2, mount.source).string(3, mount.target ?? '')
  for (const option of mount.options) writer.text(4, option)
  return writer
}

export const mountCodec: Codec<Mount> = {
  encode(mount) {
    return writeMount(new Writer(), mount).finish()
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
    const writer = new Writer().string(1, r.snapshotter).message(2, info => writeLabels(info.string(1, r.name), 6, r.labels))
    if (r.fieldPaths.length > 0) writer.message(3, mask => { for (const path of r.fieldPaths) mask.text(1, path) })
    return writer.finish()
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
    for (const filter of r.filters) writer.text(2, filter)
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
    for (const mount of mounts) writer.message(1, part => writeMount(part, mount))
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
    for (const info of infos) writer.message(1, part => writeInfo(part, info))
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
    readMessage(message, { 1: varint(reader => { sizeBytes = Number(reader.int64()) }), 2: varint(reader => { inodes = Number(reader.int64()) }) })
    return { sizeBytes, inodes }
  },
}

/** `infosResponse.encode` for infos that are bytes already. */
export function encodeInfos(infos: readonly Uint8Array[]): Buffer {
  const writer = new Writer()
  for (const info of infos) writer.item(1, info)
  return writer.finish()
}

/** google.protobuf.Empty. */
export const emptyResponse: Codec<void> = { encode: () => Buffer.alloc(0), decode: () => undefined }
