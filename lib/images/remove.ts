// Removing names and images: Docker's rules of what may go, in what order, and what is said (moby daemon/images/image_delete.go).

import { StorageError } from '../errors.ts'
import { hexOf } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { Layer } from '../layers/types.ts'
import { chainIdsOf, decodeConfig } from './config.ts'
import { noSuchImage } from './context.ts'
import type { ImageContext } from './context.ts'
import { familiarString, fullName, parseReference, storedForm, tagNameOnly } from './reference.ts'
import type { Reference } from './reference.ts'
import type { RepositoryNames } from './repositories.ts'
import type { ImageUser, RemovedItem, RemoveOptions } from './types.ts'

interface Conflict {
  readonly hard: boolean
  /** A container uses the image. */
  readonly used: boolean
  readonly message: string
}

/** What was decided under the lock, and what is left to do outside it. */
interface Removal {
  readonly items: RemovedItem[]
  /** The top layers of images that are gone, each beside the place in `items` behind which its layers are listed. */
  readonly layers: { readonly chainId: ChainId; readonly after: number }[]
}

export async function removeImage(context: ImageContext, text: string, options: RemoveOptions): Promise<RemovedItem[]> {
  context.mustWrite('remove images')
  const { force = false, noPrune = false } = options
  const users = new Map<Digest, ImageUser[]>()
  const removal: Removal = { items: [], layers: [] }
  let failure: unknown
  await context.layers.locked(async () => {
    const imageId = context.resolve(text)
    for (let id: Digest | undefined = imageId; id !== undefined && !users.has(id); id = context.db.parent(id)) users.set(id, await context.usersOf(id))
    const remover = new Remover(context, users, removal)
    // What went before a failure is gone, and its layers must follow.
    try {
      await remover.remove(text, imageId, force, !noPrune)
    } catch (error) {
      failure = error
    }
  })
  const layers: { after: number; removed: Layer[] }[] = []
  for (const { chainId, after } of removal.layers) layers.push({ after, removed: await context.layers.release(chainId) })
  if (failure !== undefined) throw failure
  return removal.items.flatMap((item, i) =>
    [item, ...layers.filter(({ after }) => after === i).flatMap(({ removed }) => removed.map(layer => ({ deleted: layer.chainId })))])
}

class Remover {
  readonly #context: ImageContext
  readonly #users: ReadonlyMap<Digest, readonly ImageUser[]>
  readonly #removal: Removal

  constructor(context: ImageContext, users: ReadonlyMap<Digest, readonly ImageUser[]>, removal: Removal) {
    this.#context = context
    this.#users = users
    this.#removal = removal
  }

  async remove(text: string, imageId: Digest, force: boolean, prune: boolean): Promise<void> {
    const references = this.#names().of(imageId)
    if (isIdPrefix(imageId, text)) {
      if (isSingle(references)) {
        this.#check(imageId, { force, ignoreNames: true })
        await this.#untag(references)
      }
      return await this.#delete(imageId, { force, prune, quiet: false })
    }
    const user = this.#users.get(imageId)?.[0]
    if (!force && user !== undefined && isSingle(references)) {
      throw new StorageError('IN_USE', `conflict: unable to remove repository reference ${JSON.stringify(text)} (must force) - container `
        + `${user.containerId.slice(0, 12)} is using its referenced image ${short(imageId)}`, { key: text, hint: 'remove the container first, or force' })
    }
    const ref = storedForm(parseReference(text))
    await this.#untag([ref])
    let rest = this.#names().of(imageId)
    if (ref.digest === undefined && !rest.some(other => other.digest === undefined && fullName(other) === fullName(ref))) {
      // With the last tag of a repository its digests go too.
      await this.#untag(rest.filter(other => fullName(other) === fullName(ref)))
      rest = this.#names().of(imageId)
    }
    if (rest.length === 0) await this.#delete(imageId, { force, prune, quiet: true })
  }

  #names(): RepositoryNames {
    return this.#context.repositories.read()
  }

  async #untag(references: readonly Reference[]): Promise<void> {
    if (references.length === 0) return
    await this.#context.repositories.change(names => { for (const ref of references) names.delete(ref) })
    for (const ref of references) this.#removal.items.push({ untagged: familiarString(ref) })
  }

  #conflict(imageId: Digest, force: boolean, ignoreNames: boolean): Conflict | undefined {
    const users = this.#users.get(imageId) ?? []
    const running = users.find(user => user.running), stopped = users.find(user => !user.running)
    if (this.#context.db.children(imageId).length > 0) return { hard: true, used: false, message: 'image has dependent child images' }
    if (running !== undefined) return { hard: true, used: true, message: `image is being used by running container ${running.containerId.slice(0, 12)}` }
    if (force) return undefined
    if (!ignoreNames && this.#names().of(imageId).length > 1) return { hard: false, used: false, message: 'image is referenced in multiple repositories' }
    if (stopped !== undefined) return { hard: false, used: true, message: `image is being used by stopped container ${stopped.containerId.slice(0, 12)}` }
    return undefined
  }

  #check(imageId: Digest, { force, ignoreNames }: { force: boolean; ignoreNames: boolean }): void {
    const conflict = this.#conflict(imageId, force, ignoreNames)
    if (conflict !== undefined) throw conflictError(imageId, conflict)
  }

  async #delete(imageId: Digest, { force, prune, quiet }: { force: boolean; prune: boolean; quiet: boolean }): Promise<void> {
    const { db } = this.#context
    const conflict = this.#conflict(imageId, force, false)
    if (conflict !== undefined) {
      // After the last name went, an image in use or with a name stays without a word; one that nobody needs must be heard of.
      const dangling = this.#names().of(imageId).length === 0 && db.children(imageId).length === 0
      if (quiet && (!dangling || conflict.used)) return
      throw conflictError(imageId, conflict)
    }
    const parent = db.parent(imageId)
    const bytes = db.readUnchecked(imageId)
    await this.#untag(this.#names().of(imageId))
    await db.delete(imageId)
    const after = this.#removal.items.push({ deleted: imageId }) - 1
    const top = bytes === undefined ? undefined : topLayer(bytes)
    if (top !== undefined) this.#removal.layers.push({ chainId: top, after })
    if (prune && parent !== undefined && db.has(parent) && this.#names().of(parent).length === 0) {
      await this.#delete(parent, { force: false, prune: true, quiet: true })
    }
  }
}

/** A damaged config cannot say; its layers are then found by `check`. */
function topLayer(bytes: Buffer): ChainId | undefined {
  try {
    return chainIdsOf(decodeConfig(bytes).diffIds).at(-1)
  } catch (error) {
    if (StorageError.is(error, 'INVALID_ARCHIVE')) return undefined
    throw error
  }
}

function conflictError(imageId: Digest, { hard, message }: Conflict): StorageError {
  return new StorageError('IN_USE', `conflict: unable to delete ${short(imageId)} (${hard ? 'cannot be forced' : 'must be forced'}) - ${message}`,
    { key: imageId, ...(hard ? {} : { hint: 'force the removal' }) })
}

function short(imageId: Digest): string {
  return hexOf(imageId).slice(0, 12)
}

function isIdPrefix(imageId: Digest, text: string): boolean {
  return imageId.startsWith(text) || hexOf(imageId).startsWith(text)
}

/** One tag or none, with digests of no other repository beside it: then the image goes with it. */
function isSingle(references: readonly Reference[]): boolean {
  if (references.length <= 1) return true
  const tags = references.filter(ref => ref.digest === undefined)
  if (tags.length > 1) return false
  const digestNames = new Set(references.filter(ref => ref.digest !== undefined).map(fullName))
  return digestNames.size === 1 && digestNames.has(fullName(tags[0] ?? references[0] as Reference))
}

export async function untagImage(context: ImageContext, text: string): Promise<void> {
  context.mustWrite('remove names')
  const ref = parseReference(text)
  const found = await context.layers.locked(() => context.repositories.change(names => names.delete(ref)))
  if (!found) throw noSuchImage(familiarString(tagNameOnly(ref)))
}
