// The connection against a client written byte by byte, and against Node's own http2: what grpc-js and grpc-go never send.

import http2 from 'node:http2'
import net from 'node:net'
import path from 'node:path'
import { assert, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { GrpcServer } from './grpc.ts'
import { encodeHeaders } from './hpack.ts'

const test = suite('http2 connection')

interface Frame { readonly type: number; readonly flags: number; readonly stream: number; readonly payload: Buffer }

const frame = (type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const settings = frame(4, 0, 0)
const request = encodeHeaders([[':method', 'POST'], [':scheme', 'http'], [':path', '/test/Echo'], ['content-type', 'application/grpc'], ['te', 'trailers']])
const message = (text: string): Buffer => Buffer.concat([Buffer.from([0, 0, 0, 0, text.length]), Buffer.from(text)])

async function serving(t: Context): Promise<string> {
  const server = new GrpcServer({
    service: 'test', statusOf: error => ({ code: 13, message: String(error) }),
    methods: {
      Echo: { streams: false, call: async bytes => Buffer.from(bytes) },
      Fail: { streams: false, call: async () => { throw new Error('no') } },
      Many: { streams: true, *call(bytes) { for (let i = 0; i < 40; i++) yield Buffer.alloc(Number(Buffer.from(bytes)), i) } },
    },
  })
  const socket = path.join(t.dir, 's')
  await server.listen(socket)
  t.defer(() => server.close())
  return socket
}

/** Send the bytes, and collect frames until the server closes or `enough` says so. */
async function talk(t: Context, socket: string, bytes: readonly Buffer[], enough: (frames: readonly Frame[]) => boolean = () => false): Promise<Frame[]> {
  const connection = net.connect(socket)
  t.defer(() => connection.destroy())
  const frames: Frame[] = []
  let rest = Buffer.alloc(0)
  for (const part of bytes) connection.write(part)
  await new Promise<void>((resolve, reject) => {
    connection.on('error', reject)
    connection.on('close', () => resolve())
    connection.on('end', () => resolve())
    connection.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
        const length = rest.readUIntBE(0, 3)
        frames.push({ type: rest[3] as number, flags: rest[4] as number, stream: rest.readUInt32BE(5), payload: rest.subarray(9, 9 + length) })
        rest = rest.subarray(9 + length)
      }
      if (enough(frames)) resolve()
    })
  })
  connection.destroy()
  return frames
}

const bodyOf = (frames: readonly Frame[], stream: number): string => Buffer.concat(frames.filter(f => f.type === 0 && f.stream === stream).map(f => f.payload)).subarray(5).toString()
const ended = (stream: number) => (frames: readonly Frame[]): boolean => frames.some(f => f.stream === stream && f.type === 1 && (f.flags & 1) === 1)

test('bytes in any portions; headers in continuations, padded, with priorities; unknown frames; several streams', async t => {
  const socket = await serving(t)
  const padded = Buffer.concat([Buffer.from([3]), Buffer.alloc(5), request.subarray(0, 10), Buffer.alloc(3)])
  const all = Buffer.concat([
    preface, settings, frame(0xbe, 0, 0, Buffer.from('whatever')), frame(2, 0, 1, Buffer.alloc(5)),
    frame(1, 4, 1, request), frame(0, 0, 1, message('one').subarray(0, 3)), frame(0, 1, 1, message('one').subarray(3)),
    frame(1, 8 | 32, 3, padded), frame(9, 0, 3, request.subarray(10, 12)), frame(9, 4, 3, request.subarray(12)),
    frame(0, 8 | 1, 3, Buffer.concat([Buffer.from([2]), message('three'), Buffer.alloc(2)])),
    frame(6, 0, 0, Buffer.from('12345678')),
  ])
  for (const size of [all.length, 1, 7, 100]) {
    const parts = Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.subarray(i * size, (i + 1) * size))
    const frames = await talk(t, socket, parts, got => ended(1)(got) && ended(3)(got) && got.some(f => f.type === 6))
    assert.is(bodyOf(frames, 1), 'one')
    assert.is(bodyOf(frames, 3), 'three')
    assert.is(frames.find(f => f.type === 6)?.payload.toString(), '12345678')
    assert.ok(frames.some(f => f.type === 4 && f.flags === 1), 'settings are acknowledged')
  }
})

test('what breaks the protocol ends the connection with its code', async t => {
  const socket = await serving(t)
  const cases: [string, Buffer[], number | undefined][] = [
    ['not HTTP/2', [Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')], 1],
    ['a frame too large', [frame(0, 0, 1, Buffer.alloc(16385))], 6],
    ['an even stream', [frame(1, 4, 2, request)], 1],
    ['a stream opened again', [frame(1, 5, 3, request), frame(1, 5, 1, request)], 1],
    ['data on nothing', [frame(0, 0, 1, Buffer.from('x'))], 1],
    ['a push', [frame(5, 4, 1, Buffer.alloc(4))], 1],
    ['an interrupted block', [frame(1, 0, 1, request), settings], 1],
    ['a continuation of nothing', [frame(9, 4, 1, request)], 1],
    ['continuations without end', [frame(1, 0, 1, request), ...Array.from({ length: 200 }, () => frame(9, 0, 1, Buffer.alloc(1000)))], 11],
    ['empty continuations without end', [frame(1, 0, 1, request), ...Array.from({ length: 200 }, () => frame(9, 0, 1))], 11],
    ['a broken block', [frame(1, 4, 1, Buffer.from([0x80]))], 9],
    ['too much padding', [frame(1, 4 | 8, 1, Buffer.from([200, 1]))], 1],
    ['a window of nothing', [frame(8, 0, 0, Buffer.alloc(4))], 1],
    ['a window beyond 2^31', [frame(8, 0, 0, Buffer.from('7fffffff', 'hex'))], 3],
    ['settings of a wrong length', [frame(4, 0, 0, Buffer.alloc(5))], 6],
    ['more data than the window', [frame(1, 4, 1, request), ...Array.from({ length: 100 }, () => frame(0, 0, 1, Buffer.alloc(16384)))], undefined],
  ]
  for (const [name, bytes, code] of cases) {
    const frames = await talk(t, socket, name === 'not HTTP/2' ? bytes : [preface, settings, ...bytes], frames => code === undefined && frames.some(f => f.type === 8 && f.stream === 1 || f.type === 1))
    if (code !== undefined) assert.is(frames.find(f => f.type === 7)?.payload.readUInt32BE(4), code, name)
  }
  // And it still serves others.
  assert.is(bodyOf(await talk(t, socket, [preface, settings, frame(1, 4, 1, request), frame(0, 1, 1, message('alive'))], ended(1)), 1), 'alive')
})

test('the client\'s windows are kept, for one stream and for all', async t => {
  const socket = await serving(t)
  // Ten bytes for each stream, told before the request.
  const small = frame(4, 0, 0, Buffer.from('00040000000a', 'hex'))
  const before = await talk(t, socket, [preface, small, frame(1, 4, 1, request), frame(0, 1, 1, message('more than ten bytes'))], frames => frames.some(f => f.type === 0))
  assert.is(before.filter(f => f.type === 0).reduce((sum, f) => sum + f.payload.length, 0), 10)
  const after = await talk(t, socket, [preface, small, frame(1, 4, 1, request), frame(0, 1, 1, message('more than ten bytes')), frame(8, 0, 1, Buffer.from('00000064', 'hex'))], ended(1))
  assert.is(bodyOf(after, 1), 'more than ten bytes')
})

test('Node\'s own HTTP/2 client: a stream of 40 MB at its pace, cancelled streams, statuses', { timeoutMs: 60_000 }, async t => {
  const socket = await serving(t)
  const session = http2.connect('http://localhost', { createConnection: () => net.connect(socket) })
  t.defer(() => session.destroy())
  const call = (method: string, text: string): http2.ClientHttp2Stream => {
    const stream = session.request({ ':method': 'POST', ':path': `/test/${method}`, 'content-type': 'application/grpc', te: 'trailers' })
    stream.end(message(text))
    return stream
  }
  const trailersOf = (stream: http2.ClientHttp2Stream): Promise<http2.IncomingHttpHeaders> => new Promise(resolve => {
    let first: http2.IncomingHttpHeaders = {}
    stream.on('response', headers => { first = headers })
    stream.on('trailers', trailers => { first = trailers })
    stream.on('close', () => resolve(first))
    stream.resume()
  })
  const many = call('Many', '1000000')
  let bytes = 0
  many.on('data', (chunk: Buffer) => { bytes += chunk.length })
  for (let i = 0; i < 20; i++) call('Many', '1000000').close(http2.constants.NGHTTP2_CANCEL)
  assert.is((await trailersOf(many))['grpc-status'], '0')
  assert.is(bytes, 40 * 1_000_005)
  assert.is((await trailersOf(call('Fail', 'x')))['grpc-status'], '13')
  assert.is((await trailersOf(call('Nothing', 'x')))['grpc-status'], '12')
  const plain = session.request({ ':method': 'GET', ':path': '/' })
  plain.end()
  assert.is((await trailersOf(plain))[':status'], 415)
  const compressed = session.request({ ':method': 'POST', ':path': '/test/Echo', 'content-type': 'application/grpc' })
  compressed.end(Buffer.from([1, 0, 0, 0, 1, 0]))
  assert.is((await trailersOf(compressed))['grpc-status'], '12')
  const cut = session.request({ ':method': 'POST', ':path': '/test/Echo', 'content-type': 'application/grpc' })
  cut.end(Buffer.from([0, 0, 0, 0, 9, 0]))
  assert.is((await trailersOf(cut))['grpc-status'], '13')
})
