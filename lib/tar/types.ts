// The shapes of tar entries as the rest of the library sees them. Types only.

/** What an entry makes. `file` covers '0', NUL, '7' and GNU sparse 'S'. */
export type EntryType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo'

/** A run of stored bytes of a sparse file; what lies between runs reads as zeros. Bytes. */
export interface SparseRegion {
  readonly offset: number
  readonly length: number
}

/** One entry after GNU long names, PAX records and sparse maps have been taken into account. */
export interface TarHeader {
  /** The name's bytes as the archive has them: not cleaned, possibly absolute, possibly not UTF-8. */
  name: Buffer
  type: EntryType
  /** 0 to 0o7777. */
  mode: number
  uid: number
  gid: number
  /** Bytes of content; for a sparse file its full length, holes included. 0 for everything that is not a file. */
  sizeBytes: number
  /** Nanoseconds since 1970; negative before. */
  mtimeNs: bigint
  atimeNs?: bigint
  ctimeNs?: bigint
  /** Target of a link or symlink, bytes as in the archive. Empty for others. */
  linkname: Buffer
  uname: string
  gname: string
  devMajor: number
  devMinor: number
  /** `SCHILY.xattr.*` records (and `LIBARCHIVE.xattr.*`, decoded): name → value bytes. */
  xattrs?: ReadonlyMap<string, Buffer>
  /** Present for a sparse file: its stored runs in ascending order, none overlapping. May be empty (one hole). */
  sparse?: readonly SparseRegion[]
}

/**
 * Receives an archive as it is parsed, synchronously and in order. Every byte of the archive goes either to `raw` (headers,
 * extended headers, sparse maps, padding, end blocks, whatever follows them) or to `data`, so that a sink can rebuild it.
 */
export interface TarSink {
  raw?(bytes: Buffer): void
  entry(header: TarHeader): void
  /** Content of the current file; `offset` is the position in the file (holes of a sparse file are jumped over). Valid only during the call. */
  data(bytes: Buffer, offset: number): void
  /** The current entry is complete. */
  end(): void
  /** The two zero blocks have passed through `raw`; all that still comes goes there too, and is not interpreted. */
  endOfArchive?(): void
}

/** What is accepted of one tar before it is refused with LIMIT_EXCEEDED; the hint names the limit. All have defaults, none of which a layer of an honest image reaches. */
export interface TarLimits {
  /** Bytes of one PAX header, GNU long name or sparse map. Default 1 MiB, as Go's archive/tar. */
  readonly extendedHeaderBytes?: number
  /** Entries in one archive. Default 10,000,000. */
  readonly entries?: number
  /** Bytes of content in one archive, holes counted. Default 16 TiB, as much as the largest file of ext4. */
  readonly contentBytes?: number
  /** Bytes of a name, or of the target of a link. Default 65,536; what is applied is limited to 4,095 by the kernel. */
  readonly nameBytes?: number
  /**
   * Uncompressed bytes for each compressed one, counted once a GiB has come out. Default 2,000: gzip reaches 1,032 with nothing but zeros; bzip2, xz and zstd can
   * make a thousand times more of a few bytes.
   */
  readonly expansionRatio?: number
}

/** What is accepted of an image archive before it is refused with LIMIT_EXCEEDED; the hint names the limit. */
export interface ArchiveLimits {
  /** Bytes of one manifest, index or config. Default 8 MiB. */
  readonly jsonBytes?: number
  /** Entries of the outer archive. Default 1,000,000. */
  readonly entries?: number
  /** Bytes of all names in the outer archive together, which are held in memory. Default 128 MiB. */
  readonly indexBytes?: number
  /** Bytes that a stream or a compressed archive may take on disk while it is loaded. Default: no limit. */
  readonly spoolBytes?: number
  /** As in TarLimits, of the outer archive. Default 2,000. */
  readonly expansionRatio?: number
  /** Of each layer. */
  readonly layer?: TarLimits
}
