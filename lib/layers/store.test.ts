import fs from 'node:fs'
import path from 'node:path'
import zlib from 'node:zlib'
import { assert, suite } from '../../fixtures/harness/index.ts'
import type { TestFunction } from '../../fixtures/harness/index.ts'
import { listingOf } from '../../fixtures/image-store.ts'
import { makeTar } from '../../fixtures/make-tar.ts'
import { all, bytesOf, driversHere, failure, file, once, openIn, pins, register } from '../../fixtures/storage.ts'
import { digestOf } from '../../fixtures/image-store.ts'
import { chainIdOf, hexOf, isLayerId } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { Storage } from '../index.ts'

const test = suite('layers')

const tars = [
  makeTar([file('base', 'one'), { path: 'etc/', type: 'dir' }, file('etc/passwd', 'root')]),
  makeTar([file('etc/passwd', 'root and more'), file('second', 'two')]),
  makeTar([{ path: '.wh.base', type: 'file' }, file('third', 'three')]),
]
const layerDir = (storage: Storage, chainId: ChainId): string => path.join(storage.root, 'image', storage.driver.name, 'layerdb/sha256', hexOf(chainId))
const text = (dir: string, name: string): string => fs.readFileSync(path.join(dir, name), 'utf8')

async function knownIds(storage: Storage): Promise<string[]> {
  return (await all(storage.driver.list())).sort()
}

/** overlay2's mark of a layer that ever had a child stays when the child does not come to be. */
function listing(storage: Storage): string[] {
  return listingOf(storage.root).filter(line => !line.includes('/committed '))
}

for (const driver of driversHere) {
  const it = (name: string, run: TestFunction): void => test(`${driver}: ${name}`, run)

  it('register writes the layer database as dockerd does', async t => {
    const mask = process.umask(0o077)
    t.defer(() => process.umask(mask))
    const storage = await openIn(t, driver), kept = pins(storage)
    const layers = await register(storage, kept, tars)
    assert.is(layers[0]?.chainId, digestOf(tars[0] as Buffer), 'chain(L1) = diff(L1)')
    assert.is(layers[1]?.chainId, chainIdOf(layers[0]?.chainId, layers[1]?.diffId as Digest))
    const [base, second] = layers.map(layer => layerDir(storage, layer.chainId)) as [string, string]
    assert.equal(fs.readdirSync(base).sort(), ['cache-id', 'diff', 'size', 'tar-split.json.gz'])
    assert.equal(fs.readdirSync(second).sort(), ['cache-id', 'diff', 'parent', 'size', 'tar-split.json.gz'])
    const mode = (file: string): string => (fs.statSync(file).mode & 0o7777).toString(8)
    const db = path.join(storage.root, 'image', driver, 'layerdb')
    assert.equal([path.join(storage.root, 'image'), path.join(storage.root, 'image', driver), db].map(mode), ['700', '700', '700'])
    assert.equal([path.join(db, 'sha256'), path.join(db, 'tmp'), path.join(db, 'mounts'), base].map(mode), ['755', '755', '755', '700'])
    for (const name of fs.readdirSync(second)) assert.is(mode(path.join(second, name)), '644', name)
    assert.is(text(base, 'diff'), digestOf(tars[0] as Buffer))
    assert.is(text(base, 'size'), '7')
    assert.match(text(base, 'cache-id'), /^[a-f0-9]{64}$/)
    assert.is(text(second, 'parent'), layers[0]?.chainId)
    assert.ok(fs.existsSync(path.join(storage.root, driver, driver === 'vfs' ? 'dir' : '', text(second, 'cache-id'))))
    assert.equal(fs.readdirSync(path.join(db, 'tmp')), [])
  })

  it('the tar-split reads by Go\'s rules: one JSON object a line, names and positions as moby packs them', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [layer] = await register(storage, kept, [makeTar([file('a&<b', 'hello'), file(Buffer.from([0x66, 0xff]).toString('latin1'), '')])])
    const dir = layerDir(storage, layer?.chainId as ChainId)
    const lines = zlib.gunzipSync(fs.readFileSync(path.join(dir, 'tar-split.json.gz'))).toString().trimEnd().split('\n')
    const entries = lines.map(line => JSON.parse(line) as { type: number; name?: string; size?: number; payload: string | null; position: number })
    assert.equal(entries.map(entry => entry.position), entries.map((_, i) => i))
    assert.equal(entries.map(entry => entry.type), [2, 1, 2, 1, 2])
    assert.ok(lines[1]?.startsWith('{"type":1,"name":"a\\u0026\\u003cb","size":5,"payload":"'), lines[1])
    assert.is(Buffer.from(entries[1]?.payload ?? '', 'base64').length, 8)
    assert.is(entries[3]?.payload, null)
  })

  it('the tar comes out bit for bit, also after the store was opened anew (TestStoreRestore)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const layers = await register(storage, kept, tars)
    await storage.close()
    const again = await openIn(t, driver)
    for (const [i, layer] of layers.entries()) assert.ok((await bytesOf(again.layers.tar(layer.chainId))).equals(tars[i] as Buffer))
    assert.equal((await again.layers.chain(layers[2]?.chainId as ChainId)).map(layer => layer.diffId), [...tars].reverse().map(digestOf))
  })

  it('a file dropped into a layer does not change its tar (TestTarStreamStability)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [layer] = await register(storage, kept, tars.slice(0, 1))
    const content = await storage.driver.content(layer?.cacheId as never)
    fs.writeFileSync(path.join(content.path, 'intruder'), 'x')
    assert.ok((await bytesOf(storage.layers.tar(layer?.chainId as ChainId))).equals(tars[0] as Buffer))
  })

  it('a tar that is not what was registered is told at its end (TestTarStreamVerification)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [one] = await register(storage, kept, [makeTar([file('foo', 'abc')])])
    const [two] = await register(storage, kept, [makeTar([file('foo', 'abc'), file('bar', 'x')])])
    const split = (layer: typeof one): string => path.join(layerDir(storage, layer?.chainId as ChainId), 'tar-split.json.gz')
    fs.copyFileSync(split(one), split(two))
    const error = await failure(bytesOf(storage.layers.tar(two?.chainId as ChainId)))
    assert.match(error.message, `could not verify layer data for: ${two?.diffId}`)
    assert.is(error.code, 'CORRUPT')
    fs.rmSync(split(one))
    assert.match((await failure(bytesOf(storage.layers.tar(one?.chainId as ChainId)))).message, 'tar-split.json.gz is missing')
  })

  it('a changed file of the same size is told by its name', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [layer] = await register(storage, kept, [makeTar([file('foo', 'abc')])])
    fs.writeFileSync(path.join((await storage.driver.content(layer?.cacheId as never)).path, 'foo'), 'xyz')
    assert.match((await failure(bytesOf(storage.layers.tar(layer?.chainId as ChainId)))).message, 'file integrity checksum failed for "foo"')
  })

  it('a layer that exists is not read again (TestRegisterExistingLayer)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const before = await register(storage, kept, tars)
    const ids = await knownIds(storage)
    async function* unread(): AsyncGenerator<Buffer> { throw new Error('it was read') }
    const again = await storage.layers.operation('again', operation =>
      storage.layers.register(operation, tars.map(tar => ({ source: { stream: unread() }, diffId: digestOf(tar) as Digest }))))
    assert.equal(again.map(layer => [layer.chainId, layer.cacheId, layer.fresh]), before.map(layer => [layer.chainId, layer.cacheId, false]))
    assert.equal(await knownIds(storage), ids)
  })

  it('also not kept twice when nobody knew its digest before', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [before] = await register(storage, kept, tars.slice(0, 1))
    const ids = await knownIds(storage)
    const [again] = await storage.layers.operation('again', operation => storage.layers.register(operation, [{ source: { stream: once(tars[0] as Buffer) } }]))
    assert.equal([again?.chainId, again?.cacheId, again?.fresh], [before?.chainId, before?.cacheId, false])
    assert.equal(await knownIds(storage), ids)
  })

  it('layers from file ranges and compressed streams are the same layers', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [plain] = await register(storage, kept, tars.slice(0, 1))
    const gz = zlib.gzipSync(tars[1] as Buffer)
    const archive = path.join(t.dir, 'archive')
    fs.writeFileSync(archive, Buffer.concat([Buffer.alloc(77), gz, Buffer.from('behind')]))
    const fd = fs.openSync(archive, 'r')
    t.defer(() => fs.closeSync(fd))
    const [second] = await storage.layers.operation('range', async operation => {
      const layers = await storage.layers.register(operation, [{ source: { file: { fd, offset: 77, length: gz.length } }, diffId: digestOf(tars[1] as Buffer) as Digest, blobDigest: digestOf(gz) as Digest }], plain?.chainId)
      kept.add(layers[0]?.chainId as ChainId)
      return layers
    })
    assert.is(second?.tarBytes, tars[1]?.length)
    assert.is(second?.blobBytes, gz.length)
    assert.is(second?.blobDigest, digestOf(gz))
    assert.ok((await bytesOf(storage.layers.tar(second?.chainId as ChainId))).equals(tars[1] as Buffer))
  })

  it('a wrong diffID, blob digest or tar leaves nothing', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    await register(storage, kept, tars.slice(0, 1))
    const before = listing(storage)
    const wrong = digestOf(Buffer.from('other')) as Digest
    const [good, bad] = [tars[0], tars[1]] as [Buffer, Buffer]
    const cases: readonly (readonly [string, Parameters<Storage['layers']['register']>[1]])[] = [
      [`invalid diffID for layer 1: expected "${wrong}", got "${digestOf(bad)}"`, [{ source: { stream: once(good) }, diffId: digestOf(good) as Digest }, { source: { stream: once(bad) }, diffId: wrong }]],
      ['the blob\'s digest is', [{ source: { stream: once(bad) }, diffId: digestOf(bad) as Digest, blobDigest: wrong }]],
      ['unexpected', [{ source: { stream: once(bad.subarray(0, 515)) } }]],
      ['duplicates of file paths not supported', [{ source: { stream: once(makeTar([file('a', '1'), file('./a', '2')])) } }]],
    ]
    for (const [message, layers] of cases) {
      const error = await failure(storage.layers.operation('wrong', operation => storage.layers.register(operation, layers)))
      assert.ok(error.message.includes(message), `${message}: ${error.stack}`)
      assert.equal(listing(storage), before, message)
    }
  })

  it('of several layers in parallel one fails: that error, and nothing stays', async t => {
    const storage = await openIn(t, driver)
    const before = listing(storage)
    const layers = Array.from({ length: 6 }, (_, i) => ({ source: { stream: once(i === 4 ? Buffer.alloc(2048, 'x') : makeTar([file(`f${i}`, Buffer.alloc(200_000, i))])) }, label: `part ${i}` }))
    const error = await failure(storage.layers.operation('parallel', operation => storage.layers.register(operation, layers)))
    assert.is(error.code, 'INVALID_ARCHIVE')
    assert.match(error.message, /^layer 4 \(part 4\): /)
    assert.equal(listing(storage), before)
  })

  it('aborted in the middle of a layer: ABORTED, and nothing stays', async t => {
    const storage = await openIn(t, driver)
    const before = listing(storage)
    const stop = new AbortController()
    const whole = makeTar([file('a', Buffer.alloc(3_000_000, 'a')), file('b', Buffer.alloc(3_000_000, 'b'))])
    let returned = false
    async function* slow(): AsyncGenerator<Buffer> {
      try {
        for (let at = 0; at < whole.length; at += 500_000) {
          yield whole.subarray(at, at + 500_000)
          if (at === 2_000_000) stop.abort()
          await new Promise(resolve => setTimeout(resolve, 1))
        }
      } finally { returned = true }
    }
    const error = await failure(storage.layers.operation('aborted', operation => storage.layers.register(operation, [{ source: { stream: slow() } }]), stop.signal))
    assert.is(error.code, 'ABORTED')
    assert.equal(listing(storage), before)
    await new Promise(resolve => setTimeout(resolve, 10))
    assert.ok(returned, 'the source was told')
  })

  it('what an operation registers and nobody refers to goes at its end', async t => {
    const storage = await openIn(t, driver)
    const before = listing(storage)
    await storage.layers.operation('idle', operation => storage.layers.register(operation, tars.map(tar => ({ source: { stream: once(tar) } }))))
    assert.equal(listing(storage), before)
  })

  it('release cascades as far as nothing refers to the parents (TestLayerRelease)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [a] = await register(storage, kept, [tars[0] as Buffer])
    const [b, c] = await register(storage, kept, [tars[1], tars[2]] as Buffer[], a?.chainId)
    const [d] = await register(storage, kept, [makeTar([file('fourth', '4')])], b?.chainId)
    kept.delete(c?.chainId as ChainId)
    assert.equal((await storage.layers.release(c?.chainId as ChainId)).map(layer => layer.chainId), [c?.chainId], 'the others are under d')
    assert.equal(await storage.layers.release(c?.chainId as ChainId), [], 'a second time is harmless')
    assert.equal(await storage.layers.release(b?.chainId as ChainId), [], 'it has a child')
    kept.delete(d?.chainId as ChainId)
    assert.equal((await storage.layers.release(d?.chainId as ChainId)).map(layer => layer.chainId), [d?.chainId, b?.chainId], 'a is pinned')
    kept.delete(a?.chainId as ChainId)
    assert.equal((await storage.layers.release(a?.chainId as ChainId)).map(layer => layer.chainId), [a?.chainId])
    assert.equal(await knownIds(storage), [])
    assert.equal(fs.readdirSync(path.join(storage.root, 'image', driver, 'layerdb/sha256')), [])
  })

  it('a held layer is not released, and goes when the operation that held it ends', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const layers = await register(storage, kept, tars)
    const top = layers[2]?.chainId as ChainId
    kept.clear()
    await storage.layers.operation('holder', async operation => {
      await operation.hold(top)
      assert.equal(await storage.layers.release(top), [])
      // A second store, as another process would have it.
      const other = await openIn(t, driver)
      assert.equal(await other.layers.release(top), [])
      assert.equal(await knownIds(storage), layers.map(layer => layer.cacheId).sort())
    })
    assert.equal(await knownIds(storage), [], 'nobody is left who would release it later')
    assert.equal(fs.readdirSync(path.join(storage.root, 'layerstack/intents', driver)), [])
  })

  it('two operations on the same fresh layer, both without a user: the last one clears it', async t => {
    const storage = await openIn(t, driver)
    const before = listing(storage)
    const use = async (wait: number): Promise<void> => storage.layers.operation('both', async operation => {
      await storage.layers.register(operation, [{ source: { stream: once(tars[0] as Buffer) }, diffId: digestOf(tars[0] as Buffer) as Digest }])
      await new Promise(resolve => setTimeout(resolve, wait))
    })
    await Promise.all([use(1), use(40), use(20)])
    assert.equal(listing(storage), before)
  })

  it('an empty layer (TestEmptyLayer), and the size of layers (TestLayerSize)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [empty, sized] = await register(storage, kept, [Buffer.alloc(1024), makeTar([file('a', 'Hello, world!'), file('b', 'x'), { path: 'c', type: 'hardlink', linkname: 'a' }])])
    assert.is(empty?.diffId, 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef')
    assert.is(empty?.sizeBytes, 0)
    assert.is(sized?.sizeBytes, 14, 'each inode once')
  })

  it('nothing left of a layer but its files: a new registration replaces it (moby#44909)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const layers = await register(storage, kept, tars)
    const [, second] = layers
    // The driver's part of the middle one is gone; of another only an empty folder is left.
    await storage.driver.remove(second?.cacheId as never)
    const again = await register(storage, kept, tars)
    assert.equal(again.map(layer => layer.fresh), [false, true, true])
    for (const [i, layer] of again.entries()) assert.ok((await bytesOf(storage.layers.tar(layer.chainId))).equals(tars[i] as Buffer))
    assert.equal(fs.readdirSync(path.join(storage.root, 'image', driver, 'layerdb/sha256')).sort(), again.map(layer => hexOf(layer.chainId)).sort())

    const tar = makeTar([file('stale', 's')]), dir = layerDir(storage, digestOf(tar) as ChainId)
    fs.mkdirSync(dir)
    const [fresh] = await register(storage, kept, [tar])
    assert.is(fresh?.fresh, true)
    assert.is(text(dir, 'diff'), digestOf(tar))
  })

  it('a damaged layer that the driver still has is told, and stops nobody else', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [a] = await register(storage, kept, [tars[0] as Buffer])
    const [b] = await register(storage, kept, [tars[1] as Buffer])
    fs.writeFileSync(path.join(layerDir(storage, a?.chainId as ChainId), 'size'), '')
    assert.is((await failure(storage.layers.get(a?.chainId as ChainId))).code, 'CORRUPT')
    assert.is((await failure(register(storage, kept, [tars[0] as Buffer]))).code, 'CORRUPT')
    kept.delete(b?.chainId as ChainId)
    assert.equal((await storage.layers.release(b?.chainId as ChainId)).length, 1)
  })

  it('what dockerd left under removal goes when the store is opened (TestGetOrphan)', async t => {
    const storage = await openIn(t, driver), kept = pins(storage)
    const [layer] = await register(storage, kept, [tars[0] as Buffer])
    const dir = layerDir(storage, layer?.chainId as ChainId)
    fs.renameSync(dir, `${dir}-${'0123456789abcdef'.repeat(4)}-removing`)
    await storage.close()
    const again = await openIn(t, driver)
    assert.equal(fs.readdirSync(path.dirname(dir)), [])
    assert.equal(await knownIds(again), [])
  })
}

test('ids are one path component (TestIsValidID)', () => {
  for (const id of ['a'.repeat(64), `${'0'.repeat(64)}-init`, 'x.y_z-1']) assert.ok(isLayerId(id))
  for (const id of ['', '.', '..', '../x', 'a/b', '-a', 'a'.repeat(129), 'a\n', 7]) assert.not.ok(isLayerId(id))
})

test('too many layers are refused before anything is read', { skip: driversHere.includes('overlay2') ? false : 'needs root: overlay2' }, async t => {
  const storage = await openIn(t, 'overlay2')
  const before = listing(storage)
  const most = storage.driver.supports.maxDepth - 1
  async function* unread(): AsyncGenerator<Buffer> { throw new Error('it was read') }
  const layers = Array.from({ length: most + 1 }, () => ({ source: { stream: unread() } }))
  const error = await failure(storage.layers.operation('deep', operation => storage.layers.register(operation, layers)))
  assert.is(error.code, 'LIMIT_EXCEEDED')
  assert.is(error.message, `max depth exceeded: ${most + 1} layers, and overlay2 carries ${most}`)
  assert.equal(listing(storage), before)
})

test('a folder that cannot be written: told, with its errno (TestStartTransactionFailure)', async t => {
  const storage = await openIn(t, 'vfs')
  const tmp = path.join(storage.root, 'image/vfs/layerdb/tmp')
  fs.rmdirSync(tmp)
  fs.writeFileSync(tmp, '')
  const error = await failure(storage.layers.operation('broken', operation => storage.layers.register(operation, [{ source: { stream: once(tars[0] as Buffer) } }])))
  assert.match(error.message, 'ENOTDIR')
  assert.equal(await all(storage.driver.list()), [])
})

test('an operation can only name what lies below the data root', async t => {
  const storage = await openIn(t, 'vfs')
  const error = await failure(storage.layers.operation('outside', operation => operation.temporary('/etc/passwd')))
  assert.instance(error, TypeError)
  assert.ok(fs.existsSync('/etc/passwd'))
})

test('a root that was copied after a crash rolls back its own files, not those of the original', async t => {
  const storage = await openIn(t, 'vfs')
  const victim = path.join(storage.root, 'layerstack/tmp/spool')
  await storage.layers.operation('crashing', async operation => {
    await operation.temporary(victim)
    fs.writeFileSync(victim, 'x')
    fs.cpSync(storage.root, path.join(t.dir, 'copy'), { recursive: true })
    const copy = await openIn(t, 'vfs', { root: path.join(t.dir, 'copy') })
    assert.ok(fs.existsSync(victim))
    assert.not.ok(fs.existsSync(path.join(copy.root, 'layerstack/tmp/spool')))
  })
  assert.not.ok(fs.existsSync(victim))
})
