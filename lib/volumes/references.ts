// Who refers to a volume, on disk: the containers' own records, which the container store tells, and small files for everybody else (an engine's
// reference, a container under construction). A reference that a process stands for ends with the process.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno, StorageError } from '../errors.ts'
import { atomicWriteSync, syncDirectorySync } from '../fs/atomic.ts'
import { namesIn } from '../fs/names-in.ts'
import { ensureDir } from '../layers/index.ts'
import type { DataRoot } from '../layers/index.ts'
import { bootId } from '../layers/mount-counts.ts'
import { isAlive, processIdentity } from '../sys/lock.ts'
import { fileKey, volumePaths } from './paths.ts'

export interface ReferenceFile {
  readonly volume: string
  readonly reference: string
  /** Pid and start time of the process that stands for it; absent: it stands until it is released. */
  readonly process?: string
  /** The boot that it ends with; absent: it outlives it. */
  readonly boot?: string
  /** Whoever made the reference made the volume for it, without a name: it goes when its maker dies before the work is done. */
  readonly madeVolume?: boolean
}

export class VolumeReferences {
  readonly #root: DataRoot
  readonly #dir: string

  constructor(root: DataRoot) {
    this.#root = root
    this.#dir = volumePaths.references(root)
  }

  #folder(volume: string): string {
    return path.join(this.#dir, fileKey(volume))
  }

  /** False when it was there already. */
  add(volume: string, reference: string, options: { readonly transient?: boolean; readonly untilBoot?: boolean; readonly madeVolume?: boolean } = {}): boolean {
    if (this.of(volume).includes(reference)) return false
    const folder = this.#folder(volume)
    ensureDir(folder, 0o700)
    const sync = options.transient !== true && this.#root.durability !== 'none'
    const me = options.transient === true ? processIdentity(process.pid) : undefined
    const file: ReferenceFile = {
      volume, reference, ...(me === undefined ? {} : { process: me }), ...(options.untilBoot === true ? { boot: bootId() } : {}),
      ...(options.madeVolume === true ? { madeVolume: true } : {}),
    }
    atomicWriteSync(path.join(folder, fileKey(reference)), JSON.stringify(file), { mode: 0o600, sync })
    if (sync) syncDirectorySync(this.#dir)
    return true
  }

  /** False when it was not there. */
  remove(volume: string, reference: string): boolean {
    const folder = this.#folder(volume)
    try {
      fs.unlinkSync(path.join(folder, fileKey(reference)))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false
      throw error
    }
    try {
      fs.rmdirSync(folder)
    } catch (error) {
      if (!isErrno(error, 'ENOTEMPTY', 'ENOENT')) throw error
    }
    return true
  }

  /** The references to a volume, but those of the dead. */
  of(volume: string): string[] {
    return this.#files(this.#folder(volume)).filter(isValid).map(({ reference }) => reference)
  }

  /** Forget all references to a volume that is gone. */
  clear(volume: string): void {
    fs.rmSync(this.#folder(volume), { recursive: true, force: true })
  }

  /** What a killed process left half written in a folder, and the folder when nothing is in it. The volume's lock is held. */
  tidy(folder: string): void {
    const dir = path.join(this.#dir, folder)
    const names = namesIn(dir, 'ENOTDIR')
    for (const name of names) if (name.startsWith('.')) fs.rmSync(path.join(dir, name), { force: true })
    if (fs.existsSync(dir) && names.every(name => name.startsWith('.'))) fs.rmdirSync(dir)
  }

  /** Volumes → how many refer to each, with those that were `told`, and without the dead. */
  counts(told: Iterable<{ readonly volume: string; readonly reference: string }>): Map<string, number> {
    const by = new Map<string, Set<string>>()
    const ours = namesIn(this.#dir, 'ENOTDIR').flatMap(folder => this.#files(path.join(this.#dir, folder))).filter(isValid)
    for (const { volume, reference } of [...told, ...ours]) by.set(volume, (by.get(volume) ?? new Set()).add(reference))
    return new Map([...by].map(([volume, references]) => [volume, references.size]))
  }

  /** References of this name, whether their process lives or not. */
  called(reference: string): ReferenceFile[] {
    return namesIn(this.#dir, 'ENOTDIR').flatMap(folder => this.#files(path.join(this.#dir, folder))).filter(file => file.reference === reference)
  }

  /** References whose process or boot is gone; each is for the caller to settle. */
  *dead(): Generator<ReferenceFile> {
    for (const folder of namesIn(this.#dir, 'ENOTDIR')) for (const file of this.#files(path.join(this.#dir, folder))) if (!isValid(file)) yield file
  }

  #files(folder: string): ReferenceFile[] {
    return namesIn(folder, 'ENOTDIR').filter(name => !name.startsWith('.')).flatMap(name => {
      const file = path.join(folder, name)
      try {
        return [JSON.parse(fs.readFileSync(file, 'utf8')) as ReferenceFile]
      } catch (error) {
        if (isErrno(error, 'ENOENT')) return []
        if (error instanceof SyntaxError) throw new StorageError('CORRUPT', `reference ${file} is not JSON (${error.message})`, { path: file })
        throw error
      }
    })
  }
}

function isValid(file: ReferenceFile): boolean {
  return (file.process === undefined || isAlive(file.process)) && (file.boot === undefined || file.boot === bootId())
}
