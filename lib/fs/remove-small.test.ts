import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { removeKnown, removeKnownFolder } from './remove-small.ts'

const test = suite('removing what is known')
const known = [
  { name: 'dev', isDirectory: true }, { name: 'dev/pts', isDirectory: true }, { name: 'dev/console', isDirectory: false },
  { name: 'etc', isDirectory: true }, { name: 'etc/hosts', isDirectory: false }, { name: 'etc/mtab', isDirectory: false },
]

function make(root: string): string {
  for (const { name, isDirectory } of known) {
    if (isDirectory) fs.mkdirSync(`${root}/${name}`, { recursive: true })
    else if (name.endsWith('mtab')) fs.symlinkSync('/proc/mounts', `${root}/${name}`)
    else fs.writeFileSync(`${root}/${name}`, '')
  }
  return root
}

test('goes without a look', { skip: needsNative }, t => {
  assert.ok(removeKnown(make(t.dir), known))
  assert.equal(fs.readdirSync(t.dir), [])
})

test('something more, something less, or another kind of thing is left to who looks', { skip: needsNative }, t => {
  const dir = (name: string): string => { fs.mkdirSync(`${t.dir}/${name}`); return make(`${t.dir}/${name}`) }
  const more = dir('more')
  fs.writeFileSync(`${more}/dev/own`, 'x')
  assert.not(removeKnown(more, known))
  assert.equal(fs.readdirSync(`${more}/dev`).includes('own'), true)
  const less = dir('less')
  fs.unlinkSync(`${less}/dev/console`)
  assert.not(removeKnown(less, known))
  const other = dir('other')
  fs.unlinkSync(`${other}/etc/hosts`)
  fs.mkdirSync(`${other}/etc/hosts`)
  assert.not(removeKnown(other, known))
  const elsewhere = dir('elsewhere'), link = dir('link')
  fs.rmSync(`${link}/etc`, { recursive: true })
  fs.symlinkSync(`${elsewhere}/etc`, `${link}/etc`)
  assert.not(removeKnown(link, known))
  assert.equal(fs.readdirSync(`${elsewhere}/etc`), ['hosts', 'mtab'])
})

test('what is mounted inside keeps what it holds', { skip: needsRoot }, t => {
  fs.mkdirSync(`${t.dir}/tree`)
  fs.mkdirSync(`${t.dir}/precious`)
  for (const name of ['hosts', 'mtab']) fs.writeFileSync(`${t.dir}/precious/${name}`, name)
  const tree = make(`${t.dir}/tree`)
  assert.is(spawnSync('mount', ['--bind', `${t.dir}/precious`, `${tree}/etc`]).status, 0)
  try {
    assert.not(removeKnown(tree, known))
    assert.equal(fs.readdirSync(`${t.dir}/precious`), ['hosts', 'mtab'])
  } finally {
    spawnSync('umount', [`${tree}/etc`])
  }
})

test('a folder of known files', t => {
  const make = (name: string, ...files: string[]): string => {
    fs.mkdirSync(`${t.dir}/${name}`)
    for (const file of files) fs.writeFileSync(`${t.dir}/${name}/${file}`, '')
    return `${t.dir}/${name}`
  }
  assert.ok(removeKnownFolder(make('same', 'a', 'b'), ['a', 'b']))
  assert.not(removeKnownFolder(make('more', 'a', 'b', 'c'), ['a', 'b']))
  assert.not(removeKnownFolder(make('less', 'a'), ['a', 'b']))
  assert.not(removeKnownFolder(`${t.dir}/none`, ['a']))
  assert.equal(fs.readdirSync(t.dir).sort(), ['less', 'more'])
  assert.equal(fs.readdirSync(`${t.dir}/more`), ['c'])
})
