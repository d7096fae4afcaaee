// Volumes between layerstack and a real dockerd, over one data root: each reads what the other wrote, labels and options in metadata.db among it.

import fs from 'node:fs'
import path from 'node:path'
import { needsDockerd, startDockerd } from '../../fixtures/dockerd.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { writeHostRootfs } from '../../fixtures/host-image.ts'
import { open, StorageError } from '../index.ts'

const test = suite('volumes with dockerd')

interface Inspected { readonly Name: string; readonly Labels: Record<string, string> | null; readonly Options: Record<string, string> | null; readonly Mountpoint: string }

test('dockerd\'s volumes are read, ours are read by dockerd', { skip: needsDockerd, timeoutMs: 180_000 }, async t => {
  const root = path.join(t.dir, 'root')
  const start = async (): ReturnType<typeof startDockerd> => {
    const daemon = await startDockerd({ dataRoot: root, execRoot: path.join(t.dir, 'x'), driver: 'vfs' })
    t.defer(() => daemon.stop())
    return daemon
  }
  const first = await start()
  await first.docker(['volume', 'create', '--label', 'made=by dockerd', '--label', 'empty', 'theirs'])
  await first.docker(['volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', '-o', 'o=size=1m', 'memory'])
  const anonymous = (await first.docker(['volume', 'create'])).trim()

  // Beside a live dockerd: everything is read, nothing written.
  {
    await using storage = await open({ root, driver: 'vfs' })
    assert.is(storage.readOnly, true)
    assert.equal(storage.volumes.get('theirs').labels, { made: 'by dockerd', empty: '' })
    await storage.volumes.create('refused').then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'READ_ONLY')))
  }
  // As dockerd itself prints it.
  for (const name of ['theirs', 'memory']) {
    await using storage = await open({ root, driver: 'vfs' })
    const [theirs] = JSON.parse(await first.docker(['volume', 'inspect', name])) as [Record<string, unknown>]
    // 20.10 writes {} where later versions write null.
    const empty = (value: unknown): unknown => value !== null && typeof value === 'object' && Object.keys(value).length === 0 ? null : value
    assert.equal(storage.volumes.inspect(name), Object.fromEntries(Object.entries(theirs).map(([key, value]) => [key, empty(value)])))
  }
  await first.stop()

  {
    await using storage = await open({ root, driver: 'vfs' })
    assert.is(storage.readOnly, false)
    assert.equal(storage.volumes.list().map(volume => volume.name), [anonymous, 'memory', 'theirs'].sort())
    assert.is(storage.volumes.get('theirs').anonymous, false)
    // dockerd 20.10 knows no anonymous mark; the volume is a named one for it.
    await storage.volumes.create('ours', { labels: { made: 'by layerstack' } })
    await storage.volumes.create('ours-memory', { options: { type: 'tmpfs', device: 'tmpfs', o: 'size=2m' } })
    const unnamed = await storage.volumes.create(undefined)
    fs.writeFileSync(path.join(storage.volumes.get('ours').mountpoint, 'file'), 'from layerstack')
    for (let i = 0; i < 60; i++) await storage.volumes.create(`many-${i}`, { labels: { number: String(i), text: 'x'.repeat(200) } })
    // A container of ours, with a volume, a bind and a tmpfs.
    const tar = path.join(t.dir, 'rootfs.tar'), host = path.join(t.dir, 'host')
    await writeHostRootfs(tar, { 'data/seed': 'from the image\n' })
    fs.mkdirSync(host)
    await storage.images.import(tar, { reference: 'host:1' })
    await storage.containers.create({
      image: 'host:1', name: 'box', config: { Cmd: ['/bin/sh', '-c', 'cat /data/seed; echo x > /host/y || echo read-only; stat -f -c %T /scratch; echo dockerd > /data/by'] },
      mounts: { binds: ['used:/data', `${host}:/host:ro`], tmpfs: { '/scratch': 'size=1m' } },
    })
    await storage.volumes.remove('theirs')
    await storage.volumes.remove('many-7')
    assert.ok(unnamed.anonymous)
  }

  const second = await start()
  const inspect = async (name: string): Promise<Inspected> => (JSON.parse(await second.docker(['volume', 'inspect', name])) as [Inspected])[0]
  assert.equal((await inspect('ours')).Labels, { made: 'by layerstack' })
  assert.equal((await inspect('ours-memory')).Options, { type: 'tmpfs', device: 'tmpfs', o: 'size=2m' })
  assert.equal((await inspect('many-59')).Labels, { number: '59', text: 'x'.repeat(200) })
  const names = (await second.docker(['volume', 'ls', '-q'])).trim().split('\n')
  assert.not(names.includes('theirs') || names.includes('many-7'))
  assert.is(names.length, 60 - 1 + 2 + 2 + 1 + 1)
  await second.docker(['volume', 'rm', 'used']).then(() => assert.unreachable(), (error: Error) => assert.match(error.message, /volume is in use/))
  assert.is(await second.docker(['start', '-a', 'box']), 'from the image\nread-only\ntmpfs\n')
  assert.equal((await second.docker(['inspect', '-f', '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}};{{end}}', 'box'])).trim().split(';').sort(), ['', 'bind  /host false', 'volume used /data true'])
  // A container of dockerd's refers to its volume for us, too.
  await second.docker(['create', '--name', 'theirs-box', '-v', 'many-5:/data', '--network', 'none', 'host:1', '/bin/true'])
  await second.docker(['volume', 'rm', 'ours', 'many-3'])
  await second.docker(['volume', 'create', '--label', 'again=yes', 'many-3'])
  await second.stop()

  await using storage = await open({ root, driver: 'vfs' })
  assert.is(storage.volumes.find('ours'), undefined)
  assert.is(fs.readFileSync(path.join(storage.volumes.get('used').mountpoint, 'by'), 'utf8'), 'dockerd\n')
  await storage.volumes.remove('many-5').then(() => assert.unreachable(), (error: unknown) => assert.ok(StorageError.is(error, 'IN_USE')))
  assert.equal(storage.volumes.get('many-3').labels, { again: 'yes' })
  assert.equal(storage.volumes.get('many-59').labels, { number: '59', text: 'x'.repeat(200) })
})
