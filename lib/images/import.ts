// Making an image of a root file system's tar: one layer and a config of its own. The layer is the layer store's work.

import fs from 'node:fs'
import { asStorageError, StorageError } from '../errors.ts'
import { readDescriptor } from '../fs/read-descriptor.ts'
import type { Digest } from '../ids.ts'
import type { LayerSource, RegisteredLayer } from '../layers/types.ts'
import { applyChanges } from './changes.ts'
import { encodeConfig, runtimeConfig } from './config.ts'
import { parseTarget } from './context.ts'
import type { ImageContext } from './context.ts'
import { createImage } from './create.ts'
import { goTime } from './json.ts'
import { hostPlatform, parsePlatform } from './platform.ts'
import { familiarString } from './reference.ts'
import type { ImportOptions } from './types.ts'

export async function importRootFs(context: ImageContext, source: string | number | AsyncIterable<Uint8Array>, options: ImportOptions): Promise<Digest> {
  context.mustWrite('import images')
  const { message = 'Imported from -', changes = [], limits, onProgress, signal } = options
  // What the caller got wrong is told before a long tar is read.
  const runtime = runtimeConfig(applyChanges({}, changes))
  const reference = options.reference === undefined ? undefined : familiarString(parseTarget(options.reference))
  const platform = options.platform === undefined ? hostPlatform() : parsePlatform(options.platform)
  const opened = typeof source === 'string' ? openSync(source) : undefined
  try {
    return await context.layers.operation('image import', async operation => {
      const label = typeof source === 'string' ? source : 'the root file system'
      const from = opened ?? (typeof source === 'number' ? source : undefined)
      const layerSource = from === undefined ? { stream: source as AsyncIterable<Uint8Array> } : sourceOf(from)
      const [layer] = await context.layers.register(operation, [{ source: layerSource, label, ...(limits === undefined ? {} : { limits }), ...(onProgress === undefined ? {} : { onProgress }) }])
      if (layer?.tarBytes === 0) throw new StorageError('INVALID_ARCHIVE', `cannot import ${label}: it is empty`, { hint: 'what wrote it may have failed' })
      const created = goTime(options.created ?? new Date())
      const config = encodeConfig({
        architecture: platform.architecture, ...(platform.variant === undefined ? {} : { variant: platform.variant }), os: platform.os,
        created, comment: message, config: runtime,
        rootfs: { type: 'layers', diff_ids: [(layer as RegisteredLayer).diffId] }, history: [{ created, comment: message }],
      })
      return await createImage(context, config, { operation, ...(reference === undefined ? {} : { reference }) })
    }, signal)
  } finally {
    if (opened !== undefined) fs.closeSync(opened)
  }
}

function openSync(file: string): number {
  try {
    return fs.openSync(file, fs.constants.O_RDONLY)
  } catch (error) {
    throw asStorageError(error, `opening ${file}`, { path: file })
  }
}

/** A regular file is read by the threads themselves; a pipe is pumped to them. */
function sourceOf(fd: number): LayerSource {
  const stat = fs.fstatSync(fd)
  return stat.isFile() ? { file: { fd, offset: 0, length: stat.size } } : { stream: readDescriptor(fd) }
}
