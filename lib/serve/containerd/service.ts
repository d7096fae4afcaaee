// The service containerd.services.snapshots.v1.Snapshots as functions from request bytes to answer bytes. Owns what each method does to the
// Snapshotter; knows no transport, and looks neither at the namespace nor at the snapshotter's name: containerd has put both into the key.

import type { Snapshotter } from '../../snapshots/index.ts'
import { cleanupRequest, commitRequest, emptyResponse, encodeInfos, infosResponse, keyRequest, listRequest, makeRequest, mountsResponse, updateRequest, usageResponse } from './codec.ts'

export const serviceName = 'containerd.services.snapshots.v1.Snapshots'

export type Method =
  | { readonly streams: false; call(request: Uint8Array): Promise<Buffer> }
  | { readonly streams: true; call(request: Uint8Array): Iterable<Buffer> }

/** Infos in one message of a List, as containerd's own service has it. */
const listBatch = 100

/** The methods by name. They reject with what the Snapshotter throws, and INVALID_ARGUMENT for a message that cannot be read. */
export function snapshotService(snapshots: Snapshotter): Readonly<Record<string, Method>> {
  const unary = (call: (request: Uint8Array) => Promise<Buffer>): Method => ({ streams: false, call })
  const nothing = emptyResponse.encode()
  return {
    Prepare: unary(async request => {
      const { key, parent, labels } = makeRequest.decode(request)
      return mountsResponse.encode(await snapshots.prepare(key, parent, { labels }))
    }),
    View: unary(async request => {
      const { key, parent, labels } = makeRequest.decode(request)
      return mountsResponse.encode(await snapshots.view(key, parent, { labels }))
    }),
    Mounts: unary(async request => mountsResponse.encode(await snapshots.mounts(keyRequest.decode(request).key))),
    Commit: unary(async request => {
      const { name, key, labels, parent } = commitRequest.decode(request)
      await snapshots.commit(name, key, { labels, ...(parent === '' ? {} : { parent }) })
      return nothing
    }),
    Remove: unary(async request => {
      await snapshots.remove(keyRequest.decode(request).key)
      return nothing
    }),
    Stat: unary(async request => encodeInfos([await snapshots.statBytes(keyRequest.decode(request).key)])),
    Update: unary(async request => {
      const { name, labels, fieldPaths } = updateRequest.decode(request)
      return infosResponse.encode([await snapshots.update({ name, labels }, fieldPaths)])
    }),
    // Image layers are left out: containerd's garbage collection would ask to remove what it does not know.
    List: {
      streams: true,
      *call(request) {
        let batch: Uint8Array[] = []
        for (const info of snapshots.walkBytes(listRequest.decode(request).filters)) {
          if (batch.push(info) < listBatch) continue
          yield encodeInfos(batch)
          batch = []
        }
        if (batch.length > 0) yield encodeInfos(batch)
      },
    },
    Usage: unary(async request => usageResponse.encode(await snapshots.usage(keyRequest.decode(request).key))),
    Cleanup: unary(async request => {
      cleanupRequest.decode(request)
      await snapshots.cleanup()
      return nothing
    }),
  }
}
