// gRPC (PROTOCOL-HTTP2.md of grpc/grpc) for a service of unary and server-streaming methods: paths, length-prefixed messages, statuses. Knows no
// service and no message.

import net from 'node:net'
import { encodeHeaders } from './hpack.ts'
import { Connection } from './http2.ts'
import type { ServerStream, StreamHandler } from './http2.ts'
import type { Method } from './service.ts'

export interface GrpcServerOptions {
  readonly service: string
  readonly methods: Readonly<Record<string, Method>>
  /** The status for whatever a method throws. */
  readonly statusOf: (error: unknown) => Status
}

interface Status { readonly code: number; readonly message: string }

const OK = 0, RESOURCE_EXHAUSTED = 8, UNIMPLEMENTED = 12, INTERNAL = 13
/** containerd's own limit for messages in both directions (defaults/defaults.go). */
const messageBytes = 16 << 20

const contentType = ['content-type', 'application/grpc'] as const
const answerHeaders = encodeHeaders([[':status', '200'], contentType])
const okTrailers = encodeHeaders([['grpc-status', String(OK)]])

export class GrpcServer {
  readonly #server: net.Server
  readonly #methods: ReadonlyMap<string, Method>
  readonly #statusOf: (error: unknown) => Status
  readonly #connections = new Set<Connection>()
  #running = 0
  #whenIdle: (() => void) | undefined

  constructor({ service, methods, statusOf }: GrpcServerOptions) {
    this.#methods = new Map(Object.entries(methods).map(([name, method]) => [`/${service}/${name}`, method]))
    this.#statusOf = statusOf
    this.#server = net.createServer(socket => {
      const connection: Connection = new Connection(socket, {
        request: (stream, headers) => this.#request(stream, headers),
        closed: () => { this.#connections.delete(connection); this.#settle() },
      })
      this.#connections.add(connection)
    })
  }

  listen(socket: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(socket, () => { this.#server.off('error', reject); resolve() })
    })
  }

  /** Take no more connections and calls, answer those under way, and resolve when all are closed. */
  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    for (const connection of this.#connections) connection.shutDown()
    await closed
    // A client may have left while its call runs on.
    if (this.#running > 0) await new Promise<void>(resolve => { this.#whenIdle = resolve })
  }

  #settle(): void {
    if (this.#running === 0) this.#whenIdle?.()
  }

  #request(stream: ServerStream, headers: ReadonlyMap<string, string>): StreamHandler {
    const refuse = (status: Status): StreamHandler => {
      stream.send(undefined, undefined, statusOnly(status))
      return ignored
    }
    if (headers.get(':method') !== 'POST' || !/^application\/grpc($|[+;])/.test(headers.get('content-type') ?? '')) {
      // Not gRPC at all: plain HTTP's answer.
      stream.send(undefined, undefined, encodeHeaders([[':status', '415']]))
      return ignored
    }
    const method = this.#methods.get(headers.get(':path') ?? '')
    if (method === undefined) return refuse({ code: UNIMPLEMENTED, message: `unknown method ${headers.get(':path') ?? ''}` })
    return new Call(stream, request => this.#run(stream, method, request))
  }

  #run(stream: ServerStream, method: Method, request: Buffer): void {
    this.#running++
    const work = method.streams ? this.#stream(stream, method.call(request)) : method.call(request).then(bytes => { answer(stream, bytes) })
    work.catch((error: unknown) => stream.send(undefined, undefined, statusOnly(this.#statusOf(error)))).finally(() => {
      this.#running--
      this.#settle()
    })
  }

  async #stream(stream: ServerStream, messages: Iterable<Buffer>): Promise<void> {
    let headers: Buffer | undefined = answerHeaders
    try {
      for (const message of messages) {
        stream.send(headers, prefixed(message), undefined)
        headers = undefined
        await stream.drained()
        if (!stream.open) return
      }
    } catch (error) {
      const status = this.#statusOf(error)
      stream.send(undefined, undefined, headers === undefined ? encodeHeaders(statusFields(status)) : statusOnly(status))
      return
    }
    stream.send(headers, undefined, okTrailers)
  }
}

function answer(stream: ServerStream, message: Buffer): void {
  if (message.length > messageBytes) {
    stream.send(undefined, undefined, statusOnly({ code: RESOURCE_EXHAUSTED, message: `the answer has ${message.length} bytes, the limit is ${messageBytes}` }))
  } else stream.send(answerHeaders, prefixed(message), okTrailers)
}

/** Compressed-flag 0, length, message. */
function prefixed(message: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(5 + message.length)
  bytes[0] = 0
  bytes.writeUInt32BE(message.length, 1)
  bytes.set(message, 5)
  return bytes
}

function statusFields({ code, message }: Status): [string, string][] {
  // Percent-encoded UTF-8; everything but printable ASCII, and the percent sign. A client's header limit may be 8 KiB.
  const encoded = [...Buffer.from(message.slice(0, 2000))].map(byte => byte < 0x20 || byte > 0x7e || byte === 0x25 ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}` : String.fromCharCode(byte)).join('')
  return [['grpc-status', String(code)], ...(encoded === '' ? [] : [['grpc-message', encoded] as [string, string]])]
}

/** "Trailers-Only": headers and trailers in one block. */
function statusOnly(status: Status): Buffer {
  return encodeHeaders([[':status', '200'], contentType, ...statusFields(status)])
}

const ignored: StreamHandler = { data: () => undefined, end: () => undefined, cancelled: () => undefined }

/** Collects the one message of a request. */
class Call implements StreamHandler {
  readonly #stream: ServerStream
  readonly #run: (request: Buffer) => void
  #parts: Buffer[] = []
  #bytes = 0
  #refused = false

  constructor(stream: ServerStream, run: (request: Buffer) => void) {
    this.#stream = stream
    this.#run = run
  }

  data(bytes: Buffer): void {
    if (this.#refused) return
    // Copied, since the socket's buffer is used again.
    this.#parts.push(Buffer.from(bytes))
    this.#bytes += bytes.length
    if (this.#bytes < 5) return
    if (this.#parts.length > 1 && this.#bytes - bytes.length < 5) this.#parts = [Buffer.concat(this.#parts)]
    const prefix = this.#parts[0] as Buffer
    if (prefix[0] !== 0) return this.#refuse(UNIMPLEMENTED, 'compressed messages are not supported')
    const length = prefix.readUInt32BE(1)
    if (length > messageBytes) return this.#refuse(RESOURCE_EXHAUSTED, `a message of ${length} bytes, the limit is ${messageBytes}`)
    if (this.#bytes > 5 + length) return this.#refuse(INTERNAL, 'more than one message')
  }

  end(): void {
    if (this.#refused) return
    const whole = this.#parts.length === 1 ? this.#parts[0] as Buffer : Buffer.concat(this.#parts)
    if (whole.length < 5 || whole.length !== 5 + whole.readUInt32BE(1)) return this.#refuse(INTERNAL, 'the message is cut short')
    this.#run(whole.subarray(5))
  }

  cancelled(): void { this.#refused = true }

  #refuse(code: number, message: string): void {
    this.#refused = true
    this.#parts = []
    this.#stream.send(undefined, undefined, statusOnly({ code, message }))
  }
}
