// Removing names and images: Docker's rules of what may go, in what order, and what is said (moby daemon/images/image_delete.go).

import { StorageError } from '../errors.ts'
import { hexOf } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import type { Operation } from '../layers/types.ts'
import { chainIdsOf, decodeConfig } from './config.ts'
import { noSuchImage, undoForced, undoImage } from './context.ts'
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

export async function removeImage(context: ImageContext, text: string, options: RemoveOptions): Promise<RemovedItem[]> {
  context.mustWrite('remove images')
  const { force = false, noPrune = false } = options
  return await context.layers.operation('remove-image', async operation => {
    const items: RemovedItem[] = []
    const remover = new Remover(context, operation, items, noPrune)
    // One image after the other, each under the lock, and its layers after it: Docker's order, and the lock is never held for a deletion of trees.
    let gone = await context.layers.locked(() => remover.remove(text, force))
    while (gone !== undefined) {
      const { top, parent } = gone
      if (top !== undefined) for (const layer of await context.layers.release(top)) items.push({ deleted: layer.chainId })
      gone = noPrune || parent === undefined ? undefined : await context.layers.locked(() => remover.prune(parent))
    }
    return items
  })
}

/** An image that was removed: what is to follow. */
interface Gone {
  readonly top: ChainId | undefined
  readonly parent: Digest | undefined
}

/** Its methods are called with the lock held. */
class Remover {
  readonly #context: ImageContext
  readonly #operation: Operation
  readonly #items: RemovedItem[]
  readonly #noPrune: boolean

  constructor(context: ImageContext, operation: Operation, items: RemovedItem[], noPrune: boolean) {
    this.#noPrune = noPrune
    this.#context = context
    this.#operation = operation
    this.#items = items
  }

  async remove(text: string, force: boolean): Promise<Gone | undefined> {
    const imageId = this.#context.resolve(text)
    const users = await this.#context.usersOf(imageId)
    const references = this.#names().of(imageId)
    if (isIdPrefix(imageId, text)) {
      if (isSingle(references)) {
        const conflict = this.#conflict(imageId, users, { force, ignoreNames: true })
        if (conflict !== undefined) throw conflictError(imageId, conflict)
        await this.#announce(imageId, force)
        await this.#untag(references)
      } else await this.#announce(imageId, force)
      return await this.#delete(imageId, users, { force, quiet: false })
    }
    const [user] = users
    if (!force && user !== undefined && isSingle(references)) {
      throw new StorageError('IN_USE', `conflict: unable to remove repository reference ${JSON.stringify(text)} (must force) - container `
        + `${user.containerId.slice(0, 12)} is using its referenced image ${short(imageId)}`, { key: text, hint: 'remove the container first, or force' })
    }
    const ref = storedForm(parseReference(text))
    await this.#announce(imageId, force)
    await this.#untag([ref])
    let rest = this.#names().of(imageId)
    if (ref.digest === undefined && !rest.some(other => other.digest === undefined && fullName(other) === fullName(ref))) {
      // With the last tag of a repository its digests go too.
      await this.#untag(rest.filter(other => fullName(other) === fullName(ref)))
      rest = this.#names().of(imageId)
    }
    return rest.length === 0 ? await this.#delete(imageId, users, { force, quiet: true }) : undefined
  }

  /** Remove a parent that nothing needs any more. */
  async prune(imageId: Digest): Promise<Gone | undefined> {
    if (!this.#context.db.has(imageId)) return undefined
    return await this.#delete(imageId, await this.#context.usersOf(imageId), { force: false, quiet: true })
  }

  /**
   * Before anything is changed: a crash on the way must leave neither an image that has lost its names, nor layers that no image names (moby never finds
   * those again). What keeps its names, or is needed, stays whatever is announced.
   */
  async #announce(imageId: Digest, force: boolean): Promise<void> {
    for (let next: Digest | undefined = imageId; next !== undefined && this.#context.db.has(next); next = this.#noPrune ? undefined : this.#context.db.parent(next)) {
      await this.#operation.undo(force && next === imageId ? undoForced : undoImage, next, this.#topOf(next))
    }
  }

  #topOf(imageId: Digest): ChainId | undefined {
    const bytes = this.#context.db.readUnchecked(imageId)
    return bytes === undefined ? undefined : topLayer(bytes)
  }

  #names(): RepositoryNames {
    return this.#context.repositories.read()
  }

  async #untag(references: readonly Reference[]): Promise<void> {
    if (references.length === 0) return
    await this.#context.repositories.change(names => { for (const ref of references) names.delete(ref) })
    for (const ref of references) this.#items.push({ untagged: familiarString(ref) })
  }

  #conflict(imageId: Digest, users: readonly ImageUser[], { force, ignoreNames }: { force: boolean; ignoreNames: boolean }): Conflict | undefined {
    const running = users.find(user => user.running), stopped = users.find(user => !user.running)
    if (this.#context.db.children(imageId).length > 0) return { hard: true, used: false, message: 'image has dependent child images' }
    if (running !== undefined) return { hard: true, used: true, message: `image is being used by running container ${running.containerId.slice(0, 12)}` }
    if (force) return undefined
    if (!ignoreNames && this.#names().of(imageId).length > 0) return { hard: false, used: false, message: 'image is referenced in multiple repositories' }
    if (stopped !== undefined) return { hard: false, used: true, message: `image is being used by stopped container ${stopped.containerId.slice(0, 12)}` }
    return undefined
  }

  async #delete(imageId: Digest, users: readonly ImageUser[], { force, quiet }: { force: boolean; quiet: boolean }): Promise<Gone | undefined> {
    const { db } = this.#context
    const conflict = this.#conflict(imageId, users, { force, ignoreNames: false })
    if (conflict !== undefined) {
      // After the last name went, an image in use or with a name stays without a word; one that nobody needs must be heard of.
      const dangling = this.#names().of(imageId).length === 0 && db.children(imageId).length === 0
      if (quiet && (!dangling || conflict.used)) return undefined
      throw conflictError(imageId, conflict)
    }
    const parent = db.parent(imageId), top = this.#topOf(imageId)
    await this.#untag(this.#names().of(imageId))
    await db.delete(imageId)
    this.#items.push({ deleted: imageId })
    return { parent, top }
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
