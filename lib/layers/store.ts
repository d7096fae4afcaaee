// The layer store: Docker's layer database over a driver. Registers, finds, releases and writes out image layers; runs operations under the crash
// protocol. Names no images and no containers: who refers to layers tells it so (addReferences).

import fs from 'node:fs'
import path from 'node:path'
import type { Driver } from '../driver.ts'
import { asStorageError, StorageError, told } from '../errors.ts'
import { syncDirectory, temporaryPrefix } from '../fs/atomic.ts'
import { Remembered } from '../fs/remembered.ts'
import { removeKnownFolder } from '../fs/remove-small.ts'
import { removeTree } from '../fs/remove-tree.ts'
import { chainIdOf, isLayerId, parseDigest } from '../ids.ts'
import type { ChainId, Digest, LayerId } from '../ids.ts'
import { runJob } from '../sys/threads.ts'
import { imageDir, layerDb, layOut, ownState } from './data-root.ts'
import { abandonedRemovals, cacheIdIn, driverLayersInUse, referredLayers } from './in-use.ts'
import type { References } from './in-use.ts'
import { abandonedIntents, Intent } from './intents.ts'
import type { IntentRecord } from './intents.ts'
import { listChainIds, readLayer, writeLayerFiles } from './layer-files.ts'
import { layerTar, writeLayerTar } from './layer-tar.ts'
import { forgetRw } from './rw-files.ts'
import { stageLayers } from './stage.ts'
import type { StagedLayer } from './stage.ts'
import { RunningOperation } from './operation.ts'
import { readOnlyError, StoreLock } from './store-lock.ts'
import { syncModule } from './sync-job.ts'
import { setAside, unlist } from './unlist.ts'
import type { DataRoot, Layer, LayerStore, LayerToRegister, Operation, RegisteredLayer, Undo, WriteTarOptions } from './types.ts'

export class DiskLayerStore implements LayerStore {
  readonly root: DataRoot
  readonly driver: Driver
  readonly #lock: StoreLock
  readonly #references: References[] = []
  readonly #undo = new Map<string, Undo>()
  #left = false
  readonly #remembered = new Remembered<Layer>()
  /** What crashed processes left and `recover` could not roll back, and why; the next process that opens the store tries again. */
  readonly unsettled: StorageError[] = []

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
    try {
      if (this.#left) {
        this.#left = false
        await this.#settleAbandoned('operations')
      }
      const operation = new RunningOperation(name, signal, Intent.begin(this.root, name), this.#lock)
      try {
        return await this.#perform(operation, work)
      } finally {
        if (operation.intent.holds) await this.#settleAbandoned('deferred')
      }
    } catch (error) {
      throw told(error, name.replaceAll('-', ' '), { op: name })
    }
  }

  async #perform<T>(operation: RunningOperation, work: (operation: RunningOperation) => Promise<T>): Promise<T> {
    const { intent } = operation
    let result: T
    try {
      result = await work(operation)
    } catch (error) {
      try {
        await this.#settle(intent.record())
      } catch (failure) {
        this.#leave(intent)
        const cause = asStorageError(error, operation.name)
        throw new StorageError(cause.code, `${cause.message}; and rolling back failed: ${(failure as Error).message}`, cause.info, { cause: new AggregateError([error, failure]) })
      }
      intent.end()
      throw error
    }
    try {
      await this.#settle(intent.record(), operation)
    } catch (error) {
      this.#leave(intent)
      throw error
    }
    intent.end()
    return result
  }

  /** It stays for whoever opens the store next; and for our own next operation, since a full disk may have space again. */
  #leave(intent: Intent): void {
    intent.leave()
    this.#left = true
  }

  /** Undo or finish what an intent names, but for what has come to be in use. The same after a success, a failure and a crash. */
  async #settle(record: IntentRecord, known?: RunningOperation): Promise<void> {
    const failures: unknown[] = []
    // One thing that cannot be removed keeps nothing else.
    const attempt = async (work: () => Promise<void>): Promise<void> => {
      try { await work() } catch (error) { failures.push(error) }
    }
    for (const target of record.paths) {
      const files = known?.folders.get(target)
      await attempt(async () => { if (files === undefined || !removeKnownFolder(target, files)) await removeTree(target) })
    }
    // First what refers to layers: then they are free to go. After a success there is nothing to undo.
    if (known === undefined) for (const { kind, value } of record.undo) await attempt(async () => await this.#undo.get(kind)?.(value))
    const gone = record.containers.filter(({ record: file }) => !fs.existsSync(file))
    // What could not be undone may need the entry when it is tried again.
    if (failures.length === 0) for (const { name } of gone) forgetRw(this.root, name)
    let used: Set<LayerId> | undefined
    for (const id of record.layers) {
      if (known?.kept.has(id) === true) continue
      if (known?.dropped.has(id) !== true && (used ??= driverLayersInUse(this.root)).has(id)) continue
      await attempt(() => this.driver.remove(id, known?.dropped.get(id)))
    }
    if (failures.length > 0) throw failures[0]
    // As long as a container's half-made entry was there, it kept its parent from whoever removed the image meanwhile: nobody else will release that.
    const left = [...record.published, ...record.freed, ...gone.length === 0 ? [] : record.holds].filter(id => known?.spared.has(id) !== true && fs.existsSync(layerDb.layer(this.root, id)))
    if (left.length === 0) return
    const referred = await this.#lock.run(() => referredLayers(this.root, this.#references))
    for (const chainId of left.reverse()) if (!referred.has(chainId)) await this.#release(chainId, record.name)
  }

  /** Roll back what processes that are gone have left. Called when the store is opened. Returns the names of what was rolled back. */
  async recover(): Promise<readonly string[]> {
    const recovered = [...await this.#settleAbandoned('operations'), ...await this.#settleAbandoned('deferred')]
    await this.#lock.run(() => this.#sweepTemporaries())
    const used = driverLayersInUse(this.root)
    for (const dir of abandonedRemovals(this.root)) {
      const id = cacheIdIn(dir)
      try {
        if (isLayerId(id) && !used.has(id)) await this.driver.remove(id)
        await removeTree(dir)
        recovered.push(path.basename(dir))
      } catch (error) {
        this.unsettled.push(asStorageError(error, `removing ${dir}`))
      }
    }
    return recovered
  }

  /** Files that were being written when their process died: all who write here hold the lock, so now nobody does. */
  #sweepTemporaries(): void {
    const dir = imageDir(this.root)
    for (const name of fs.readdirSync(dir)) if (name.startsWith(temporaryPrefix)) fs.rmSync(path.join(dir, name), { force: true })
  }

  /** One that cannot be settled (an immutable file, a mount inside) stays for the next time: a store must open in spite of it. */
  async #settleAbandoned(which: 'operations' | 'deferred'): Promise<string[]> {
    const settled: string[] = []
    for (const intent of abandonedIntents(this.root, which)) {
      try {
        const record = intent.record()
        await this.#settle(record)
        settled.push(record.name)
        intent.done()
      } catch (error) {
        intent.leave()
        this.unsettled.push(asStorageError(error, `settling ${intent.file}`))
      }
    }
    return settled
  }

  async locked<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.#lock.run(work)
    } catch (error) {
      throw told(error, `changing what ${this.root.driverName} holds`)
    }
  }

  addReferences(source: References): void {
    this.#references.push(source)
  }

  addUndo(kind: string, handler: Undo): void {
    this.#undo.set(kind, handler)
  }

  /** Layers that somebody said they refer to, parents not named. Whoever cannot say, since a record of his is damaged, is passed over: for checks, not for removals. */
  async referred(): Promise<Set<ChainId>> {
    const found = new Set<ChainId>()
    for (const source of this.#references) {
      try {
        const ids = source()
        if (Symbol.asyncIterator in ids) for await (const id of ids) found.add(id)
        else for (const id of await ids) found.add(id)
      } catch (error) {
        if (!StorageError.is(error)) throw error
      }
    }
    return found
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  async find(chainId: ChainId): Promise<Layer | undefined> {
    return this.#remembered.get(layerDb.layer(this.root, chainId), () => readLayer(this.root, chainId))
  }

  async get(chainId: ChainId): Promise<Layer> {
    const layer = await this.find(chainId)
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
    yield* layerTar(this.root, this.driver, await this.get(chainId), options)
  }

  async writeTar(chainId: ChainId, to: { readonly fd: number; readonly offset: number }, options: WriteTarOptions = {}): Promise<number> {
    return await writeLayerTar(this.root, this.driver, await this.get(chainId), to, options)
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
      await this.#checkDepth(layers.length + (parent === undefined ? 0 : (await this.chain(parent)).length))
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
    // Below a container's own layer lies its init layer as well.
    const most = this.driver.supports.maxDepth - 1
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
        const layer = await this.#usable(at)
        if (layer === undefined) break
        found.push(layer)
      }
      const held = found.at(-1)?.chainId ?? top
      if (held !== undefined) operation.intent.note('hold', [held])
      return found
    })
  }

  /**
   * The layer, unless it is not there or nothing is left of it but its files: then it does not stand in the way of a new one, as it does in
   * dockerd (moby#44909). @throws CORRUPT when its files are damaged and the driver may still have its content
   */
  async #usable(chainId: ChainId): Promise<Layer | undefined> {
    try {
      const layer = readLayer(this.root, chainId)
      return layer !== undefined && await this.driver.exists(layer.cacheId) ? layer : undefined
    } catch (error) {
      if (!StorageError.is(error, 'CORRUPT')) throw error
      const id = cacheIdIn(layerDb.layer(this.root, chainId))
      if (isLayerId(id) && await this.driver.exists(id)) throw error
      return undefined
    }
  }

  /** Make staged layers visible, all or none. Undefined when the lowest exists meanwhile; what lies on one that does not is replaced. */
  async #publish(operation: RunningOperation, staged: readonly StagedLayer[], parent: ChainId | undefined): Promise<Layer[] | undefined> {
    const sync = this.root.durability !== 'none'
    const layers: Layer[] = []
    let below = parent
    for (const { cacheId, outcome, writeSet } of staged) {
      const diffId = parseDigest(outcome.diffId)
      const chainId = chainIdOf(below, diffId)
      const layer: Layer = { chainId, diffId, cacheId, sizeBytes: outcome.sizeBytes, ...(below === undefined ? {} : { parent: below }) }
      // What syncfs covers below needs no sync of its own.
      writeLayerFiles(writeSet, layer, this.root.durability === 'metadata')
      layers.push(layer)
      below = chainId
    }
    if (this.root.durability === 'full') {
      // Once for all layers: their data, and the tar-splits when they lie on the same file system.
      await runJob<readonly string[], void>(syncModule, 'syncFileSystemsJob', [this.root.path, (await this.driver.content((staged[0] as StagedLayer).cacheId)).path])
    }
    operation.intent.note('published', layers.map(layer => layer.chainId))
    const made = await this.#lock.run(async () => {
      const [lowest] = layers
      if (lowest === undefined || await this.#usable(lowest.chainId) !== undefined) return false
      for (const [i, { chainId }] of layers.entries()) {
        setAside(this.root, operation, [chainId].filter(id => fs.existsSync(layerDb.layer(this.root, id))))
        fs.renameSync((staged[i] as StagedLayer).writeSet, layerDb.layer(this.root, chainId))
      }
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
    const operation = new RunningOperation('release', undefined, Intent.begin(this.root, 'release'), this.#lock)
    return await this.#perform(operation, async () => {
      const removed = await this.#lock.run(() => unlist(this.root, this.#references, chainId, exceptIntent, operation))
      if (removed.length > 0 && this.root.durability !== 'none') await syncDirectory(layerDb.layers(this.root))
      return removed
    })
  }

  #mustWrite(op: string): void {
    if (this.root.readOnly) throw readOnlyError(this.root, op)
  }
}

/** Open the layer database of `driver` in a data root; made when missing, and what crashed processes left is rolled back, unless read-only. */
export async function openLayerStore(root: DataRoot, driver: Driver): Promise<DiskLayerStore> {
  const store = new DiskLayerStore(root, driver)
  if (!root.readOnly) layOut(root)
  return store
}
