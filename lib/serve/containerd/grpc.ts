// gRPC over @grpc/grpc-js, with our own bytes in and out. The only file that knows the package.

import { Server, ServerCredentials } from '@grpc/grpc-js'
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js'
import type { Method } from './service.ts'

export interface GrpcServerOptions {
  readonly service: string
  readonly methods: Readonly<Record<string, Method>>
  readonly statusOf: (error: unknown) => { readonly code: number; readonly message: string }
  readonly onError: (error: unknown) => void
}

/** containerd's own limit for messages in both directions (defaults/defaults.go). */
const messageBytes = 16 << 20

export class GrpcServer {
  readonly #server: Server

  constructor(options: GrpcServerOptions) {
    this.#server = new Server({ 'grpc.max_receive_message_length': messageBytes, 'grpc.max_send_message_length': messageBytes })
    const definition: Record<string, ServiceDefinition[string]> = {}
    const implementation: UntypedServiceImplementation = {}
    const same = (bytes: Buffer): Buffer => bytes
    for (const [name, method] of Object.entries(options.methods)) {
      definition[name] = {
        path: `/${options.service}/${name}`, requestStream: false, responseStream: method.streams,
        requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
      }
      const fail = (error: unknown): { code: number; details: string } => {
        const { code, message } = options.statusOf(error)
        return { code, details: message }
      }
      if (method.streams) {
        implementation[name] = (call: ServerWritableStream<Buffer, Buffer>): void => {
          void (async () => {
            for (const message of method.call(call.request)) {
              if (call.cancelled) return
              if (!call.write(message)) await new Promise<void>(resolve => { call.once('drain', resolve); call.once('cancelled', () => resolve()) })
            }
            call.end()
          })().catch((error: unknown) => call.emit('error', fail(error)))
        }
      } else {
        implementation[name] = (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void => {
          method.call(call.request).then(bytes => answer(null, bytes), (error: unknown) => answer(fail(error)))
        }
      }
    }
    this.#server.addService(definition as ServiceDefinition, implementation)
  }

  listen(socket: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), error => { if (error === null) resolve(); else reject(error) })
    })
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) => this.#server.tryShutdown(error => { if (error === undefined) resolve(); else reject(error) }))
  }
}
