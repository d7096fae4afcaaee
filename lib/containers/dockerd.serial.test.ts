// A root that layerstack wrote, in the hands of a real dockerd, and one that dockerd wrote, in ours.

import fs from 'node:fs'
import path from 'node:path'
import { needsDockerd, startDockerd } from '../../fixtures/dockerd.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { addImage, all, bytesOf, changesText, failure, file, openIn } from '../../fixtures/storage.ts'
import { digestOf } from '../../fixtures/image-store.ts'
import { makeTree } from '../../fixtures/tree.ts'
import type { Storage } from '../index.ts'

const test = suite('dockerd')
const layers = [
  [file('base', 'one'), { path: 'etc/', type: 'dir' }, file('etc/motd', 'hello')],
  [file('etc/motd', 'hello again'), { path: '.wh.base', type: 'file' }, file('bin/run', '#!')],
]

for (const driver of ['overlay2', 'vfs']) {
  test(`${driver}: dockerd takes our image and container as its own`, { skip: needsDockerd, timeoutMs: 120_000 }, async t => {
    const storage = await openIn(t, driver)
    const image = await addImage(storage, 'app:1', layers, { Cmd: ['/bin/run'], Env: ['A=1'], Labels: { x: 'y' } })
    const box = await storage.containers.create({ image: 'app:1', name: 'box', config: { Env: ['B=2'], Labels: { mine: '1' } } })
    const gone = await storage.containers.create({ image: 'app:1', name: 'gone' })
    await storage.containers.withMount(box.id, dir => makeTree(dir, { 'etc/motd': 'changed', 'new/file': 'x', bin: { type: 'absent' } }))
    const ours = await changesText(storage.containers.diff(box.id))
    await storage.close()

    const daemon = await startDockerd({ dataRoot: storage.root, execRoot: path.join(t.dir, 'x'), driver })
    t.defer(() => daemon.stop())
    const { docker } = daemon
    assert.equal((await docker(['ps', '-a', '--no-trunc', '--format', '{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Label "mine"}}'])).trim().split('\n').sort(),
      [`${box.id} box app:1 "/bin/run" created 1`, `${gone.id} gone app:1 "/bin/run" created `].sort())
    const [seen] = JSON.parse(await docker(['inspect', 'box'])) as [Record<string, Record<string, unknown>>]
    assert.is(seen?.['Image'] as unknown, image)
    assert.is(seen?.['Name'] as unknown, '/box')
    assert.is(seen?.['Created'] as unknown, box.created)
    assert.equal([seen?.['Config']?.['Env'], seen?.['Config']?.['Cmd'], seen?.['Config']?.['Labels']], [['B=2', 'A=1'], ['/bin/run'], { mine: '1', x: 'y' }])
    assert.is(seen?.['GraphDriver']?.['Name'], driver)
    assert.is(seen?.['State']?.['Status'], 'created')
    assert.is(seen?.['HostConfig']?.['NetworkMode'], 'none')
    assert.equal((await docker(['diff', 'box'])).trim().split('\n').sort(), [...ours].sort())
    const archive = await docker(['commit', '-m', 'theirs', 'box', 'app:theirs'])
    assert.match(archive, /^sha256:/)

    // While it runs, the root is read-only to us, and readable.
    const watching = await openIn(t, driver)
    assert.is(watching.readOnly, true)
    assert.is((await watching.info()).readOnlyReason, 'a running dockerd holds the lock on volumes/metadata.db')
    assert.is(watching.containers.get('box').id, box.id)
    assert.is((await failure(watching.containers.create())).code, 'READ_ONLY')
    await watching.close()

    assert.is((await docker(['rm', 'gone'])).trim(), 'gone')
    await docker(['create', '--name', 'theirs', '--network=none', 'app:theirs'])
    await daemon.stop()

    const again = await openIn(t, driver)
    assert.equal(again.containers.list().map(record => record.name).sort(), ['box', 'theirs'])
    assert.equal(await changesText(again.containers.diff('box')), ours)
    assert.equal(await changesText(again.containers.diff('theirs')), [])
    await again.containers.withMount('theirs', dir => {
      assert.is(fs.readFileSync(path.join(dir, 'etc/motd'), 'utf8'), 'changed')
      assert.not.ok(fs.existsSync(path.join(dir, 'bin')))
    })
    for (const layer of await all(again.layers.list())) assert.is(digestOf(await bytesOf(again.layers.tar(layer.chainId))), layer.diffId)
    await removeAll(again)
    assert.equal(await all(again.driver.list()), [])
  })
}

async function removeAll(storage: Storage): Promise<void> {
  for (const { id } of storage.containers.list()) await storage.containers.remove(id, { force: true })
  for (const id of await storage.images.ids()) await storage.images.remove(id, { force: true }).catch(() => undefined)
  for (const id of await storage.images.ids()) await storage.images.remove(id, { force: true })
}
