// Serving the Snapshotter to containerd: a proxy plugin of type snapshot, gRPC on a unix socket. Joins service, transport and socket.

import { grpcStatus, StorageError } from '../../errors.ts'
import type { Snapshotter } from '../../snapshots/index.ts'
import { snapshotService, serviceName } from './service.ts'
import { listenAt, socketPath } from './socket.ts'

export interface ServeOptions {
  readonly snapshots: Snapshotter
  /** The socket, `/run/…/x.sock` or `unix:///run/…/x.sock`. Its folder is made when missing. */
  readonly address: string
  /** Told of errors that no client can be told of, and of unknown exceptions. Default: nobody. */
  readonly onError?: (error: unknown) => void
}

export interface ContainerdServer extends AsyncDisposable {
  readonly address: string
  /** Take no new calls, finish those that run, and remove the socket. Idempotent. The Snapshotter stays open. */
  close(): Promise<void>
}

/** gRPC's UNKNOWN, for exceptions that are nobody's plan. */
const UNKNOWN = 2

/**
 * Serve `containerd.services.snapshots.v1.Snapshots`. Resolves when clients can connect.
 * @throws ALREADY_EXISTS while another server answers at the address, FAILED_PRECONDITION, INVALID_ARGUMENT
 */
export async function serveContainerd({ snapshots, address, onError = () => undefined }: ServeOptions): Promise<ContainerdServer> {
  const file = socketPath(address)
  // 35 ms, which only those who serve pay.
  const { GrpcServer } = await import('./grpc.ts')
  const server = new GrpcServer({
    service: serviceName, methods: snapshotService(snapshots),
    statusOf(error) {
      if (StorageError.is(error)) return { code: grpcStatus[error.code], message: error.message }
      onError(error)
      return { code: UNKNOWN, message: error instanceof Error ? error.message : String(error) }
    },
  })
  const socket = await listenAt(file, path => server.listen(path))
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => closing ??= server.close().finally(() => socket.release())
  return { address: file, close, [Symbol.asyncDispose]: close }
}
