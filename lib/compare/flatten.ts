// An image as one root file system's tar. Writes no file; what the layers say is combine.ts's business.

import { combineLayers } from './combine.ts'
import type { CombineOptions, CombineOutcome } from './combine.ts'
import type { ImageSource } from './types.ts'

/**
 * The tree that a container of the source would see, as one uncompressed tar, streamed: whiteouts and hidden files are gone, hard links, devices, xattrs, sparse
 * files, times to the nanosecond and names that are not UTF-8 are kept. No store, no mount, no privilege, no disk. The same layers give the same bytes, however the
 * source holds them (store, docker-archive, OCI layout, compressed or not).
 * @returns how much it was
 * @throws DIGEST_MISMATCH, INVALID_ARCHIVE, CORRUPT, FAILED_PRECONDITION (a directory or running container that changes meanwhile), ABORTED
 */
export function flattenImage(source: ImageSource, options: CombineOptions = {}): AsyncGenerator<Buffer, CombineOutcome, undefined> {
  return combineLayers(source.layers, 0, options)
}
