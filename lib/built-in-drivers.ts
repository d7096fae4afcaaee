// The drivers that come with the package, all of them: for the public entry, and for who tries one after another. `open` loads the one that it needs.

import aufs from '../drivers/aufs/index.ts'
import btrfs from '../drivers/btrfs/index.ts'
import fuseOverlayfs from '../drivers/fuse-overlayfs/index.ts'
import overlay from '../drivers/overlay/index.ts'
import overlay2 from '../drivers/overlay2/index.ts'
import vfs from '../drivers/vfs/index.ts'
import type { DriverModule } from './driver.ts'
import type { BuiltInName } from './open.ts'

/** The drivers that come with the package, by name. */
export const drivers: Readonly<Record<BuiltInName, DriverModule>> = {
  overlay2: overlay2 as DriverModule, 'fuse-overlayfs': fuseOverlayfs as DriverModule, btrfs: btrfs as DriverModule,
  aufs: aufs as DriverModule, overlay: overlay as DriverModule, vfs: vfs as DriverModule,
}
