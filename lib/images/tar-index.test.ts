// The index of an outer archive: where content lies, for every way of writing names and sizes; links; what is refused.

import fs from 'node:fs'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import { indexTar } from './tar-index.ts'
import type { TarIndex } from './tar-index.ts'

const test = suite('images/tar-index')

async function index(t: { readonly dir: string; defer(undo: () => unknown): void }, archive: Buffer): Promise<{ index: TarIndex; text(name: string): string | undefined }> {
  const fd = fs.openSync(write(t.dir, 'a.tar', archive), 'r')
  t.defer(() => fs.closeSync(fd))
  const found = await indexTar(fd, archive.length)
  return {
    index: found,
    text: name => {
      const place = found.find(name)
      return place === undefined ? undefined : archive.toString('utf8', place.offset, place.offset + place.length)
    },
  }
}

for (const longNames of ['pax', 'gnu'] as const) {
  test(`names of every form (${longNames})`, async t => {
    const long = `${'d/'.repeat(80)}file`
    const { text } = await index(t, makeTar([
      { path: './a', type: 'file', content: 'one' }, { path: '/b//c', type: 'file', content: 'two' }, { path: long, type: 'file', content: 'three' },
      { path: 'p', type: 'file', content: 'four', via: 'PAX' }, { path: 'x/../q', type: 'file', content: 'five' }, { path: 'a', type: 'file', content: 'one again' },
      { path: 'dir/', type: 'dir' }, { path: 'empty', type: 'file' },
    ], { longNames }))
    assert.equal(['a', '/a', './b/c', long, 'p', 'q', 'dir', 'empty', 'none'].map(text), ['one again', 'one again', 'two', 'three', 'four', 'five', undefined, '', undefined])
  })
}

test('links lead inside the archive and never out of it', async t => {
  const { text } = await index(t, makeTar([
    { path: 'a/layer.tar', type: 'file', content: 'A' }, { path: 'b/layer.tar', type: 'symlink', linkname: '../a/layer.tar' },
    { path: 'c/layer.tar', type: 'hardlink', linkname: 'b/layer.tar' }, { path: 'd', type: 'symlink', linkname: 'a' },
    { path: 'up', type: 'symlink', linkname: '../../../../a/layer.tar' }, { path: 'abs', type: 'symlink', linkname: '/a/layer.tar' }, { path: 'out', type: 'symlink', linkname: '/etc/passwd' },
  ]))
  assert.equal(['b/layer.tar', 'c/layer.tar', 'd/layer.tar', 'up', 'abs', 'out'].map(text), ['A', 'A', 'A', 'A', 'A', undefined])
})

test('a size in a PAX record is believed, and content is found behind it', async t => {
  // The header's own field says 0, as writers do for files over 8 GiB.
  const entries: TarEntrySpec[] = [{ path: 'big', type: 'file', content: '', records: { size: '5' } }]
  const head = makeTar(entries, { end: false })
  const { text } = await index(t, Buffer.concat([head, Buffer.from('hello'.padEnd(512, '\0')), makeTar([{ path: 'next', type: 'file', content: 'n' }])]))
  assert.equal([text('big'), text('next')], ['hello', 'n'])
})

const refused: readonly (readonly [what: string, archive: Buffer, message: RegExp])[] = [
  ['a wrong checksum', (() => { const tar = makeTar([{ path: 'a', type: 'file' }]); tar.write('b', 0); return tar })(), /the checksum is wrong/],
  ['content that is missing', makeTar([{ path: 'a', type: 'file', content: 'abc', declaredSize: 9999 }]), /^unexpected end of archive: \d+ bytes of "a" are missing$/],
  ['a block that is cut', makeTar([{ path: 'a', type: 'file' }]).subarray(0, 600), /a block is cut short/],
  ['a PAX header with nothing behind it', makeTar([{ path: 'a', type: 'file', via: 'PAX' }], { end: false }).subarray(0, 1024), /an extended header has no entry/],
]
for (const [what, archive, message] of refused) {
  test(`refuses ${what}`, async t => {
    try {
      await index(t, archive)
      assert.unreachable()
    } catch (error) {
      assert.ok(StorageError.is(error, 'INVALID_ARCHIVE'), String(error))
      assert.match((error as Error).message, message)
    }
  })
}

test('a sparse file is refused where it is wanted, not before', async t => {
  const { index: found, text } = await index(t, makeTar([
    { path: 's', type: 'file', content: 'x', records: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'real' } }, { path: 'b', type: 'file', content: 'b' },
  ]))
  assert.is(text('b'), 'b')
  assert.throws(() => found.find('real'), /is stored as a sparse file$/)
})
