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

async function changed(ground: Ground): Promise<{ readonly container: string; readonly docker: { readonly host: string; readonly container: string; clear(): Promise<void> } | undefined }> {
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

export async function commit(work: string): Promise<Prepared> {
  const ground = new Ground(work)
  const { container, docker } = await changed(ground)
  const clear = (): void => {
    const [node, ...args] = ground.layerstack('l', ['image', 'rm', '-f', 'bench:1'])
    must(node as string, ...args)
  }
  return ground.prepared('commit the thousand changes of a container', [
    { name: 'layerstack', command: ground.layerstack('l', ['container', 'commit', container, 'bench:1']), after: clear },
    ...docker === undefined ? [] : [{ name: 'docker commit', command: ['docker', '-H', docker.host, 'commit', docker.container, 'bench:1'], after: docker.clear }],
  ])
}
