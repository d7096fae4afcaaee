// Load the Debian image: everything that `docker load` does, against dockerd itself and against bsdtar, which extracts the same layers one after
// the other without hashing or keeping a store: the floor for one core.

import fs from 'node:fs'
import path from 'node:path'
import { spawnSync } from 'node:child_process'
import { debianImage } from '../../fixtures/debian-image.ts'
import { needsDockerd, startDockerd } from '../../fixtures/dockerd.ts'
import { projectRoot } from '../../fixtures/places.ts'
import type { Contestant } from '../measure.ts'

export interface Prepared {
  readonly what: string
  readonly contestants: readonly Contestant[]
  /** Peers that are not here, and why. */
  readonly absent: readonly string[]
  close(): Promise<void>
}

/** `work` is an empty directory on the file system under test. */
export async function prepare(work: string): Promise<Prepared> {
  const archive = await debianImage({ format: 'docker' })
  const copy = path.join(work, 'image.tar')
  fs.copyFileSync(archive, copy)
  const contestants: Contestant[] = []
  const absent: string[] = []
  const fresh = (name: string): Pick<Contestant, 'before' | 'after'> => {
    const dir = path.join(work, name)
    const clear = (): void => fs.rmSync(dir, { recursive: true, force: true })
    return { before: clear, after: clear }
  }
  const cli = path.join(projectRoot, 'dist/lib/cli/main.js')
  const layerstack = (name: string, driver: string, env: Readonly<Record<string, string>>, extra: readonly string[]): Contestant =>
    ({ name, command: [process.execPath, cli, '--root', path.join(work, name), '--driver', driver, ...extra, 'image', 'load', '-q', '-i', copy], env, ...fresh(name) })
  contestants.push(
    layerstack('layerstack overlay2', 'overlay2', {}, []),
    layerstack('layerstack overlay2, one thread', 'overlay2', { LAYERSTACK_THREADS: '1' }, []),
    layerstack('layerstack overlay2, durability none', 'overlay2', {}, ['--durability', 'none']),
  )
  if (spawnSync('bsdtar', ['--version']).status === 0) contestants.push(bsdtar(work, copy, fresh('bsdtar')))
  else absent.push('bsdtar (Debian: libarchive-tools)')
  let stop = async (): Promise<void> => undefined
  if (needsDockerd === false) {
    const dockerd = await startDockerd({ dataRoot: path.join(work, 'docker'), execRoot: path.join(work, 'x'), driver: 'overlay2' })
    stop = () => dockerd.stop()
    const clear = async (): Promise<void> => { await dockerd.docker(['image', 'prune', '-af']) }
    contestants.push({ name: 'docker load', command: ['docker', '-H', dockerd.host, 'load', '-q', '-i', copy], before: clear, after: clear })
  } else absent.push(needsDockerd)
  return { what: `load ${path.basename(archive)}, ${(fs.statSync(archive).size / 1e6).toFixed(0)} MB`, contestants, absent, close: stop }
}

/** The layers' tars are taken out of the archive once, so that only extraction is timed. */
function bsdtar(work: string, archive: string, place: Pick<Contestant, 'before' | 'after'>): Contestant {
  const layers = path.join(work, 'layers')
  fs.mkdirSync(layers)
  spawnSync('bsdtar', ['-xf', archive, '-C', layers])
  const manifest = JSON.parse(fs.readFileSync(path.join(layers, 'manifest.json'), 'utf8')) as readonly { readonly Layers: readonly string[] }[]
  const target = path.join(work, 'bsdtar')
  const script = (manifest[0]?.Layers ?? []).map((layer, i) => `mkdir '${target}/${i}' && bsdtar -xpf '${path.join(layers, layer)}' -C '${target}/${i}'`)
  return { name: 'bsdtar -xp, layer after layer', command: ['sh', '-ec', [`mkdir '${target}'`, ...script].join('\n')], ...place }
}
