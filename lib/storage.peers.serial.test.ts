// The whole way on a real Debian image, judged by the field's own programs: load, a container with a thousand changes, commit, save; then dockerd
// runs a container of it, and skopeo and umoci unpack it to the tree that we see.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { debianImage, skipWithoutDebianImage } from '../fixtures/debian-image.ts'
import { needsDockerd, startDockerd } from '../fixtures/dockerd.ts'
import { assert, needsRoot, suite } from '../fixtures/harness/index.ts'
import { dumpTree } from '../fixtures/tree.ts'
import { open } from './index.ts'
import type { Storage } from './index.ts'

const test = suite('the Debian image among its peers')

function missing(...programs: readonly string[]): string | false {
  const absent = programs.filter(program => spawnSync(program, ['--version']).error !== undefined)
  return absent.length > 0 && `needs ${absent.join(' and ')}`
}

function run(program: string, ...args: readonly string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr || String(result.error)}`)
  return result.stdout
}

/** Four hundred files made, three hundred changed, three hundred deleted, and one directory emptied and made again. */
function change(root: string): void {
  for (let i = 0; i < 400; i++) fs.writeFileSync(path.join(root, 'etc', `made-${i}`), `made ${i}\n`)
  const files = (fs.readdirSync(path.join(root, 'usr'), { recursive: true, withFileTypes: true }))
    .filter(entry => entry.isFile() && !entry.parentPath.includes('/usr/share/doc')).map(entry => path.join(entry.parentPath, entry.name)).sort()
  for (let i = 0; i < 300; i++) fs.appendFileSync(files[i * 13] as string, 'changed')
  for (let i = 0; i < 300; i++) fs.rmSync(files[i * 13 + 6] as string)
  fs.rmSync(path.join(root, 'usr/share/doc'), { recursive: true })
  fs.mkdirSync(path.join(root, 'usr/share/doc'))
  fs.writeFileSync(path.join(root, 'usr/share/doc/readme'), 'one document\n')
}

/** What the init layer adds for an engine's mount points is no part of the image. */
function imageTree(root: string): string[] {
  const added = /^(\.dockerenv|dev\/(console|pts|shm)|etc\/(hosts|hostname|resolv\.conf|mtab)|proc|sys)$/
  return dumpTree(root, { root: false, filter: name => !added.test(name) })
    // The directories that hold those have the time of their making.
    .filter(line => !/^(dev|etc) /.test(line))
}

async function saveTo(storage: Storage, reference: string, file: string): Promise<void> {
  const fd = fs.openSync(file, 'w')
  try {
    for await (const chunk of storage.images.save([reference])) fs.writeSync(fd, chunk)
  } finally {
    fs.closeSync(fd)
  }
}

test('dockerd runs it, skopeo and umoci unpack it to the same tree', {
  skip: needsRoot || skipWithoutDebianImage() || needsDockerd || missing('skopeo', 'umoci'), timeoutMs: 600_000,
}, async t => {
  const archive = await debianImage({ format: 'docker' })
  const out = path.join(t.dir, 'changed.tar')
  let seen: string[]
  {
    const storage = await open({ root: path.join(t.dir, 'root'), driver: 'overlay2' })
    t.defer(() => storage.close())
    const [image] = await storage.images.load(archive)
    assert.is(image?.layers.length, 3)
    const first = await storage.containers.create({ image: image?.imageId as string })
    await storage.containers.withMount(first.id, change)
    let changes = 0
    for await (const _ of storage.containers.diff(first.id)) changes++
    assert.ok(changes >= 1000, `${changes} changes`)
    await storage.containers.commit(first.id, { reference: 'changed:1' })
    await saveTo(storage, 'changed:1', out)
    const second = await storage.containers.create({ image: 'changed:1' })
    seen = await storage.containers.withMount(second.id, imageTree)
    for (const { id } of [first, second]) await storage.containers.remove(id)
  }
  // umoci first reads what skopeo copied into a layout.
  run('skopeo', 'copy', '-q', `docker-archive:${out}`, `oci:${path.join(t.dir, 'oci')}:x`)
  run('umoci', 'raw', 'unpack', '--image', `${path.join(t.dir, 'oci')}:x`, path.join(t.dir, 'unpacked'))
  const unpacked = imageTree(path.join(t.dir, 'unpacked'))
  assert.ok(seen.length > 40_000, `${seen.length} nodes`)
  assert.equal(differences(seen, unpacked), [])
  fs.rmSync(path.join(t.dir, 'unpacked'), { recursive: true })

  const dockerd = await startDockerd({ dataRoot: path.join(t.dir, 'docker'), execRoot: path.join(t.dir, 'x'), driver: 'overlay2' })
  t.defer(() => dockerd.stop())
  assert.match(await dockerd.docker(['load', '-i', out], { timeoutMs: 300_000 }), /Loaded image: changed:1/)
  const script = 'ls /etc | grep -c ^made-; cat /usr/share/doc/readme; ls /usr/share/doc | wc -l'
  assert.is(await dockerd.docker(['run', '--rm', '--network', 'none', 'changed:1', 'sh', '-c', script]), '400\none document\n1\n')
})

/** The first few lines that only one side has: an assertion on 44,000 lines would print them all. */
function differences(a: readonly string[], b: readonly string[]): string[] {
  const left = new Set(a), right = new Set(b)
  return [...a.filter(line => !right.has(line)).map(line => `- ${line}`), ...b.filter(line => !left.has(line)).map(line => `+ ${line}`)].slice(0, 20)
}
