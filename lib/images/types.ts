// What the image store offers. Types only.

import type { StorageError } from '../errors.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import type { DataRoot, Layer, LayerStore, Operation, RegisteredLayer } from '../layers/types.ts'
import type { ArchiveLimits, TarLimits } from '../tar/types.ts'
import type { ArchiveSource } from './archive.ts'
import type { ImageConfig } from './config.ts'

export interface ImageStoreOptions {
  readonly root: DataRoot
  readonly layers: LayerStore
  /** What the driver says about a layer of its own, for `inspect`. */
  readonly layerMetadata?: (id: LayerId) => Promise<Readonly<Record<string, string>>>
}

/** An image as the store has it. */
export interface ImageRecord {
  /** sha256 of the config's bytes. */
  readonly id: Digest
  readonly config: ImageConfig
  readonly configBytes: Buffer
  /** Names in familiar form, sorted: tags and digests. */
  readonly references: readonly string[]
  /** The image that this one was made from here, where that is known. */
  readonly parent?: Digest
  /** Chain ids, base first. */
  readonly layers: readonly ChainId[]
  /** RFC 3339. */
  readonly created?: string
  /** Sum of its layers' sizes: apparent bytes of files, as `docker images` shows. */
  readonly sizeBytes: number
}

export type LoadProgress =
  /** A stream or a compressed archive is being written to disk: bytes so far. */
  | { readonly phase: 'spool'; readonly bytes: number }
  /** A layer is being read: bytes taken of those that it has in the archive. */
  | { readonly phase: 'layer'; readonly diffId: Digest; readonly bytes: number; readonly totalBytes: number }
  /** All layers of an image are there. */
  | { readonly phase: 'image'; readonly imageId: Digest; readonly references: readonly string[] }

export interface LoadOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: LoadProgress) => void
  /** Do not report progress even when `onProgress` is there. */
  readonly quiet?: boolean
  /** `os/architecture[/variant]`. Default: of an OCI index with several, the one for this machine. */
  readonly platform?: string
  /** Repository for OCI images that are named by a tag alone (`org.opencontainers.image.ref.name` = `1.0`). Default: they stay without a name. */
  readonly name?: string
  /** What is accepted of the archive. Default: what the storage was opened with. */
  readonly limits?: ArchiveLimits
}

/** A name that pointed elsewhere before. */
export interface RenamedImage {
  readonly reference: string
  /** The image that the name pointed to, which may now have none. */
  readonly imageId: Digest
  /** Docker's sentence about it. */
  readonly message: string
}

export interface LoadedImage {
  readonly imageId: Digest
  /** Familiar form, in the archive's order. */
  readonly references: readonly string[]
  readonly renamed: readonly RenamedImage[]
  /** Base first. */
  readonly layers: readonly RegisteredLayer[]
  /** Things of its fresh layers that could not be kept, counted; `layers` names some of them. */
  readonly skippedCount: number
}

export interface CreateImageOptions {
  /** The operation in which the image's layers were registered. */
  readonly operation: Operation
  readonly parent?: Digest
  /** Name it in the same step; a tag that is taken moves. */
  readonly reference?: string
}

export interface ImportOptions {
  readonly reference?: string
  /** Default `Imported from -`. */
  readonly message?: string
  /** Dockerfile lines: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR, HEALTHCHECK NONE. */
  readonly changes?: readonly string[]
  /** Default: this machine's. */
  readonly platform?: string
  /** When the image was made. Default: now. */
  readonly created?: Date
  /** What is accepted of the tar. Default: what the storage was opened with. */
  readonly limits?: TarLimits
  readonly signal?: AbortSignal
  /** Bytes of the source taken so far. */
  readonly onProgress?: (bytes: number) => void
}

export interface SaveOptions {
  /** `docker`: an OCI layout with Docker's manifest.json and repositories beside it. `oci`: the layout alone. Default `docker`. */
  readonly format?: 'docker' | 'oci'
  /** Of the layers. Default `none`. */
  readonly compression?: 'none' | 'gzip' | 'zstd'
  readonly signal?: AbortSignal
}

export interface SaveToFileOptions extends SaveOptions {
  /** Bytes written so far; the layers' only, where they are not compressed. */
  readonly onProgress?: (bytes: number) => void
}

export interface ListFilter {
  /** True: only images without a tag; false: only those with one. */
  readonly dangling?: boolean
  /** Shell patterns; one must match. */
  readonly reference?: readonly string[]
  /** `KEY` or `KEY=VALUE`; all must match. */
  readonly label?: readonly string[]
  /** Images made before, or after, this one. */
  readonly before?: string
  readonly since?: string
  /** Made before this moment. */
  readonly until?: Date
}

export interface RecordsOptions {
  /** Told of images that cannot be read; they are left out. Default: the first one is thrown. */
  readonly onDamaged?: (error: StorageError) => void
  /** Layers that the caller has read already. */
  readonly layers?: Iterable<Layer>
}

export interface ListOptions {
  /** Also images without a name that others are made from. Default false. */
  readonly all?: boolean
  readonly filter?: ListFilter
  /** Told of images that cannot be read; they are left out. Default: the first one is thrown. */
  readonly onDamaged?: (error: Error) => void
}

/** One line of `docker images`, in the Docker API's words. Created is seconds since 1970; sizes are bytes, -1 when not computed. */
export interface ImageSummary {
  readonly Id: Digest
  readonly ParentId: string
  readonly RepoTags: readonly string[]
  readonly RepoDigests: readonly string[]
  readonly Created: number
  readonly Size: number
  readonly SharedSize: number
  readonly Labels: Readonly<Record<string, string>> | null
  readonly Containers: number
}

/** `docker image inspect`, in the Docker API's words. */
export interface ImageInspect {
  readonly Id: Digest
  readonly RepoTags: readonly string[]
  readonly RepoDigests: readonly string[]
  readonly Parent: string
  readonly Comment: string
  readonly Created: string
  readonly DockerVersion: string
  readonly Author: string
  readonly Config: Readonly<Record<string, unknown>>
  readonly Architecture: string
  readonly Variant?: string
  readonly Os: string
  readonly Size: number
  readonly GraphDriver: { readonly Data: Readonly<Record<string, string>> | null; readonly Name: string }
  readonly RootFS: { readonly Type: 'layers'; readonly Layers: readonly Digest[] }
  readonly Metadata: { readonly LastTagTime: string }
}

/** One line of `docker history`. Created is seconds since 1970. */
export interface HistoryItem {
  /** `<missing>` for steps that are no image here. */
  readonly Id: string
  readonly Created: number
  readonly CreatedBy: string
  readonly Tags: readonly string[] | null
  readonly Size: number
  readonly Comment: string
}

export type RemovedItem = { readonly untagged: string } | { readonly deleted: string }

export interface RemoveOptions {
  /** Also when stopped containers use it, or it has several names. Default false. */
  readonly force?: boolean
  /** Keep parents that nothing needs any more. Default false. */
  readonly noPrune?: boolean
}

/** A container that was made from an image. */
export interface ImageUser {
  readonly containerId: string
  readonly running: boolean
  readonly imageId: string
}

export type UserSource = () => AsyncIterable<ImageUser> | Promise<Iterable<ImageUser>>

/**
 * Images and their names in one data root. Safe among several processes: names are read anew before each change, under the layer store's lock.
 * Errors are StorageErrors; `NOT_FOUND` says `No such image: NAME`.
 */
export interface ImageBasis {
  readonly id: Digest
  readonly config: ImageRecord['config']
  /** The top layer; none for an image without layers. */
  readonly top: ChainId | undefined
}

export interface ImageStore {
  /**
   * Load every image of an archive: Docker's, old or since 25, or an OCI layout, as a tar (compressed or not), a directory, a stream. All or nothing:
   * a failure leaves no layer, image, name or temporary file. Layers that are there are not read.
   * @throws INVALID_ARCHIVE, DIGEST_MISMATCH, LIMIT_EXCEEDED, NOT_FOUND (file, platform), NO_SPACE, ABORTED, READ_ONLY
   */
  load(source: ArchiveSource, options?: LoadOptions): Promise<LoadedImage[]>
  /**
   * Make an image of a root file system's tar, compressed or not. Returns its id.
   * @throws INVALID_ARGUMENT (changes, reference), INVALID_ARCHIVE, …
   */
  import(source: string | number | AsyncIterable<Uint8Array>, options?: ImportOptions): Promise<Digest>
  /** Make an image from a config whose layers are registered. @throws INVALID_ARGUMENT, NOT_FOUND `failed to get layer …` */
  create(configBytes: Uint8Array, options: CreateImageOptions): Promise<Digest>
  /**
   * The images as one tar, streamed: no copy is made on disk, except of one compressed layer at a time. The same images and names give the same
   * bytes. A name without a tag stands for all tags of the repository. Stop early and everything is let go.
   * @throws NOT_FOUND, CORRUPT (a layer is not what it was), NOT_SUPPORTED (zstd before Node 22.15), ABORTED
   */
  save(references: readonly string[], options?: SaveOptions): AsyncGenerator<Buffer, void, undefined>
  /**
   * The same bytes in an empty regular file, by a descriptor that is open for writing and has no other user meanwhile; it is not closed. Uncompressed layers
   * are written by threads, several at once, which takes half of the time. After a failure what was written is to be thrown away. @throws as `save`; NO_SPACE
   */
  saveToFile(references: readonly string[], fd: number, options?: SaveToFileOptions): Promise<void>
  /** The same as files in a directory, which is made and must not exist or be empty. A failure leaves nothing. @throws also ALREADY_EXISTS */
  saveToDirectory(references: readonly string[], dir: string, options?: SaveOptions): Promise<void>
  /** By name, id, or the unique beginning of an id. @throws NOT_FOUND, INVALID_ARGUMENT (bad name, ambiguous beginning), CORRUPT */
  get(reference: string): Promise<ImageRecord>
  /** What a container is made of: no layer is read. @throws as `get` */
  basis(reference: string): Promise<ImageBasis>
  /** Only the id. @throws as `get`, but for CORRUPT */
  resolve(reference: string): Promise<Digest>
  /** Every image, each of their layers read once. @throws CORRUPT, unless `onDamaged` is there */
  records(options?: RecordsOptions): Promise<ImageRecord[]>
  /** All image ids, sorted. */
  ids(): Promise<Digest[]>
  /** Newest first. */
  list(options?: ListOptions): Promise<ImageSummary[]>
  inspect(reference: string): Promise<ImageInspect>
  /** Newest first. */
  history(reference: string): Promise<HistoryItem[]>
  /** Name an image; a tag that points elsewhere moves. Returns the name in familiar form. @throws NOT_FOUND, INVALID_ARGUMENT */
  tag(source: string, target: string): Promise<string>
  /** Remove one name and nothing else. @throws NOT_FOUND */
  untag(reference: string): Promise<void>
  /**
   * Remove a name, and the image with its last name; by id, the image with its names. What `docker rmi` does, in its order.
   * @throws NOT_FOUND, IN_USE `conflict: …`
   */
  remove(reference: string, options?: RemoveOptions): Promise<RemovedItem[]>
  /** Tell who uses images: asked before one is removed, with the store's lock held, so it must not take that lock. */
  addUsers(source: UserSource): void
}
