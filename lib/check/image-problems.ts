// Images, their metadata, their names, and what the distribution folder remembers of blobs.

import fs from 'node:fs'
import path from 'node:path'
import { isDigest } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { ImageDb } from '../images/image-db.ts'
import { parseReference } from '../images/reference.ts'
import { Repositories } from '../images/repositories.ts'
import { imageDir } from '../layers/index.ts'
import { readText } from '../layers/layer-files.ts'
import { loadLayers, takeImageOut } from './layer-mends.ts'
import { setAside } from './set-aside.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Mended, MendTools, Problem } from './types.ts'
import { look, nameOf, namesIn } from './view.ts'
import type { ImageEntry, View } from './view.ts'

export function* imageProblems(parts: CheckParts, view: View): Generator<Problem> {
  for (const image of view.images.values()) yield* imageProblem(view, image)
  yield* metadataProblems(parts, view)
  yield* nameProblems(parts, view)
  yield* distributionProblems(parts, view)
}

function* imageProblem(view: View, image: ImageEntry): Generator<Problem> {
  const { id, chain, damage } = image
  const images = [nameOf(image)]
  if (damage !== undefined) {
    yield {
      kind: 'image-damaged', subject: id, path: image.file, reason: `image ${nameOf(image)} cannot be used: ${damage}`, images, phase: 'catalogue',
      repair: 'take its config from an archive given with --from; without one, set it aside: the image needs loading again', mend: tools => mendImage(tools, id, damage),
    }
  }
  const missing = chain?.find(layer => !view.layers.has(layer))
  if (missing !== undefined && !view.busyChain(missing)) {
    yield {
      kind: 'image-layers-missing', subject: id, path: image.file, reason: `image ${nameOf(image)} cannot be used: its layer ${missing} is not in the database`, images, phase: 'catalogue',
      repair: 'take the layers from an archive given with --from; without one, set the image aside: it needs loading again', mend: tools => mendImage(tools, id, `its layer ${missing} is missing`),
    }
  }
}

async function mendImage(tools: MendTools, id: Digest, reason: string): Promise<Mended> {
  const { root, archives, layers } = tools
  const planned = archives.image(id)
  if (planned !== undefined) await layers.locked(() => new ImageDb(root).write(id, planned.configBytes))
  const image = (await look(tools)).images.get(id)
  if (image === undefined) return
  if (image.damage === undefined && image.diffIds !== undefined && await loadLayers(tools, image.diffIds)) return
  const container = [...(await look(tools)).containers.values()].find(({ record }) => record?.imageId === id)
  if (container !== undefined && image.damage === undefined) return { left: `container ${container.id} is made of it: give an archive that has it with --from, or remove the container` }
  await layers.locked(() => takeImageOut(tools, image, reason))
}

function* metadataProblems({ root }: CheckParts, view: View): Generator<Problem> {
  const base = path.join(imageDir(root), 'imagedb', 'metadata', 'sha256')
  for (const name of namesIn(base)) {
    const id = `sha256:${name}`, dir = path.join(base, name)
    if (!isDigest(id)) continue
    if (!view.images.has(id)) {
      yield {
        kind: 'image-metadata-orphan', subject: id, path: dir, reason: 'there is metadata of an image that does not exist', repair: 'remove it', gains: true, measure: () => sizeOf(dir),
        mend: ({ layers }) => layers.locked(async () => { if (!new ImageDb(root).has(id)) await removeTree(dir) }),
      }
      continue
    }
    const parent = readText(path.join(dir, 'parent'))
    if (parent === undefined || isDigest(parent) && view.images.has(parent)) continue
    yield {
      kind: 'image-parent-missing', subject: id, path: path.join(dir, 'parent'), repair: 'forget the parent: all that the image is made of stands in its own config',
      reason: isDigest(parent) ? `it names ${parent} as the image's parent, which does not exist` : 'it names no image as the image\'s parent',
      mend: ({ layers }) => layers.locked(async () => {
        const db = new ImageDb(root), now = db.parent(id)
        if (now === undefined || !db.has(now)) db.deleteMetadata(id, 'parent')
      }),
    }
  }
}

function* nameProblems({ root }: CheckParts, view: View): Generator<Problem> {
  const file = path.join(imageDir(root), 'repositories.json')
  if (view.names === undefined) {
    yield {
      kind: 'names-damaged', subject: 'repositories.json', path: file, reason: `no image can be found by its name: ${view.namesDamage}`, phase: 'catalogue',
      repair: 'set the file aside and write it anew, with the names that can still be read, and those of archives given with --from', mend: salvageNames,
    }
    return
  }
  for (const [name, id] of view.names) {
    if (view.images.has(id)) continue
    yield {
      kind: 'name-without-image', subject: name, path: file, reason: `the name ${name} leads to image ${id}, which does not exist`, phase: 'catalogue',
      repair: 'take the image from an archive given with --from; without one, remove the name: the image needs loading again', images: [name], mend: tools => mendName(tools, name, id),
    }
  }
}

async function mendName(tools: MendTools, name: string, id: Digest): Promise<Mended> {
  const { root, archives, layers, images } = tools
  const planned = archives.image(id)
  if (planned !== undefined && planned.config.diffIds.every(diffId => archives.hasLayer(diffId))) {
    try {
      await layers.operation('repair', async operation => {
        await layers.register(operation, planned.config.diffIds.flatMap(diffId => archives.layer(diffId) ?? []))
        await images.create(planned.configBytes, { operation })
      }, tools.signal)
      return
    } finally {
      archives.closeFiles()
    }
  }
  await layers.locked(async () => {
    if (new ImageDb(root).has(id)) return
    await new Repositories(root).change(names => { names.delete(parseReference(name)) })
  })
}

/** Of a file that a power cut tore: every pair that is whole. One whose image does not exist is a finding of its own then. */
async function salvageNames({ root, layers, archives }: MendTools): Promise<void> {
  const file = path.join(imageDir(root), 'repositories.json')
  await layers.locked(async () => {
    const text = fs.readFileSync(file, 'utf8')
    setAside(root, { kind: 'file', subject: 'repositories.json', reason: 'it could not be read', driverLayers: [], layers: [], unsureOf: [], names: [] }, [file])
    await new Repositories(root).change(names => {
      for (const [, name = '', id = ''] of text.matchAll(/"([^"\\]{1,512})"\s*:\s*"(sha256:[a-f0-9]{64})"/g)) {
        if (!isDigest(id)) continue
        const ref = referenceOf(name)
        if (ref !== undefined) names.set(ref, id, { force: true })
      }
      const db = new ImageDb(root)
      for (const { imageId, references } of archives.images()) for (const ref of references) if (db.has(imageId) && names.get(ref) === undefined) names.set(ref, imageId, { force: false })
    })
  })
}

function referenceOf(text: string): ReturnType<typeof parseReference> | undefined {
  try {
    return parseReference(text)
  } catch {
    return undefined // torn, too
  }
}

/** Knowledge that spares a download, and nothing else; dockerd keeps it when an image goes. */
function* distributionProblems({ root }: CheckParts, view: View): Generator<Problem> {
  const base = path.join(imageDir(root), 'distribution')
  const diffIds = new Set<string>([...view.layers.values()].flatMap(({ layer }) => layer?.diffId ?? []))
  const forget = (file: string): Pick<Problem, 'repair' | 'mend' | 'gains' | 'measure'> =>
    ({ repair: 'remove it: it only spares downloads', gains: true, measure: () => sizeOf(file), mend: () => fs.rmSync(file, { force: true }) })
  for (const name of namesIn(path.join(base, 'diffid-by-digest', 'sha256'))) {
    const file = path.join(base, 'diffid-by-digest', 'sha256', name), diffId = readText(file)
    if (name.startsWith('.') || diffId === undefined) continue
    if (!isDigest(diffId) || !/^[a-f0-9]{64}$/.test(name)) yield { kind: 'distribution-damaged', subject: name, path: file, reason: 'the note of which layer a blob holds names no layer', ...forget(file) }
    else if (!diffIds.has(diffId)) yield { kind: 'distribution-stale', subject: name, path: file, reason: `it is noted that a blob holds layer ${diffId}, which is not here; harmless, and dockerd keeps such notes`, measure: () => sizeOf(file) }
  }
  for (const name of namesIn(path.join(base, 'v2metadata-by-diffid', 'sha256'))) {
    const file = path.join(base, 'v2metadata-by-diffid', 'sha256', name)
    if (name.startsWith('.')) continue
    if (!isArray(file)) yield { kind: 'distribution-damaged', subject: name, path: file, reason: 'the note of which blobs hold a layer is not a list', ...forget(file) }
    else if (!diffIds.has(`sha256:${name}`)) yield { kind: 'distribution-stale', subject: name, path: file, reason: 'it is noted which blobs hold a layer that is not here; harmless, and dockerd keeps such notes', measure: () => sizeOf(file) }
  }
}

function isArray(file: string): boolean {
  try {
    return Array.isArray(JSON.parse(readText(file) ?? '[]'))
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}
