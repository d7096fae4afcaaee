// A small layer written on the calling thread, in short slices: it is written by the time that a thread would have started. What is not small is
// a thread's business (writeJob), which writes the same bytes.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { chunkBytes } from './chunks.ts'
import type { WriteArguments, WriteOutcome } from './jobs.ts'
import { writeLayerSteps } from './write-layer.ts'

/** What is small: about a quarter of a second's work. */
export const smallLayer = { entries: 2500, bytes: 64 * 1024 * 1024 } as const
/** A slice keeps the event loop this long. */
const sliceMs = 4
/** Written ahead of the reader, whose thread may still be starting. */
const aheadChunks = 8

/** Does the branch `dir` hold few entries and few bytes? No more of it is looked at than it takes to say so. */
export function isSmall(dir: string, most: { readonly entries: number; readonly bytes: number } = smallLayer): boolean {
  let entries = 0, bytes = 0
  const dirs = [Buffer.from(dir)]
  for (let at = dirs.pop(); at !== undefined; at = dirs.pop()) {
    try {
      for (const entry of fs.readdirSync(at, { withFileTypes: true, encoding: 'buffer' })) {
        if (++entries > most.entries) return false
        const name = Buffer.concat([at, slash, entry.name])
        if (entry.isDirectory()) dirs.push(name)
        else if (entry.isFile() && (bytes += fs.lstatSync(name).size) > most.bytes) return false
      }
    } catch (error) {
      // It may be a running container's. What cannot be read is told by the writer.
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM')) throw asStorageError(error, `looking at ${path.resolve(dir)}`)
    }
  }
  return true
}
const slash = Buffer.from('/')

export interface WriteHereOptions {
  readonly signal?: AbortSignal | undefined
  /**
   * Chunks lie in memory that threads share, and are written to anew once three more have been asked for: for the input of a job, which has done with a
   * chunk before. Default false: they are the reader's own.
   */
  readonly shared?: boolean | undefined
}

/**
 * writeJob on this thread. The event loop has its turn every few milliseconds, however large the layer turns out to be.
 * @throws as writeJob; ABORTED by the signal
 */
export async function* writeHere({ upper, lower, options }: WriteArguments, { signal, shared }: WriteHereOptions = {}): AsyncGenerator<Buffer, WriteOutcome> {
  const checkAborted = (): void => { if (signal?.aborted === true) throw new StorageError('ABORTED', 'writing a layer: aborted', { op: 'write-layer' }) }
  // New memory is what copying costs most: its pages are made one by one, here and, but for shared memory, in the thread that gets a clone.
  const ready: Buffer[] = [], given: Buffer[] = [], free: Buffer[] = []
  const newBuffer = (): Buffer => shared === true ? free.pop() ?? Buffer.from(new SharedArrayBuffer(chunkBytes)) : Buffer.allocUnsafeSlow(chunkBytes)
  const hash = createHash('sha256')
  let tarBytes = 0, buffer = newBuffer(), used = 0
  const add = (bytes: Buffer): void => {
    hash.update(bytes)
    tarBytes += bytes.length
    for (let done = 0; done < bytes.length;) {
      const n = Math.min(bytes.length - done, chunkBytes - used)
      bytes.copy(buffer, used, done, done + n)
      used += n
      done += n
      if (used < chunkBytes) continue
      ready.push(buffer)
      buffer = newBuffer()
      used = 0
    }
  }
  let left = false, wakeReader = (): void => undefined, wakeWriter = (): void => undefined
  const write = async (): Promise<WriteOutcome> => {
    const steps = writeLayerSteps(upper, lower, add, options, checkAborted)
    try {
      for (;;) {
        checkAborted()
        const until = performance.now() + sliceMs
        do {
          const next = steps.next()
          if (next.done !== true) continue
          if (used > 0) ready.push(buffer.subarray(0, used))
          return { ...next.value, diffId: `sha256:${hash.digest('hex')}`, tarBytes }
        } while (performance.now() < until)
        if (ready.length > 0) wakeReader()
        if (ready.length >= aheadChunks) await new Promise<void>(resolve => { wakeWriter = resolve })
        else await turn()
        if (left) throw new StorageError('ABORTED', 'writing a layer: nobody reads it', { op: 'write-layer' })
      }
    } catch (error) {
      throw error instanceof TypeError ? error : asStorageError(error, `writing the changes of ${upper.layers[0]}`)
    } finally {
      steps.return(undefined as never)
    }
  }
  checkAborted()
  let finished = false
  const written = write()
  const settled = written.then(() => undefined, () => undefined).then(() => { finished = true; wakeReader() })
  // An abort reaches a writer that waits for its reader.
  const onAbort = (): void => wakeWriter()
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    for (;;) {
      const chunk = ready.shift()
      if (chunk !== undefined) {
        wakeWriter()
        yield chunk
        // Two behind it were asked for, and so taken up, since the one that is written to again was.
        given.push(chunk)
        if (given.length > 2) free.push(given.shift() as Buffer)
      } else if (finished) return await written
      else await new Promise<void>(resolve => { wakeReader = resolve })
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
    left = true
    wakeWriter()
    await settled
  }
}
