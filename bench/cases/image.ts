// What comes after loading, on the Debian image: save it, list and commit a container's thousand changes.

import fs from 'node:fs'
import path from 'node:path'
import { debianImage, debianImageTag } from '../../fixtures/debian-image.ts'
import { open } from '../../lib/index.ts'
import { Ground, must } from '../contestants.ts'
import type { Prepared } from '../contestants.ts'
import type { Contestant } from '../measure.ts'

export async function save(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const archive = await debianImage({ format: 'docker' })
  fs.copyFileSync(archive, ground.path('image.tar'))
  const [node, ...load] = ground.layerstack('l', ['image', 'load', '-q', '-i', archive])
  must(node as string, ...load)
  const out = ground.path('out.tar')
  const place = ground.fresh('out.tar')
  const contestants: Contestant[] = [
    { name: 'layerstack', command: ground.layerstack('l', ['image', 'save', '-o', out, debianImageTag]), ...place },
    { name: 'layerstack, one thread', command: ground.layerstack('l', ['image', 'save', '-o', out, debianImageTag]), env: { LAYERSTACK_THREADS: '1' }, ...place },
    { name: 'cat and sha256sum', command: ['sh', '-ec', `cat '${ground.path('image.tar')}' > '${out}'; sha256sum '${out}'`], ...place },
  ]
  const dockerd = await ground.dockerd()
  if (dockerd !== undefined) {
    await dockerd.docker(['load', '-q', '-i', archive], { timeoutMs: 300_000 })
    contestants.push({ name: 'docker save', command: ['docker', '-H', dockerd.host, 'save', '-o', out, debianImageTag], ...place })
  }
  return ground.prepared('save the image', contestants)
}

/** A thousand changes, spread over the tree. */
function change(root: string): void {
  for (let i = 0; i < 400; i++) fs.writeFileSync(path.join(root, 'etc', `made-${i}`), `made ${i}\n`)
  const files = fs.readdirSync(path.join(root, 'usr'), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath, entry.name)).sort()
  for (let i = 0; i < 300; i++) fs.appendFileSync(files[i * 13] as string, 'changed')
  for (let i = 0; i < 300; i++) fs.rmSync(files[i * 13 + 6] as string)
}

interface Changed {
  readonly container: string
  readonly docker: { readonly host: string; readonly container: string; clear(): Promise<void> } | undefined
}

async function changed(ground: Ground): Promise<Changed> {
  const archive = await debianImage({ format: 'docker' })
  const storage = await open({ root: ground.path('l'), driver: 'overlay2' })
  const [image] = await storage.images.load(archive)
  const { id } = await storage.containers.create({ image: image?.imageId as string, name: 'work' })
  await storage.containers.withMount(id, change)
  await storage.close()
  const dockerd = await ground.dockerd()
  if (dockerd === undefined) return { container: id, docker: undefined }
  await dockerd.docker(['load', '-q', '-i', archive], { timeoutMs: 300_000 })
  const container = (await dockerd.docker(['create', '--network', 'none', debianImageTag, 'true'])).trim()
  // dockerd mounts it while it runs only, so the changes are laid into its upper directory through a mount of our own.
  const data = JSON.parse(await dockerd.docker(['inspect', '-f', '{{json .GraphDriver.Data}}', container])) as Readonly<Record<'LowerDir' | 'UpperDir' | 'WorkDir', string>>
  const target = ground.path('dm')
  fs.mkdirSync(target)
  must('mount', '-t', 'overlay', 'overlay', '-o', `lowerdir=${data.LowerDir},upperdir=${data.UpperDir},workdir=${data.WorkDir}`, target)
  try { change(target) } finally { must('umount', target) }
  return { container: id, docker: { host: dockerd.host, container, clear: async () => { await dockerd.docker(['rmi', '-f', 'bench:1']).catch(() => undefined) } } }
}

export async function diff(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const { container, docker } = await changed(ground)
  return ground.prepared('list the thousand changes of a container', [
    { name: 'layerstack', command: ground.layerstack('l', ['container', 'diff', container]) },
    ...docker === undefined ? [] : [{ name: 'docker diff', command: ['docker', '-H', docker.host, 'diff', docker.container] }],
  ])
}

/** 400,000 small files. */
function fill(root: string): void {
  for (let folder = 0; folder < 4000; folder++) {
    const dir = path.join(root, 'fill', String(folder))
    fs.mkdirSync(dir, { recursive: true })
    for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(dir, `file-${i}`), `${folder} ${i}\n`)
  }
}

/** The same changes on the image with ten times as many files below: what has not changed must not cost. */
export async function diffLarge(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const storage = await open({ root: ground.path('l'), driver: 'overlay2' })
  const ids: string[] = []
  try {
    const [image] = await storage.images.load(await debianImage({ format: 'docker' }))
    const filler = await storage.containers.create({ image: image?.imageId as string })
    await storage.containers.withMount(filler.id, fill)
    const large = await storage.containers.commit(filler.id)
    await storage.containers.remove(filler.id)
    for (const one of [large.imageId, image?.imageId as string]) {
      const { id } = await storage.containers.create({ image: one })
      await storage.containers.withMount(id, change)
      ids.push(id)
    }
  } finally {
    await storage.close()
  }
  return ground.prepared('list the same thousand changes on an image of ten times the entries', [
    { name: 'ten times the entries', command: ground.layerstack('l', ['container', 'diff', ids[0] as string]) },
    { name: 'the image itself', command: ground.layerstack('l', ['container', 'diff', ids[1] as string]) },
  ])
}

/** With vfs a container is a copy of the whole image. */
export async function vfs(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const archive = await debianImage({ format: 'docker' })
  const storage = await open({ root: ground.path('l'), driver: 'vfs' })
  const [image] = await storage.images.load(archive)
  const first = await storage.containers.create({ image: image?.imageId as string })
  const tree = await storage.containers.mount(first.id)
  const shown = tree.path
  await storage.close()
  const clear = (): void => {
    const [node, ...args] = ground.layerstack('l', ['container', 'rm', '-f', 'bench'], { driver: 'vfs' })
    must(node as string, ...args)
  }
  const create = ['container', 'create', '--name', 'bench', image?.imageId as string]
  return ground.prepared('create a container with vfs', [
    { name: 'layerstack', command: ground.layerstack('l', create, { driver: 'vfs' }), after: clear },
    { name: 'layerstack, one thread', command: ground.layerstack('l', create, { driver: 'vfs' }), env: { LAYERSTACK_THREADS: '1' }, after: clear },
    { name: 'layerstack, durability none', command: ground.layerstack('l', create, { driver: 'vfs', durability: 'none' }), after: clear },
    { name: 'cp -a --reflink=auto', command: ['cp', '-a', '--reflink=auto', shown, ground.path('copy')], ...ground.fresh('copy') },
  ])
}

export async function commit(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const { container, docker } = await changed(ground)
  const clear = (): void => {
    const [node, ...args] = ground.layerstack('l', ['image', 'rm', '-f', 'bench:1'])
    must(node as string, ...args)
  }
  return ground.prepared('commit the thousand changes of a container', [
    { name: 'layerstack', command: ground.layerstack('l', ['container', 'commit', container, 'bench:1']), after: clear },
    { name: 'layerstack, durability none', command: ground.layerstack('l', ['container', 'commit', container, 'bench:1'], { durability: 'none' }), after: clear },
    ...docker === undefined ? [] : [{ name: 'docker commit', command: ['docker', '-H', docker.host, 'commit', docker.container, 'bench:1'], after: docker.clear }],
  ])
}
