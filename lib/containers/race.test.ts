// Containers whose own trees are hostile (CVE-2018-15664): a process in the container exchanges directories and files for links to the host while it is listed, exported
// and committed, and while a volume takes up what lies at its place.

import path from 'node:path'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { addImage, bytesOf, driversHere, file, openIn } from '../../fixtures/storage.ts'
import { swapping } from '../../fixtures/swapper.ts'
import { dumpTree, makeTree } from '../../fixtures/tree.ts'

const test = suite('hostile containers')
const secret = 'the secret of the host'

for (const driver of driversHere) {
  test(`export, diff and commit (${driver})`, { skip: needsRoot, timeoutMs: 60_000 }, async t => {
    const storage = await openIn(t, driver), { containers } = storage
    const host = path.join(t.dir, 'host')
    makeTree(host, { 'secret-name': secret, 'f0': secret, 'lower': secret })
    const before = dumpTree(host)
    await addImage(storage, 'app:1', [[file('d/lower', 'harmless'), file('both', 'harmless')]])
    const { id } = await containers.create({ image: 'app:1' })
    const mounted = await containers.mount(id)
    t.defer(() => mounted.unmount())
    makeTree(mounted.path, {
      ...Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`d/f${i}`, 'harmless'])), 'link': { type: 'symlink', to: host }, 'both': 'harmless', 'flink': { type: 'symlink', to: path.join(host, 'f0') },
    })
    await swapping(t, mounted.path, [['d', 'link'], ['both', 'flink']])
    const clean = (bytes: Buffer, what: string): void => {
      for (const text of [secret, 'secret-name']) assert.is(bytes.indexOf(text), -1, what)
    }
    for (let i = 0; i < 15; i++) {
      clean(await bytesOf(containers.export(id)), 'export')
      clean(await bytesOf(containers.layerTar(id)), 'layer')
      for await (const change of containers.diff(id)) assert.not.ok(change.path.includes('secret-name'), 'diff')
    }
    const { imageId } = await containers.commit(id, { reference: 'app:2' })
    clean(await bytesOf(storage.images.save([imageId])), 'commit')
    assert.equal(dumpTree(host), before)
  })
}
