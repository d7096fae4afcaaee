// A layer that is made, kept in a nameless temporary file: its digest and length must be known before anything that names it is written.

import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { asStorageError } from '../errors.ts'
import type { Digest } from '../ids.ts'
import { writeAll } from '../images/archive.ts'

export interface SpooledLayer<R> {
  readonly fd: number
  readonly diffId: Digest
  readonly sizeBytes: number
  readonly outcome: R
}

/** Write a tar out. The caller closes the descriptor, and with it the file is gone. @throws NO_SPACE, and what the source throws */
export async function spoolLayer<R>(tar: AsyncGenerator<Buffer, R, undefined>, temporaryDir = os.tmpdir()): Promise<SpooledLayer<R>> {
  const file = path.join(temporaryDir, `layerstack-${randomBytes(8).toString('hex')}`)
  let fd: number
  try {
    fd = fs.openSync(file, 'wx+', 0o600)
  } catch (error) {
    throw asStorageError(error, `making a temporary file in ${temporaryDir}`, { path: file })
  }
  fs.rmSync(file)
  const hash = createHash('sha256')
  let sizeBytes = 0
  try {
    for (;;) {
      const { value, done } = await tar.next()
      if (done) return { fd, diffId: `sha256:${hash.digest('hex')}` as Digest, sizeBytes, outcome: value }
      hash.update(value)
      sizeBytes += value.length
      await writeAll(fd, value)
    }
  } catch (error) {
    fs.closeSync(fd)
    await tar.return(undefined as never)
    throw asStorageError(error, 'writing a layer')
  }
}
