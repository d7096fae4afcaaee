// The mount objects of Docker's API (api/types/mount) and of its container records (volume/mounts.MountPoint), key for key.
// Types only; a key without a value is left out, as Go's omitempty does.

/** How mounts made inside, or outside, spread (Documentation/filesystems/sharedsubtree.rst). */
export type Propagation = 'private' | 'rprivate' | 'slave' | 'rslave' | 'shared' | 'rshared'

export interface BindOptions {
  readonly Propagation?: string
  /** Only the mount itself, none below it. */
  readonly NonRecursive?: boolean
  /** A missing source is made, as a directory. */
  readonly CreateMountpoint?: boolean
  /** Read-only, but not the mounts below it. */
  readonly ReadOnlyNonRecursive?: boolean
  /** Read-only with all mounts below it, or an error. */
  readonly ReadOnlyForceRecursive?: boolean
}

export interface DriverConfig {
  readonly Name?: string
  readonly Options?: Readonly<Record<string, string>>
}

export interface VolumeOptions {
  /** Do not fill an empty volume from the image. */
  readonly NoCopy?: boolean
  readonly Labels?: Readonly<Record<string, string>>
  readonly DriverConfig?: DriverConfig
  /** A path inside the volume. */
  readonly Subpath?: string
}

export interface ImageOptions {
  readonly Subpath?: string
}

export interface TmpfsOptions {
  readonly SizeBytes?: number
  /** Permission bits, as a number: 0o1777 is 1023. */
  readonly Mode?: number
  /** One or two strings each: `["exec"]`. */
  readonly Options?: readonly (readonly string[])[]
}

/** A mount as Docker's API takes it. `Type` is bind, volume, tmpfs or image; the parsers of the command line pass others on. */
export interface MountSpec {
  readonly Type?: string
  /** A path of the host, a volume's name, an image; absent for an anonymous volume and for tmpfs. */
  readonly Source?: string
  readonly Target?: string
  readonly ReadOnly?: boolean
  readonly Consistency?: string
  readonly BindOptions?: BindOptions
  readonly VolumeOptions?: VolumeOptions
  readonly ImageOptions?: ImageOptions
  readonly TmpfsOptions?: TmpfsOptions
}

/** A mount as dockerd works with it, and (but for CopyData) keeps it in `config.v2.json` under MountPoints. */
export interface MountPoint {
  readonly Type: string
  /** A volume's name; empty for an anonymous one that has none yet, and for binds. */
  readonly Name: string
  /** The path on the host; empty until a volume has one. */
  readonly Source: string
  /** Absolute and clean. */
  readonly Destination: string
  readonly RW: boolean
  /** A volume's driver. */
  readonly Driver: string
  /** The mode of `-v` as it was given. */
  readonly Mode: string
  readonly Propagation: string
  /** Fill an empty volume from the image. */
  readonly CopyData: boolean
  readonly Spec: MountSpec
}
