import fs from 'node:fs'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { isErrno } from '../errors.ts'
import { getXattr, listXattrs, removeXattr, setXattr } from './xattr.ts'
import { fileSystemName, reportsTypes } from './statfs.ts'
import { privileges } from './privileges.ts'
import { errnoName, faults, sysError } from './native.ts'
import { mknod, S_IFIFO } from './files.ts'

const test = suite('sys/xattr, statfs, privileges, native')

test('values are bytes; absent is undefined; names are listed', { skip: needsRoot }, t => {
  const file = `${t.dir}/f`
  fs.writeFileSync(file, '')
  assert.is(getXattr(file, 'trusted.none'), undefined)
  const value = Buffer.from([0, 255, 10, 0])
  setXattr(file, 'trusted.bin', value)
  setXattr(file, 'trusted.text', 'täxt')
  setXattr(file, 'trusted.empty', '')
  assert.equal(getXattr(file, 'trusted.bin'), value)
  assert.equal(getXattr(file, 'trusted.empty'), Buffer.alloc(0))
  assert.equal(listXattrs(Buffer.from(file)).filter(n => n.startsWith('trusted.')).sort(), ['trusted.bin', 'trusted.empty', 'trusted.text'])
  removeXattr(file, 'trusted.bin')
  removeXattr(file, 'trusted.bin')
  assert.is(getXattr(file, 'trusted.bin'), undefined)
  assert.is(getXattr(file, 'trusted.text')?.toString(), 'täxt')
})

test('links are not followed', { skip: needsRoot }, t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  fs.symlinkSync('f', `${t.dir}/l`)
  setXattr(`${t.dir}/l`, 'trusted.on', 'link')
  assert.equal(listXattrs(`${t.dir}/f`).includes('trusted.on'), false)
  assert.throws(() => setXattr(`${t.dir}/l`, 'user.x', 'y'), (e: unknown) => isErrno(e, 'EPERM'))
})

test('a large value, and a file system without attributes', { skip: needsNative }, t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  try { setXattr(`${t.dir}/f`, 'user.big', Buffer.alloc(60_000, 3)) } catch (error) {
    if (isErrno(error, 'ENOSPC', 'EOPNOTSUPP', 'E2BIG')) t.skip('the file system holds no large attributes')
    throw error
  }
  assert.is(getXattr(`${t.dir}/f`, 'user.big')?.length, 60_000)
  assert.equal(listXattrs('/proc/self/status'), [])
  assert.is(getXattr('/proc/self/status', 'user.x'), undefined)
})

test('file systems by name, and whether a listing tells types', { skip: needsNative }, t => {
  assert.is(fileSystemName('/dev/shm'), 'tmpfs')
  assert.is(fileSystemName('/proc'), '<unknown>')
  assert.throws(() => fileSystemName(`${t.dir}/none`), (e: unknown) => isErrno(e, 'ENOENT'))
  assert.is(reportsTypes(t.dir), true)
  assert.throws(() => reportsTypes(`${t.dir}/none`), (e: unknown) => isErrno(e, 'ENOENT'))
})

test('privileges agree with what the process can do', t => {
  const { chown, userNamespace } = privileges()
  fs.writeFileSync(`${t.dir}/f`, '')
  let could = true
  try { fs.chownSync(`${t.dir}/f`, 12, 34) } catch { could = false }
  if (!userNamespace) assert.is(could, chown)
})

test('errnos have the kernel\'s names, errors their parts', () => {
  assert.is(errnoName(2), 'ENOENT')
  assert.is(errnoName(11), 'EAGAIN')
  assert.is(errnoName(95), 'EOPNOTSUPP')
  assert.is(errnoName(4000), 'errno 4000')
  const error = sysError('mount', 28, '/x')
  assert.equal([error.code, error.info.errno, error.info.syscall, error.info.path], ['NO_SPACE', 'ENOSPC', 'mount', '/x'])
  assert.is(error.message, 'mount /x: no space left on device')
})

test('the fault hook comes before each native call', { skip: needsNative }, t => {
  faults.before = name => { if (name === 'mknod') throw sysError(name, 28, 'faulted') }
  t.defer(() => { delete faults.before })
  assert.throws(() => mknod(`${t.dir}/p`, S_IFIFO | 0o600), (e: unknown) => isErrno(e, 'ENOSPC'))
  assert.not.ok(fs.existsSync(`${t.dir}/p`))
})
