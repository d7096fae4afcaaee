// Load an image: everything that `docker load` does, against the peers that do the same, and against bsdtar, which extracts the same layers one
// after the other without hashing or keeping a store: the floor for one core.

import fs from 'node:fs'
import { debianImage } from '../../fixtures/debian-image.ts'
import { open, unmount } from '../../lib/index.ts'
import { Ground, must } from '../contestants.ts'
import type { Prepared } from '../contestants.ts'
import type { Contestant } from '../measure.ts'

/** The Debian image as it is: three layers, uncompressed. */
export async function loadLayers(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  fs.copyFileSync(await debianImage({ format: 'docker' }), ground.path('image.tar'))
  return await loading(ground, 'load a docker-archive of three layers', 'docker-archive')
}

/** The same content in one layer, so that nothing can be gained from layers side by side. */
export async function loadSingle(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const storage = await open({ root: ground.path('flat'), driver: 'overlay2', durability: 'none' })
  try {
    const [image] = await storage.images.load(await debianImage({ format: 'docker' }))
    const container = await storage.containers.create({ image: image?.imageId as string })
    await storage.images.import(storage.containers.export(container.id), { reference: 'flat:1' })
    const fd = fs.openSync(ground.path('image.tar'), 'w')
    for await (const chunk of storage.images.save(['flat:1'])) fs.writeSync(fd, chunk)
    fs.closeSync(fd)
  } finally {
    await storage.close()
  }
  fs.rmSync(ground.path('flat'), { recursive: true })
  return await loading(ground, 'load a docker-archive of one layer', 'docker-archive')
}

/** The Debian image as an OCI layout with gzip layers. */
export async function loadGzip(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  fs.copyFileSync(await debianImage({ format: 'oci' }), ground.path('image.tar'))
  return await loading(ground, 'load an OCI archive of three gzip layers', 'oci-archive')
}

/** The same with zstd layers, which skopeo makes. */
export async function loadZstd(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  if (!ground.has('skopeo', 'skopeo')) return ground.prepared('load an OCI archive of three zstd layers', [])
  must('skopeo', '--insecure-policy', 'copy', '-q', '--dest-compress-format', 'zstd', `docker-archive:${await debianImage({ format: 'docker' })}`, `oci-archive:${ground.path('image.tar')}:latest`)
  return await loading(ground, 'load an OCI archive of three zstd layers', 'oci-archive')
}

async function loading(ground: Ground, what: string, transport: string): Promise<Prepared> {
  const archive = ground.path('image.tar')
  const load = ['image', 'load', '-q', '-i', archive]
  const contestants: Contestant[] = [
    { name: 'layerstack', command: ground.layerstack('l', load), ...ground.fresh('l') },
    { name: 'layerstack, one thread', command: ground.layerstack('l', load), env: { LAYERSTACK_THREADS: '1' }, ...ground.fresh('l') },
    { name: 'layerstack, durability none', command: ground.layerstack('l', load, { durability: 'none' }), ...ground.fresh('l') },
  ]
  if (ground.has('bsdtar', 'libarchive-tools')) {
    const layers = unpacked(ground, archive)
    contestants.push(extraction(ground, 'bsdtar', '-xpf', layers))
    if (ground.has('tar', 'tar')) contestants.push(extraction(ground, 'tar', '-xpf', layers))
  }
  const dockerd = transport === 'docker-archive' ? await ground.dockerd() : undefined
  if (dockerd !== undefined) {
    const clear = async (): Promise<void> => { await dockerd.docker(['image', 'prune', '-af']) }
    contestants.push({ name: 'docker load', command: ['docker', '-H', dockerd.host, 'load', '-q', '-i', archive], before: clear, after: clear })
  }
  const containerd = await ground.containerd()
  if (containerd !== undefined) {
    const clear = async (): Promise<void> => {
      const names = (await containerd.run(['images', 'ls', '-q'])).split('\n').filter(name => name !== '')
      if (names.length > 0) await containerd.run(['images', 'rm', '--sync', ...names])
    }
    contestants.push({ name: 'ctr image import', command: [...containerd.ctr, 'images', 'import', '--base-name', 'bench', archive], before: clear, after: clear })
  }
  if (ground.has('skopeo', 'skopeo')) {
    const store = `containers-storage:[overlay@${ground.path('cs')}+${ground.path('csrun')}]localhost/bench:1`
    const clear = (): void => {
      // It leaves a bind mount of its home, or none.
      if (fs.existsSync(ground.path('cs', 'overlay'))) unmount(ground.path('cs', 'overlay'))
      for (const dir of ['cs', 'csrun']) fs.rmSync(ground.path(dir), { recursive: true, force: true })
    }
    contestants.push({ name: 'skopeo → containers-storage', command: ['skopeo', '--insecure-policy', 'copy', '-q', `${transport}:${archive}`, store], before: clear, after: clear })
  }
  if (what.includes('gzip') && ground.has('umoci', 'umoci')) contestants.push(umoci(ground, archive))
  return ground.prepared(`${what}, ${(fs.statSync(archive).size / 1e6).toFixed(0)} MB`, contestants)
}

/** The layers are taken out of the archive once, so that only their extraction is timed. */
function unpacked(ground: Ground, archive: string): string[] {
  fs.mkdirSync(ground.path('blobs'))
  must('bsdtar', '-xf', archive, '-C', ground.path('blobs'))
  return layerFiles(ground.path('blobs'))
}

function extraction(ground: Ground, program: string, flags: string, layers: readonly string[]): Contestant {
  const script = layers.map((file, i) => `mkdir '${ground.path('t', String(i))}' && ${program} ${flags} '${file}' -C '${ground.path('t', String(i))}'`)
  return { name: `${program} -xp, layer after layer`, command: ['sh', '-ec', script.join('\n')], ...ground.fresh('t', true) }
}

/** Extracts the layers upon each other into one tree; reads gzip only. */
function umoci(ground: Ground, archive: string): Contestant {
  fs.mkdirSync(ground.path('layout'))
  must('bsdtar', '-xf', archive, '-C', ground.path('layout'))
  return { name: 'umoci raw unpack', command: ['umoci', 'raw', 'unpack', '--image', `${ground.path('layout')}:latest`, ground.path('u')], ...ground.fresh('u') }
}

function layerFiles(dir: string): string[] {
  const read = (name: string): unknown => JSON.parse(fs.readFileSync(`${dir}/${name}`, 'utf8'))
  if (fs.existsSync(`${dir}/manifest.json`)) {
    const [first] = read('manifest.json') as readonly { readonly Layers: readonly string[] }[]
    return (first?.Layers ?? []).map(name => `${dir}/${name}`)
  }
  const blob = (digest: string): string => `blobs/sha256/${digest.slice('sha256:'.length)}`
  const { manifests } = read('index.json') as { readonly manifests: readonly { readonly digest: string }[] }
  const { layers } = read(blob(manifests[0]?.digest ?? '')) as { readonly layers: readonly { readonly digest: string }[] }
  return layers.map(({ digest }) => `${dir}/${blob(digest)}`)
}
