// The first overlay driver, which Docker removed in 24.0: opens what dockerd wrote for reading, so that it can be migrated. Makes and removes nothing.
// Its image layers are complete trees, hard-linked from their parents (`<id>/root`); its container layers are one upper directory over such a tree.

import fs from 'node:fs'
import path from 'node:path'
import { defineDriver } from '../../lib/driver.ts'
import type { Driver, LayerContent, Mount, OpenDriverOptions, ProbeResult, StatusEntry, Supports, Usage } from '../../lib/driver.ts'
import { StorageError } from '../../lib/errors.ts'
import { treeUsage } from '../../lib/fs/usage.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { fileSystemName, reportsTypes } from '../../lib/sys/statfs.ts'

const supports: Supports = { nativeMounts: true, independentLayers: false, maxDepth: Number.MAX_SAFE_INTEGER, quota: false, ownership: true }

class Overlay implements Driver {
  readonly name = 'overlay'
  readonly supports = supports
  readonly #home: string

  constructor(home: string) {
    this.#home = home
  }

  #dir(id: LayerId): string { return path.join(this.#home, id) }

  create(id: LayerId): Promise<void> { return refuse('create', id) }
  remove(id: LayerId): Promise<void> { return refuse('remove', id) }

  /** Read-only, whatever was asked for: nothing here is written to. */
  async mounts(id: LayerId): Promise<readonly Mount[]> {
    const content = await this.content(id)
    if (content.kind === 'tree') return [{ type: 'bind', source: content.path, options: ['bind', 'ro'] }]
    return [{ type: 'overlay', source: 'overlay', options: [`lowerdir=${[content.path, ...content.lowers].map(dir => dir.replace(/[\\:,]/g, '\\$&')).join(':')}`, 'ro'] }]
  }

  async content(id: LayerId): Promise<LayerContent> {
    const dir = this.#dir(id)
    if (!fs.existsSync(dir)) throw new StorageError('NOT_FOUND', `overlay: no such layer: ${id}`, { driver: 'overlay', key: id })
    if (fs.existsSync(path.join(dir, 'root'))) return { kind: 'tree', path: path.join(dir, 'root') }
    const file = path.join(dir, 'lower-id')
    const lower = fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim() : ''
    if (!isLayerId(lower)) throw new StorageError('CORRUPT', `overlay: layer ${id}: ${file} names no layer`, { driver: 'overlay', key: id, path: file })
    return { kind: 'branch', path: path.join(dir, 'upper'), whiteouts: 'overlay', xattrPrefix: 'trusted.overlay.', lowers: [path.join(this.#dir(lower), 'root')] }
  }

  mountpoint(id: LayerId): string {
    return path.join(this.#dir(id), 'merged')
  }

  async exists(id: LayerId): Promise<boolean> {
    return fs.existsSync(this.#dir(id))
  }

  async *list(): AsyncGenerator<LayerId> {
    for (const entry of fs.readdirSync(this.#home, { withFileTypes: true })) if (entry.isDirectory() && isLayerId(entry.name)) yield entry.name
  }

  async usage(id: LayerId): Promise<Usage> {
    return await treeUsage((await this.content(id)).path)
  }

  async status(): Promise<readonly StatusEntry[]> {
    return [['Backing Filesystem', fileSystemName(this.#home)], ['Supports d_type', String(reportsTypes(this.#home))]]
  }

  /** In dockerd's words (20.10, overlay.go GetMetadata). */
  async metadata(id: LayerId): Promise<Readonly<Record<string, string>>> {
    const content = await this.content(id)
    if (content.kind === 'tree') return { RootDir: content.path }
    const dir = this.#dir(id)
    return { LowerDir: content.lowers.join(':'), UpperDir: content.path, WorkDir: path.join(dir, 'work'), MergedDir: path.join(dir, 'merged') }
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }
}

async function refuse(op: string, id: LayerId): Promise<never> {
  throw new StorageError('READ_ONLY', `overlay: cannot ${op} layer ${id}: this driver only reads, for migration`, { driver: 'overlay', op, key: id, hint: 'layerstack system migrate --to overlay2' })
}

const unwritable = { code: 'NOT_SUPPORTED', reason: 'the overlay storage-driver has been removed: its stores open read-only, for migration', hint: 'layerstack system migrate --to overlay2' } as const

async function open({ home, readOnly = false }: OpenDriverOptions<OverlayOptions>): Promise<Driver> {
  if (!readOnly) throw new StorageError(unwritable.code, unwritable.reason, { driver: 'overlay', op: 'open', path: home, hint: unwritable.hint })
  if (!fs.existsSync(home)) throw new StorageError('NOT_FOUND', `overlay: ${home} does not exist`, { driver: 'overlay', op: 'open', path: home })
  return new Overlay(fs.realpathSync(home))
}

/** It has none. */
export type OverlayOptions = Readonly<Record<string, never>>

export default defineDriver<OverlayOptions>({
  name: 'overlay', open,
  async probe(): Promise<ProbeResult> { return { ok: false, ...unwritable } },
  parseOptions(pairs) {
    for (const pair of pairs) throw new StorageError('INVALID_ARGUMENT', `overlay: unknown option ${pair.split('=')[0]}`, { driver: 'overlay', hint: 'it has none' })
    return {}
  },
})
