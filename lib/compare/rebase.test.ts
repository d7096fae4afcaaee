// Rebasing: layers bit for bit, config and history, and every kind of conflict, with what is none beside it.

import { assert, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import type { TarEntrySpec } from '../../fixtures/make-tar.ts'
import { failure } from '../../fixtures/storage.ts'
import { compareImages, openImageSource, rebaseImage } from './index.ts'
import type { ImageSource, RebaseOptions } from './index.ts'

const test = suite('compare/rebase')

const d = (name: string, more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: `${name}/`, type: 'dir', ...more })
const f = (name: string, content = 'content', more: Partial<TarEntrySpec> = {}): TarEntrySpec => ({ path: name, type: 'file', content, ...more })
const gone = (name: string): TarEntrySpec => f(name.replace(/([^/]+)$/, '.wh.$1'), '')
const created = '2024-05-06T07:08:09Z'

let made = 0
async function opened(t: Context, layers: readonly (readonly TarEntrySpec[])[], config: Readonly<Record<string, unknown>> = {}): Promise<ImageSource> {
  const source = await openImageSource(write(t.dir, `image${made++}.tar`, makeTar(oldDockerArchive([makeImage({ layers, config })]))))
  t.defer(() => source.close())
  return source
}

type Case = readonly [what: string, old: readonly TarEntrySpec[], renewed: readonly TarEntrySpec[], own: readonly TarEntrySpec[], conflicts: readonly string[]]

const cases: readonly Case[] = [
  ['nothing in common', [f('lib', '1')], [f('lib', '2'), f('more')], [d('app'), f('app/x')], []],
  ['both changed', [f('conf', '1')], [f('conf', '2')], [f('conf', 'mine')], ['conf both-changed']],
  ['the image has what the new base has', [f('conf', '1')], [f('conf', '2')], [f('conf', '2', { mtime: 7 })], []],
  ['the base did not change it', [f('conf', '1')], [f('conf', '1', { mtime: 7 })], [f('conf', 'mine')], []],
  ['both added', [f('a')], [f('a'), f('new', 'theirs')], [f('new', 'mine')], ['new both-added']],
  ['both added the same', [f('a')], [f('a'), f('new', 'same')], [f('new', 'same')], []],
  ['the new base dropped what the image changed', [f('conf', '1')], [f('a')], [f('conf', 'mine')], ['conf removed-in-base']],
  ['the image deletes what the new base changed', [f('conf', '1')], [f('conf', '2')], [gone('conf')], ['conf removed-in-image']],
  ['the image deletes what nobody changed, or what is gone', [f('one', '1'), f('two')], [f('one', '1')], [gone('one'), gone('two')], []],
  ['a deleted directory has new things in it', [d('dir'), f('dir/old')], [d('dir'), f('dir/old'), f('dir/new')], [gone('dir')], ['dir/new removed-in-image']],
  ['an opaque directory hides new things', [d('dir'), f('dir/old')], [d('dir'), f('dir/new')], [d('dir'), f('dir/.wh..wh..opq', '')], ['dir/new removed-in-image']],
  ['the new base has a link where the image has a directory', [d('lib'), f('lib/a')], [d('usr'), d('usr/lib'), f('usr/lib/a'), { path: 'lib', type: 'symlink', linkname: 'usr/lib' }], [d('lib'), f('lib/mine')], ['lib type']],
  ['the image has a file where the new base has a directory', [f('x')], [d('x'), f('x/in')], [f('x', 'mine')], ['x type']],
  ['directories that both name are no conflict', [d('etc')], [d('etc', { mtime: 7 }), f('etc/new')], [d('etc'), f('etc/mine')], []],
  ['a directory\'s mode that the base changed', [d('etc')], [d('etc', { mode: 0o700 })], [d('etc'), f('etc/mine')], ['etc both-changed']],
  ['a hard link to the base\'s file', [f('a', '1')], [f('a', '2')], [{ path: 'b', type: 'hardlink', linkname: 'a' }], ['b link']],
  ['a hard link to the base\'s file, which is the same', [f('a', '1')], [f('a', '1')], [{ path: 'b', type: 'hardlink', linkname: 'a' }], []],
]

for (const [what, old, renewed, own, conflicts] of cases) {
  test(`conflicts: ${what}`, async t => {
    const from = await opened(t, [old]), onto = await opened(t, [renewed]), image = await opened(t, [old, own])
    for (const options of [{ from }, { baseLayers: 1 }] as RebaseOptions[]) {
      const result = await rebaseImage(image, onto, options)
      assert.equal(result.conflicts.map(({ path, kind }) => `${path.toString()} ${kind}`), conflicts)
      assert.is(result.image === undefined, conflicts.length > 0)
      const forced = await rebaseImage(image, onto, { ...options, allowConflicts: true })
      assert.equal(forced.image?.layers.map(layer => layer.diffId), [...onto.layers, ...image.layers.slice(1)].map(layer => layer.diffId))
    }
  })
}

test('config and history: what the image left alone comes from the new base', async t => {
  const step = (text: string, more: object = {}): object => ({ created, created_by: text, ...more })
  const base = (version: string, more: object): Readonly<Record<string, unknown>> => ({
    config: { Env: ['PATH=/bin', `V=${version}`, 'SAME=1'], Labels: { version, base: 'yes' }, Cmd: ['sh', version], ...more },
    history: [step(`base ${version}`), step('CMD', { empty_layer: true })],
  })
  const from = await opened(t, [[f('os', '1')]], base('1', {})), onto = await opened(t, [[f('os', '2')], [f('patch')]], {
    ...base('2', { User: 'nobody' }), history: [step('base 2'), step('patch 2')],
  })
  const image = await opened(t, [[f('os', '1')], [f('app')]], {
    config: { Env: ['PATH=/bin', 'V=1', 'SAME=mine', 'APP=1'], Labels: { version: '1', base: 'mine' }, Cmd: ['sh', '1'], WorkingDir: '/app' },
    history: [step('base 1'), step('CMD', { empty_layer: true }), step('ENV', { empty_layer: true }), step('COPY app')],
  })
  const { image: result, config } = await rebaseImage(image, onto, { from, references: ['app:2'] })
  assert.equal(result?.references, ['app:2'])
  const { Env, Labels, Cmd, WorkingDir, User } = result?.config?.config ?? {}
  assert.equal({ Env, Labels, Cmd, WorkingDir, User }, {
    Env: ['PATH=/bin', 'V=2', 'SAME=mine', 'APP=1'], Labels: { base: 'mine', version: '2' }, Cmd: ['sh', '2'], WorkingDir: '/app', User: 'nobody',
  })
  assert.equal(result?.config?.history.map(one => one.createdBy), ['base 2', 'patch 2', 'ENV', 'COPY app'])
  assert.equal(config.map(one => one.key), ['config.Cmd', 'config.Env', 'config.Labels.version', 'config.User'])
  // An ENTRYPOINT of its own is one decision with its CMD, though that is the old base's by chance.
  const entered = await opened(t, [[f('os', '1')], [f('app')]], { config: { Entrypoint: ['/app'], Cmd: ['sh', '1'] } })
  assert.equal((await rebaseImage(entered, onto, { from })).image?.config?.config['Cmd'], ['sh', '1'])
  // Without the old base's config nothing is known of where a value came from.
  const blind = await rebaseImage(image, onto, { baseLayers: 1 })
  assert.equal((blind.image?.config?.config['Env'] as string[])[1], 'V=1')
  const same = await compareImages(result as ImageSource, blind.image as ImageSource)
  assert.equal([same.flat?.equal, same.sharedLayers], [true, 3])
})

test('what cannot be rebased', async t => {
  const from = await opened(t, [[f('a')]]), image = await opened(t, [[f('b')], [f('c')]])
  assert.match((await failure(rebaseImage(image, from, { from }))).message, /is not made from .*: layer 0 is another/)
  const foreign = await opened(t, [[f('a')]], { architecture: 'riscv64' })
  assert.is((await failure(rebaseImage(image, foreign, { baseLayers: 1 }))).code, 'INVALID_ARGUMENT')
  assert.is((await failure(rebaseImage(image, from, { baseLayers: 3 }))).code, 'INVALID_ARGUMENT')
  assert.ok(await failure(rebaseImage(image, from, {})) instanceof TypeError)
  const plain = await openImageSource(`tar:${write(t.dir, 'plain.tar', makeTar([f('x')]))}`)
  t.defer(() => plain.close())
  assert.is((await failure(rebaseImage(plain, from, { baseLayers: 0 }))).code, 'INVALID_ARGUMENT')
})
