// docker import: a root file system becomes an image; and the instructions that change its config.

import fs from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { baseLayer, collect, digestOf, openTestImages, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { StorageError } from '../errors.ts'
import { applyChanges, encodeConfig, goTime, hostPlatform, parsePlatform, runtimeConfig } from './index.ts'
import { platformFit, platformString } from './platform.ts'

const test = suite('images/import')
const rootfs = makeTar(baseLayer)

test('a tar becomes an image of one layer, its config in Docker\'s order of keys', async t => {
  const { images, layers } = await openTestImages(t.dir)
  const created = new Date('2026-01-02T03:04:05.600Z')
  const id = await images.import(write(t.dir, 'rootfs.tar', rootfs), {
    reference: 'mine:1', message: 'a <b> & c', created, platform: 'linux/arm64/v8', changes: ['CMD ["sh"]', 'ENV A=1 B="2 3"', 'LABEL z=1 a=2'],
  })
  const record = await images.get('mine:1')
  assert.is(record.id, id)
  assert.is(record.configBytes.toString(), '{"architecture":"arm64","comment":"a \\u003cb\\u003e \\u0026 c","config":{"Hostname":"","Domainname":"","User":"",'
    + '"AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=1","B=2 3"],"Cmd":["sh"],'
    + '"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{"a":"2","z":"1"}},"created":"2026-01-02T03:04:05.6Z",'
    + `"history":[{"created":"2026-01-02T03:04:05.6Z","comment":"a \\u003cb\\u003e \\u0026 c"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["${digestOf(rootfs)}"]},"variant":"v8"}`)
  assert.equal(await collect(layers.tar(record.layers[0] as never)), rootfs)
})

test('from a stream, compressed, twice: one layer', async t => {
  const { images, root } = await openTestImages(t.dir)
  async function* stream(): AsyncGenerator<Buffer> { yield gzipSync(rootfs) }
  const created = new Date(0)
  const first = await images.import(stream(), { created })
  assert.is(await images.import(write(t.dir, 'r.tar', rootfs), { created }), first)
  const fd = fs.openSync(path.join(t.dir, 'r.tar'), 'r')
  t.defer(() => fs.closeSync(fd))
  assert.is(await images.import(fd, { created }), first)
  assert.is((await images.get(first)).config.comment, 'Imported from -')
  assert.is(fs.readdirSync(path.join(root.path, 'vfs/dir')).length, 1)
})

test('what is wrong is told, and nothing is left', async t => {
  const { images, listing } = await openTestImages(t.dir)
  const file = write(t.dir, 'r.tar', rootfs), bad = write(t.dir, 'bad.tar', Buffer.from('hello '.repeat(300))), empty = write(t.dir, 'empty.tar', Buffer.alloc(0))
  const before = listing()
  for (const [source, options, code] of [
    [file, { changes: ['RUN x'] }, 'INVALID_ARGUMENT'], [file, { reference: 'Bad' }, 'INVALID_ARGUMENT'], [file, { platform: 'a/b/c/d' }, 'INVALID_ARGUMENT'],
    [bad, {}, 'INVALID_ARCHIVE'], [empty, {}, 'INVALID_ARCHIVE'], [path.join(t.dir, 'gone'), {}, 'NOT_FOUND'],
  ] as const) {
    try {
      await images.import(source, options)
      assert.unreachable(code)
    } catch (error) {
      assert.ok(StorageError.is(error, code), String(error))
    }
    assert.equal(listing(), before)
  }
})

const changes: readonly (readonly [changes: readonly string[], from: Record<string, unknown>, to: Record<string, unknown>])[] = [
  [['CMD ["a","b"]'], {}, { Cmd: ['a', 'b'] }],
  [['cmd echo hi'], {}, { Cmd: ['/bin/sh', '-c', 'echo hi'] }],
  [['CMD []'], { Cmd: ['x'] }, { Cmd: [] }],
  [['CMD [not json]'], {}, { Cmd: ['/bin/sh', '-c', '[not json]'] }],
  [['ENTRYPOINT ["e"]'], { Cmd: ['old'] }, { Entrypoint: ['e'], Cmd: null }],
  [['CMD ["c"]', 'ENTRYPOINT ["e"]'], { Cmd: ['old'] }, { Entrypoint: ['e'], Cmd: ['c'] }],
  [['ENV A b c'], { Env: ['A=x', 'Z=1'] }, { Env: ['A=b c', 'Z=1'] }],
  [['ENV A=1 B=\'two words\' C=a\\ b'], {}, { Env: ['A=1', 'B=two words', 'C=a b'] }],
  [['ENV A='], {}, { Env: ['A='] }],
  [['EXPOSE 80 53/udp 8000-8002'], { ExposedPorts: { '22/tcp': {} } }, { ExposedPorts: { '22/tcp': {}, '80/tcp': {}, '53/udp': {}, '8000/tcp': {}, '8001/tcp': {}, '8002/tcp': {} } }],
  [['LABEL a=1 "b c"="d e"'], { Labels: { a: '0', k: 'v' } }, { Labels: { a: '1', k: 'v', 'b c': 'd e' } }],
  [['LABEL __proto__=x'], {}, { Labels: JSON.parse('{"__proto__":"x"}') as object }],
  [['USER 1000:1000'], {}, { User: '1000:1000' }],
  [['VOLUME /a /b', 'VOLUME ["/c d"]'], {}, { Volumes: { '/a': {}, '/b': {}, '/c d': {} } }],
  [['WORKDIR /a', 'WORKDIR b/../c'], {}, { WorkingDir: '/a/c' }],
  [['STOPSIGNAL SIGTERM'], {}, { StopSignal: 'SIGTERM' }],
  [['ONBUILD RUN x', 'onbuild COPY . /'], {}, { OnBuild: ['RUN x', 'COPY . /'] }],
  [['HEALTHCHECK none'], {}, { Healthcheck: { Test: ['NONE'] } }],
  [['', '# nothing'], { User: 'x' }, { User: 'x' }],
]
for (const [lines, from, to] of changes) {
  test(`change ${lines.join('; ')}`, () => {
    const before = structuredClone(from)
    assert.equal(JSON.stringify(applyChanges(from, lines)), JSON.stringify({ ...from, ...to }))
    assert.equal(from, before)
  })
}

for (const line of ['RUN x', 'constructor x', 'ENV', 'ENV A', 'ENV =x', 'EXPOSE http', 'EXPOSE 9-8', 'EXPOSE 70000', 'USER a b', 'WORKDIR a b', 'LABEL "a=1',
  'ONBUILD ONBUILD RUN x', 'ONBUILD FROM x', 'VOLUME [""]', 'STOPSIGNAL not a signal', 'HEALTHCHECK CMD x', '=']) {
  test(`refuses the change ${line}`, () => {
    assert.throws(() => applyChanges({}, [line]), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT') && error.message.startsWith('invalid change '))
  })
}

test('the top level of a config is sorted, unknown keys of the runtime part stay', () => {
  assert.is(encodeConfig({ rootfs: {}, os: 'linux', 'os.version': '1', architecture: 'x', config: { b: 1, a: 2 } }).toString(),
    '{"architecture":"x","config":{"b":1,"a":2},"os":"linux","os.version":"1","rootfs":{}}')
  assert.is(runtimeConfig({ Own: 1, StopSignal: 'X' })['Own'], 1)
  assert.is(goTime(new Date('2026-01-01T00:00:10.000Z')), '2026-01-01T00:00:10Z')
  assert.is(goTime(new Date('2026-01-01T00:00:00.050Z')), '2026-01-01T00:00:00.05Z')
})

test('platforms: parsing, and which one fits', () => {
  const fit = (wanted: string, offered: string): number => platformFit(parsePlatform(wanted), parsePlatform(offered))
  assert.is(platformString(parsePlatform('linux/aarch64')), 'linux/arm64')
  assert.is(platformString(parsePlatform('linux/arm/v7')), 'linux/arm/v7')
  assert.equal(parsePlatform('linux'), hostPlatform())
  assert.is(platformString(parsePlatform('linux/constructor')), 'linux/constructor')
  assert.is(fit('linux/amd64/v2', 'linux/amd64/v3'), 0)
  assert.throws(() => parsePlatform('a b'), /^invalid platform|invalid platform/)
  assert.ok(fit('linux/arm64', 'linux/arm64/v8') > 0)
  assert.is(fit('linux/amd64', 'linux/arm64'), 0)
  assert.is(fit('windows/amd64', 'linux/amd64'), 0)
  assert.ok(fit('linux/arm', 'linux/arm/v7') > fit('linux/arm', 'linux/arm/v6'))
  assert.is(fit('linux/arm/v6', 'linux/arm/v7'), 0)
  assert.ok(fit('linux/amd64', 'linux/amd64') > fit('linux/amd64', 'linux/amd64/v3'))
})
