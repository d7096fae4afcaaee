import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { isErrno, StorageError } from '../errors.ts'
import { performMount, unmount } from '../sys/mount.ts'
import { removeTree, removeTreeSync } from './remove-tree.ts'
import { treeUsage, treeUsageSync } from './usage.ts'
import { joinPath, readNames, walk } from './walk.ts'

const test = suite('fs/walk, usage, remove-tree')

function build(dir: string): void {
  fs.mkdirSync(`${dir}/b/inner`, { recursive: true })
  fs.writeFileSync(`${dir}/b/inner/f`, 'x')
  fs.writeFileSync(`${dir}/b-1`, 'x')
  fs.writeFileSync(`${dir}/a`, 'x')
  fs.symlinkSync('b', `${dir}/z`)
  fs.writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0x41])]), 'x')
}

test('depth first, siblings in byte order, names as bytes, links not followed', t => {
  build(t.dir)
  const seen: string[] = []
  walk(t.dir, {
    enter: e => { seen.push(`> ${e.relative.toString('latin1')}`); assert.ok(fs.lstatSync(e.path, { bigint: true }).ino === e.stat.ino) },
    leave: e => { seen.push(`< ${e.relative.toString('latin1')}`) },
  })
  assert.equal(seen, ['> ', '> a', '> b', '> b/inner', '> b/inner/f', '< b/inner', '< b', '> b-1', '> z', '> \xffA', '< '])
  const pruned: string[] = []
  walk(t.dir, { enter: e => { pruned.push(e.relative.toString('latin1')); return e.relative.toString() !== 'b' }, leave: e => { pruned.push(`< ${e.relative}`) } })
  assert.equal(pruned, ['', 'a', 'b', 'b-1', 'z', '\xffA', '< '])
  assert.equal(readNames(t.dir).map(n => n.toString('latin1')), ['a', 'b', 'b-1', 'z', '\xffA'])
  assert.is(joinPath(Buffer.alloc(0), Buffer.from('x')).toString(), 'x')
})

test('a file alone, a root that is missing, files that vanish meanwhile', t => {
  build(t.dir)
  const one: string[] = []
  walk(`${t.dir}/a`, { enter: e => { one.push(e.path.toString()) } })
  assert.equal(one, [`${t.dir}/a`])
  assert.throws(() => walk(`${t.dir}/none`, { enter: () => undefined }), (e: unknown) => isErrno(e, 'ENOENT'))
  const rest: string[] = []
  walk(t.dir, { enter: e => { rest.push(e.relative.toString('latin1')); if (rest.length === 2) fs.rmSync(`${t.dir}/b`, { recursive: true }) } })
  assert.equal(rest, ['', 'a', 'b-1', 'z', '\xffA'])
})

test('usage: blocks, each inode once, holes not, other file systems not', { skip: needsRoot }, async t => {
  fs.mkdirSync(`${t.dir}/u/m`, { recursive: true })
  fs.writeFileSync(`${t.dir}/u/f`, Buffer.alloc(100_000, 1))
  for (let i = 0; i < 5; i++) fs.linkSync(`${t.dir}/u/f`, `${t.dir}/u/l${i}`)
  fs.writeFileSync(`${t.dir}/u/hole`, '')
  fs.truncateSync(`${t.dir}/u/hole`, 1 << 30)
  const expected = ['', '/m', '/f', '/hole'].reduce((sum, name) => sum + fs.lstatSync(`${t.dir}/u${name}`).blocks * 512, 0)
  assert.equal(treeUsageSync(`${t.dir}/u`), { sizeBytes: expected, inodes: 4 })
  assert.equal(await treeUsage(`${t.dir}/u`), { sizeBytes: expected, inodes: 4 })
  performMount({ type: 'tmpfs', source: 'tmpfs', options: ['size=1m'] }, `${t.dir}/u/m`)
  t.defer(() => unmount(`${t.dir}/u/m`))
  fs.writeFileSync(`${t.dir}/u/m/other`, Buffer.alloc(50_000, 1))
  assert.is(treeUsageSync(`${t.dir}/u`).inodes, 3)
  const inside: string[] = []
  walk(`${t.dir}/u`, { enter: e => { inside.push(e.relative.toString()) } }, { sameFileSystem: true })
  assert.ok(inside.includes('m') && !inside.includes('m/other'))
})

test('removal: any names, links not followed, twice, at once', async t => {
  fs.mkdirSync(`${t.dir}/tree`)
  fs.mkdirSync(`${t.dir}/keep`)
  fs.writeFileSync(`${t.dir}/keep/f`, 'x')
  build(`${t.dir}/tree`)
  fs.symlinkSync('../keep', `${t.dir}/tree/out`)
  await Promise.all([removeTree(`${t.dir}/tree`), removeTree(`${t.dir}/tree`)])
  removeTreeSync(`${t.dir}/tree`)
  removeTreeSync(`${t.dir}/keep/f`)
  assert.equal(fs.readdirSync(t.dir), ['keep'])
})

test('removal: deeper than PATH_MAX, and directories without permission', t => {
  const name = 'd'.repeat(250)
  for (let i = 0; i < 40; i++) {
    fs.mkdirSync(`${t.dir}/new`)
    if (i > 0) fs.renameSync(`${t.dir}/${name}`, `${t.dir}/new/${name}`)
    fs.renameSync(`${t.dir}/new`, `${t.dir}/${name}`)
  }
  removeTreeSync(`${t.dir}/${name}`)
  fs.mkdirSync(`${t.dir}/closed/in`, { recursive: true })
  fs.writeFileSync(`${t.dir}/closed/in/f`, '')
  fs.chmodSync(`${t.dir}/closed/in`, 0)
  fs.chmodSync(`${t.dir}/closed`, 0o500)
  removeTreeSync(`${t.dir}/closed`)
  assert.equal(fs.readdirSync(t.dir), [])
})

test('removal stops at a mount point and leaves what is mounted', { skip: needsRoot }, t => {
  for (const bind of [false, true]) {
    fs.mkdirSync(`${t.dir}/tree/m`, { recursive: true })
    fs.mkdirSync(`${t.dir}/src`, { recursive: true })
    fs.writeFileSync(`${t.dir}/src/precious`, 'x')
    performMount(bind ? { type: 'bind', source: `${t.dir}/src`, options: ['bind'] } : { type: 'tmpfs', source: 'tmpfs', options: [] }, `${t.dir}/tree/m`)
    try {
      if (!bind) fs.writeFileSync(`${t.dir}/tree/m/precious`, 'x')
      assert.throws(() => removeTreeSync(`${t.dir}/tree`), (e: unknown) => StorageError.is(e, 'BUSY'))
      assert.ok(fs.existsSync(`${t.dir}/tree/m/precious`))
      assert.ok(fs.existsSync(`${t.dir}/src/precious`))
    } finally {
      unmount(`${t.dir}/tree/m`)
    }
    removeTreeSync(`${t.dir}/tree`)
  }
})
