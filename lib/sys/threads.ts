// A pool of worker threads that run exported functions with synchronous file calls: the fastest that Node has, off the main loop, and
// jailable (jail.ts). One job per thread at a time. Bytes flow in and out of a job as chunks with credits, never unbounded.

import { availableParallelism } from 'node:os'
import { isMainThread, MessageChannel, parentPort, receiveMessageOnPort, Worker, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { errnoOf, StorageError } from '../errors.ts'
import type { Code, ErrorInfo } from '../errors.ts'

/** What a job gets beside its arguments. All sync, all callable only while the job runs. */
export interface JobContext {
  /** The next input chunk, or undefined at the end. Blocks the thread. @throws what the input failed with */
  read(): Buffer | undefined
  /**
   * Hand a chunk to the caller; blocks while the caller is `outputCredits` chunks behind. The buffer is copied; when it is `given`, its memory
   * (all of `chunk.buffer`) goes to the caller instead, and the job's views of it are empty from then on.
   */
  write(chunk: Buffer, given?: boolean): void
  /** Tell how far it has come; dropped when the caller does not listen. */
  progress(value: number): void
  /** @throws ABORTED once the caller's signal has fired. Call it every few milliseconds of work. */
  checkAborted(): void
}

export interface JobOptions {
  readonly signal?: AbortSignal | undefined
  /** Chunks for `context.read()`; pulled as the job consumes them: when one is asked for, the job has done with all but the two before it. */
  readonly input?: AsyncIterable<Uint8Array> | undefined
  /** Receives what the job writes. Returning a promise holds the job back. */
  readonly onOutput?: ((chunk: Buffer) => void | Promise<void>) | undefined
  readonly onProgress?: ((value: number) => void) | undefined
  /** Start at once, in a thread of its own if need be: for a job whose output another job waits for. Default false. */
  readonly beyondLimit?: boolean
}

export type JobFunction<A, R> = (args: A, context: JobContext) => R | Promise<R>

/** Most jobs that run at once. Default: the processors this process may use. */
export const maxThreads: number = Math.max(1, Number(process.env['LAYERSTACK_THREADS'] ?? 0) || availableParallelism())

const creditLimit = 4

// Shared words of a job: [0] counts messages for the job (input, credits), [1] is 1 once aborted.
const WAKE = 0, ABORTED = 1

type ToJob =
  | { readonly kind: 'input'; readonly chunk: Uint8Array }
  | { readonly kind: 'input-end' }
  | { readonly kind: 'input-error'; readonly error: SerializedError }
  | { readonly kind: 'credit' }
type FromJob =
  | { readonly kind: 'want' }
  | { readonly kind: 'output'; readonly chunk: Uint8Array }
  | { readonly kind: 'progress'; readonly value: number }
  | { readonly kind: 'done'; readonly result: unknown }
  /** `useless`: the thread will never do this job. */
  | { readonly kind: 'failed'; readonly error: SerializedError; readonly useless?: boolean }

interface Start {
  readonly module: string
  readonly name: string
  readonly args: unknown
  readonly port: MessagePort
  readonly shared: SharedArrayBuffer
}

/** A module that a job will need. */
interface Warm {
  readonly module: string
}

interface SerializedError {
  readonly code?: Code
  readonly info?: ErrorInfo
  readonly message: string
  readonly stack?: string | undefined
  readonly errno?: string | undefined
  readonly type?: boolean
}

function serialize(error: unknown): SerializedError {
  if (StorageError.is(error)) return { code: error.code, info: error.info, message: error.message, stack: error.stack }
  const e = error instanceof Error ? error : new Error(String(error))
  return { message: e.message, stack: e.stack, errno: errnoOf(error) ?? (e as NodeJS.ErrnoException).code, type: e instanceof TypeError }
}

function revive(error: SerializedError): Error {
  if (error.code !== undefined) {
    const e = new StorageError(error.code, error.message, error.info)
    if (error.stack !== undefined) e.stack = error.stack
    return e
  }
  const e: NodeJS.ErrnoException = error.type === true ? new TypeError(error.message) : new Error(error.message)
  if (error.stack !== undefined) e.stack = error.stack
  if (error.errno !== undefined) e.code = error.errno
  return e
}

// ---- the caller's side -------------------------------------------------------------------------------------------------------

const idle: Worker[] = []
const waiting: ((worker: Worker | Promise<never>) => void)[] = []
/** Jobs under way that count; those beyond the limit do not, or two of them could take all threads from the jobs that they wait for. */
let counted = 0

// A thread takes node's own arguments over as they are. Only of those for a program given as text (node --input-type=module -e) it must not know, and so
// gets a list: which must not name what is the whole process's and holds for its threads anyhow (--max-old-space-size), or it refuses to start.
const isText = process.execArgv.some(argument => argument.startsWith('--input-type')) || process.env['NODE_OPTIONS']?.includes('--input-type') === true
const textAt = process.execArgv.findIndex(argument => /^(-e|-p|-pe|--eval|--print)$/.test(argument))
const listed = process.execArgv.filter((argument, i) => !argument.startsWith('--input-type') && (textAt < 0 || i !== textAt && i !== textAt + 1))

function start(): Worker {
  const place = new URL(import.meta.url), options = { workerData: { layerstackThread: true }, name: 'layerstack' }
  if (!isText) return new Worker(place, options)
  try {
    return new Worker(place, { ...options, execArgv: listed })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_WORKER_INVALID_EXEC_ARGV') throw error
    return new Worker(place, { ...options, execArgv: [] })
  }
}

/** @throws LIMIT_EXCEEDED where the system gives no thread */
function spawn(): Worker {
  let worker: Worker
  try {
    worker = start()
  } catch (error) {
    throw new StorageError('LIMIT_EXCEEDED', `starting a thread: ${(error as Error).message}`,
      { op: 'thread', hint: 'raise the limit of processes (ulimit -u) or of the cgroup (pids.max)' }, { cause: error })
  }
  worker.unref()
  worker.on('error', () => { /* reported to the job by its port; here only so that it is not uncaught */ })
  worker.once('exit', () => {
    const at = idle.indexOf(worker)
    if (at >= 0) idle.splice(at, 1)
  })
  return worker
}

/**
 * Start threads, unless as many are idle, that load `module` meanwhile: a job that is known to come finds one ready, where its start would cost 60 to 100 ms.
 * What fails here fails again, and is told, when the job comes.
 */
export function warmThread(module: string, count = 1): void {
  while (idle.length < Math.min(count, maxThreads - counted)) {
    const worker = spawn()
    worker.postMessage({ module } satisfies Warm)
    idle.push(worker)
  }
}

function acquire(beyondLimit: boolean): Worker | Promise<Worker> {
  if (!beyondLimit && counted === maxThreads) return new Promise(resolve => waiting.push(resolve))
  const worker = idle.pop() ?? spawn()
  // Not before there is one: whoever has none gives none back.
  if (!beyondLimit) counted++
  return worker
}

/** A thread, unless the signal fires before there is one. */
async function acquireUnless(signal: AbortSignal | undefined, beyondLimit: boolean, reason: () => Error): Promise<Worker> {
  if (signal?.aborted) throw reason()
  const got = acquire(beyondLimit)
  if (signal === undefined || got instanceof Worker) return got
  return await new Promise<Worker>((resolve, reject) => {
    const onAbort = (): void => reject(reason())
    signal.addEventListener('abort', onAbort, { once: true })
    void got.then(worker => {
      signal.removeEventListener('abort', onAbort)
      // The place in the queue was kept; its thread goes to the next in line.
      if (signal.aborted) giveBack(worker, false)
      else resolve(worker)
    }, reject)
  })
}

/** The end of a job, whose thread may have died. */
function giveBack(worker: Worker | undefined, beyondLimit: boolean): void {
  if (!beyondLimit) {
    const next = waiting.shift()
    if (next !== undefined) {
      try {
        next(worker ?? idle.pop() ?? spawn())
      } catch (error) {
        next(Promise.reject(error as Error))
        giveBack(undefined, false)
      }
      return
    }
    counted--
  }
  if (worker === undefined) return
  // An idle thread must not keep the process alive.
  worker.unref()
  if (idle.length >= maxThreads) void worker.terminate()
  else idle.push(worker)
}

/**
 * Run the function `name` that `module` (an import.meta.url) exports in a worker thread. Arguments and result are structured clones.
 * More calls than threads wait in order. A job that needs the result of another job while it runs would deadlock; do not write one.
 * @throws what the function threw, as a StorageError where it was one; ABORTED by the signal; LIMIT_EXCEEDED where the system gives no thread
 */
export async function runJob<A, R>(module: string, name: string, args: A, options: JobOptions = {}): Promise<R> {
  const { signal } = options
  const worker = await acquireUnless(signal, options.beyondLimit === true, () => new StorageError('ABORTED', `${name}: aborted before it began`))
  worker.ref()
  const { port1, port2 } = new MessageChannel()
  const shared = new SharedArrayBuffer(8)
  const words = new Int32Array(shared)
  const send = (message: ToJob): void => {
    port1.postMessage(message)
    Atomics.add(words, WAKE, 1)
    Atomics.notify(words, WAKE)
  }
  const onAbort = (): void => {
    Atomics.store(words, ABORTED, 1)
    Atomics.add(words, WAKE, 1)
    Atomics.notify(words, WAKE)
  }
  signal?.addEventListener('abort', onAbort, { once: true })
  // It may have fired between the thread's coming free and here.
  if (signal?.aborted) onAbort()
  let died = false
  /** What a callback of the caller threw: the job is stopped, and fails with that. */
  let callbackFailure: { readonly error: unknown } | undefined
  let input: AsyncIterator<Uint8Array> | undefined
  try {
    return await new Promise<R>((resolve, reject) => {
      const onExit = (): void => {
        died = true
        reject(new StorageError('IO', `${name}: the worker thread ended unexpectedly`))
      }
      worker.once('exit', onExit)
      const settle = (finish: () => void): void => {
        worker.off('exit', onExit)
        finish()
      }
      input = options.input?.[Symbol.asyncIterator]()
      let ended = input === undefined
      const feed = async (): Promise<void> => {
        try {
          const next = ended || input === undefined ? { done: true as const, value: undefined } : await input.next()
          if (next.done === true) { ended = true; send({ kind: 'input-end' }) } else send({ kind: 'input', chunk: next.value })
        } catch (error) {
          ended = true
          send({ kind: 'input-error', error: serialize(error) })
        }
      }
      let delivering = Promise.resolve()
      port1.on('message', (message: FromJob) => {
        if (message.kind === 'want') void feed()
        else if (message.kind === 'progress') {
          try {
            options.onProgress?.(message.value)
          } catch (error) {
            callbackFailure ??= { error }
            onAbort()
          }
        }
        else if (message.kind === 'output') {
          const { chunk } = message
          delivering = delivering.then(async () => {
            try {
              if (callbackFailure === undefined) await options.onOutput?.(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
            } catch (error) {
              callbackFailure = { error }
              onAbort()
            }
            send({ kind: 'credit' })
          })
        } else {
          void delivering.then(() => settle(() => {
            if (callbackFailure !== undefined) reject(callbackFailure.error as Error)
            else if (message.kind === 'done') resolve(message.result as R)
            else if (message.useless === true) {
              died = true
              void worker.terminate()
              reject(revive(message.error))
            }
            else reject(revive(message.error))
          }))
        }
      })
      try {
        worker.postMessage({ module, name, args, port: port2, shared } satisfies Start, [port2])
      } catch (error) {
        // Arguments that cannot be cloned: the thread never heard of the job and stays usable.
        settle(() => reject(error as Error))
      }
    })
  } finally {
    signal?.removeEventListener('abort', onAbort)
    port1.close()
    giveBack(died ? undefined : worker, options.beyondLimit === true)
    // A source that was not read to its end is told so, so that it can close its file.
    // Not awaited: a source that is stuck in next() would hold the caller.
    void Promise.resolve(input?.return?.(undefined)).catch(() => undefined)
  }
}

/**
 * Run a job and iterate over what it writes; the generator returns its result. The job is held back to the consumer's pace, and
 * stopped when the consumer leaves early.
 */
export async function* streamJob<A, R>(module: string, name: string, args: A, options: Omit<JobOptions, 'onOutput'> = {}): AsyncGenerator<Buffer, R, void> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort()
  options.signal?.addEventListener('abort', onAbort, { once: true })
  if (options.signal?.aborted) stop.abort()
  const ready: { readonly chunk: Buffer; readonly taken: () => void }[] = []
  let wake: () => void = () => undefined
  let finished = false
  const job = runJob<A, R>(module, name, args, {
    ...options, signal: stop.signal, beyondLimit: true,
    onOutput: chunk => new Promise<void>(taken => { ready.push({ chunk, taken }); wake() }),
  })
  const settled = job.then(() => undefined, () => undefined).then(() => { finished = true; wake() })
  try {
    for (;;) {
      const next = ready.shift()
      if (next !== undefined) {
        // Taken before it is used, so that the job makes the next chunk meanwhile.
        next.taken()
        yield next.chunk
      } else if (finished) return await job
      else await new Promise<void>(resolve => { wake = resolve })
    }
  } finally {
    options.signal?.removeEventListener('abort', onAbort)
    if (!finished) {
      stop.abort()
      for (const left of ready.splice(0)) left.taken()
      wake = () => { for (const left of ready.splice(0)) left.taken() }
      await settled
    }
  }
}

// ---- the thread's side -------------------------------------------------------------------------------------------------------

function contextFor(start: Start): JobContext {
  const { port } = start
  const words = new Int32Array(start.shared)
  const post = (message: FromJob): void => port.postMessage(message)
  const inputs: (Exclude<ToJob, { kind: 'credit' }>)[] = []
  let credits = creditLimit
  let wanted = 0
  const drain = (): void => {
    for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
      const message = got.message as ToJob
      if (message.kind === 'credit') credits++
      else { inputs.push(message); wanted-- }
    }
  }
  const checkAborted = (): void => {
    if (Atomics.load(words, ABORTED) === 1) throw new StorageError('ABORTED', `${start.name}: aborted`)
  }
  const waitUntil = (ready: () => boolean): void => {
    for (;;) {
      const seen = Atomics.load(words, WAKE)
      drain()
      checkAborted()
      if (ready()) return
      Atomics.wait(words, WAKE, seen)
    }
  }
  let ended = false
  return {
    read() {
      if (ended) return undefined
      // Two requests ahead, so that the main thread fetches the next chunk while this one is worked on.
      while (wanted + inputs.length < 2) { wanted++; post({ kind: 'want' }) }
      waitUntil(() => inputs.length > 0)
      const next = inputs.shift()
      if (next === undefined || next.kind === 'input-end') { ended = true; return undefined }
      if (next.kind === 'input-error') { ended = true; throw revive(next.error) }
      return Buffer.from(next.chunk.buffer, next.chunk.byteOffset, next.chunk.byteLength)
    },
    write(chunk, given = false) {
      waitUntil(() => credits > 0)
      credits--
      const sent = new Uint8Array(given ? chunk.buffer as ArrayBuffer : new ArrayBuffer(chunk.byteLength), given ? chunk.byteOffset : 0, chunk.byteLength)
      if (!given) sent.set(chunk)
      port.postMessage({ kind: 'output', chunk: sent } satisfies FromJob, [sent.buffer])
    },
    progress(value) { post({ kind: 'progress', value }) },
    checkAborted,
  }
}

async function serve(start: Start): Promise<void> {
  const post = (message: FromJob): void => start.port.postMessage(message)
  /** Node remembers a module that could not be read, for want of descriptors, say, for as long as the thread lives: then another thread is needed. */
  const loadModule = async (module: string): Promise<Record<string, unknown> | undefined> => {
    try {
      return await import(module) as Record<string, unknown>
    } catch (error) {
      post({ kind: 'failed', error: serialize(error), useless: true })
      return undefined
    }
  }
  try {
    const loaded = await loadModule(start.module)
    if (loaded === undefined) return
    const job = loaded[start.name]
    if (typeof job !== 'function') throw new TypeError(`${start.module} exports no function ${start.name}`)
    const result: unknown = await (job as JobFunction<unknown, unknown>)(start.args, contextFor(start))
    post({ kind: 'done', result })
  } catch (error) {
    post({ kind: 'failed', error: serialize(error) })
  }
}

if (!isMainThread && (workerData as { layerstackThread?: boolean } | null)?.layerstackThread === true && parentPort !== null) {
  parentPort.on('message', (message: Start | Warm) => {
    if ('port' in message) void serve(message)
    else import(message.module).catch(() => undefined)
  })
}
