// The thread's jobs that put a layer's tar together again from its files and its tar-split: to whoever asked, to a place in a file, or to nowhere but a
// digest. Apart from the other jobs, as a thread for these need not load what applies and compares.

import fs from 'node:fs'
import { createHash } from 'node:crypto'
import { asStorageError } from '../errors.ts'
import type { JobContext } from '../sys/threads.ts'
import { decompress, detectCompression } from '../tar/compression.ts'
import { cleanName } from '../tar/names.ts'
import { TarAssembler, TarSplitReader } from '../tar/tar-split.ts'
import { Batches, chunkBytes, rangeChunks } from './chunks.ts'
import { inPlace } from './in-place.ts'

/** What waits on the other side (hash, file) is woken once for each: with 1 MiB a save took 6 % more processor time, with 256 KiB 12 %. */
const assembledBytes = 4 * chunkBytes

export interface AssembleArguments {
  /** The directory that holds the layer's files: its branch, or its complete tree. */
  readonly dir: string
  /** The gzipped tar-split. */
  readonly tarSplitFd: number
  /**
   * False: the CRC-64 of each file is not compared, as the caller compares the digest of the whole, and asks again with true for the name of the file when
   * that is another. Default true.
   */
  readonly sums?: boolean | undefined
}

/** Rebuild the layer's tar, bit for bit, to the job's output; who reads it compares its digest. @throws CORRUPT for a file that was altered */
export function assembleJob(args: AssembleArguments, context: JobContext): Promise<void> {
  return assemble(args, context, new Batches(context, assembledBytes))
}

async function assemble({ dir, tarSplitFd, sums }: AssembleArguments, context: JobContext, out: Batches, inflateHere = false): Promise<void> {
  const { size } = fs.fstatSync(tarSplitFd)
  const raw = rangeChunks({ fd: tarSplitFd, offset: 0, length: size }, context, false)
  const head = Buffer.alloc(16)
  const gzip = inflateHere && detectCompression(head.subarray(0, fs.readSync(tarSplitFd, head, 0, head.length, 0))) === 'gzip'
  const lines = gzip ? (await import('../tar/gunzip.ts')).gunzip(raw) : decompress(raw)[Symbol.asyncIterator]()
  // The first chunk is fetched outside the jail, as a decompressor may load a module for it.
  const first = await lines.next()
  await inPlace(dir, async place => {
    const reader = new TarSplitReader()
    const assembler = new TarAssembler(
      name => fs.openSync(place.path(cleanName(name)), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW),
      bytes => out.add(bytes), { room: wanted => out.room(wanted), ...(sums === undefined ? {} : { sums }) })
    for (let next = first; next.done !== true; next = await lines.next()) for (const entry of reader.push(next.value)) assembler.add(entry)
    for (const entry of reader.finish()) assembler.add(entry)
    out.flush()
  })
}

/** A tar that was put together. */
export interface AssembledTar {
  /** `sha256:…` */
  readonly digest: string
  readonly sizeBytes: number
}

export interface DigestArguments extends AssembleArguments {
  /** Where the tar is written; absent: nowhere. */
  readonly to?: { readonly fd: number; readonly offset: number } | undefined
}

/** Progress is told this often. */
const toldBytes = 16 * 1024 * 1024

/** Put the layer's tar together, hash it, and write it where it belongs, all in this thread: no chunk is handed over. @throws as assembleJob */
export async function digestJob({ to, ...args }: DigestArguments, context: JobContext): Promise<AssembledTar> {
  const hash = createHash('sha256')
  let sizeBytes = 0, told = 0
  const take = (chunk: Buffer): void => {
    hash.update(chunk)
    if (to !== undefined) writeAt(to.fd, chunk, to.offset + sizeBytes)
    sizeBytes += chunk.length
    if (sizeBytes - told >= toldBytes) context.progress(told = sizeBytes)
  }
  await assemble(args, context, new Batches({ ...context, write: take }, writtenBytes), true)
  return { digest: `sha256:${hash.digest('hex')}`, sizeBytes }
}

/** Stays in the processor's cache from the read to the hash to the write. */
const writtenBytes = chunkBytes / 2

function writeAt(fd: number, bytes: Buffer, offset: number): void {
  try {
    for (let done = 0; done < bytes.length;) done += fs.writeSync(fd, bytes, done, bytes.length - done, offset + done)
  } catch (error) {
    throw asStorageError(error, 'writing a layer\'s tar')
  }
}
