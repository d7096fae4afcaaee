// Who competes: layerstack's command line, and the peers that this machine has. A contestant is a command and what makes the ground fresh
// before it; daemons are started once and ended with the case.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { needsContainerd, startContainerd } from '../fixtures/containerd.ts'
import type { Containerd } from '../fixtures/containerd.ts'
import { needsDockerd, startDockerd } from '../fixtures/dockerd.ts'
import type { Dockerd } from '../fixtures/dockerd.ts'
import { projectRoot } from '../fixtures/places.ts'
import type { Contestant } from './measure.ts'

export interface Prepared {
  readonly what: string
  readonly contestants: readonly Contestant[]
  /** Peers that are not here, and why. */
  readonly absent: readonly string[]
  close(): Promise<void>
}

const cli = path.join(projectRoot, 'dist/lib/cli/main.js')

/** The ground of one case: an empty directory on the file system under test, and the daemons that run on it. */
export class Ground {
  readonly work: string
  readonly absent: string[] = []
  readonly #stops: (() => Promise<void>)[] = []

  constructor(work: string) { this.work = work }

  path(...parts: readonly string[]): string { return path.join(this.work, ...parts) }

  /** Empty `name` below the work directory before and after a run. */
  fresh(name: string, make = false): Pick<Contestant, 'before' | 'after'> {
    const clear = (): void => fs.rmSync(this.path(name), { recursive: true, force: true })
    return { before: () => { clear(); if (make) fs.mkdirSync(this.path(name)) }, after: clear }
  }

  /** layerstack's command line on the root `name`. */
  layerstack(name: string, args: readonly string[], options: { readonly driver?: string; readonly durability?: string } = {}): string[] {
    return [process.execPath, cli, '--root', this.path(name), '--driver', options.driver ?? 'overlay2', '--durability', options.durability ?? 'full', ...args]
  }

  has(program: string, debianPackage: string): boolean {
    if (spawnSync(program, ['--version']).error === undefined) return true
    this.absent.push(`${program} (Debian: ${debianPackage})`)
    return false
  }

  async dockerd(): Promise<Dockerd | undefined> {
    if (needsDockerd !== false) { this.absent.push(needsDockerd); return undefined }
    const dockerd = await startDockerd({ dataRoot: this.path('docker'), execRoot: this.path('x'), driver: 'overlay2' })
    this.#stops.push(() => dockerd.stop())
    return dockerd
  }

  async containerd(): Promise<Containerd | undefined> {
    if (needsContainerd !== false) { this.absent.push(needsContainerd); return undefined }
    const containerd = await startContainerd(this.path('containerd'), this.path('c'))
    this.#stops.push(() => containerd.stop())
    return containerd
  }

  prepared(what: string, contestants: readonly Contestant[]): Prepared {
    return { what, contestants, absent: this.absent, close: async () => { for (const stop of this.#stops.reverse()) await stop() } }
  }
}

/** Run something that must succeed, untimed. */
export function must(program: string, ...args: readonly string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr || String(result.error)}`)
  return result.stdout
}
