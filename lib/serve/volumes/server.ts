// Docker's volume plugin protocol, version 1: JSON by HTTP POST over a unix socket, so that a dockerd uses layerstack's volumes
// (`docker volume create -d layerstack`). Source: docs.docker.com/engine/extend/plugins_volume. Translates; the volumes are the store's.

import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { asStorageError, isErrno, StorageError } from '../../errors.ts'
import type { Volume, VolumeStore } from '../../volumes/index.ts'

export interface ServeVolumesOptions {
  /** The path of the socket, or `unix://` and the path. dockerd looks in /run/docker/plugins: the file's name is the driver's. */
  readonly address: string
  /** Told about requests that failed. */
  readonly onError?: (method: string, error: StorageError) => void
}

export interface VolumeServer extends AsyncDisposable {
  readonly path: string
  /** Answer what has been asked, and remove the socket. Volumes that are mounted stay so. */
  close(): Promise<void>
}

const mediaType = 'application/vnd.docker.plugins.v1.2+json'
const bodyLimitBytes = 1 << 20

type Request = Readonly<Record<string, unknown>>
type Handler = (request: Request, volumes: VolumeStore) => Promise<object>

const handlers: Readonly<Record<string, Handler>> = {
  '/Plugin.Activate': async () => ({ Implements: ['VolumeDriver'] }),
  '/VolumeDriver.Capabilities': async () => ({ Capabilities: { Scope: 'local' } }),
  '/VolumeDriver.Create': async (request, volumes) => {
    const name = nameOf(request)
    await volumes.create(name, { options: optionsOf(request) })
    return {}
  },
  '/VolumeDriver.Remove': async (request, volumes) => {
    await volumes.remove(nameOf(request))
    return {}
  },
  '/VolumeDriver.Mount': async (request, volumes) => ({ Mountpoint: await mount(volumes, nameOf(request), idOf(request)) }),
  '/VolumeDriver.Unmount': async (request, volumes) => {
    await unmount(volumes, nameOf(request), idOf(request))
    return {}
  },
  '/VolumeDriver.Path': async (request, volumes) => ({ Mountpoint: mountpointOf(volumes, volumes.get(nameOf(request))) }),
  '/VolumeDriver.Get': async (request, volumes) => ({ Volume: described(volumes, volumes.get(nameOf(request))) }),
  '/VolumeDriver.List': async (_, volumes) => ({ Volumes: volumes.list().map(volume => described(volumes, volume)) }),
}

function nameOf(request: Request): string {
  const name = request['Name']
  if (typeof name !== 'string' || name === '') throw new StorageError('INVALID_ARGUMENT', 'the request names no volume')
  return name
}

/** Who mounts: dockerd makes a new id for every mount of a container. */
function idOf(request: Request): string {
  const id = request['ID']
  return typeof id === 'string' ? id : ''
}

function optionsOf(request: Request): Record<string, string> {
  const options = request['Opts']
  if (typeof options !== 'object' || options === null) return {}
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [key, String(value)]))
}

/**
 * Mounts last beyond this process, as containers do; each is a reference by its id, so that a server that is started anew knows it again, and one
 * that is asked twice mounts once. They end with the boot, as their containers do.
 */
async function mount(volumes: VolumeStore, name: string, id: string): Promise<string> {
  const isNew = await volumes.use(name, referenceOf(id), { untilBoot: true })
  if (!isNew) return volumes.get(name).mountpoint
  try {
    return (await volumes.mount(name, { persistent: true })).path
  } catch (error) {
    await volumes.release(name, referenceOf(id))
    throw error
  }
}

async function unmount(volumes: VolumeStore, name: string, id: string): Promise<void> {
  if (await volumes.release(name, referenceOf(id))) await volumes.unmount(name, { persistent: true })
}

const referenceOf = (id: string): string => `plugin:${id}`

/** Empty while it is not mounted, for volumes that have to be. */
function mountpointOf(volumes: VolumeStore, volume: Volume): string {
  return volume.options['device'] === undefined || volumes.mountCount(volume.name) > 0 ? volume.mountpoint : ''
}

function described(volumes: VolumeStore, volume: Volume): object {
  return { Name: volume.name, Mountpoint: mountpointOf(volumes, volume), ...(volume.createdAt === undefined ? {} : { CreatedAt: volume.createdAt }), Status: volume.status ?? {} }
}

/** Serve until `close`. @throws ALREADY_EXISTS when somebody listens there, INVALID_ARGUMENT, PERMISSION_DENIED */
export async function serveVolumes(volumes: VolumeStore, options: ServeVolumesOptions): Promise<VolumeServer> {
  const socket = socketPath(options.address)
  await clearStale(socket)
  const server = http.createServer((request, response) => { void answer(request, response, volumes, options) })
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => { reject(asStorageError(error, `listening on ${socket}`, { op: 'serve', path: socket })) })
    // Nobody but root shall ask for volumes; a mode set afterwards would leave a moment for others.
    const mask = process.umask(0o177)
    server.listen(socket, resolve)
    process.umask(mask)
  })
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => closed ??= new Promise(resolve => {
    server.close(() => resolve())
    server.closeIdleConnections()
  })
  return { path: socket, close, [Symbol.asyncDispose]: close }
}

function socketPath(address: string): string {
  const file = address.startsWith('unix://') ? address.slice('unix://'.length) : address
  if (/^[a-z]+:\/\//.test(file) || file === '') throw new StorageError('INVALID_ARGUMENT', `cannot serve at ${address}: only unix sockets`,
    { op: 'serve', hint: 'give a path: /run/docker/plugins/layerstack.sock' })
  return path.resolve(file)
}

/** A socket that a killed server left refuses connections; one that answers is somebody's. */
async function clearStale(socket: string): Promise<void> {
  if (!fs.existsSync(socket)) return
  const alive = await new Promise<boolean>((resolve, reject) => {
    const probe = net.connect(socket, () => { probe.destroy(); resolve(true) })
    probe.once('error', error => {
      if (isErrno(error, 'ECONNREFUSED', 'ENOENT')) resolve(false)
      else reject(asStorageError(error, `looking who listens on ${socket}`, { op: 'serve', path: socket }))
    })
  })
  if (alive) throw new StorageError('ALREADY_EXISTS', `cannot serve at ${socket}: somebody listens there`, { op: 'serve', path: socket })
  fs.rmSync(socket, { force: true })
}

async function answer(request: http.IncomingMessage, response: http.ServerResponse, volumes: VolumeStore, options: ServeVolumesOptions): Promise<void> {
  const method = request.url ?? ''
  const send = (status: number, body: object): void => {
    response.writeHead(status, { 'content-type': mediaType })
    response.end(`${JSON.stringify(body)}\n`)
  }
  try {
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined
    if (request.method !== 'POST' || handler === undefined) {
      send(404, { Err: `no such method: ${request.method} ${method}` })
      return
    }
    const result = await handler(await bodyOf(request), volumes)
    send(200, method === '/Plugin.Activate' ? result : { Err: '', ...result })
  } catch (error) {
    const told = asStorageError(error, method.slice(1))
    options.onError?.(method, told)
    if (!response.headersSent) send(200, { Err: told.message })
  }
}

async function bodyOf(request: http.IncomingMessage): Promise<Request> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > bodyLimitBytes) throw new StorageError('LIMIT_EXCEEDED', `a request has at most ${bodyLimitBytes} bytes`)
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString().trim()
  if (text === '') return {}
  try {
    const json = JSON.parse(text) as unknown
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Request
  } catch (error) {
    throw new StorageError('INVALID_ARGUMENT', `the request is not JSON: ${(error as Error).message}`)
  }
  throw new StorageError('INVALID_ARGUMENT', 'the request is not a JSON object')
}
