import fs from 'node:fs'
import { assert, suite } from '../fixtures/harness/index.ts'
import { readDaemonConfig } from './daemon-config.ts'
import { StorageError } from './errors.ts'
import type { Code } from './errors.ts'
import { open } from './index.ts'

const test = suite('daemon-config')

test('the three keys of storage, all others passed over', t => {
  const file = `${t.dir}/daemon.json`
  const read = (text: string): unknown => { fs.writeFileSync(file, text); return readDaemonConfig(file) }
  assert.equal(read('{"data-root":"/x","storage-driver":"vfs","storage-opts":["size=1G"],"log-level":"warn"}'), { root: '/x', driver: 'vfs', storageOptions: ['size=1G'] })
  assert.equal(read('{"graph":"/old"}'), { root: '/old' }, 'its name until 17.05')
  assert.equal(read('\uFEFF{}'), {})
  assert.equal(read(' \n'), {})
  const fails = (text: string, code: Code): void => { assert.throws(() => read(text), (e: unknown) => StorageError.is(e, code), text) }
  for (const text of ['{', '[]', 'null', '{"storage-driver":1}', '{"storage-opts":"x"}', '{"storage-opts":[1]}', '{"data-root":{}}']) fails(text, 'INVALID_ARGUMENT')
  assert.throws(() => readDaemonConfig(`${t.dir}/none`), (e: unknown) => StorageError.is(e, 'NOT_FOUND'))
})

test('open() takes from it what it is not given, and its options for its driver only', async t => {
  const config = `${t.dir}/daemon.json`
  const write = (value: object): void => fs.writeFileSync(config, JSON.stringify(value))
  write({ 'data-root': `${t.dir}/root`, 'storage-driver': 'vfs', 'storage-opts': ['vfs.xattrs=i_want_broken_containers'] })
  const storage = await open({ config, durability: 'none' })
  const info = await storage.info()
  assert.equal([info.root, info.driver, info.reason], [`${t.dir}/root`, 'vfs', 'the daemon.json names vfs'])
  await storage.close()
  write({ 'storage-driver': 'overlay2', 'storage-opts': ['overlay2.override_kernel_check=1'] })
  const other = await open({ config, root: `${t.dir}/root`, driver: 'vfs', durability: 'none' })
  assert.is((await other.info()).reason, 'vfs was asked for')
  await other.close()
  write({ 'storage-driver': 'vfs', 'storage-opts': ['vfs.colour=blue'] })
  try { await open({ config, root: `${t.dir}/root` }); assert.unreachable() } catch (error) { assert.ok(StorageError.is(error, 'INVALID_ARGUMENT')) }
})
