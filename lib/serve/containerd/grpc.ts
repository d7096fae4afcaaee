// The service on @grpc/grpc-js: methods from bytes to bytes, statuses, limits, and an end that waits for what runs. Knows no message.

import type { Writable } from 'node:stream'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import type { handleServerStreamingCall, handleUnaryCall, ServerWritableStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js'
import { StorageError } from '../../errors.ts'
import type { Method } from './service.ts'

export interface GrpcServerOptions {
  readonly service: string
  readonly methods: Readonly<Record<string, Method>>
  /** The status for whatever a method throws. */
  readonly statusOf: (error: unknown) => Status
  /** Most bytes of a message in either direction. */
  readonly messageBytes?: number
  /** How long clients that leave a call unfinished are waited for at the end. */
  readonly graceMs?: number
}

interface Status { readonly code: number; readonly message: string }

/** containerd's own limit for messages in both directions (defaults/defaults.go). */
const containerdMessageBytes = 16 << 20

const same = (bytes: Buffer): Buffer => bytes

export class GrpcServer {
  readonly #server: Server
  readonly #statusOf: (error: unknown) => Status
  readonly #graceMs: number
  #running = 0
  #whenIdle: (() => void) | undefined

  constructor({ service, methods, statusOf, messageBytes = containerdMessageBytes, graceMs = 3000 }: GrpcServerOptions) {
    this.#statusOf = statusOf
    this.#graceMs = graceMs
    this.#server = new Server({ 'grpc.max_receive_message_length': messageBytes, 'grpc.max_send_message_length': messageBytes })
    const definition: Record<string, ServiceDefinition[string]> = {}, implementation: UntypedServiceImplementation = {}
    for (const [name, method] of Object.entries(methods)) {
      definition[name] = {
        path: `/${service}/${name}`, requestStream: false, responseStream: method.streams,
        requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
      }
      implementation[name] = method.streams ? this.#streaming(method.call) : this.#unary(method.call)
    }
    this.#server.addService(definition, implementation)
  }

  listen(socket: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), error => {
        if (error === null) resolve()
        else reject(new StorageError('IO', `cannot listen at ${socket}: ${error.message}`, { op: 'serve', path: socket }, { cause: error }))
      })
    })
  }

  /** Take no more connections and calls, answer those under way, and resolve when all are closed. A client that neither asks nor reads to the end is left. */
  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.tryShutdown(() => resolve()))
    // A client may have left while its call runs on.
    if (this.#running > 0) await new Promise<void>(resolve => { this.#whenIdle = resolve })
    const force = setTimeout(() => this.#server.forceShutdown(), this.#graceMs)
    await closed
    clearTimeout(force)
  }

  #status(error: unknown): { code: number; details: string } {
    const { code, message } = this.#statusOf(error)
    // A client's header limit may be 8 KiB; half a pair of surrogates cannot be encoded, and the library would throw at it.
    return { code, details: Buffer.from(message.slice(0, 2000)).toString() }
  }

  #unary(method: (request: Uint8Array) => Promise<Buffer>): handleUnaryCall<Buffer, Buffer> {
    return (call, answer) => {
      this.#running++
      method(call.request).then(bytes => answer(null, bytes), (error: unknown) => answer(this.#status(error))).finally(() => {
        if (--this.#running === 0) this.#whenIdle?.()
      })
    }
  }

  #streaming(method: (request: Uint8Array) => Iterable<Buffer>): handleServerStreamingCall<Buffer, Buffer> {
    return call => {
      void this.#stream(call, method)
    }
  }

  /** At the pace at which the client reads. */
  async #stream(call: ServerWritableStream<Buffer, Buffer>, method: (request: Uint8Array) => Iterable<Buffer>): Promise<void> {
    try {
      for (const message of method(call.request)) {
        if (call.destroyed) return
        if (!call.write(message)) await drained(call)
      }
      call.end()
    } catch (error) {
      call.emit('error', this.#status(error))
    }
  }
}

/** Resolves when more may be written, or nothing any more. */
function drained(call: Writable): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      call.off('drain', done).off('close', done)
      resolve()
    }
    if (call.destroyed) resolve()
    else call.on('drain', done).on('close', done)
  })
}
