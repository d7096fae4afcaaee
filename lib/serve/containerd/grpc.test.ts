// The gRPC server with methods of the tests' own: deadlines, clients that leave, that do not read and that speak something else, and its end.

import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import path from 'node:path'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import type { CallOptions, ClientReadableStream } from '@grpc/grpc-js'
import { assert, suite } from '../../../fixtures/harness/index.ts'
import type { Context } from '../../../fixtures/harness/index.ts'
import { GrpcServer } from './grpc.ts'
import type { Method } from './service.ts'

const test = suite('gRPC server')

const same = (bytes: Buffer): Buffer => bytes

interface Running {
  readonly server: GrpcServer
  readonly socket: string
  unary(method: string, options?: CallOptions): Promise<Buffer>
  stream(method: string): ClientReadableStream<Buffer>
  leave(): void
}

async function serving(t: Context, methods: Readonly<Record<string, Method>>): Promise<Running> {
  const server = new GrpcServer({ service: 'test', methods, statusOf: error => ({ code: 13, message: (error as Error).message }), messageBytes: 1 << 20, graceMs: 300 })
  const socket = path.join(t.dir, 's')
  await server.listen(socket)
  t.defer(() => server.close())
  const client = new Client(`unix:${socket}`, credentials.createInsecure())
  t.defer(() => client.close())
  return {
    server, socket, leave: () => client.close(),
    unary: (method, options = {}) => new Promise((resolve, reject) => {
      client.makeUnaryRequest(`/test/${method}`, same, same, Buffer.from('x'), new Metadata(), options, (error, answer) => {
        if (error === null) resolve(answer as Buffer)
        else reject(error)
      })
    }),
    stream: method => client.makeServerStreamRequest(`/test/${method}`, same, same, Buffer.from('x')),
  }
}

const grpc = { ':method': 'POST', 'content-type': 'application/grpc' }

/** A client that reads only what it is told to: the library's reads on. */
function plain(t: Context, socket: string): { readonly session: http2.ClientHttp2Session; ask(method: string, headers?: http2.OutgoingHttpHeaders): http2.ClientHttp2Stream } {
  const session = http2.connect('http://localhost', { createConnection: () => net.connect(socket) })
  session.on('error', () => undefined)
  t.defer(() => session.destroy())
  return {
    session,
    ask: (method, headers = {}) => session.request({ ...grpc, ...headers, ':path': `/test/${method}` }).end(Buffer.from([0, 0, 0, 0, 1, 0x78])),
  }
}

/** A method that says when it is called, and ends when it is told to. */
function held(): { readonly method: Method; readonly called: Promise<void>; end(): void } {
  let end = (): void => undefined, called = (): void => undefined
  const ended = new Promise<void>(resolve => { end = resolve })
  return {
    called: new Promise(resolve => { called = resolve }),
    end: () => end(),
    method: { streams: false, call: async () => { called(); await ended; return Buffer.from('done') } },
  }
}

const echo: Method = { streams: false, call: async bytes => Buffer.from(bytes) }

const codeOf = async (work: Promise<unknown>): Promise<{ code: number; details: string }> => await work.then(() => ({ code: 0, details: '' }), (error: { code: number; details: string }) => ({ code: error.code, details: error.details }))

test('a deadline answers the client, whatever the method does', async t => {
  const slow = held()
  const { unary } = await serving(t, { Slow: slow.method, Echo: echo })
  // Connected, so that the time goes to the call.
  await unary('Echo')
  assert.is((await codeOf(unary('Slow', { deadline: Date.now() + 100 }))).code, 4)
  slow.end()
  assert.is((await unary('Echo')).toString(), 'x')
})

test('errors: their text in any script, half a pair of surrogates, thrown before and within a stream, answers beyond the limit', async t => {
  const fails = (message: string): Method => ({ streams: false, call: async () => { throw new Error(message) } })
  const { unary, stream } = await serving(t, {
    Text: fails('größe 100%\n'), Half: fails('cut \ud83d'), Long: fails('x'.repeat(100_000)), Big: { streams: false, call: async () => Buffer.alloc(2 << 20) }, Echo: echo,
    Early: { streams: true, call: () => { throw new Error('early') } },
    Late: { streams: true, *call() { yield Buffer.from('1'); throw new Error('late') } },
  })
  assert.equal(await codeOf(unary('Text')), { code: 13, details: 'größe 100%\n' })
  assert.equal(await codeOf(unary('Half')), { code: 13, details: 'cut \ufffd' })
  assert.is((await codeOf(unary('Long'))).details.length, 2000)
  assert.is((await codeOf(unary('Big'))).code, 8)
  for (const [method, messages] of [['Early', 0], ['Late', 1]] as const) {
    let seen = 0
    const call = stream(method).on('data', () => { seen++ })
    const [error] = await once(call, 'error') as [{ code: number; details: string }]
    assert.equal([error.code, error.details, seen], [13, method.toLowerCase(), messages])
  }
  assert.is((await unary('Echo')).toString(), 'x')
})

test('a stream is made at the pace at which it is read, and no further when the client leaves', async t => {
  let made = 0, ended = (): void => undefined
  const end = new Promise<void>(resolve => { ended = resolve })
  const { socket, unary } = await serving(t, {
    Echo: echo,
    Many: { streams: true, *call() { try { for (; made < 10_000; made++) yield Buffer.alloc(100_000, made) } finally { ended() } } },
  })
  const { ask } = plain(t, socket)
  const stream = ask('Many')
  await once(stream, 'response')
  // Other calls go through meanwhile, and each is time for the stream to run on if it did not wait.
  for (let i = 0; i < 50; i++) await unary('Echo')
  // Sixteen are kept by the call's own buffer.
  assert.ok(made < 20, `${made} messages were made, and none was read`)
  let read = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) if ((read += chunk.length) > 30_000_000) break
  assert.ok(made >= 300)
  await end
  assert.ok(made < 10_000)
})

test('other protocols and broken frames end their connection, and nobody else\'s', async t => {
  const { socket, unary } = await serving(t, { Echo: echo })
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
  const brokenHeaders = '\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05\x01\x05\x00\x00\x00\x01\x80\x80\x80\x80\x80'
  for (const bytes of ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', 'x'.repeat(100_000), `${preface}${'\xff'.repeat(100)}`, `${preface}${brokenHeaders}`]) {
    const connection = net.connect(socket)
    connection.write(bytes, 'latin1')
    let received = Buffer.alloc(0)
    // GOAWAY (frame type 7) behind the empty SETTINGS; then the connection is ours to end.
    for await (const chunk of connection as AsyncIterable<Buffer>) {
      received = Buffer.concat([received, chunk])
      if (received.length > 12) break
    }
    assert.is(received[12], 7, bytes.slice(0, 30))
  }
  const request = plain(t, socket).ask('Echo', { 'content-type': 'text/plain' })
  const [headers] = await once(request, 'response') as [{ ':status': number }]
  assert.is(headers[':status'], 415, 'not gRPC')
  assert.is((await unary('Echo')).toString(), 'x')
})

test('the end waits for a call whose client has left', async t => {
  const slow = held()
  const { server, unary, leave } = await serving(t, { Slow: slow.method })
  const lost = codeOf(unary('Slow'))
  await slow.called
  leave()
  let closed = false
  const closing = server.close().then(() => { closed = true })
  // Longer than the grace that is given to clients.
  await new Promise(resolve => setTimeout(resolve, 500))
  assert.is(closed, false)
  slow.end()
  await closing
  await lost
})

test('the end answers what runs, and does not wait for who neither asks nor reads to the end', async t => {
  const slow = held()
  const { server, socket, unary } = await serving(t, { Echo: echo, Slow: slow.method, Many: { streams: true, *call() { for (let i = 0; i < 1000; i++) yield Buffer.alloc(100_000) } } })
  const answer = unary('Slow')
  await slow.called
  const { session, ask } = plain(t, socket)
  const unread = ask('Many')
  await once(unread, 'response')
  const unasked = session.request({ ...grpc, ':path': '/test/Slow' }, { endStream: false })
  const lost = [unread, unasked].map(stream => new Promise(resolve => stream.on('error', () => undefined).on('close', resolve)))
  // Answered, so the server has the one before it too.
  await once(ask('Echo').resume(), 'end')
  const closing = server.close()
  slow.end()
  assert.is((await answer).toString(), 'done')
  await closing
  await Promise.all(lost)
})
