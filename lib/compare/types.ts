// The shapes of the layer-diff tools: where trees come from, what one entry says, an image analysed layer by layer. Types only.

import type { ChainId, Digest } from '../ids.ts'
import type { ImageConfig } from '../images/index.ts'
import type { EntryType } from '../tar/types.ts'

/** What a source turned out to be. `tar` is one layer's or root file system's tar by itself. */
export type SourceKind = 'image' | 'container' | 'layer' | 'docker-archive' | 'oci' | 'tar' | 'directory'

/**
 * One path of a layer as its tar tells it: no content. A whiteout and an opaque mark are entries with a
 * `mark` whose `path` is what they hide, without the `.wh.` name.
 */
export interface LayerEntry {
  /** Bytes, cleaned: no slash at either end, no `.` or `..`. Empty for the root. May not be UTF-8. */
  readonly path: Buffer
  /** `whiteout`: the path is deleted. `opaque`: what lower layers have below this directory is hidden. Absent for an ordinary entry. */
  readonly mark?: 'whiteout' | 'opaque'
  readonly type: EntryType
  /** 0 to 0o7777. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly uname: string
  readonly gname: string
  /** Bytes of content, holes counted; 0 for what is not a file, also for a hard link. */
  readonly sizeBytes: number
  readonly mtimeNs: bigint
  /** A symlink's text, or the cleaned path of a hard link's target. Empty for others. */
  readonly linkname: Buffer
  readonly devMajor: number
  readonly devMinor: number
  readonly xattrs?: ReadonlyMap<string, Buffer>
  /**
   * Digest of a file's content where digests were asked for: `sha256:…` of the bytes; `sha256-blocks:…` for files over 256 MiB (see `digest.ts`), so that
   * holes cost nothing. Equal contents have equal digests, stored sparse or not.
   */
  readonly digest?: string
}

export interface EntriesOptions {
  /** Read the files' content and give its digest. Default false: content is passed over. */
  readonly digests?: boolean
  readonly signal?: AbortSignal
  /** Bytes of the layer's (uncompressed) tar read so far. */
  readonly onProgress?: (bytes: number) => void
}

/** One layer of a source. */
export interface SourceLayer {
  /** 0 is the base. */
  readonly index: number
  /** Absent for a directory and a container's own layer, whose tar is made as it is read. */
  readonly diffId?: Digest
  readonly chainId?: ChainId
  /** The step of the history that made it (`created_by`); empty when there is none. */
  readonly command: string
  /** RFC 3339. */
  readonly created?: string
  readonly comment?: string
  /** Bytes that the layer takes in its archive, compressed or not; absent where it has none. */
  readonly storedBytes?: number
  /** Bytes of the uncompressed tar, where they are known without reading it. */
  readonly tarBytes?: number
  /** The layer's uncompressed tar. May be asked for again and again, one at a time or several. @throws INVALID_ARCHIVE, CORRUPT, … */
  tar(options?: { readonly signal?: AbortSignal }): AsyncGenerator<Buffer, void, undefined>
  /** Its entries in the archive's order, streamed. @throws INVALID_ARCHIVE, CORRUPT, ABORTED, … */
  entries(options?: EntriesOptions): AsyncGenerator<LayerEntry, void, undefined>
}

/** An image, a container, a layer or a directory, opened for reading. Close it: it may hold descriptors, and a file in the temporary directory. */
export interface ImageSource extends AsyncDisposable {
  /** What messages call it. */
  readonly name: string
  readonly kind: SourceKind
  /** Digest of the config; absent for what is no image. */
  readonly imageId?: Digest
  readonly config?: ImageConfig
  readonly configBytes?: Buffer
  /** Names in familiar form. */
  readonly references: readonly string[]
  /** Base first. */
  readonly layers: readonly SourceLayer[]
  close(): Promise<void>
}

/** In which ways two entries of one path differ. */
export type Aspect = 'type' | 'content' | 'size' | 'mode' | 'owner' | 'xattr' | 'time' | 'link' | 'device' | 'name'

/** What one layer does to one path of the merged tree. */
export interface PathVersion {
  /** Index of the layer. */
  readonly layer: number
  /** `unmodified`: the layer has the path again, as it was (times aside, as in dive; without digests a file of the same size counts as modified). */
  readonly change: 'added' | 'modified' | 'unmodified' | 'removed'
  /** For `modified` and `unmodified`: all that differs from the version below, times included. */
  readonly aspects?: readonly Aspect[]
  /** Absent for `removed`, and for a directory that has no entry of its own in the layer. */
  readonly entry?: LayerEntry
  /** For `removed`: not named itself, gone with a directory above it (a whiteout or opaque mark there, or another type in its place). */
  readonly implied?: boolean
}

/** What stands behind a name: hard links share one, by identity. */
export interface Inode {
  /** The entry that made it; never of type `link`, but for a link whose target is not there. */
  readonly entry: LayerEntry
  readonly layer: number
}

/** A path of the merged tree, also one that the image no longer shows. */
export interface MergedNode {
  /** The last component; empty for the root. Bytes. */
  readonly name: Buffer
  /** By name as latin1 (one character a byte), in no order. */
  readonly children: ReadonlyMap<string, MergedNode>
  /** What the layers say about it, base first; at least one but for the root. */
  readonly versions: readonly PathVersion[]
  /** What the image shows; absent when the path is gone (and for directories that no layer has an entry of). */
  readonly entry?: LayerEntry
  /** The inode that it names; absent where `entry` is. For a hard link it is its target's. */
  readonly inode?: Inode
  /** False when the path is gone from the image. */
  readonly present: boolean
}

export interface AnalyzedLayer {
  readonly index: number
  readonly diffId?: Digest
  readonly chainId?: ChainId
  readonly command: string
  readonly created?: string
  /** Sum of its files' sizes, as dive and `docker history` show. */
  readonly sizeBytes: number
  readonly storedBytes?: number
  /** Entries of its tar, marks included. */
  readonly entries: number
  readonly added: number
  readonly modified: number
  readonly unmodified: number
  /** Paths removed, those that went with a directory included. */
  readonly removed: number
  /** Bytes of files of this layer that later layers replaced or removed. */
  readonly hiddenBytes: number
  /** Bytes of files of lower layers that this one replaced or removed: what putting it together with them would save. */
  readonly hidesBytes: number
  /** What making one layer of this and all above it would save. */
  readonly squashSavesBytes: number
}

/** A path that costs more than once (dive's inefficiencies). */
export interface WastedPath {
  /** Bytes, without a leading slash. */
  readonly path: Buffer
  /** How often layers name it, deletions included. */
  readonly count: number
  /** All its copies together; a deleted directory counts what it held. */
  readonly sizeBytes: number
  /** The layers that name it. */
  readonly layers: readonly number[]
}

/** dive's figures of an image. */
export interface Efficiency {
  /** 0 to 1: the smallest sizes of all paths over all their sizes. 1 for an image without bytes. */
  readonly efficiency: number
  /** Sum of all layers' sizes. */
  readonly sizeBytes: number
  /** The same without the base layer. */
  readonly userSizeBytes: number
  readonly wastedBytes: number
  /** wastedBytes / userSizeBytes, a ratio, not bounded by 1; NaN for 0/0 as in dive. */
  readonly wastedUserPercent: number
  /** Most bytes first, then by path. */
  readonly wasted: readonly WastedPath[]
}

export interface ImageAnalysis extends Efficiency {
  readonly name: string
  readonly kind: SourceKind
  readonly imageId?: Digest
  readonly references: readonly string[]
  readonly config?: ImageConfig
  readonly layers: readonly AnalyzedLayer[]
  /** The root of the merged tree. */
  readonly tree: MergedNode
  /** Bytes of files that the image shows, each inode once. */
  readonly visibleBytes: number
}
