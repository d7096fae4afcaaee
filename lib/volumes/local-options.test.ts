// Options of the local driver against what moby's unit tests expect (fixtures/cases/mount-cases.json, groups local*); names of volumes.

import fs from 'node:fs'
import path from 'node:path'
import { assert, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { addressOf, checkLocalOptions, givenOptions, localOptionsOf, maskPassword, mountArguments, passwordOf } from './local-options.ts'
import { checkVolumeName } from './name.ts'

const test = suite('local options')
const noQuota = (): string => 'not here'

interface Cases {
  readonly localAddressFromOpts: readonly (readonly [string, string])[]
  readonly localPasswordFromOpts: readonly (readonly [string, string])[]
  readonly localMountOptions: readonly { readonly type: string; readonly device: string; readonly o: string; readonly resolve?: Record<string, string>; readonly expectDevice: string; readonly expectOpts: string }[]
  readonly localVolumeNames: readonly { readonly name: string; readonly ok: boolean; readonly error?: string }[]
  readonly localVolumeOpts: readonly { readonly opts: Record<string, string>; readonly ok: boolean; readonly error?: string }[]
}
const cases = JSON.parse(fs.readFileSync(path.join(projectRoot, 'fixtures/cases/mount-cases.json'), 'utf8')) as Cases

function messageOf(work: () => void): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    assert.ok(StorageError.is(error, 'INVALID_ARGUMENT'))
    return error.message
  }
}

test('names', () => {
  for (const { name, ok, error } of cases.localVolumeNames) {
    const message = messageOf(() => checkVolumeName(name))
    if (ok) assert.is(message, undefined, name)
    else assert.ok(message?.includes(error ?? ''), `${name}: ${message}`)
  }
})

test('options of a new volume', () => {
  for (const { opts, ok, error } of cases.localVolumeOpts) assert.is(messageOf(() => checkLocalOptions(opts, noQuota)), ok ? undefined : error, JSON.stringify(opts))
  assert.is(messageOf(() => checkLocalOptions({ size: '1234' }, () => undefined)), undefined)
  assert.is(messageOf(() => checkLocalOptions({ type: 'cifs', device: '//host:445/share' }, noQuota)), 'port not allowed in CIFS device URL, include \'port\' in \'o=\'')
})

test('addresses and passwords in options', () => {
  for (const [options, address] of cases.localAddressFromOpts) assert.is(addressOf(options), address)
  for (const [options, password] of cases.localPasswordFromOpts) assert.is(passwordOf(options), password)
  assert.is(maskPassword('data: a,password=x,b', 'a,password=x,b'), 'data: a,password=********,b')
})

const optionsOf = (type: string, device: string, o: string): Parameters<typeof mountArguments>[0] => ({ MountType: type, MountOpts: o, MountDevice: device, Quota: { Size: 0 } })

test('what the kernel is given for nfs and cifs', async () => {
  for (const { type, device, o, resolve = {}, expectDevice, expectOpts } of cases.localMountOptions) {
    const asked = mountArguments(optionsOf(type, device, o), async host => {
      const address = resolve[host]
      if (address === undefined) throw new Error(`no such host: ${host}`)
      return address
    })
    assert.equal(await asked, { device: expectDevice, data: expectOpts })
  }
  const nobody = async (host: string): Promise<string> => { throw new Error(`no such host: ${host}`) }
  // Addresses are left alone, and other types are never resolved.
  assert.equal(await mountArguments(optionsOf('nfs', ':/export', 'addr=10.0.0.1,rw'), nobody), { device: ':/export', data: 'addr=10.0.0.1,rw' })
  assert.equal(await mountArguments(optionsOf('nfs', ':/export', 'addr=2001:db8::1'), nobody), { device: ':/export', data: 'addr=2001:db8::1' })
  assert.equal(await mountArguments(optionsOf('tmpfs', 'tmpfs', 'addr=name'), nobody), { device: 'tmpfs', data: 'addr=name' })
  assert.equal(await mountArguments(optionsOf('cifs', '//host/a%20b', ''), async () => '1.2.3.4'), { device: '//1.2.3.4/a b', data: '' })
  await mountArguments(optionsOf('nfs', ':/x', 'addr=nowhere'), nobody).then(() => assert.unreachable(), (error: unknown) => {
    assert.ok(StorageError.is(error) && error.message === 'error resolving passed in network volume address: no such host: nowhere')
  })
})

test('opts.json tells the options that were given', () => {
  for (const options of [{}, { type: 'tmpfs', device: 'tmpfs' }, { type: 'none', device: '/x', o: 'bind' }, { size: '1048576' }]) assert.equal(givenOptions(localOptionsOf(options)), options)
})
