// Options of the local driver: `type`, `o`, `device`, `size`; their file (opts.json), and what the kernel is given for nfs and cifs, which
// cannot resolve names. Source: moby volume/local/local_unix.go; error texts are its own. Mounts nothing.

import { lookup } from 'node:dns/promises'
import net from 'node:net'
import { StorageError } from '../errors.ts'
import { goQuote, ramInBytes } from './go-text.ts'

/** opts.json, key for key. */
export interface LocalOptions {
  readonly MountType: string
  readonly MountOpts: string
  readonly MountDevice: string
  readonly Quota: { readonly Size: number }
}

const known = ['type', 'o', 'device', 'size']
const required: Readonly<Record<string, readonly string[]>> = { device: ['type'], type: ['device'], o: ['device', 'type'] }
const invalid = (message: string, hint?: string): StorageError => new StorageError('INVALID_ARGUMENT', message, hint === undefined ? {} : { hint })

/**
 * Check the options of a new volume. `whyNoQuota` tells why its file system keeps no project to a limit, if so.
 * @throws INVALID_ARGUMENT `invalid option: "x"`, `missing required option: "type"`, `quota size requested but no quota support`, …
 */
export function checkLocalOptions(options: Readonly<Record<string, string>>, whyNoQuota: () => string | undefined): void {
  for (const key of Object.keys(options).sort()) if (!known.includes(key)) throw invalid(`invalid option: ${goQuote(key)}`, `a local volume knows ${known.join(', ')}`)
  if (options['type'] === 'cifs' && options['device']) {
    const { port } = parseDevice(options['device'])
    if (port !== '') throw invalid('port not allowed in CIFS device URL, include \'port\' in \'o=\'')
  }
  const why = options['size'] !== undefined && ramInBytes(options['size']) > 0 ? whyNoQuota() : undefined
  if (why !== undefined) throw invalid('quota size requested but no quota support', `${why}: put the volumes on xfs mounted with pquota, or on ext4 with prjquota`)
  for (const key of known) {
    if (options[key] === undefined) continue
    const missing = required[key]?.find(other => options[other] === undefined)
    if (missing !== undefined) throw invalid(`missing required option: ${goQuote(missing)}`)
  }
}

/** Undefined when no option was given: then there is no opts.json. */
export function localOptionsOf(options: Readonly<Record<string, string>>): LocalOptions | undefined {
  if (Object.keys(options).length === 0) return undefined
  return { MountType: options['type'] ?? '', MountOpts: options['o'] ?? '', MountDevice: options['device'] ?? '', Quota: { Size: options['size'] === undefined ? 0 : ramInBytes(options['size']) } }
}

/** The options that were given, as far as opts.json tells. */
export function givenOptions(options: LocalOptions | undefined): Record<string, string> {
  const { MountType: type, MountOpts: o, MountDevice: device, Quota: quota } = options ?? { MountType: '', MountOpts: '', MountDevice: '', Quota: { Size: 0 } }
  return Object.fromEntries([['type', type], ['o', o], ['device', device], ['size', quota.Size === 0 ? '' : String(quota.Size)]].filter(([, value]) => value !== ''))
}

/** @throws CORRUPT */
export function parseLocalOptions(text: string, file: string): LocalOptions {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new StorageError('CORRUPT', `${file} is not JSON (${(error as Error).message})`, { path: file })
  }
  const read = (key: string): unknown => typeof json === 'object' && json !== null ? (json as Record<string, unknown>)[key] : undefined
  const string = (key: string): string => {
    const value = read(key)
    return typeof value === 'string' ? value : ''
  }
  const quota = read('Quota')
  const size = typeof quota === 'object' && quota !== null ? (quota as Record<string, unknown>)['Size'] : undefined
  return { MountType: string('MountType'), MountOpts: string('MountOpts'), MountDevice: string('MountDevice'), Quota: { Size: typeof size === 'number' ? size : 0 } }
}

/** Is there something to mount? */
export function needsMount(options: LocalOptions | undefined): options is LocalOptions {
  return options !== undefined && (options.MountDevice !== '' || options.MountType !== '')
}

function optionValue(options: string, key: string): string {
  return options.split(',').find(option => option.startsWith(`${key}=`))?.slice(key.length + 1) ?? ''
}

/** The value of `addr=`, or an empty string. */
export function addressOf(options: string): string {
  return optionValue(options, 'addr')
}

/** The value of `password=`, or an empty string. */
export function passwordOf(options: string): string {
  return optionValue(options, 'password')
}

/** An error of a mount without the password that its options hold. */
export function maskPassword(text: string, options: string): string {
  const password = passwordOf(options)
  return password === '' ? text : text.replace(`password=${password}`, 'password=********')
}

interface Device { readonly scheme: string; readonly host: string; readonly port: string; readonly rest: string }

/** A device as Go's url.Parse takes it apart, as far as hosts go. */
function parseDevice(device: string): Device {
  const fail = (why: string): StorageError => invalid(`error parsing mount device url: parse ${goQuote(device)}: ${why}`)
  if (/[\x00-\x1f\x7f]/.test(device)) throw fail('net/url: invalid control character in URL')
  if (device.startsWith(':')) throw fail('missing protocol scheme')
  const badEscape = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(device)
  if (badEscape !== null) throw fail(`invalid URL escape ${goQuote(badEscape[0])}`)
  const parts = /^([a-zA-Z][a-zA-Z0-9+.-]*:)?\/\/([^/?#]*)(.*)$/s.exec(device)
  if (parts === null) return { scheme: '', host: '', port: '', rest: device }
  const [, scheme = '', authority = '', rest = ''] = parts
  const address = authority.slice(authority.lastIndexOf('@') + 1)
  const port = /^(?:\[[^\]]*\]|[^:]*):(\d*)$/.exec(address)?.[1] ?? ''
  return { scheme, host: address, port, rest }
}

/** A name's address. Default: the system's resolver. */
export type Resolve = (host: string) => Promise<string>
const systemResolve: Resolve = async host => (await lookup(host)).address

/**
 * What to mount: for nfs and cifs the name in `addr=`, else for cifs the host of the device, becomes an address, and a cifs device whose
 * host was resolved loses its URL escapes.
 * @throws IO `error resolving passed in network volume address: …`
 */
export async function mountArguments(options: LocalOptions, resolve: Resolve = systemResolve): Promise<{ readonly device: string; readonly data: string }> {
  const { MountDevice: device, MountOpts: data, MountType: type } = options
  if (device === '') throw invalid('missing device in volume options')
  if (type !== 'nfs' && type !== 'cifs') return { device, data }
  const resolved = async (host: string): Promise<string> => {
    try {
      return await resolve(host)
    } catch (error) {
      throw new StorageError('IO', `error resolving passed in network volume address: ${(error as Error).message}`,
        { op: 'mount', key: host }, { cause: error })
    }
  }
  const address = addressOf(data)
  if (address !== '' && !net.isIPv4(address)) {
    return { device, data: net.isIPv6(address) ? data : data.replace(`addr=${address}`, `addr=${await resolved(address)}`) }
  }
  if (type !== 'cifs') return { device, data }
  const { scheme, host, rest } = parseDevice(device)
  if (host === '' || net.isIP(host) !== 0) return { device, data }
  return { device: `${scheme}//${await resolved(host)}${decodeURIComponent(rest)}`, data }
}
