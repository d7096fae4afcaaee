// One data root, two owners: what a real dockerd wrote, layerstack lists as docker did, and what layerstack wrote, dockerd works with.

import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { assertInOrder, assertSameView, placeFor, rootfs, skipOn, viewOfDocker, viewOfStorage } from '../fixtures/docker-root.ts'
import { startDockerd } from '../fixtures/dockerd.ts'
import type { Dockerd } from '../fixtures/dockerd.ts'
import { assert, suite } from '../fixtures/harness/index.ts'
import { failure } from '../fixtures/storage.ts'
import { makeTree } from '../fixtures/tree.ts'

const test = suite('docker root')

for (const driver of ['overlay2', 'vfs', 'btrfs']) {
  const skip = skipOn(driver)

  test(`${driver}: what dockerd wrote, we list as docker did`, { skip, timeoutMs: 240_000 }, async t => {
    const place = placeFor(t, driver)
    const daemon = await place.dockerd()
    const { docker } = daemon
    await docker(['import', '-m', 'the base', await rootfs(t), 'host:1'])
    makeTree(path.join(t.dir, 'context'), { Dockerfile: dockerfile, 'sub/a file': 'a', 'sub/ünïcode': 'b' })
    await docker(['build', '--network', 'none', '-t', 'app:1', '-t', 'app:other', '--label', 'built=yes', path.join(t.dir, 'context')])
    await docker(['volume', 'create', '--label', 'l=1', '--label', 'html=<&>', 'labelled'])
    await docker(['volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', '-o', 'o=size=1m', 'memory'])
    await docker(['run', '--network', 'none', '--name', 'done', '-v', 'named:/data', '-v', 'labelled:/labelled:ro', '-e', 'MORE=<1>', '--label', 'mine=1', 'app:1'])
    await docker(['run', '--network', 'none', '--name', 'failed', '--mount', 'type=volume,dst=/anonymous', 'app:1', '/bin/sh', '-c', 'rm -r /sub; exit 3']).then(() => assert.unreachable(), () => undefined)
    await docker(['create', '--network', 'none', '--name', 'fresh', 'app:other'])
    await docker(['tag', 'host:1', 'registry.example/deep/host:latest'])
    await docker(['commit', '-m', 'kept', '-a', 'somebody', '-c', 'CMD ["/bin/true"]', 'done', 'kept:1'])
    // Without a name now, and of no use.
    await docker(['build', '--network', 'none', '--build-arg', 'WHAT=again', '-t', 'app:1', path.join(t.dir, 'context')])
    const printed = await printedBy(docker)
    const listed = withoutAges(await docker(['ps', '-a', '--no-trunc', '--format', '{{.ID}}   {{.Image}}   {{.Command}}   {{.Status}}   {{.Names}}'])).sort()
    const view = await viewOfDocker(daemon)
    // Beside the live dockerd, for reading; nothing forces it.
    {
      await using beside = await place.open()
      assert.is(beside.readOnly, true)
      assert.is((await beside.info()).readOnlyReason, 'a running dockerd holds the lock on volumes/metadata.db')
      assertSameView(await viewOfStorage(beside), view, 'beside dockerd')
      for (const write of [() => beside.volumes.create('x1'), () => beside.images.remove('app:1'), () => beside.containers.create({ image: 'app:1' }), () => beside.containers.remove('done'), () => beside.images.tag('app:1', 'a:b')]) {
        const { code, message, info } = await failure(write())
        assert.equal([code, info?.hint], ['READ_ONLY', 'stop dockerd first'])
        assert.match(message, /is open read-only, as a running dockerd holds the lock on volumes\/metadata\.db$/)
      }
    }
    await docker(['run', '-d', '--network', 'none', '--name', 'live', 'app:1', '/bin/sleep', '600'])
    await using living = await place.open()
    assert.equal([living.containers.get('live').state.status, living.containers.get('live').running], ['running', true])
    await docker(['rm', '-fv', 'live'])
    await daemon.stop()

    await using storage = await place.open()
    assert.is(storage.readOnly, false)
    const ours = await viewOfStorage(storage)
    assertSameView(ours, view, 'after dockerd')
    assert.ok(Object.keys(view.images).length > 8, 'there was something to list')
    assert.equal([Object.keys(view.containers).length, Object.keys(view.volumes).length], [3, 7])
    assert.equal(printedByUs(place.root, driver, Object.keys(printed)), printed)
    assert.equal(listedByUs(place.root, driver), listed)
    await assertInOrder(storage, 'as dockerd left it')
    // What dockerd wrote of a container stays as it is, whatever we do with it.
    const files = ['config.v2.json', 'hostconfig.json'].map(name => path.join(place.root, 'containers', storage.containers.get('done').id, name))
    const before = files.map(file => fs.readFileSync(file))
    await storage.containers.withMount('done', dir => fs.writeFileSync(path.join(dir, 'by-us'), 'x'))
    const { imageId } = await storage.containers.commit('done', { reference: 'ours:1' })
    assert.equal(files.map(file => fs.readFileSync(file)), before)
    const archive = path.join(t.dir, 'saved.tar')
    await pipeline(storage.images.save(['app:other', 'kept:1', 'ours:1']), fs.createWriteStream(archive))
    await storage.images.remove('ours:1')
    await storage.containers.remove('failed', { volumes: true })
    await storage.close()

    // It takes what we saved: into this root, and into one that has nothing of it.
    const again = await place.dockerd()
    assert.match(await again.docker(['load', '-i', archive]), /Loaded image: ours:1/)
    assert.is((await again.docker(['image', 'inspect', '-f', '{{.Id}}', 'ours:1'])).trim(), imageId)
    assert.is(await again.docker(['run', '--rm', '--network', 'none', 'ours:1', '/bin/cat', '/by-us']), 'x')
    assert.is(await again.docker(['start', '-a', 'done']), 'ran\n')
    await again.stop()
    if (driver !== 'overlay2') return
    const empty = await startDockerd({ dataRoot: path.join(t.dir, 'empty'), execRoot: path.join(t.dir, 'x'), driver })
    t.defer(() => empty.stop())
    await empty.docker(['load', '-i', archive])
    assert.is(await empty.docker(['run', '--rm', '--network', 'none', 'app:other', '/bin/cat', '/etc/motd', '/sub/ünïcode']), 'built one\nb')
    await empty.stop()
  })

  test(`${driver}: what we wrote, dockerd works with`, { skip, timeoutMs: 240_000 }, async t => {
    const place = placeFor(t, driver)
    let box: string
    {
      await using storage = await place.open()
      await storage.images.import(await rootfs(t), { reference: 'host:1', changes: ['ENV A=1', 'CMD ["/bin/sh", "-c", "cat /etc/motd; ls /data"]', 'VOLUME /data', 'LABEL one=1'] })
      await storage.images.tag('host:1', 'host:two')
      await storage.volumes.create('labelled', { labels: { by: 'us', html: '<&>' } })
      box = (await storage.containers.create({ image: 'host:1', name: 'box', mounts: { binds: ['labelled:/data'] } })).id
      await storage.containers.withMount('box', dir => makeTree(dir, { 'etc/motd': 'changed\n', 'bin/id': { type: 'absent' }, 'new/file': { content: 'x', uid: 5, gid: 6, mode: 0o4755 } }))
      fs.writeFileSync(path.join(storage.volumes.get('labelled').mountpoint, 'in the volume'), '')
      await storage.containers.commit('box', { reference: 'app:1', message: 'ours' })
    }
    const { daemon, view } = await place.compared()
    const { docker } = daemon
    assert.equal(Object.values(view.volumes).map(volume => volume['Labels']), [{ by: 'us', html: '<&>' }])
    assert.equal((await docker(['images', '--format', '{{.Repository}}:{{.Tag}}'])).trim().split('\n').sort(), ['app:1', 'host:1', 'host:two'])
    assert.match(await docker(['history', '--no-trunc', 'app:1']), /ours *\n.*Imported from -/)
    assert.is(await docker(['run', '--network', 'none', '--name', 'theirs', 'app:1', '/bin/sh', '-c', 'cat /etc/motd; stat -c "%u %a" /new/file; echo more > /more; rm /new/file']), 'changed\n5 4755\n')
    assert.equal((await docker(['diff', 'theirs'])).trim().split('\n').sort(), ['A /data', 'A /more', 'C /new', 'D /new/file'])
    assert.equal((await docker(['diff', 'box'])).trim().split('\n').sort(), view.diffs[box])
    await docker(['commit', '-m', 'theirs', 'theirs', 'app:2'])
    assert.is(await docker(['run', '--rm', '--network', 'none', 'app:2', '/bin/cat', '/more']), 'more\n')
    assert.is(JSON.parse(await docker(['volume', 'inspect', 'labelled']))[0].Labels.by, 'us')
    assert.is(await docker(['start', '-a', 'box']), 'changed\nin the volume\n')
    await docker(['rmi', 'host:two'])
    await docker(['rmi', 'app:1']).then(() => assert.unreachable(), (error: Error) => assert.match(error.message, /container \w+ is using its referenced image/))
    await docker(['rm', 'theirs'])
    await docker(['rmi', 'app:2', 'app:1'])
    const last = await viewOfDocker(daemon)
    await daemon.stop()

    await using storage = await place.open()
    assertSameView(await viewOfStorage(storage), last, 'after dockerd')
    assert.equal(storage.containers.get('box').state.status, 'exited')
    await assertInOrder(storage, 'as dockerd left it')
    await storage.containers.remove('box', { volumes: true })
    await storage.images.remove('host:1')
    assert.equal([Object.keys((await viewOfStorage(storage)).images), (await storage.diskUsage()).rows[0]?.sizeBytes], [[], 0])
    for await (const id of storage.driver.list()) assert.unreachable(`the driver still has ${id}`)
  })
}

const dockerfile = `FROM host:1
LABEL stage=one
ARG WHAT=one
ENV PLACE=/sub
RUN echo built $WHAT > /etc/motd && rm /bin/id && ln /etc/motd /linked
COPY sub /sub
VOLUME /volume
WORKDIR /work
CMD ["/bin/sh", "-c", "echo ran; echo new > /made; rm -f /linked; echo v > /volume/file; echo d >> /data/file"]
`

/** The text of commands that both have, but for the moment that they are asked in. */
async function printedBy(docker: Dockerd['docker']): Promise<Record<string, string[]>> {
  const commands = ['history --no-trunc app:1', 'history --human=false --no-trunc kept:1', 'history -q app:other', 'image ls --no-trunc', 'volume ls', 'diff done', 'diff failed']
  return Object.fromEntries(await Promise.all(commands.map(async command => [command, comparable(command, await docker(command.split(' ')))] as const)))
}

function printedByUs(root: string, driver: string, commands: readonly string[]): Record<string, string[]> {
  return Object.fromEntries(commands.map(command => {
    const words = command.replace('--human=false', '--no-human').replace(/^history/, 'image history').replace(/^diff/, 'container diff').split(' ')
    return [command, comparable(command, cli(root, driver, ...words))]
  }))
}

function cli(root: string, driver: string, ...words: readonly string[]): string {
  return execFileSync(process.execPath, [path.join(import.meta.dirname, 'cli', 'main.js'), '--root', root, '--driver', driver, ...words], { encoding: 'utf8' })
}

/** Our own columns but for the age, in docker's form above. */
function listedByUs(root: string, driver: string): string[] {
  const [, ...lines] = cli(root, driver, 'container', 'ls', '--no-trunc').trim().split('\n')
  return withoutAges(lines.map(line => line.split(/ {3,}/).filter((_, column) => column !== 3).join('   ')).join('\n')).sort()
}

function withoutAges(text: string): string[] {
  return text.replace(/(Less than a second|About an? \w+|\d+ \w+) ago */g, 'some time ago ').replace(/ +$/gm, '').trim().split('\n')
}

/** Lists have no order that means something, and a moment passes between the two. */
function comparable(command: string, text: string): string[] {
  const lines = withoutAges(text).map(line => line.replace(/CREATED +/g, 'CREATED '))
  return command.startsWith('history') ? lines : lines.sort()
}
