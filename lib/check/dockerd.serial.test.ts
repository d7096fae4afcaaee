// A root that a real dockerd wrote: check finds it clean; damaged as users report, repair makes it good, and dockerd takes it back.

import fs from 'node:fs'
import path from 'node:path'
import { contentOf } from '../../fixtures/damages.ts'
import type { Place } from '../../fixtures/damages.ts'
import { needsDockerd, startDockerd } from '../../fixtures/dockerd.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { digestOf, makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, bytesOf, openIn } from '../../fixtures/storage.ts'

const test = suite('check/dockerd')
const image = makeImage({
  tags: ['app:1'], layers: [
    [{ path: 'etc/', type: 'dir' }, { path: 'etc/a', type: 'file', content: 'a'.repeat(4000) }], [{ path: 'etc/b', type: 'file', content: 'b'.repeat(3000) }, { path: 'bin/', type: 'dir' }],
  ],
})
const orphan = 'ee'.repeat(32)

for (const driver of process.env['LAYERSTACK_FULL'] === '1' ? ['overlay2', 'vfs'] : ['overlay2']) {
  test(`${driver}: dockerd's root is clean; damaged and repaired, dockerd takes it back`, { skip: needsDockerd, timeoutMs: 180_000 }, async t => {
    const root = `${t.dir}/root`
    const archive = write(t.dir, 'app.tar', makeTar(oldDockerArchive([image])))
    const daemon = await startDockerd({ dataRoot: root, execRoot: `${t.dir}/x`, driver })
    t.defer(() => daemon.stop())
    await daemon.docker(['load', '-i', archive])
    await daemon.docker(['volume', 'create', '--label', 'keep=me', 'data'])
    const container = (await daemon.docker(['create', '--name', 'box', '--network=none', '-v', 'data:/data', 'app:1'])).trim()
    await daemon.docker(['cp', archive, 'box:/etc/copied'])
    const diff = (await daemon.docker(['diff', 'box'])).trim().split('\n').sort()
    const beside = await openIn(t, driver, { readOnly: true })
    assert.equal(await all(beside.check()), [], 'while it runs')
    await beside.close()
    await daemon.stop()

    const clean = await openIn(t, driver, { readOnly: true })
    assert.equal(await all(clean.check()), [], 'stopped')
    const cacheIds = await Promise.all((await clean.images.get('app:1')).layers.map(async id => (await clean.layers.get(id)).cacheId))
    await clean.close()

    // A power cut, a kill, an interrupted removal, a disk that lost a bit.
    const layerdb = path.join(root, 'image', driver, 'layerdb')
    const content = (id: string | undefined): string => contentOf({ root, driver } as Place, id)
    fs.mkdirSync(content(orphan), { recursive: true })
    fs.writeFileSync(`${content(orphan)}/junk`, Buffer.alloc(100_000, 1))
    fs.mkdirSync(`${layerdb}/sha256/${'ab'.repeat(32)}-${'cd'.repeat(32)}-removing`)
    fs.mkdirSync(`${layerdb}/tmp/write-set-4711`)
    fs.writeFileSync(`${content(cacheIds[1])}/etc/b`, 'B'.repeat(3000))
    if (driver === 'overlay2') {
      const mountId = fs.readFileSync(`${layerdb}/mounts/${container}/mount-id`, 'utf8')
      fs.truncateSync(`${root}/overlay2/${cacheIds[0]}/link`, 0)
      fs.truncateSync(`${root}/overlay2/${mountId}/lower`, 0)
      fs.rmSync(`${root}/overlay2/l/${fs.readFileSync(`${root}/overlay2/${cacheIds[1]}/link`, 'utf8')}`)
    }
    const expected = ['content-damaged', 'driver-orphan', 'removal-unfinished', 'write-set', ...(driver === 'overlay2' ? ['link-file-damaged', 'link-missing', 'lower-damaged'] : [])]
    const damaged = await openIn(t, driver, { readOnly: true })
    const found = await all(damaged.check())
    // Where links are broken, what stands on them is not to be read.
    const visible = driver === 'overlay2' ? expected.filter(kind => kind !== 'content-damaged') : expected
    assert.equal(found.map(finding => finding.kind).sort(), visible.sort())
    assert.ok((found.find(finding => finding.kind === 'driver-orphan')?.gainBytes ?? 0) >= 100_000)
    await damaged.close()

    const storage = await openIn(t, driver)
    const result = await storage.repair({ apply: true, from: [archive] })
    assert.equal([result.reload, result.remaining], [[], []])
    assert.ok(result.steps.every(step => step.outcome === 'done'), JSON.stringify(result.steps))
    assert.equal(await all(storage.check()), [])
    const ours = digestOf(await bytesOf(storage.images.save(['app:1'])))
    await storage.close()

    const again = await startDockerd({ dataRoot: root, execRoot: `${t.dir}/y`, driver })
    t.defer(() => again.stop())
    assert.match(await again.docker(['images', '--no-trunc']), new RegExp(image.id))
    assert.equal((await again.docker(['diff', 'box'])).trim().split('\n').sort(), diff)
    await again.docker(['cp', 'box:/etc/b', `${t.dir}/b`])
    assert.is(fs.readFileSync(`${t.dir}/b`, 'utf8'), 'b'.repeat(3000))
    assert.match(await again.docker(['volume', 'inspect', 'data']), /"keep": "me"/)
    // It verifies each layer as it writes it.
    await again.docker(['save', '-o', `${t.dir}/saved.tar`, 'app:1'])
    await again.docker(['commit', 'box', 'made:1'])
    await again.docker(['rm', 'box'])
    await again.docker(['rmi', 'made:1'])
    await again.stop()
    const last = await openIn(t, driver, { readOnly: true })
    assert.equal((await all(last.check())).filter(finding => finding.severity !== 'notice'), [])
    assert.is(digestOf(await bytesOf(last.images.save(['app:1']))), ours)
  })
}
