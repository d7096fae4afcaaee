// Against others: dive's definition over `tar -tv` lists of the Debian image, what skopeo and dockerd make of squashed and rebased images, and what
// dockerd exports of a container against what we say that the image shows.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { debianImage, skipWithoutDebianImage } from '../../fixtures/debian-image.ts'
import { diveOracle } from '../../fixtures/dive-oracle.ts'
import type { ListedEntry } from '../../fixtures/dive-oracle.ts'
import { needsDockerd, startDockerd } from '../../fixtures/dockerd.ts'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { makeImage, oldDockerArchive, write } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { randomLayers } from '../../fixtures/random-layers.ts'
import { analyzeImage, compareImages, openImageSource, rebaseImage, squashImage, writeImageArchive } from './index.ts'
import type { ImageSource, SourceLayer } from './index.ts'

const test = suite('compare/peers')

/** The layer as GNU tar lists it. */
async function listed(layer: SourceLayer): Promise<ListedEntry[]> {
  const child = spawn('tar', ['-tv', '--numeric-owner', '--quoting-style=literal'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  const closed = new Promise(resolve => child.once('close', resolve))
  await pipeline(layer.tar(), child.stdin)
  assert.is(await closed, 0)
  return Buffer.concat(chunks).toString('latin1').split('\n').filter(line => line !== '').map(line => {
    const [, type = '', size = '', rest = ''] = /^(.)\S+ \S+ +([\d,]+) \S+ \S+ (.*)$/.exec(line) ?? []
    assert.is.not(type, '', `unreadable: ${line}`)
    const name = type === 'l' ? rest.replace(/ -> .*$/, '') : type === 'h' ? rest.replace(/ link to .*$/, '') : rest
    return { path: name, type, sizeBytes: type === '-' ? Number(size) : 0 }
  })
}

test('the Debian image: the figures of dive\'s definition', { skip: skipWithoutDebianImage(), timeoutMs: 600_000 }, async t => {
  const source = await openImageSource(await debianImage({ format: 'docker' }))
  t.defer(() => source.close())
  const lists: ListedEntry[][] = []
  for (const layer of source.layers) lists.push(await listed(layer))
  const found = await analyzeImage(source, { digests: false }), expected = diveOracle(lists)
  assert.ok(expected.wastedBytes > 100_000)
  const { efficiency, wastedBytes, sizeBytes, userSizeBytes } = found
  assert.equal({ efficiency, wastedBytes, sizeBytes, userSizeBytes, wasted: found.wasted.map(row => `${row.path.toString('latin1')} ${row.count} ${row.sizeBytes}`).sort() }, expected)
  assert.equal(found.layers.map(layer => layer.entries), lists.map(list => list.length))
})

async function written(file: string, source: ImageSource, format: 'docker' | 'oci'): Promise<string> {
  await pipeline(writeImageArchive(source, { format }), fs.createWriteStream(file))
  return file
}

const hasSkopeo = spawnSync('skopeo', ['--version']).status === 0

test('skopeo and dockerd take squashed and rebased images, and dockerd\'s container is what we say it is', { skip: needsDockerd, timeoutMs: 300_000 }, async t => {
  const layers = randomLayers(7, { layers: 5 })
  const open = async (name: string, image: ReturnType<typeof makeImage>): Promise<ImageSource> => {
    const source = await openImageSource(write(t.dir, name, makeTar(oldDockerArchive([image]))))
    t.defer(() => source.close())
    return source
  }
  const image = await open('image.tar', makeImage({ layers, tags: ['app:1'] }))
  const onto = await open('onto.tar', makeImage({ layers: [[{ path: 'of-the-base', type: 'file', content: 'base' }], layers[0] ?? []], tags: ['base:2'] }))
  const squashed = await squashImage(image, { from: 2, references: ['app:squashed'] })
  t.defer(() => squashed.close())
  const { image: rebased } = await rebaseImage(image, onto, { baseLayers: 1, allowConflicts: true, references: ['app:rebased'] })
  assert.ok(rebased !== undefined)
  const daemon = await startDockerd({ dataRoot: path.join(t.dir, 'docker'), execRoot: path.join(t.dir, 'exec'), driver: 'overlay2' })
  t.defer(() => daemon.stop())
  for (const source of [image, squashed, rebased as ImageSource]) {
    const [reference = ''] = source.references
    const file = await written(path.join(t.dir, `${reference.replace(':', '-')}.tar`), source, 'docker')
    assert.match(await daemon.docker(['load', '-i', file]), new RegExp(`Loaded image: ${reference}`))
    assert.is((await daemon.docker(['image', 'inspect', '-f', '{{.Id}} {{len .RootFS.Layers}}', reference])).trim(), `${source.imageId} ${source.layers.length}`)
    const id = (await daemon.docker(['create', reference, '/nothing'])).trim()
    const exported = path.join(t.dir, 'exported.tar')
    await daemon.docker(['export', '-o', exported, id])
    const container = await openImageSource(`tar:${exported}`)
    const { flat } = await compareImages(source, container, { view: 'flat' })
    // The engine's mount points; tars of dockerd 20.10 have seconds only, and directories lose their times when something in them is deleted.
    const engine = /^(dev|proc|sys|etc|\.dockerenv)(\/|$)/
    assert.equal(flat?.differences.filter(({ path: name, change, aspects }) => !engine.test(name.toString()) && !(change === 'changed' && aspects.join() === 'time'))
      .map(one => `${one.change} ${one.path.toString()} ${one.aspects.join()}`), [], reference)
    await container.close()
    if (!hasSkopeo) continue
    const oci = await written(path.join(t.dir, 'oci.tar'), source, 'oci')
    for (const from of [`docker-archive:${file}`, `oci-archive:${oci}`]) {
      // A copy verifies every digest on its way.
      const copy = spawnSync('skopeo', ['--insecure-policy', 'copy', '-q', from, `dir:${fs.mkdtempSync(path.join(t.dir, 'copy-'))}`], { encoding: 'utf8' })
      assert.equal([copy.status, copy.stderr], [0, ''], from)
    }
  }
})
