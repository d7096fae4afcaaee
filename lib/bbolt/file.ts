// A bbolt file on disk, shared with bbolt itself: read without a lock, changed under bbolt's own flock on the file, committed as bbolt commits
// (pages, sync, meta page, sync). The file keeps its inode, or a program that waits for the lock would get that of an unlinked file.

import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { syncDirectorySync, writeNew } from '../fs/atomic.ts'
import { isLocked, lock } from '../sys/lock.ts'
import { nativeReason } from '../sys/native.ts'
import { BoltBucket } from './bucket.ts'
import { metaState } from './format.ts'
import { readBolt } from './reader.ts'
import { emptyBase, layOutCommit } from './writer.ts'
import type { Commit } from './writer.ts'

/** bbolt takes the machine's page size for new files; one that it finds in a file it keeps. */
const newPageSize = 4096

export interface BoltUpdateOptions {
  /** Survive a power cut. Default true. */
  readonly sync?: boolean
  /** Give up with LOCKED after this many milliseconds. Default 60,000. */
  readonly timeoutMs?: number
}

export class BoltFile {
  readonly path: string

  constructor(file: string) { this.path = file }

  /**
   * The state of the last commit; an absent or empty file is an empty database. Needs no lock: a commit leaves the pages of the state before
   * it alone, so a state is whole if it is still the current one when all is read.
   * @throws CORRUPT
   */
  read(): BoltBucket {
    for (let attempt = 0; ; attempt++) {
      const bytes = this.#bytes()
      if (bytes.length === 0) return new BoltBucket()
      let root: BoltBucket | undefined, failure: unknown
      try {
        root = readBolt(bytes).root
      } catch (error) {
        failure = error
      }
      if (this.#state() === stateOf(bytes)) {
        if (root !== undefined) return root
        throw named(failure, this.path)
      }
      if (attempt === 100) throw new StorageError('LOCKED', `reading ${this.path}: it changes faster than it is read`, { path: this.path })
    }
  }

  /**
   * Change the database: `change` edits the root bucket, and what it returns is returned. A failure, also of `change`, leaves the file as it was.
   * @throws LOCKED while another process, such as dockerd, has the database open
   */
  async update<T>(change: (root: BoltBucket) => T, options: BoltUpdateOptions = {}): Promise<T> {
    const sync = options.sync !== false
    this.#makeFile(sync)
    const held = await lock(this.path, options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs })
    try {
      // Without native calls our locks are files of our own, which bbolt does not see; the kernel still tells of its lock.
      if (nativeReason !== undefined && isLocked(this.path)) throw new StorageError('LOCKED', `${this.path} is open in another program`,
        { path: this.path, hint: 'stop the dockerd that uses it' })
      const bytes = this.#bytes()
      // Whoever made the file and ended before its first write left it empty; bbolt begins in place as well.
      if (bytes.length === 0) fs.writeFileSync(this.path, newDatabase(), { flag: 'r+' })
      const { root, meta, used } = readBolt(bytes.length === 0 ? newDatabase() : bytes)
      const result = change(root)
      this.#commit(layOutCommit(root, { ...meta, used }), sync)
      return result
    } catch (error) {
      throw named(error, this.path)
    } finally {
      held.release()
    }
  }

  #bytes(): Buffer {
    try {
      return fs.readFileSync(this.path)
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return Buffer.alloc(0)
      throw asStorageError(error, `reading ${this.path}`)
    }
  }

  #state(): string {
    let fd: number
    try {
      fd = fs.openSync(this.path, 'r')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return ''
      throw error
    }
    try {
      // Both metas, wherever the second is.
      const head = Buffer.alloc(2 * 65536)
      return stateOf(head.subarray(0, fs.readSync(fd, head, 0, head.length, 0)))
    } finally {
      fs.closeSync(fd)
    }
  }

  /** A new file appears whole: bbolt takes an empty one, but not one with half a header. */
  #makeFile(sync: boolean): void {
    if (fs.existsSync(this.path)) return
    const temporary = `${this.path}.new-${randomBytes(6).toString('hex')}`
    try {
      const fd = writeNew(temporary, newDatabase(), 0o600)
      if (sync) fs.fdatasyncSync(fd)
      fs.closeSync(fd)
      fs.linkSync(temporary, this.path)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
    } finally {
      fs.rmSync(temporary, { force: true })
    }
    if (sync) syncDirectorySync(path.dirname(this.path))
  }

  #commit(commit: Commit, sync: boolean): void {
    const fd = fs.openSync(this.path, 'r+')
    try {
      const pageSize = commit.meta.bytes.length
      if (fs.fstatSync(fd).size < commit.fileBytes) fs.ftruncateSync(fd, commit.fileBytes)
      for (const { id, bytes } of commit.pages) writeAll(fd, bytes, id * pageSize)
      if (sync) fs.fdatasyncSync(fd)
      writeAll(fd, commit.meta.bytes, commit.meta.id * pageSize)
      if (sync) fs.fdatasyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  }
}

/** A whole file: two metas of an empty state. */
function newDatabase(): Buffer {
  const base = emptyBase(newPageSize)
  const first = layOutCommit(new BoltBucket(), base), second = layOutCommit(new BoltBucket(), { ...base, txid: 0n })
  const bytes = Buffer.alloc(first.fileBytes)
  for (const { id, bytes: page } of [...first.pages, first.meta, second.meta]) page.copy(bytes, id * newPageSize)
  return bytes
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length;) at += fs.writeSync(fd, bytes, at, bytes.length - at, position + at)
}

function stateOf(bytes: Buffer): string {
  try {
    return bytes.length === 0 ? '' : metaState(bytes)
  } catch (error) {
    if (!StorageError.is(error, 'CORRUPT')) throw error
    return error.message
  }
}

function named(error: unknown, file: string): unknown {
  if (!StorageError.is(error, 'CORRUPT') || error.info.path !== undefined) return error
  const hint = 'stop whoever uses it, move it aside and start again: volumes keep their data, labels are lost'
  return new StorageError('CORRUPT', `${file}: ${error.message}`, { ...error.info, path: file, hint }, { cause: error })
}
