// `open` with the built-in drivers bound to it, apart from the public entry: who only opens a store need not load tools that look at archives,
// serve sockets or draw pages (the command line starts in two thirds of the time).

import aufs from '../drivers/aufs/index.ts'
import btrfs from '../drivers/btrfs/index.ts'
import fuseOverlayfs from '../drivers/fuse-overlayfs/index.ts'
import overlay from '../drivers/overlay/index.ts'
import overlay2 from '../drivers/overlay2/index.ts'
import vfs from '../drivers/vfs/index.ts'
import type { DriverModule } from './driver.ts'
import { openStorage } from './storage.ts'
import type { OpenOptions, Storage } from './storage.ts'

/** The drivers that come with the package, by name. */
export const drivers: Readonly<Record<'overlay2' | 'fuse-overlayfs' | 'btrfs' | 'aufs' | 'overlay' | 'vfs', DriverModule>> = {
  overlay2: overlay2 as DriverModule, 'fuse-overlayfs': fuseOverlayfs as DriverModule, btrfs: btrfs as DriverModule,
  aufs: aufs as DriverModule, overlay: overlay as DriverModule, vfs: vfs as DriverModule,
}

/**
 * Open a data root. `await using storage = await open({ root: '/var/lib/layerstack' })`.
 * @throws NOT_SUPPORTED and its kin when no driver works here, FAILED_PRECONDITION when the root holds several drivers' layers, PERMISSION_DENIED, CORRUPT
 */
export function open(options: OpenOptions = {}): Promise<Storage> {
  const own = options.drivers ?? []
  const builtIn = Object.values(drivers).filter(driver => !own.some(other => other.name === driver.name))
  return openStorage({ ...options, drivers: [...own, ...builtIn] })
}
