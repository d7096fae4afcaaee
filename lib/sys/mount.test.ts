import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { isErrno, StorageError } from '../errors.ts'
import { isMountpoint, mountTable, overlayKernel, performMount, splitLowers, unmount } from './mount.ts'

const test = suite('sys/mount')

function lowers(dir: string, n: number): string[] {
  return Array.from({ length: n }, (_, i) => {
    fs.mkdirSync(`${dir}/lower-${i}`, { recursive: true })
    fs.writeFileSync(`${dir}/lower-${i}/f${i}`, String(i))
    return `${dir}/lower-${i}`
  })
}

test('splitLowers undoes the escapes', () => {
  assert.equal(splitLowers('/a:/b\\:c:/d\\\\e:/f\\,g'), ['/a', '/b:c', '/d\\e', '/f,g'])
  assert.equal(splitLowers(''), [])
})

test('a tmpfs with flags and data; the table and isMountpoint see it', { skip: needsRoot }, t => {
  const at = `${t.dir}/m nt`
  fs.mkdirSync(at)
  assert.is(isMountpoint(at), false)
  t.defer(() => unmount(at))
  performMount({ type: 'tmpfs', source: 'layerstack-test', options: ['size=64k', 'mode=700', 'nosuid', 'nodev', 'noexec'] }, at)
  assert.is(isMountpoint(at), true)
  const entry = mountTable().find(m => m.target === fs.realpathSync(at))
  assert.equal([entry?.type, entry?.source], ['tmpfs', 'layerstack-test'])
  for (const word of ['nosuid', 'nodev', 'noexec']) assert.ok(entry?.options.split(',').includes(word), word)
  assert.is(fs.statSync(at).mode & 0o777, 0o700)
  unmount(at, { lazy: false })
  assert.is(isMountpoint(at), false)
  unmount(at)
  unmount(`${at}/none`)
  assert.is(isMountpoint(`${at}/none`), false)
})

test('bind mounts: rw, ro, and of one file', { skip: needsRoot }, t => {
  for (const dir of ['src', 'rw', 'ro']) fs.mkdirSync(`${t.dir}/${dir}`)
  fs.writeFileSync(`${t.dir}/src/f`, 'x')
  fs.writeFileSync(`${t.dir}/file`, '')
  for (const name of ['rw', 'ro', 'file']) t.defer(() => unmount(`${t.dir}/${name}`))
  performMount({ type: 'bind', source: `${t.dir}/src`, options: ['bind', 'rw'] }, `${t.dir}/rw`)
  fs.writeFileSync(`${t.dir}/rw/g`, 'y')
  performMount({ type: 'bind', source: `${t.dir}/src`, options: ['rbind', 'ro', 'rprivate'] }, `${t.dir}/ro`)
  assert.throws(() => fs.writeFileSync(`${t.dir}/ro/h`, 'z'), (e: unknown) => isErrno(e, 'EROFS'))
  assert.is(fs.readFileSync(`${t.dir}/ro/g`, 'utf8'), 'y')
  performMount({ type: 'bind', source: `${t.dir}/src/f`, options: ['bind'] }, `${t.dir}/file`)
  assert.is(fs.readFileSync(`${t.dir}/file`, 'utf8'), 'x')
  assert.is(isMountpoint(`${t.dir}/file`), true)
})

test('overlay with 400 lowers, by descriptors of the new mount calls', { skip: needsRoot }, t => {
  const dirs = lowers(t.dir, 400)
  fs.mkdirSync(`${t.dir}/m`)
  t.defer(() => unmount(`${t.dir}/m`))
  performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${dirs.join(':')}`, 'ro'] }, `${t.dir}/m`)
  assert.is(fs.readdirSync(`${t.dir}/m`).length, 400)
  assert.throws(() => fs.writeFileSync(`${t.dir}/m/x`, ''), (e: unknown) => isErrno(e, 'EROFS'))
})

test('overlay in mount(2)\'s way, as kernels before 6.7 have it: short, and longer than a page', { skip: needsRoot }, t => {
  const before = overlayKernel.lowerdirPlus
  overlayKernel.lowerdirPlus = false
  t.defer(() => { overlayKernel.lowerdirPlus = before })
  fs.mkdirSync(`${t.dir}/m`)
  t.defer(() => unmount(`${t.dir}/m`))
  for (const n of [3, 300]) {
    const dirs = lowers(t.dir, n)
    for (const name of ['upper', 'work']) fs.mkdirSync(`${t.dir}/${name}`, { recursive: true })
    performMount({ type: 'overlay', source: 'overlay', options: ['index=off', `lowerdir=${dirs.join(':')}`, `upperdir=${t.dir}/upper`, `workdir=${t.dir}/work`] }, `${t.dir}/m`)
    assert.is(fs.readdirSync(`${t.dir}/m`).length, n)
    fs.writeFileSync(`${t.dir}/m/new`, 'x')
    unmount(`${t.dir}/m`)
    fs.rmSync(`${t.dir}/upper/new`)
  }
  assert.throws(() => performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${lowers(t.dir, 480).join(':')}`] }, `${t.dir}/m`), (e: unknown) => StorageError.is(e, 'LIMIT_EXCEEDED'))
})

test('overlay with paths longer than fsconfig takes, and with separators in them', { skip: needsRoot }, t => {
  for (const part of ['p'.repeat(200), 'odd :,\\ name']) {
    const dir = part.startsWith('p') ? `${t.dir}/${part}/${part}` : `${t.dir}/${part}`
    const escape = (path: string): string => path.replace(/[\\:,]/g, '\\$&')
    const dirs = lowers(dir, 2)
    for (const name of ['upper', 'work']) fs.mkdirSync(`${dir}/${name}`)
    fs.mkdirSync(`${t.dir}/m`, { recursive: true })
    t.defer(() => unmount(`${t.dir}/m`))
    performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${dirs.map(escape).join(':')}`,
      `upperdir=${dir.concat('/upper').replace(/[\\,]/g, '\\$&')}`, `workdir=${dir.concat('/work').replace(/[\\,]/g, '\\$&')}`] }, `${t.dir}/m`)
    fs.writeFileSync(`${t.dir}/m/new`, 'x')
    assert.equal(fs.readdirSync(`${dir}/upper`), ['new'])
    assert.equal(fs.readdirSync(`${t.dir}/m`).sort(), ['f0', 'f1', 'new'])
    unmount(`${t.dir}/m`)
  }
})

test('a failed overlay tells the kernel\'s reason and leaves nothing mounted', { skip: needsRoot }, t => {
  fs.mkdirSync(`${t.dir}/m`)
  const fds = fs.readdirSync('/proc/self/fd').length
  assert.throws(() => performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${t.dir}/none`] }, `${t.dir}/m`),
    (e: unknown) => StorageError.is(e) && e.message.includes('mounting overlay at') && isErrno(e, 'ENOENT'))
  const dirs = lowers(t.dir, 501)
  assert.throws(() => performMount({ type: 'overlay', source: 'overlay', options: [`lowerdir=${dirs.join(':')}`] }, `${t.dir}/m`), (e: unknown) => StorageError.is(e))
  assert.is(isMountpoint(`${t.dir}/m`), false)
  assert.is(fs.readdirSync('/proc/self/fd').length, fds)
  assert.throws(() => performMount({ type: 'no-such-fs', source: 'x', options: [] }, `${t.dir}/m`), (e: unknown) => StorageError.is(e, 'NOT_SUPPORTED'))
})
