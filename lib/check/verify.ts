// The content of layers against what they were: each layer's tar is rebuilt from its files and its tar-split, every file's CRC-64 and the whole's digest
// compared. In threads, as many at once as there are; nothing of the tar reaches the main thread.

import fs from 'node:fs'
import path from 'node:path'
import type { AssembledTar, DigestArguments } from '../diff/assemble.ts'
import { assembleModule } from '../diff/jobs-module.ts'
import type { Driver } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import type { Layer } from '../layers/index.ts'
import { tarSplitName } from '../layers/layer-files.ts'
import { maxThreads, runJob } from '../sys/threads.ts'

export interface Fault {
  readonly kind: 'content-missing' | 'content-damaged' | 'tar-split-damaged'
  readonly path: string
  readonly reason: string
  /** The driver could not say where the content lies. */
  readonly unplaced?: boolean
}

/** Rebuild the tar of what lies in `dir` by the tar-split of `layerDir`. @throws CORRUPT, NOT_FOUND, ABORTED, IO, … */
export async function digestOfLayer(layerDir: string, dir: string, options: { readonly signal?: AbortSignal | undefined; readonly onProgress?: ((bytes: number) => void) | undefined } = {}): Promise<AssembledTar> {
  const tarSplitFd = fs.openSync(path.join(layerDir, tarSplitName), 'r')
  try {
    return await runJob<DigestArguments, AssembledTar>(assembleModule, 'digestJob', { dir, tarSplitFd }, options)
  } finally {
    fs.closeSync(tarSplitFd)
  }
}

/** What is wrong with the layer's content, or how many bytes its tar has. @throws ABORTED */
export async function verifyLayer(driver: Driver, layer: Layer, layerDir: string, options: { readonly signal?: AbortSignal | undefined; readonly onProgress?: ((bytes: number) => void) | undefined } = {}): Promise<Fault | number> {
  const tarSplit = path.join(layerDir, tarSplitName)
  let dir: string
  try {
    dir = (await driver.content(layer.cacheId)).path
  } catch (error) {
    if (!StorageError.is(error)) throw error
    return { kind: error.code === 'NOT_FOUND' ? 'content-missing' : 'content-damaged', path: layerDir, reason: error.message, unplaced: true }
  }
  try {
    const { digest, sizeBytes } = await digestOfLayer(layerDir, dir, options)
    if (digest === layer.diffId) return sizeBytes
    return { kind: 'content-damaged', path: dir, reason: `its tar has the digest ${digest} and not ${layer.diffId}: files, or what the tar-split says of them, were changed` }
  } catch (error) {
    if (StorageError.is(error, 'ABORTED')) throw error
    const known = StorageError.is(error)
    if (isErrno(error, 'ENOENT') && !known) return { kind: 'tar-split-damaged', path: tarSplit, reason: `${tarSplitName} is missing, so its tar cannot be rebuilt` }
    if (!known) throw error
    if (error.code === 'NOT_FOUND') return { kind: 'content-missing', path: dir, reason: error.message }
    // A member of gzip that is cut short, or is none, comes as an archive's error.
    const isTarSplit = error.message.includes('tar-split') || error.code === 'INVALID_ARCHIVE'
    return { kind: isTarSplit ? 'tar-split-damaged' : 'content-damaged', path: isTarSplit ? tarSplit : dir, reason: error.message }
  }
}

/** Run `work` over the items, as many at once as there are threads, results as they come. */
export async function* inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): AsyncGenerator<R> {
  const running = new Map<number, Promise<readonly [number, R]>>()
  let next = 0
  try {
    for (;;) {
      // One more than there are threads: the next begins before the main thread has heard of the last one's end.
      for (; running.size <= maxThreads && next < items.length; next++) {
        const at = next
        const job = work(items[at] as T).then(result => [at, result] as const)
        job.catch(() => undefined)
        running.set(at, job)
      }
      if (running.size === 0) return
      const [at, result] = await Promise.race(running.values())
      running.delete(at)
      yield result
    }
  } finally {
    await Promise.allSettled(running.values())
  }
}
