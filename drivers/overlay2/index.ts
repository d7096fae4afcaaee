// The overlay2 driver: Docker's layout, each layer its own directory of changes, stacked by the kernel's overlay. Describes mounts and contents;
// it mounts nothing, except to probe.

import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { CreateOptions, Driver, HomeFacts, HomeProblem, KnownEntry, LayerContent, Mount, OpenDriverOptions, StatusEntry, Supports, Usage } from '../../lib/driver.ts'
import { parseSize } from '../../lib/driver-options.ts'
import { asStorageError, StorageError } from '../../lib/errors.ts'
import { makeDirectories } from '../../lib/fs/make-directories.ts'
import { treeUsage } from '../../lib/fs/usage.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { overlayKernel } from '../../lib/sys/mount.ts'
import { privileges } from '../../lib/sys/privileges.ts'
import { inspectHome } from './inspect.ts'
import { createLayer, maxDepth, maxDepthOfPage, removeLayer, resumeRemovals } from './layers.ts'
import { escapeLower, escapePath, layerOfLink, layoutOf, linkFolder, lowersOf, notFound, readLink } from './layout.ts'
import type { Layout } from './layout.ts'
import { parseOptions, quotaUnsupported, sizeOfLayer } from './options.ts'
import type { Overlay2Options } from './options.ts'
import { examine, factsUnexamined } from './probe.ts'
import type { Overlay2Facts } from './probe.ts'

export type { Overlay2Options } from './options.ts'

class Overlay2 implements Driver {
  readonly name = 'overlay2'
  readonly supports: Supports
  readonly #layout: Layout
  readonly #facts: Overlay2Facts
  readonly #options: Overlay2Options
  readonly #readOnly: boolean
  readonly #durable: boolean

  constructor(home: string, facts: Overlay2Facts, options: Overlay2Options, readOnly: boolean, durable: boolean) {
    this.supports = supportsHere(facts)
    this.#layout = layoutOf(home, { limits: facts.whyNoQuota === undefined, maxDepth: this.supports.maxDepth })
    this.#options = options
    this.#facts = facts
    this.#readOnly = readOnly
    // What lies in memory survives no power cut, whatever is synced; each round of syncs would cost 50 µs.
    this.#durable = durable && facts.backingFileSystem !== 'tmpfs' && facts.backingFileSystem !== 'ramfs'
  }

  async create(id: LayerId, options: CreateOptions = {}): Promise<void> {
    this.#mustWrite('create', id)
    if (id === linkFolder) throw new StorageError('INVALID_ARGUMENT', `overlay2: ${JSON.stringify(id)} is the folder of links, not a layer id`, { driver: 'overlay2', op: 'create', key: id })
    const size = sizeOfLayer(options, this.#options, this.#facts.whyNoQuota)
    await createLayer(this.#layout, id, options, this.#durable, size)
  }

  async mounts(id: LayerId, access: 'rw' | 'ro'): Promise<readonly Mount[]> {
    const layout = this.#layout
    const lowers = lowersOf(layout, id)
    const readOnly = access === 'ro' || fs.existsSync(`${layout.dir(id)}/committed`)
    if (lowers.length === 0) {
      if (!fs.existsSync(layout.dir(id))) throw notFound(layout, id)
      return [{ type: 'bind', source: layout.diff(id), options: ['bind', readOnly ? 'ro' : 'rw'] }]
    }
    // Its own link is a lower directory only where nothing is written.
    const names = readOnly ? [readLink(layout, id), ...lowers] : lowers
    const options = [
      ...(this.#facts.indexOff ? ['index=off'] : []), ...(this.#facts.userxattr ? ['userxattr'] : []),
      `lowerdir=${names.map(name => escapeLower(layout.link(name))).join(':')}`,
      ...(readOnly ? ['ro'] : [`upperdir=${escapePath(layout.diff(id))}`, `workdir=${escapePath(layout.work(id))}`]),
    ]
    return [{ type: 'overlay', source: 'overlay', options }]
  }

  async content(id: LayerId, own = false): Promise<LayerContent> {
    return {
      kind: 'branch', path: this.#existing(id), whiteouts: 'overlay',
      xattrPrefix: this.#facts.userxattr ? 'user.overlay.' : 'trusted.overlay.', lowers: own ? [] : this.#lowerDirs(id),
    }
  }

  mountpoint(id: LayerId): string {
    return this.#layout.merged(id)
  }

  async remove(id: LayerId, holds?: readonly KnownEntry[]): Promise<void> {
    this.#mustWrite('remove', id)
    if (id === linkFolder) return
    await removeLayer(this.#layout, id, holds)
  }

  async exists(id: LayerId): Promise<boolean> {
    return id !== linkFolder && fs.existsSync(this.#layout.dir(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    for (const entry of fs.readdirSync(this.#layout.home, { withFileTypes: true })) {
      if (entry.isDirectory() && entry.name !== linkFolder && isLayerId(entry.name)) yield entry.name
    }
  }

  inspect(facts: HomeFacts): Iterable<HomeProblem> {
    return inspectHome(this.#layout, facts)
  }

  async usage(id: LayerId): Promise<Usage> {
    return await treeUsage(this.#existing(id))
  }

  async status(): Promise<readonly StatusEntry[]> {
    const facts = this.#facts
    return [
      ['Backing Filesystem', facts.backingFileSystem],
      ['Supports d_type', String(facts.supportsDType)],
      ...(facts.metacopy === undefined ? [] : [['Using metacopy', String(facts.metacopy)] as const]),
      ...(facts.notNativeReason === undefined ? [] : [['Native Overlay Diff', String(facts.notNativeReason === '')] as const]),
      ['userxattr', String(facts.userxattr)],
    ]
  }

  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    const layout = this.#layout
    const upper = this.#existing(id)
    const lowers = this.#lowerDirs(id)
    return {
      ...(lowers.length > 0 ? { LowerDir: lowers.join(':') } : {}),
      MergedDir: layout.merged(id), UpperDir: upper, WorkDir: layout.work(id),
    }
  }

  async close(): Promise<void> {
    // Nothing is held open: layers are files, and mounts belong to whoever performed them.
  }

  /** The layer's diff directory. @throws NOT_FOUND */
  #existing(id: LayerId): string {
    if (id === linkFolder || !fs.existsSync(this.#layout.dir(id))) throw notFound(this.#layout, id)
    return this.#layout.diff(id)
  }

  #lowerDirs(id: LayerId): string[] {
    return lowersOf(this.#layout, id).map(name => this.#layout.diff(layerOfLink(this.#layout, name, id)))
  }

  #mustWrite(op: string, id: LayerId): void {
    if (this.#readOnly) throw new StorageError('READ_ONLY', `overlay2: cannot ${op} layer ${id}: the storage is open read-only`, { driver: 'overlay2', op, key: id })
  }
}

function supportsHere(facts: Overlay2Facts): Supports {
  const { chown, userNamespace } = privileges()
  return { nativeMounts: true, independentLayers: true, maxDepth: overlayKernel.lowerdirPlus === false ? maxDepthOfPage : maxDepth, quota: facts.whyNoQuota === undefined, ownership: chown && !userNamespace }
}

async function open({ home, options, readOnly = false, durable = true }: OpenDriverOptions<Overlay2Options>): Promise<Driver> {
  if (readOnly) {
    if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `overlay2: ${home} does not exist`, { driver: 'overlay2', op: 'open', path: home })
    return new Overlay2(fs.realpathSync(home), factsUnexamined(home), options, true, false)
  }
  const examined = examine(home)
  if (!examined.ok) throw new StorageError(examined.code, examined.reason, { driver: 'overlay2', op: 'open', path: home, hint: examined.hint })
  const { facts } = examined
  if (options.size !== undefined && parseSize(options.size) !== 0 && facts.whyNoQuota !== undefined) throw quotaUnsupported(facts.backingFileSystem, facts.whyNoQuota)
  try {
    for (const [dir, mode] of [[home, 0o710], [path.join(home, linkFolder), 0o700]] as const) {
      makeDirectories(dir, mode)
    }
    // Absolute and without links, as dockerd writes it: the paths go into mounts that outlive our working directory.
    const real = fs.realpathSync(home)
    await resumeRemovals(layoutOf(real, { limits: facts.whyNoQuota === undefined }))
    return new Overlay2(real, facts, options, false, durable)
  } catch (error) {
    throw asStorageError(error, `overlay2: opening ${home}`, { driver: 'overlay2', op: 'open' })
  }
}

export default defineDriver<Overlay2Options>({
  name: 'overlay2',
  parseOptions,
  async probe(home) {
    const examined = examine(home)
    return examined.ok ? { ok: true, supports: supportsHere(examined.facts) } : examined
  },
  open,
})
