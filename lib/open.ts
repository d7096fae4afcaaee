// `open` with the built-in drivers bound to it, apart from the public entry: who only opens a store need not load tools that look at archives,
// serve sockets or draw pages, nor drivers that the store does not use (each module takes 0.5 to 0.8 ms to load).

import type { DriverModule, DriverSource } from './driver.ts'
import { openStorage } from './storage.ts'
import type { OpenOptions, Storage } from './storage.ts'

export type BuiltInName = 'overlay2' | 'fuse-overlayfs' | 'btrfs' | 'aufs' | 'overlay' | 'vfs'

const loaders: Readonly<Record<BuiltInName, () => Promise<{ readonly default: unknown }>>> = {
  overlay2: () => import('../drivers/overlay2/index.ts'), 'fuse-overlayfs': () => import('../drivers/fuse-overlayfs/index.ts'), btrfs: () => import('../drivers/btrfs/index.ts'),
  aufs: () => import('../drivers/aufs/index.ts'), overlay: () => import('../drivers/overlay/index.ts'), vfs: () => import('../drivers/vfs/index.ts'),
}
const builtIn: readonly DriverSource[] = Object.entries(loaders).map(([name, load]) => ({ name, load: async () => (await load()).default as DriverModule }))

/**
 * Open a data root. `await using storage = await open({ root: '/var/lib/layerstack' })`.
 * @throws NOT_SUPPORTED and its kin when no driver works here, FAILED_PRECONDITION when the root holds several drivers' layers, PERMISSION_DENIED, CORRUPT
 */
export function open(options: OpenOptions = {}): Promise<Storage> {
  const own = options.drivers ?? []
  return openStorage({ ...options, drivers: [...own, ...builtIn.filter(driver => !own.some(other => other.name === driver.name))] })
}
