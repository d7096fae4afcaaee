// Names that are resolved here must lead where the kernel leads in a chroot: the table is containerd's RootPath test, and openat2 with
// RESOLVE_IN_ROOT is asked about trees of random links.

import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { makeTree } from '../../fixtures/tree.ts'
import { errnoOf } from '../errors.ts'
import { openat2, RESOLVE_IN_ROOT } from '../sys/files.ts'
import { baseOf, childPath, parentOf, resolvingPlace, toTreePath } from './rooted.ts'

const test = suite('names inside a root')
const name = (text: string): Buffer => Buffer.from(text)

test('parts of names, and paths of bytes', () => {
  assert.equal([parentOf(name('a/b/c')), parentOf(name('a')), baseOf(name('a/b')), baseOf(name('a'))].map(String), ['a/b', '', 'b', 'a'])
  assert.is(childPath('/r', name('x')).toString(), '/r/x')
  assert.is(toTreePath(name('ü')), 'ü')
  assert.equal(toTreePath(Buffer.from([0xff])), Buffer.from([0xff]))
})

test('links of parents are followed inside, the last component never', t => {
  makeTree(t.dir, {
    'dir/file': '', 'rel': { type: 'symlink', to: 'dir' }, 'abs': { type: 'symlink', to: '/dir' }, 'up': { type: 'symlink', to: '../../../../dir' }, 'dir/self': { type: 'symlink', to: '.' },
    'chain': { type: 'symlink', to: 'dir/self/../abs2' }, 'abs2': { type: 'symlink', to: '/rel' }, 'root': { type: 'symlink', to: '/' }, 'dead': { type: 'symlink', to: '/not/there' },
    'loop': { type: 'symlink', to: 'pool' }, 'pool': { type: 'symlink', to: 'loop' }, 'bytes': { type: 'symlink', to: Buffer.from([0x2f, 0xff]) }, '\\xff/x': '', 'file': '',
  })
  const place = resolvingPlace(t.dir)
  const where = (text: string): string => place.path(name(text)).toString('latin1').replace(t.dir, '')
  const table = {
    'dir/file': '/dir/file', 'rel/file': '/dir/file', 'abs/file': '/dir/file', 'up/file': '/dir/file', 'dir/self/self/file': '/dir/file', 'chain/file': '/dir/file', 'abs2/x': '/dir/x',
    'root/root/rel/new': '/dir/new', 'dead/x': '/not/there/x', 'rel': '/rel', 'dead': '/dead', 'loop': '/loop', 'missing/x': '/missing/x', 'file/x': '/file/x', 'bytes/x': '/\xff/x',
  }
  for (let pass = 0; pass < 2; pass++) for (const [from, to] of Object.entries(table)) assert.is(where(from), to)
  assert.is(place.follow(name('dead')).toString(), 'not/there')
  assert.is(place.follow(name('chain')).toString(), 'dir')
  try { where('loop/x'); assert.unreachable() } catch (error) { assert.is(errnoOf(error), 'ELOOP') }
})

test('a name that was missing is looked up again; one that was replaced after forget()', t => {
  makeTree(t.dir, { 'a/': {}, 'b/': {} })
  const place = resolvingPlace(t.dir)
  assert.is(place.path(name('new/x')), `${t.dir}/new/x`)
  fs.symlinkSync('/b', path.join(t.dir, 'new'))
  assert.is(place.path(name('new/x')), `${t.dir}/b/x`)
  assert.is(place.path(name('a/x')), `${t.dir}/a/x`)
  fs.rmdirSync(path.join(t.dir, 'a'))
  fs.symlinkSync('b', path.join(t.dir, 'a'))
  place.forget()
  assert.is(place.path(name('a/x')), `${t.dir}/b/x`)
})

test('random links lead where the kernel leads', { skip: needsNative }, t => {
  const part = fc.constantFrom('a', 'b', 'c', 'd', '..', '.', '')
  const target = fc.tuple(fc.boolean(), fc.array(part, { minLength: 1, maxLength: 4 })).map(([absolute, parts]) => (absolute ? '/' : '') + parts.join('/')).filter(text => text !== '')
  const at = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1, maxLength: 3 }).map(parts => parts.join('/'))
  let n = 0, resolved = 0
  fc.assert(fc.property(fc.array(fc.tuple(at, fc.option(target)), { maxLength: 12 }), fc.array(at, { minLength: 5, maxLength: 10 }), (links, asked) => {
    const root = path.join(t.dir, String(n++))
    fs.mkdirSync(root)
    for (const [where, to] of links) {
      try {
        // Parents one by one: a recursive mkdir follows the links made before, out of the test's folder.
        const parts = where.split('/'), dirs = to === null ? parts : parts.slice(0, -1)
        for (let i = 1; i <= dirs.length; i++) {
          const dir = path.join(root, ...dirs.slice(0, i))
          if (fs.lstatSync(dir, { throwIfNoEntry: false })?.isDirectory() !== true) fs.mkdirSync(dir)
        }
        if (to !== null) fs.symlinkSync(to, path.join(root, where))
      } catch { /* something else has the name: a smaller tree */ }
    }
    const rootFd = fs.openSync(root, 'r')
    const place = resolvingPlace(root)
    try {
      for (const text of asked) {
        let fd: number | undefined, kernel: string
        try {
          fd = openat2(rootFd, text, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY, RESOLVE_IN_ROOT)
          kernel = fs.readlinkSync(`/proc/self/fd/${fd}`).slice(root.length + 1)
        } catch (error) {
          kernel = errnoOf(error) ?? String(error)
        } finally {
          if (fd !== undefined) fs.closeSync(fd)
        }
        let ours: string
        try { ours = place.follow(name(text)).toString() } catch (error) { ours = errnoOf(error) ?? String(error) }
        if (kernel === 'ELOOP') assert.is(ours, 'ELOOP', text)
        // What is missing has a place all the same, which is inside.
        else if (!['ENOENT', 'ENOTDIR'].includes(kernel)) { resolved++; assert.is(ours, kernel, `${text}: ${ours} here, ${kernel} in the kernel`) }
        else assert.not.match(ours, /^\.\.|^\//)
      }
    } finally {
      fs.closeSync(rootFd)
    }
  }), { numRuns: 200 })
  assert.ok(resolved > 50, String(resolved))
})
