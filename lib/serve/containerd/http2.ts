// HTTP/2 (RFC 9113) on one connection, the server's side, as gRPC uses it: frames, streams, flow control, both ways. Node's own http2 costs about
// 150 µs a call more (README.md), most of it in objects per stream. Knows nothing of gRPC messages.

import type { Socket } from 'node:net'
import { StorageError } from '../../errors.ts'
import { HeaderDecoder } from './hpack.ts'

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PUSH_PROMISE = 5, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9
const END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITIZED = 32
export const h2Error = { none: 0, protocol: 1, internal: 2, flowControl: 3, streamClosed: 5, frameSize: 6, refused: 7, cancel: 8, compression: 9, calm: 11 } as const

/** The largest frame either side may send without having asked for more (section 4.2). */
const frameBytes = 16384
/** What a client may send of one message, or of all together, before we say that it has arrived. */
const windowBytes = 1 << 20
/** A header block beyond this ends the connection: an endless CONTINUATION is an attack (CVE-2024-27316). */
const headerBytes = 64 << 10
const maxStreams = 1000

export interface StreamHandler {
  /** Bytes of the request's body, in pieces. The buffer is only good during the call. */
  data(bytes: Buffer): void
  /** The request is complete. */
  end(): void
  /** The client has given up, or the connection is gone; whatever is sent from now on goes nowhere. */
  cancelled(): void
}

export interface ConnectionHandler {
  /** A request begins. What comes next of it goes to the returned handler. */
  request(stream: ServerStream, headers: ReadonlyMap<string, string>): StreamHandler
  closed(): void
}

/** A protocol error of the peer's: the connection is told and closed. */
class ConnectionError extends Error {
  readonly code: number
  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(9 + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = type
  bytes[4] = flags
  bytes.writeUInt32BE(stream, 5)
  bytes.set(payload, 9)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

export class ServerStream {
  readonly id: number
  readonly #connection: Connection
  /** @internal */ handler: StreamHandler | undefined
  /** @internal */ sendWindow: number
  /** @internal */ unacknowledged = 0
  /** @internal */ readonly queue: Buffer[] = []
  /** @internal */ trailers: Buffer | undefined
  /** @internal */ requestEnded = false
  /** @internal */ open = true
  #waiting: (() => void)[] = []

  constructor(connection: Connection, id: number, sendWindow: number) {
    this.#connection = connection
    this.id = id
    this.sendWindow = sendWindow
  }

  /** Send parts of an answer: a header block, body bytes, and a closing header block. Bytes that the window does not allow yet wait. */
  send(headers: Buffer | undefined, body: Buffer | undefined, trailers: Buffer | undefined): void {
    if (this.open) this.#connection.send(this, headers, body, trailers)
  }

  /** Resolves when what waited has been sent, or the stream is closed. */
  async drained(): Promise<void> {
    if (this.open && this.queue.length > 0) await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  /** @internal */
  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

export class Connection {
  readonly #socket: Socket
  readonly #handler: ConnectionHandler
  readonly #decoder = new HeaderDecoder()
  readonly #streams = new Map<number, ServerStream>()
  #rest: Buffer | undefined
  #greeted = false
  #lastStream = 0
  #sendWindow = 65535
  #peerInitialWindow = 65535
  #unacknowledged = 0
  /** A header block in pieces: its stream, flags and bytes so far. */
  #block: { readonly stream: number; readonly flags: number; readonly parts: Buffer[]; bytes: number } | undefined
  #refuseAbove = Infinity
  #closing = false

  constructor(socket: Socket, handler: ConnectionHandler) {
    this.#socket = socket
    this.#handler = handler
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    // A client that goes without a word is no error of ours.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#gone())
    // SETTINGS: MAX_CONCURRENT_STREAMS (3), INITIAL_WINDOW_SIZE (4), MAX_HEADER_LIST_SIZE (6); then the connection's own window.
    const settings = Buffer.alloc(18)
    for (const [i, [key, value]] of ([[3, maxStreams], [4, windowBytes], [6, headerBytes]] as const).entries()) {
      settings.writeUInt16BE(key, i * 6)
      settings.writeUInt32BE(value, i * 6 + 2)
    }
    socket.write(Buffer.concat([frame(SETTINGS, 0, 0, settings), frame(WINDOW_UPDATE, 0, 0, uint32(windowBytes - 65535))]))
  }

  /** Requests that have begun and are not answered. */
  get active(): number { return this.#streams.size }

  /**
   * Section 6.8: first say that no new streams are wanted while those under way still count, then, a round trip later, which was the last;
   * the connection ends when all are answered.
   */
  shutDown(): void {
    if (this.#closing) return
    this.#closing = true
    this.#socket.write(Buffer.concat([this.#goAway(0x7fffffff, h2Error.none), frame(PING, 0, 0, shutdownPing)]))
    // A client that does not answer is not waited for.
    setTimeout(() => this.#lastCall(), 1000).unref()
  }

  #lastCall(): void {
    if (this.#refuseAbove !== Infinity || this.#socket.destroyed) return
    this.#refuseAbove = this.#lastStream
    this.#socket.write(this.#goAway(this.#lastStream, h2Error.none))
    this.#endWhenIdle()
  }

  #endWhenIdle(): void {
    if (this.#refuseAbove !== Infinity && this.#streams.size === 0) this.#socket.end()
  }

  #goAway(last: number, code: number): Buffer {
    return frame(GOAWAY, 0, 0, Buffer.concat([uint32(last), uint32(code)]))
  }

  // ---- receiving -------------------------------------------------------------------------------------------------------------

  #receive(chunk: Buffer): void {
    let bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = undefined
    try {
      if (!this.#greeted) {
        const part = bytes.subarray(0, preface.length)
        if (!part.equals(preface.subarray(0, part.length))) throw new ConnectionError(h2Error.protocol, 'not HTTP/2')
        if (part.length < preface.length) { this.#rest = bytes; return }
        this.#greeted = true
        bytes = bytes.subarray(preface.length)
      }
      let at = 0
      while (bytes.length - at >= 9) {
        const length = bytes.readUIntBE(at, 3)
        if (length > frameBytes) throw new ConnectionError(h2Error.frameSize, `a frame of ${length} bytes`)
        if (bytes.length - at < 9 + length) break
        this.#frame(bytes[at + 3] as number, bytes[at + 4] as number, bytes.readUInt32BE(at + 5) & 0x7fffffff, bytes.subarray(at + 9, at + 9 + length))
        at += 9 + length
      }
      // A copy, as the slab it lies in is big and the wait may be long.
      if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at))
    } catch (error) {
      const code = error instanceof ConnectionError ? error.code : StorageError.is(error) ? h2Error.compression : h2Error.internal
      this.#socket.end(this.#goAway(this.#lastStream, code))
      this.#socket.removeAllListeners('data')
      this.#socket.resume()
    }
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    if (this.#block !== undefined && (type !== CONTINUATION || id !== this.#block.stream)) throw new ConnectionError(h2Error.protocol, 'a header block was interrupted')
    switch (type) {
      case HEADERS: return this.#headers(flags, id, payload)
      case CONTINUATION: return this.#continuation(flags, payload)
      case DATA: return this.#data(flags, id, payload)
      case SETTINGS: return this.#settings(flags, id, payload)
      case PING: return this.#ping(flags, id, payload)
      case WINDOW_UPDATE: return this.#windowUpdate(id, payload)
      case RST_STREAM: return this.#reset(id, payload)
      case PUSH_PROMISE: throw new ConnectionError(h2Error.protocol, 'a client pushes nothing')
      case PRIORITY: case GOAWAY: default: // advice; a farewell, after which the client closes; types that nobody knows yet
    }
  }

  #headers(flags: number, id: number, payload: Buffer): void {
    if (id % 2 === 0 || id <= this.#lastStream && !this.#streams.has(id)) throw new ConnectionError(h2Error.protocol, `headers on stream ${id}`)
    let block = unpad(flags, payload)
    if ((flags & PRIORITIZED) !== 0) {
      if (block.length < 5) throw new ConnectionError(h2Error.frameSize, 'a priority is missing')
      block = block.subarray(5)
    }
    if ((flags & END_HEADERS) !== 0) this.#begin(id, flags, block)
    else this.#block = { stream: id, flags, parts: [Buffer.from(block)], bytes: block.length }
  }

  #continuation(flags: number, payload: Buffer): void {
    const block = this.#block
    if (block === undefined) throw new ConnectionError(h2Error.protocol, 'a continuation of nothing')
    block.parts.push(Buffer.from(payload))
    block.bytes += payload.length
    if (block.bytes > headerBytes || block.parts.length > 64) throw new ConnectionError(h2Error.calm, 'a header block without end')
    if ((flags & END_HEADERS) === 0) return
    this.#block = undefined
    this.#begin(block.stream, block.flags, Buffer.concat(block.parts))
  }

  #begin(id: number, flags: number, block: Buffer): void {
    // Decoded also where it is not wanted: the table is the connection's.
    const headers = this.#decoder.decode(block)
    const known = this.#streams.get(id)
    if (known !== undefined) {
      // Trailers of a request; gRPC's clients have none, and nothing in them counts.
      if ((flags & END_STREAM) === 0) throw new ConnectionError(h2Error.protocol, 'trailers that do not end the stream')
      this.#requestEnd(known)
      return
    }
    this.#lastStream = id
    if (id > this.#refuseAbove || this.#streams.size >= maxStreams) {
      this.#socket.write(frame(RST_STREAM, 0, id, uint32(h2Error.refused)))
      return
    }
    const stream = new ServerStream(this, id, this.#peerInitialWindow)
    this.#streams.set(id, stream)
    stream.handler = this.#handler.request(stream, headers)
    if ((flags & END_STREAM) !== 0) this.#requestEnd(stream)
  }

  #requestEnd(stream: ServerStream): void {
    if (stream.requestEnded) return
    stream.requestEnded = true
    stream.handler?.end()
  }

  #data(flags: number, id: number, payload: Buffer): void {
    if (id === 0 || id > this.#lastStream) throw new ConnectionError(h2Error.protocol, `data on stream ${id}`)
    const stream = this.#streams.get(id)
    // Padding counts as well (section 6.9.1), and so does what comes for a stream that is closed.
    this.#unacknowledged += payload.length
    if (this.#unacknowledged > windowBytes) throw new ConnectionError(h2Error.flowControl, 'more data than the connection\'s window')
    if (this.#unacknowledged > windowBytes / 2) {
      this.#socket.write(frame(WINDOW_UPDATE, 0, 0, uint32(this.#unacknowledged)))
      this.#unacknowledged = 0
    }
    if (stream === undefined || stream.requestEnded) return
    stream.unacknowledged += payload.length
    if (stream.unacknowledged > windowBytes) throw new ConnectionError(h2Error.flowControl, 'more data than the stream\'s window')
    const ends = (flags & END_STREAM) !== 0
    if (!ends && stream.unacknowledged > windowBytes / 2) {
      this.#socket.write(frame(WINDOW_UPDATE, 0, id, uint32(stream.unacknowledged)))
      stream.unacknowledged = 0
    }
    const body = unpad(flags, payload)
    if (body.length > 0) stream.handler?.data(body)
    if (ends) this.#requestEnd(stream)
  }

  #settings(flags: number, id: number, payload: Buffer): void {
    if (id !== 0) throw new ConnectionError(h2Error.protocol, 'settings on a stream')
    if ((flags & ACK) !== 0) return
    if (payload.length % 6 !== 0) throw new ConnectionError(h2Error.frameSize, 'settings of a wrong length')
    for (let at = 0; at < payload.length; at += 6) {
      // Only INITIAL_WINDOW_SIZE concerns us: frames are kept to the smallest size there is, and the encoder uses no table.
      if (payload.readUInt16BE(at) !== 4) continue
      const size = payload.readUInt32BE(at + 2)
      if (size > 0x7fffffff) throw new ConnectionError(h2Error.flowControl, 'a window that is too large')
      for (const stream of this.#streams.values()) stream.sendWindow += size - this.#peerInitialWindow
      this.#peerInitialWindow = size
    }
    this.#socket.write(frame(SETTINGS, ACK, 0, Buffer.alloc(0)))
    this.#pumpAll()
  }

  #ping(flags: number, id: number, payload: Buffer): void {
    if (id !== 0) throw new ConnectionError(h2Error.protocol, 'a ping on a stream')
    if (payload.length !== 8) throw new ConnectionError(h2Error.frameSize, 'a ping of a wrong length')
    if ((flags & ACK) === 0) this.#socket.write(frame(PING, ACK, 0, payload))
    else if (this.#closing && payload.equals(shutdownPing)) this.#lastCall()
  }

  #windowUpdate(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionError(h2Error.frameSize, 'a window update of a wrong length')
    const more = payload.readUInt32BE(0) & 0x7fffffff
    if (more === 0) throw new ConnectionError(h2Error.protocol, 'a window update of nothing')
    if (id === 0) {
      this.#sendWindow += more
      if (this.#sendWindow > 0x7fffffff) throw new ConnectionError(h2Error.flowControl, 'a window that is too large')
      this.#pumpAll()
      return
    }
    const stream = this.#streams.get(id)
    if (stream === undefined) return
    stream.sendWindow += more
    if (stream.sendWindow > 0x7fffffff) throw new ConnectionError(h2Error.flowControl, 'a window that is too large')
    this.#pump(stream)
  }

  #reset(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionError(h2Error.frameSize, 'a reset of a wrong length')
    if (id === 0 || id > this.#lastStream) throw new ConnectionError(h2Error.protocol, `a reset of stream ${id}`)
    const stream = this.#streams.get(id)
    if (stream !== undefined) this.#close(stream, true)
  }

  // ---- sending ---------------------------------------------------------------------------------------------------------------

  /** @internal */
  send(stream: ServerStream, headers: Buffer | undefined, body: Buffer | undefined, trailers: Buffer | undefined): void {
    const parts: Buffer[] = []
    if (headers !== undefined) parts.push(frame(HEADERS, END_HEADERS, stream.id, headers))
    if (body !== undefined) {
      if (stream.queue.length === 0 && body.length <= frameBytes && body.length <= stream.sendWindow && body.length <= this.#sendWindow) {
        stream.sendWindow -= body.length
        this.#sendWindow -= body.length
        parts.push(frame(DATA, 0, stream.id, body))
      } else stream.queue.push(body)
    }
    if (trailers !== undefined) {
      if (stream.queue.length === 0) parts.push(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, trailers))
      else stream.trailers = trailers
    }
    // One write for a whole answer: each costs about 10 µs.
    if (parts.length > 0) this.#socket.write(parts.length === 1 ? parts[0] as Buffer : Buffer.concat(parts))
    if (trailers !== undefined && stream.queue.length === 0) this.#answered(stream)
    else if (stream.queue.length > 0) this.#pump(stream)
  }

  #pumpAll(): void {
    for (const stream of this.#streams.values()) if (stream.queue.length > 0) this.#pump(stream)
  }

  #pump(stream: ServerStream): void {
    const parts: Buffer[] = []
    while (stream.queue.length > 0) {
      const next = stream.queue[0] as Buffer
      const length = Math.min(next.length, frameBytes, stream.sendWindow, this.#sendWindow)
      if (length <= 0) break
      stream.sendWindow -= length
      this.#sendWindow -= length
      parts.push(frame(DATA, 0, stream.id, next.subarray(0, length)))
      if (length === next.length) stream.queue.shift()
      else stream.queue[0] = next.subarray(length)
    }
    const done = stream.queue.length === 0
    if (done && stream.trailers !== undefined) parts.push(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, stream.trailers))
    if (parts.length > 0) this.#socket.write(Buffer.concat(parts))
    if (!done) return
    stream.wake()
    if (stream.trailers !== undefined) this.#answered(stream)
  }

  /** The answer is complete. A client that still sends is told to stop (section 8.1). */
  #answered(stream: ServerStream): void {
    if (!stream.requestEnded) this.#socket.write(frame(RST_STREAM, 0, stream.id, uint32(h2Error.none)))
    this.#close(stream, false)
  }

  #close(stream: ServerStream, cancelled: boolean): void {
    stream.open = false
    stream.queue.length = 0
    this.#streams.delete(stream.id)
    stream.wake()
    if (cancelled) stream.handler?.cancelled()
    this.#endWhenIdle()
  }

  #gone(): void {
    for (const stream of [...this.#streams.values()]) this.#close(stream, true)
    this.#handler.closed()
  }
}

const shutdownPing = Buffer.from('goodbye!')

function unpad(flags: number, payload: Buffer): Buffer {
  if ((flags & PADDED) === 0) return payload
  const padding = payload[0]
  if (padding === undefined || padding >= payload.length) throw new ConnectionError(h2Error.protocol, 'more padding than frame')
  return payload.subarray(1, payload.length - padding)
}
