// Commit: a container's changes become a layer on its image's, and a new image that names both. Owns what the new image's config says.

import { StorageError } from '../errors.ts'
import { emptyTarDigest, parseDigest } from '../ids.ts'
import type { ChainId, Digest } from '../ids.ts'
import { jobsModule } from '../diff/jobs-module.ts'
import { applyChanges } from '../images/changes.ts'
import { encodeConfig, runtimeConfig } from '../images/config.ts'
import type { ImageStore } from '../images/index.ts'
import type { LayerStore, Operation, RwLayers } from '../layers/index.ts'
import { warmThread } from '../sys/threads.ts'
import { timestamp } from './config.ts'
import type { ContainerConfig, ContainerRecord } from './config.ts'
import { onlyIfEmpty } from './empty-layer.ts'
import { mergeConfig } from './merge-config.ts'

export interface CommitOptions {
  /** A name for the new image. */
  readonly reference?: string
  readonly author?: string
  readonly message?: string
  /** What differs from the container's config; variables, labels, ports and volumes are united with it, as `docker commit` does. */
  readonly config?: ContainerConfig
  /** RFC 3339. Default: now. Give it, and the same container commits to the same image id. */
  readonly created?: string
  /** Dockerfile instructions for the image's config, as in `docker commit --change`; applied after `config`. */
  readonly changes?: readonly string[]
  readonly signal?: AbortSignal
  /** Bytes of the new layer's tar so far. */
  readonly onProgress?: (bytes: number) => void
}

export interface CommitResult {
  readonly imageId: Digest
  /** The new layer; absent when nothing had changed. */
  readonly chainId?: ChainId
  /** Names that vanished or changed their kind while they were read. */
  readonly skipped: readonly { readonly path: string; readonly what: string; readonly reason: string }[]
}

export interface CommitPlace {
  readonly layers: LayerStore
  readonly rw: RwLayers
  readonly images: ImageStore
}

/** @throws what reading the container, registering the layer and making the image throw; INVALID_ARGUMENT for `changes` */
export async function commitContainer({ layers, rw, images }: CommitPlace, container: ContainerRecord, options: CommitOptions): Promise<CommitResult> {
  // It will apply the layer, and starts while this thread finds out what changed.
  warmThread(jobsModule)
  return await layers.operation('commit', async operation => {
    const image = container.imageId === undefined ? undefined : await images.get(container.imageId)
    const parent = image?.layers.at(-1)
    // Before the work, since they may be wrong.
    const runtime = mergeConfig(applyChanges(options.config ?? container.config, options.changes ?? []) as ContainerConfig, container.config)
    const layer = await registerChanges(layers, rw, operation, container.id, parent, options)
    const raw = image?.config.raw ?? { architecture: goArchitecture(), os: 'linux' }
    const created = options.created ?? timestamp()
    const config = {
      // What says where it runs is the image's; author, comment and build records are not this image's (moby image.NewChildImage).
      ...Object.fromEntries(inherited.filter(key => raw[key] !== undefined).map(key => [key, raw[key]])), created,
      ...(options.author === undefined ? {} : { author: options.author }), ...(options.message === undefined ? {} : { comment: options.message }),
      config: runtimeConfig(runtime), container: container.id,
      history: [...rawHistory(raw), historyOf(container.config, options, created, layer.chainId === undefined)],
      rootfs: { type: 'layers', diff_ids: [...image?.config.diffIds ?? [], ...layer.diffId === undefined ? [] : [layer.diffId]] },
    }
    const imageId = await images.create(encodeConfig(config), {
      operation, ...(container.imageId === undefined ? {} : { parent: container.imageId }), ...(options.reference === undefined ? {} : { reference: options.reference }),
    })
    return { imageId, skipped: layer.skipped, ...(layer.chainId === undefined ? {} : { chainId: layer.chainId }) }
  }, options.signal)
}

async function registerChanges(layers: LayerStore, rw: RwLayers, operation: Operation, id: string, parent: ChainId | undefined, { signal, onProgress }: CommitOptions):
Promise<{ chainId?: ChainId; diffId?: Digest; skipped: CommitResult['skipped'] }> {
  const changes = rw.tar(id, { signal, shared: true })
  try {
    // Docker records a commit without changes as an empty layer, and so keeps none.
    const { stream, outcome } = await onlyIfEmpty(changes)
    if (stream === undefined) return { skipped: (await outcome).skipped }
    const [layer] = await layers.register(operation, [{ source: { stream, plain: true }, ...(onProgress === undefined ? {} : { onProgress }) }], parent)
    if (layer === undefined) throw new StorageError('CORRUPT', 'registering the changes gave no layer', { op: 'commit' })
    const { skipped, diffId } = await outcome
    if (parseDigest(diffId) !== layer.diffId || layer.diffId === emptyTarDigest) {
      throw new StorageError('CORRUPT', `the changes were written as ${diffId} and read as ${layer.diffId}`, { op: 'commit' })
    }
    return { chainId: layer.chainId, diffId: layer.diffId, skipped }
  } finally {
    // A failure may leave the writer in the middle: its thread would wait for a reader for ever.
    await changes.return(undefined as never)
  }
}

const inherited = ['architecture', 'variant', 'os', 'os.version', 'os.features']

function rawHistory(raw: Readonly<Record<string, unknown>>): readonly unknown[] {
  return Array.isArray(raw['history']) ? raw['history'] as unknown[] : []
}

function historyOf(config: ContainerConfig, options: CommitOptions, created: string, empty: boolean): Record<string, unknown> {
  return {
    created,
    ...(options.author === undefined ? {} : { author: options.author }),
    created_by: (config.Cmd ?? []).join(' '),
    ...(options.message === undefined ? {} : { comment: options.message }),
    ...(empty ? { empty_layer: true } : {}),
  }
}

/** Node's names of processors in Go's words, as image configs have them. */
function goArchitecture(): string {
  const names: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' }
  return names[process.arch] ?? process.arch
}
