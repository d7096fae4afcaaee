// What the layer store offers to the stores above it. Types only.

import type { FileRange } from '../diff/index.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import type { ArchiveLimits, TarLimits } from '../tar/types.ts'

/** One registered layer, as layerdb has it. */
export interface Layer {
  readonly chainId: ChainId
  readonly diffId: Digest
  readonly parent?: ChainId
  /** The driver's id of it (Docker's cache-id). */
  readonly cacheId: LayerId
  /** Docker's layer size: apparent bytes of this layer's files, each inode once. */
  readonly sizeBytes: number
}

/** Where a layer's tar comes from: a part of an open file (fastest: threads read it themselves) or a stream. Compressed or not; `plain`: known to be not. */
export type LayerSource = { readonly file: FileRange } | { readonly stream: AsyncIterable<Uint8Array>; readonly plain?: boolean }

export interface StageRequest {
  readonly source: LayerSource
  /** Bytes taken from the source so far. */
  readonly onProgress?: (bytes: number) => void
}

export interface LayerToRegister extends StageRequest {
  /** The diffID that the image's config promises; the layer is refused when its tar has another. Absent: whatever comes. */
  readonly diffId?: Digest
  /** The digest of the blob as it is stored (compressed), where the archive promises one. */
  readonly blobDigest?: Digest
  /** What messages call it. */
  readonly label?: string
  /** What is accepted of its tar. Default: what the data root was opened with. */
  readonly limits?: TarLimits
}

export interface RegisteredLayer extends Layer {
  /** False when the layer was there already and its source was not read. */
  readonly fresh: boolean
  /** Bytes of the uncompressed tar; absent when it was not read. */
  readonly tarBytes?: number
  readonly blobDigest?: Digest
  readonly blobBytes?: number
  /** Things of the layer that could not be kept (owners without privileges, reserved xattrs), counted. */
  readonly skippedCount: number
  readonly skipped: readonly { readonly path: string; readonly what: string; readonly reason: string }[]
}

/** An operation under way: what it made is rolled back unless it is finished; what it uses cannot be removed meanwhile. */
export interface Operation {
  readonly name: string
  readonly signal: AbortSignal | undefined
  /** Name a temporary path that is removed when the operation ends, however it ends. */
  temporary(path: string): Promise<void>
  /** Keep the layer, and so its parents, from being removed until the operation ends. */
  hold(chainId: ChainId): Promise<void>
  /**
   * Say that something is about to stop referring to the layer: when the operation ends, or after a crash, the layer and its parents go as far as
   * nothing else refers to them.
   */
  letGo(chainId: ChainId): Promise<void>
  /**
   * Say, before it is done, what a store above the layers is about to make or remove: unless the operation succeeds, whatever comes to pass, the handler that
   * `addUndo` has for this kind is given the value. Neither holds a newline. `letGo`: as the method of that name, in the same write.
   */
  undo(kind: string, value: string, letGo?: ChainId): Promise<void>
}

/** Undo, or finish, what an operation that failed or was killed has left of `value`, if anything. May be called twice, and when nothing was done. */
export type Undo = (value: string) => Promise<void>

export interface WriteTarOptions {
  readonly signal?: AbortSignal | undefined
  /** Bytes written so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined
}

export interface LayerStore {
  /**
   * Run `work` as one operation under the crash protocol: an intent names what is being made; a failure or a crash rolls back what was not published.
   * Layers that `work` registered and nobody refers to afterwards are removed again.
   */
  operation<T>(name: string, work: (operation: Operation) => Promise<T>, signal?: AbortSignal): Promise<T>
  /**
   * Register layers on top of `parent`, bottom first: those that exist are not read; the others are extracted in threads, several at once where
   * the driver's layers are independent, verified, synced as the durability says, and published in order.
   * @throws DIGEST_MISMATCH `invalid diffID for layer N: expected "…", got "…"`, LIMIT_EXCEEDED, INVALID_ARCHIVE, …
   */
  register(operation: Operation, layers: readonly LayerToRegister[], parent?: ChainId): Promise<RegisteredLayer[]>
  /** @throws NOT_FOUND, CORRUPT */
  get(chainId: ChainId): Promise<Layer>
  find(chainId: ChainId): Promise<Layer | undefined>
  list(): AsyncIterable<Layer>
  /** The layer and its parents, topmost first. */
  chain(chainId: ChainId): Promise<Layer[]>
  /** The layer's tar, bit for bit as it was registered, verified at the end. @throws CORRUPT */
  tar(chainId: ChainId, options?: { readonly signal?: AbortSignal }): AsyncGenerator<Buffer>
  /**
   * The same, written by a thread to a regular file that is open for writing, from `offset` on. Returns its length. After a failure the thread has
   * done with the descriptor, and what it wrote is to be thrown away. @throws as `tar`; NO_SPACE, ABORTED
   */
  writeTar(chainId: ChainId, to: { readonly fd: number; readonly offset: number }, options?: WriteTarOptions): Promise<number>
  /** Remove the layer and then its parents, as far as nothing refers to them any more. Returns what was removed, topmost first. */
  release(chainId: ChainId): Promise<Layer[]>
  /** Run `work` while no other process changes the store's catalogue. Keep it short: no extraction, no deletion of trees. */
  locked<T>(work: () => Promise<T>): Promise<T>
  /** Tell who else refers to layers: asked, under the lock, before any is removed. */
  addReferences(source: () => AsyncIterable<ChainId> | Promise<Iterable<ChainId>>): void
  /** Say how `Operation.undo` of this kind is settled; before `recover`. */
  addUndo(kind: string, handler: Undo): void
}

/** Where things lie in a data root, and how carefully they are written. */
export interface DataRoot {
  /** Absolute. */
  readonly path: string
  /** The driver's name, which is part of most paths. */
  readonly driverName: string
  readonly readOnly: boolean
  /** Why, when nobody asked for it: told to whoever wants to write. */
  readonly readOnlyReason?: string
  /**
   * `full` (default): data and directories are on disk before anything becomes visible. `metadata`: the catalogue's files are synced, the
   * layers' data is not. `none`: nothing is synced.
   */
  readonly durability: Durability
  /** What is accepted from archives. Default: the defaults of ArchiveLimits. */
  readonly limits?: ArchiveLimits
}

export type Durability = 'full' | 'metadata' | 'none'
