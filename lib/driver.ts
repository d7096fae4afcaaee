// The driver contract: what a storage driver must offer, and nothing that the library can do once for all drivers.
// Drivers import this file, lib/fs and lib/sys; they never import the stores above them.

import type { Code } from './errors.ts'
import type { LayerId } from './ids.ts'

/** A mount described, not performed. Fields as in containerd's types.Mount and in mount(2). */
export interface Mount {
  /** `overlay`, `bind`, `btrfs`, `aufs`, … */
  readonly type: string
  readonly source: string
  /** Path inside the mounted tree, for mounts beside the root. Empty or absent for the root itself. */
  readonly target?: string
  readonly options: readonly string[]
}

/**
 * How a deletion is written down in a branch. `overlay`: 0:0 devices and the opaque xattr. `aufs`: files named `.wh.NAME`, and `.wh..wh..opq`. `fuse-overlayfs`
 * writes either, as it may, and keeps files of both kinds; layers are applied to it as to overlay.
 */
export type WhiteoutFormat = 'overlay' | 'aufs' | 'fuse-overlayfs'

/** Where a layer's content lies, so that lib/diff can apply and read it without mounting. */
export type LayerContent =
  | {
      /** The layer's own changes only; what is below is in `lowers`. */
      readonly kind: 'branch'
      readonly path: string
      readonly whiteouts: WhiteoutFormat
      /** Overlay keeps its marks under `trusted.overlay.` or, in a user namespace, `user.overlay.`. */
      readonly xattrPrefix: 'trusted.overlay.' | 'user.overlay.'
      /** The branches below, nearest first. */
      readonly lowers: readonly string[]
    }
  | {
      /** The complete tree, parents included; a deletion is an absence. */
      readonly kind: 'tree'
      readonly path: string
      /** The parent's complete tree, to compare with. */
      readonly parentPath?: string
    }

/** What a driver can do on this machine, decided once by `probe()`. It gates the conformance suite and fills the README's table. */
export interface Supports {
  /** `mounts()` describes kernel mounts; false: the layer is a plain directory, bound. */
  readonly nativeMounts: boolean
  /** Layers are extracted independently of their parents, several at once. */
  readonly independentLayers: boolean
  /** Most layers that one mount can carry, the writable one not counted. */
  readonly maxDepth: number
  /** A size limit per writable layer (`size`). */
  readonly quota: boolean
  /** Owners, devices and every xattr are kept as they are; false without privileges, where they are noted in xattrs. */
  readonly ownership: boolean
}

export interface CreateOptions {
  /** Absent for a base layer. Must exist. */
  readonly parent?: LayerId
  /** A container layer rather than an image layer. Default false. */
  readonly writable?: boolean
  /** Driver options of this layer, e.g. `{ size: '10G' }`. An unknown key is INVALID_ARGUMENT. */
  readonly storageOptions?: Readonly<Record<string, string>>
}

/** Disk use of one layer alone, parents not counted. */
export interface Usage {
  /** Allocated bytes (blocks × 512), each inode once. */
  readonly sizeBytes: number
  readonly inodes: number
}

/** One line of `docker info`'s storage status, in the driver's order. */
export type StatusEntry = readonly [key: string, value: string]

export interface Change {
  readonly kind: 'A' | 'C' | 'D'
  /** Bytes, starting with `/`. */
  readonly path: Buffer
}

/** What can be wrong in a driver's home; the words are those of `FindingKind`. */
export type HomeProblemKind = 'content-missing' | 'link-missing' | 'link-wrong' | 'link-file-damaged' | 'lower-damaged' | 'layer-incomplete' | 'link-dangling' | 'half-made' | 'half-removed' | 'stray'

/** Something in a driver's home that is not as the driver, or dockerd's, leaves it. */
export interface HomeProblem {
  readonly kind: HomeProblemKind
  /** The layer's id, or the name in the home. */
  readonly subject: string
  readonly path: string
  /** A sentence. */
  readonly reason: string
  /** What `mend` would do, as a sentence; absent with it, where nothing is certain to be right. */
  readonly repair?: string
  /** Looks again before it acts, and does nothing where the problem has gone. @throws FAILED_PRECONDITION while another problem stands in the way */
  readonly mend?: () => void | Promise<void>
}

/** What the catalogues know, for `inspect`. */
export interface HomeFacts {
  /** Every layer that a catalogue names, with the layer below; undefined for a base; null where the catalogue is damaged and cannot say. */
  readonly parents: ReadonlyMap<LayerId, LayerId | undefined | null>
  /** Somebody makes or removes it at this moment. */
  busy(id: LayerId): boolean
}

/** A name below a folder, and whether it is a folder itself. */
export interface KnownEntry {
  readonly name: string
  readonly isDirectory: boolean
}

export interface Driver {
  readonly name: string
  readonly supports: Supports
  /**
   * Lay out an empty layer on `parent`. The id is new: an existing one is ALREADY_EXISTS, never adopted.
   * A failure leaves nothing of the id behind.
   * @throws ALREADY_EXISTS, NOT_FOUND (parent), INVALID_ARGUMENT (options), LIMIT_EXCEEDED (depth)
   */
  create(id: LayerId, options?: CreateOptions): Promise<void>
  /** Describe the mounts that show the layer; nothing is mounted here. Same input, same answer. @throws NOT_FOUND */
  mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]>
  /** Where the layer's content lies. `own`: the caller asks for its own folder alone, and a branch's `lowers` may be left out. @throws NOT_FOUND */
  content(id: LayerId, own?: boolean): Promise<LayerContent>
  /**
   * The folder of the layer's own in which a mount of it may be performed (overlay2: `<id>/merged`), or, for a driver whose
   * layers are plain directories, undefined: then `mounts()` gives one bind whose source is used as it is.
   */
  mountpoint?(id: LayerId): string
  /** Those folders belong to the layout, made by `create`; otherwise they are made for a mount and removed after it. Default false. */
  readonly keepsMountpoints?: boolean
  /** A mount of the layer at `target` is about to be taken down: write out what the file system keeps back until then. Never throws for its failure. */
  unmounting?(id: LayerId, target: string): void
  /**
   * Where the file system can tell, for a complete tree: the names, bytes below the root without a leading slash, outside which the layer does not
   * differ from `content().parentPath`. May name more than differs, never less; the library compares what is named, so that a diff costs what
   * changed and not what exists. Undefined: it cannot tell this time, and two whole trees are compared.
   */
  changedPaths?(id: LayerId): Promise<readonly Buffer[] | undefined>
  /** Idempotent: resolves when nothing of the layer is left. `holds`: what most probably is all that lies in it, which spares a look; parents first. */
  remove(id: LayerId, holds?: readonly KnownEntry[]): Promise<void>
  exists(id: LayerId): Promise<boolean>
  list(): AsyncIterable<LayerId>
  /**
   * Look the home over, for `check`: what of the layout is missing, wrong, half made or left over. Reads only, and never throws for damage. Layers that no
   * catalogue names are not its business, `list()` tells them.
   */
  inspect?(facts: HomeFacts): Iterable<HomeProblem>
  usage(id: LayerId): Promise<Usage>
  status(): Promise<readonly StatusEntry[]>
  /** What `docker inspect` shows under GraphDriver.Data, e.g. UpperDir and LowerDir for overlay2. */
  metadata(id: LayerId): Promise<Readonly<Record<string, string>>>
  close(): Promise<void>
}

export type ProbeFailure = Extract<Code, 'NOT_SUPPORTED' | 'PREREQUISITE_MISSING' | 'INCOMPATIBLE_FILESYSTEM'>

export type ProbeResult =
  | { readonly ok: true; readonly supports: Supports }
  | { readonly ok: false; readonly code: ProbeFailure; readonly reason: string; readonly hint: string }

export interface OpenDriverOptions<Options> {
  /** The driver's home, e.g. `/var/lib/docker/overlay2`; made when it is missing, unless `readOnly`. */
  readonly home: string
  readonly options: Options
  readonly readOnly?: boolean
  /**
   * Sync what makes a new layer findable before `create` resolves. Default true. False where the data root's durability is less than `full`: on
   * ext4 these syncs are more than half of what it costs to prepare a snapshot.
   */
  readonly durable?: boolean
}

export interface DriverModule<Options = unknown> {
  readonly name: string
  /**
   * Can the driver work with its home at `home` (which may not exist yet)? Decided by trying. Leaves nothing behind and never throws for
   * "not here".
   */
  probe(home: string): Promise<ProbeResult>
  /** Parse `--storage-opt` pairs such as `overlay2.size=10G`. @throws INVALID_ARGUMENT for a key that is not the driver's. */
  parseOptions(pairs: readonly string[]): Options
  open(options: OpenDriverOptions<Options>): Promise<Driver>
}

/** A driver that is loaded when somebody has to know more than its name. */
export interface DriverSource {
  readonly name: string
  load(): Promise<DriverModule>
}

export async function driverModule(driver: DriverModule | DriverSource): Promise<DriverModule> {
  return 'load' in driver ? await driver.load() : driver
}

/** Type a driver module without losing its options' type. */
export function defineDriver<Options>(module: DriverModule<Options>): DriverModule<Options> {
  return module
}
