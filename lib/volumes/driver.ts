// The contract of a volume driver: what holds the bytes of volumes, by name. Names, labels, references and the filling from an image are the
// store's business, done once for all drivers.

/** A volume as its driver knows it. */
export interface DriverVolume {
  readonly name: string
  /** Where its data lies, or will lie once it is mounted. */
  readonly mountpoint: string
  /** RFC 3339, to the second; absent where the driver does not know. */
  readonly createdAt?: string
  readonly options: Readonly<Record<string, string>>
  readonly status?: Readonly<Record<string, unknown>>
}

export interface HoldOptions {
  /** The hold outlives this process, and ends with an unmount or the boot. Default false. */
  readonly persistent?: boolean
}

export interface VolumeDriver {
  readonly name: string
  readonly scope: 'local' | 'global'
  /** May a new volume be called and made so? @throws INVALID_ARGUMENT */
  check(name: string, options: Readonly<Record<string, string>>): void
  /** Make it. The caller holds the name's lock, has checked it and knows the name to be free. */
  create(name: string, options: Readonly<Record<string, string>>): Promise<void>
  /** Remove it with its data. Nothing there is fine. @throws IN_USE `volume has active mounts` */
  remove(name: string): Promise<void>
  find(name: string): DriverVolume | undefined
  /** By name. */
  list(): DriverVolume[]
  /** Mount it, or join those who have; returns the path of its data. */
  mount(name: string, options?: HoldOptions): Promise<string>
  /** Give one hold back; the last one unmounts. @throws FAILED_PRECONDITION when there is none */
  unmount(name: string, options?: HoldOptions): Promise<void>
  /** How many hold it. */
  mountCount(name: string): number
  /** Remove what a killed process half made of the volume whose name has this key (fileKey); its lock is held. */
  clear?(key: string): Promise<void>
  /** Undo what crashed processes left. Called when a store is opened for writing. */
  recover?(): Promise<void>
}
