// The layer store: Docker's layer database over a driver. Registers, finds, releases and writes out image layers; runs operations under the crash
// protocol. Names no images and no containers: who refers to layers tells it so (addReferences).

import fs from 'node:fs'
import path from 'node:path'
import { randomBytes } from 'node:crypto'
import { jobsModule } from '../diff/jobs.ts'
import type { AssembleArguments } from '../diff/jobs.ts'
import type { Driver } from '../driver.ts'
import { isErrno, StorageError } from '../errors.ts'
import { syncDirectory } from '../fs/atomic.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { chainIdOf, hexOf, parseDigest } from '../ids.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { runJob, streamJob } from '../sys/threads.ts'
import { layerDb, layOut, ownState } from './data-root.ts'
import { abandonedIntents, allIntents, Intent } from './intents.ts'
import type { IntentRecord } from './intents.ts'
import { listChainIds, readLayer, tarSplitName, writeLayerFiles } from './layer-files.ts'
import { rwLayerIds } from './rw-files.ts'
import { stageLayers } from './stage.ts'
import type { StagedLayer } from './stage.ts'
import { readOnlyError, StoreLock } from './store-lock.ts'
import { syncModule } from './sync-job.ts'
import type { DataRoot, Layer, LayerStore, LayerToRegister, Operation, RegisteredLayer } from './types.ts'

type References = () => AsyncIterable<ChainId> | Promise<Iterable<ChainId>>

/** An operation as the stores of this folder see it. */
export class RunningOperation implements Operation {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly intent: Intent
  /** Of the driver layers that the intent names, those that the catalogue now has, and those that it no longer has: known without a look. */
  readonly kept = new Set<LayerId>()
  readonly dropped = new Set<LayerId>()
  readonly #lock: StoreLock

  constructor(name: string, signal: AbortSignal | undefined, intent: Intent, lock: StoreLock) {
    this.name = name
    this.signal = signal
    this.intent = intent
    this.#lock = lock
  }

  async temporary(target: string): Promise<void> {
    this.intent.note('path', [target])
  }

  async hold(chainId: ChainId): Promise<void> {
    await this.#lock.run(() => this.intent.note('hold', [chainId]))
  }
}

export class DiskLayerStore implements LayerStore {
  readonly root: DataRoot
  readonly driver: Driver
  readonly #lock: StoreLock
  readonly #references: References[] = []

  constructor(root: DataRoot, driver: Driver) {
    this.root = root
    this.driver = driver
    this.#lock = new StoreLock(ownState.lock(root))
  }

  // ---- operations ------------------------------------------------------------------------------------------------------------

  async operation<T>(name: string, work: (operation: Operation) => Promise<T>, signal?: AbortSignal): Promise<T> {
    return await this.run(name, work, signal)
  }

  /** `operation` for the stores of this folder, which note layers in its intent themselves. */
  async run<T>(name: string, work: (operation: RunningOperation) => Promise<T>, signal?: AbortSignal): Promise<T> {
    this.#mustWrite(name)
    const operation = new RunningOperation(name, signal, Intent.begin(this.root, name), this.#lock)
    let result: T
    try {
      result = await work(operation)
    } catch (error) {
      try {
        await this.#settle(operation.intent.record())
      } catch (failure) {
        operation.intent.leave()
        throw new AggregateError([error, failure], `${(error as Error).message}; and rolling back failed: ${(failure as Error).message}`)
      }
      operation.intent.end()
      throw error
    }
    try {
      await this.#settle(operation.intent.record(), operation)
    } catch (error) {
      // The intent stays, so that whoever opens the store next tries again.
      operation.intent.leave()
      throw error
    }
    operation.intent.end()
    return result
  }

  /** Undo or finish what an intent names, but for what has come to be in use. The same after a success, a failure and a crash. */
  async #settle(record: IntentRecord, known?: RunningOperation): Promise<void> {
    for (const target of record.paths) await removeTree(target)
    let used: Set<LayerId> | undefined
    for (const id of record.layers) {
      if (known?.kept.has(id) === true) continue
      if (known?.dropped.has(id) !== true && (used ??= this.#driverIdsInUse()).has(id)) continue
      await this.driver.remove(id)
    }
    if (record.published.length > 0) {
      const needed = await this.#lock.run(() => this.#needed(record.name))
      for (const chainId of [...record.published].reverse()) if (!needed.has(chainId)) await this.#release(chainId, record.name)
    }
  }

  /** Roll back what processes that are gone have left. Called when the store is opened. */
  async recover(): Promise<readonly string[]> {
    const recovered: string[] = []
    for (const { record, done, leave } of abandonedIntents(this.root)) {
      try {
        await this.#settle(record)
        recovered.push(record.name)
        done()
      } catch (error) {
        leave()
        throw error
      }
    }
    return recovered
  }

  #driverIdsInUse(): Set<LayerId> {
    const used = new Set<LayerId>(rwLayerIds(this.root))
    for (const chainId of listChainIds(this.root)) {
      try {
        used.add(fs.readFileSync(path.join(layerDb.layer(this.root, chainId), 'cache-id'), 'utf8').trim() as LayerId)
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) throw error
      }
    }
    return used
  }

  locked<T>(work: () => Promise<T>): Promise<T> {
    return this.#lock.run(work)
  }

  addReferences(source: References): void {
    this.#references.push(source)
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  async find(chainId: ChainId): Promise<Layer | undefined> {
    return readLayer(this.root, chainId)
  }

  async get(chainId: ChainId): Promise<Layer> {
    const layer = readLayer(this.root, chainId)
    if (layer === undefined) throw new StorageError('NOT_FOUND', `layer does not exist: ${chainId}`, { key: chainId })
    return layer
  }

  async *list(onDamaged?: (error: StorageError) => void): AsyncGenerator<Layer> {
    for (const chainId of listChainIds(this.root)) {
      try {
        const layer = readLayer(this.root, chainId)
        if (layer !== undefined) yield layer
      } catch (error) {
        if (onDamaged === undefined || !StorageError.is(error)) throw error
        onDamaged(error)
      }
    }
  }

  async chain(chainId: ChainId): Promise<Layer[]> {
    const chain: Layer[] = []
    for (let next: ChainId | undefined = chainId; next !== undefined; next = chain.at(-1)?.parent) chain.push(await this.get(next))
    return chain
  }

  async *tar(chainId: ChainId, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Buffer> {
    const layer = await this.get(chainId)
    const file = path.join(layerDb.layer(this.root, chainId), tarSplitName)
    let tarSplitFd: number
    try {
      tarSplitFd = fs.openSync(file, 'r')
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
      throw new StorageError('CORRUPT', `layer ${chainId}: ${tarSplitName} is missing, so its tar cannot be rebuilt`, { key: chainId, path: file }, { cause: error })
    }
    try {
      const content = await this.driver.content(layer.cacheId)
      const { diffId } = yield* streamJob<AssembleArguments, { diffId: string }>(jobsModule, 'assembleJob', { dir: content.path, tarSplitFd }, options)
      if (diffId !== layer.diffId) {
        throw new StorageError('CORRUPT', `could not verify layer data for: ${layer.diffId}. This may be because internal files in the layer store were modified`,
          { key: chainId, hint: 're-pulling or rebuilding this image may resolve the issue' })
      }
    } finally {
      fs.closeSync(tarSplitFd)
    }
  }

  // ---- registering -----------------------------------------------------------------------------------------------------------

  async register(operation: Operation, layers: readonly LayerToRegister[], parent?: ChainId): Promise<RegisteredLayer[]> {
    if (!(operation instanceof RunningOperation)) throw new TypeError('register needs the operation that it was given')
    const result: RegisteredLayer[] = []
    // What is not promised is known once it has been read.
    const diffIds = layers.map(layer => layer.diffId)
    let read = 0
    let top = parent
    // Usually one round; another when the layers were there without our knowing, or a second process published them while we extracted.
    while (result.length < layers.length) {
      for (const layer of await this.#adoptExisting(operation, diffIds.slice(result.length), top)) {
        result.push({ ...layer, fresh: false, skippedCount: 0, skipped: [] })
        top = layer.chainId
      }
      const rest = layers.slice(result.length)
      if (rest.length === 0) break
      if (rest.some((layer, i) => result.length + i < read && 'stream' in layer.source)) {
        throw new StorageError('BUSY', 'registering layers: another process published some of them meanwhile, and a stream cannot be read twice', { op: 'register', hint: 'try again' })
      }
      const below = top === undefined ? undefined : await this.get(top)
      await this.#checkDepth(result.length - 1 + rest.length + (parent === undefined ? 0 : (await this.chain(parent)).length))
      const staged = await stageLayers({ root: this.root, driver: this.driver, intent: operation.intent, signal: operation.signal }, rest, below?.cacheId, result.length)
      const published = await this.#publish(operation, staged, top)
      if (published === undefined) {
        for (const [i, layer] of staged.entries()) {
          diffIds[result.length + i] = parseDigest(layer.outcome.diffId)
          await removeTree(layer.writeSet)
          await this.driver.remove(layer.cacheId)
        }
        read = layers.length
        continue // and adopt what is there
      }
      for (const [i, layer] of published.entries()) {
        const { tarBytes, blobDigest, blobBytes, skipped, skippedCount } = (staged[i] as StagedLayer).outcome
        result.push({ ...layer, fresh: true, tarBytes, blobDigest: parseDigest(blobDigest), blobBytes, skipped, skippedCount })
        top = layer.chainId
      }
    }
    return result
  }

  async #checkDepth(depth: number): Promise<void> {
    // Two more for a container's init and own layer.
    const most = this.driver.supports.maxDepth - 2
    if (depth > most) throw new StorageError('LIMIT_EXCEEDED', `max depth exceeded: ${depth} layers, and ${this.driver.name} carries ${most}`, { op: 'register', driver: this.driver.name })
  }

  /** The layers, from the bottom, that exist already; held before the lock is let go. Only possible where diffIDs are known. */
  async #adoptExisting(operation: RunningOperation, diffIds: readonly (Digest | undefined)[], top: ChainId | undefined): Promise<Layer[]> {
    return await this.#lock.run(async () => {
      const found: Layer[] = []
      let at = top
      for (const diffId of diffIds) {
        if (diffId === undefined) break
        at = chainIdOf(at, diffId)
        const layer = await this.find(at)
        if (layer === undefined || !await this.driver.exists(layer.cacheId)) break
        found.push(layer)
      }
      const last = found.at(-1)
      if (last !== undefined) operation.intent.note('hold', [last.chainId])
      return found
    })
  }

  /** Make staged layers visible, all or none. Undefined when one of them exists meanwhile. */
  async #publish(operation: RunningOperation, staged: readonly StagedLayer[], parent: ChainId | undefined): Promise<Layer[] | undefined> {
    const sync = this.root.durability !== 'none'
    const layers: Layer[] = []
    let below = parent
    for (const { cacheId, outcome, writeSet } of staged) {
      const diffId = parseDigest(outcome.diffId)
      const chainId = chainIdOf(below, diffId)
      const layer: Layer = { chainId, diffId, cacheId, sizeBytes: outcome.sizeBytes, ...(below === undefined ? {} : { parent: below }) }
      writeLayerFiles(writeSet, layer, sync)
      layers.push(layer)
      below = chainId
    }
    if (this.root.durability === 'full') {
      // Once for all layers: their data, and the tar-splits when they lie on the same file system.
      await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [this.root.path, (await this.driver.content((staged[0] as StagedLayer).cacheId)).path])
    }
    operation.intent.note('published', layers.map(layer => layer.chainId))
    const made = await this.#lock.run(() => {
      if (layers.some(layer => fs.existsSync(layerDb.layer(this.root, layer.chainId)))) return false
      for (const [i, layer] of layers.entries()) fs.renameSync((staged[i] as StagedLayer).writeSet, layerDb.layer(this.root, layer.chainId))
      return true
    })
    if (!made) return undefined
    for (const layer of staged) operation.kept.add(layer.cacheId)
    if (sync) await syncDirectory(layerDb.layers(this.root))
    return layers
  }

  // ---- releasing -------------------------------------------------------------------------------------------------------------

  async release(chainId: ChainId): Promise<Layer[]> {
    this.#mustWrite('remove layers')
    return await this.#release(chainId, undefined)
  }

  async #release(chainId: ChainId, exceptIntent: string | undefined): Promise<Layer[]> {
    return await this.run('release', async operation => {
      const removed = await this.#lock.run(() => this.#unlist(chainId, exceptIntent, operation))
      if (removed.length > 0 && this.root.durability !== 'none') await syncDirectory(layerDb.layers(this.root))
      return removed
    })
  }

  /** Take the layer and its parents out of the catalogue, as far as nothing refers to them; the operation's end deletes them. Under the lock. */
  async #unlist(chainId: ChainId, exceptIntent: string | undefined, operation: RunningOperation): Promise<Layer[]> {
    const candidates: Layer[] = []
    for (let next: ChainId | undefined = chainId; next !== undefined; next = candidates.at(-1)?.parent) {
      const layer = await this.find(next)
      if (layer === undefined) break
      candidates.push(layer)
    }
    if (candidates.length === 0) return []
    const needed = await this.#needed(exceptIntent)
    const children = this.#childCounts()
    const out: Layer[] = []
    for (const layer of candidates) {
      if (needed.has(layer.chainId) || (children.get(layer.chainId) ?? 0) > (out.length > 0 ? 1 : 0)) break
      out.push(layer)
    }
    operation.intent.note('layer', out.map(layer => layer.cacheId))
    for (const layer of out) {
      // The name that dockerd gives a layer under removal, and cleans up itself.
      const doomed = `${path.join(layerDb.layers(this.root), hexOf(layer.chainId))}-${randomBytes(32).toString('hex')}-removing`
      operation.intent.note('path', [doomed])
      fs.renameSync(layerDb.layer(this.root, layer.chainId), doomed)
      operation.dropped.add(layer.cacheId)
    }
    return out
  }

  /** Every layer that somebody refers to, parents included: images, containers, operations under way. */
  async #needed(exceptIntent: string | undefined): Promise<Set<ChainId>> {
    const needed = new Set<ChainId>()
    const add = async (chainId: ChainId): Promise<void> => {
      for (let next: ChainId | undefined = chainId; next !== undefined && !needed.has(next);) {
        needed.add(next)
        next = (await this.find(next))?.parent
      }
    }
    for (const source of this.#references) {
      const ids = source()
      if (Symbol.asyncIterator in ids) for await (const id of ids) await add(id)
      else for (const id of await ids) await add(id)
    }
    for (const intent of allIntents(this.root)) {
      if (intent.name === exceptIntent) continue
      for (const id of [...intent.holds, ...intent.published]) await add(id)
    }
    return needed
  }

  #childCounts(): Map<ChainId, number> {
    const counts = new Map<ChainId, number>()
    for (const chainId of listChainIds(this.root)) {
      try {
        const parent = fs.readFileSync(path.join(layerDb.layer(this.root, chainId), 'parent'), 'utf8').trim() as ChainId
        counts.set(parent, (counts.get(parent) ?? 0) + 1)
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) throw error
      }
    }
    return counts
  }

  #mustWrite(op: string): void {
    if (this.root.readOnly) throw readOnlyError(op)
  }
}

/** Open the layer database of `driver` in a data root; made when missing, and what crashed processes left is rolled back, unless read-only. */
export async function openLayerStore(root: DataRoot, driver: Driver): Promise<DiskLayerStore> {
  const store = new DiskLayerStore(root, driver)
  if (!root.readOnly) layOut(root)
  return store
}
