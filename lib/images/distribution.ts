// Docker's distribution folder: which blob, compressed as registries keep it, holds which layer. dockerd reads it to spare a download of what is
// there already (moby#46664). Written after a load; nothing here ever depends on it.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { atomicWrite } from '../fs/atomic.ts'
import { hexOf } from '../ids.ts'
import type { Digest } from '../ids.ts'
import { ensureDir, imageDir } from '../layers/data-root.ts'
import type { DataRoot } from '../layers/types.ts'
import { goJson } from './json.ts'

/** As in dockerd: older entries are dropped. */
const mostEntries = 50

export interface BlobOfLayer {
  readonly blobDigest: Digest
  readonly diffId: Digest
}

/** Note that the blob holds the layer. The caller holds the store's lock. */
export async function noteBlob(root: DataRoot, { blobDigest, diffId }: BlobOfLayer): Promise<void> {
  const base = path.join(imageDir(root), 'distribution')
  ensureDir(base, 0o700)
  const byDigest = path.join(base, 'diffid-by-digest', 'sha256'), byDiffId = path.join(base, 'v2metadata-by-diffid', 'sha256')
  for (const dir of [byDigest, byDiffId]) {
    ensureDir(path.dirname(dir), 0o755)
    ensureDir(dir, 0o755)
  }
  // A lost entry costs a download, so none of this is synced.
  await atomicWrite(path.join(byDigest, hexOf(blobDigest)), diffId, { sync: false, temporaryDir: imageDir(root) })
  const file = path.join(byDiffId, hexOf(diffId))
  const entries = readEntries(file).filter(entry => (entry as { Digest?: unknown } | null)?.Digest !== blobDigest)
  // Where the blob could be fetched from is unknown: it came from an archive.
  entries.push({ Digest: blobDigest, SourceRepository: '', HMAC: '' })
  await atomicWrite(file, goJson(entries.slice(-mostEntries)), { sync: false, temporaryDir: imageDir(root) })
}

function readEntries(file: string): unknown[] {
  try {
    const value: unknown = JSON.parse(fs.readFileSync(file, 'utf8'))
    return Array.isArray(value) ? value : []
  } catch (error) {
    if (isErrno(error, 'ENOENT') || error instanceof SyntaxError) return []
    throw error
  }
}
