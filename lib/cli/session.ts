// One run of the command line: the store that it opens, the signal that Ctrl-C fires, what it prints, and the status it ends with. Knows no command.

import { asStorageError, exitStatus, StorageError } from '../errors.ts'
import type { Durability, OpenOptions, Storage } from '../index.ts'
import { hasPendingWrites, OutputClosed, writeFully } from './output.ts'
import { Progress } from './progress.ts'
import { styled } from './style.ts'
import { printable } from './units.ts'

export interface GlobalOptions {
  readonly root?: string
  readonly driver?: string
  readonly config?: string
  readonly durability?: Durability
  readonly json?: boolean
  readonly storageOpt?: readonly string[]
}

// SIGHUP is left alone: a handler would undo nohup.
const statusOfSignal = { SIGINT: 130, SIGTERM: 143 } as const
type StopSignal = keyof typeof statusOfSignal

export class Session {
  readonly #stop = new AbortController()
  #options: GlobalOptions = {}
  #status = 0
  #stoppedBy: StopSignal | undefined
  /** Something was given up because of the signal; else the work was finished in spite of it. */
  #interrupted = false
  #outputClosed = false
  /** What an error exits with; a comparison keeps 1 for a difference. */
  #errorStatus = 1
  #progress: Progress | undefined

  /** Fires on Ctrl-C, SIGTERM, and when nobody reads stdout any more. */
  get signal(): AbortSignal { return this.#stop.signal }
  get json(): boolean { return this.#options.json === true }

  configure(options: GlobalOptions): void {
    this.#options = options
  }

  watch(): void {
    for (const name of Object.keys(statusOfSignal) as StopSignal[]) {
      process.on(name, () => {
        // The second time, at once: what was begun is rolled back when the store is opened next.
        if (this.#stoppedBy !== undefined) this.#dieOf(name)
        this.#stoppedBy = name
        this.#stop.abort()
      })
    }
    for (const stream of [process.stdout, process.stderr]) {
      stream.on('error', error => this.#outputFailed(error))
    }
  }

  /** Open the store, run `work`, close the store. */
  async use(work: (storage: Storage) => Promise<void>): Promise<void> {
    await this.#use(work, false)
  }

  /** The same for commands that only look: a store that is there is not written to. (One that is not is made, so that it lists as empty.) */
  async look(work: (storage: Storage) => Promise<void>): Promise<void> {
    await this.#use(work, true)
  }

  /**
   * For commands that look at images wherever they are: the store is opened, read-only, when one is asked for first, and never made. Undefined where
   * there is none.
   */
  async lookIfAsked(work: (storage: () => Promise<Storage | undefined>) => Promise<void>): Promise<void> {
    let opened: Promise<Storage | undefined> | undefined
    try {
      await work(() => opened ??= this.#openExisting())
    } finally {
      this.#progress?.stop()
      await (await opened?.catch(() => undefined))?.close()
    }
  }

  async #openExisting(): Promise<Storage | undefined> {
    const { options, open } = await this.#opening()
    try {
      return await open({ ...options, readOnly: true })
    } catch (error) {
      if (StorageError.is(error, 'NOT_FOUND')) return undefined
      throw error
    }
  }

  async #opening(): Promise<{ readonly options: OpenOptions; readonly open: (options: OpenOptions) => Promise<Storage> }> {
    const [{ defaultRoot }, { open }] = await Promise.all([import('../storage.ts'), import('../open.ts')])
    const { driver, config, durability, storageOpt } = this.#options
    const root = this.#options.root ?? (process.env['LAYERSTACK_ROOT'] || (config === undefined ? defaultRoot() : undefined))
    const options = {
      ...(root === undefined ? {} : { root }), ...(config === undefined ? {} : { config }), ...(driver === undefined ? {} : { driver }),
      ...(durability === undefined ? {} : { durability }), ...(storageOpt === undefined ? {} : { storageOptions: storageOpt }),
    }
    return { options, open }
  }

  async #use(work: (storage: Storage) => Promise<void>, looking: boolean): Promise<void> {
    const { options, open } = await this.#opening()
    let storage: Storage
    try {
      storage = await open({ ...options, readOnly: looking })
    } catch (error) {
      if (!looking || !StorageError.is(error, 'NOT_FOUND')) throw error
      storage = await open(options)
    }
    try {
      await work(storage)
    } finally {
      this.#progress?.stop()
      await storage.close()
    }
  }

  /** Do the same to each of several; a failure is told and the others are still done, as Docker does. */
  async each(names: readonly string[], work: (name: string) => Promise<void>): Promise<void> {
    for (const name of names) {
      if (this.signal.aborted) throw new StorageError('ABORTED', 'interrupted')
      try {
        await work(name)
      } catch (error) {
        this.fail(error)
      }
    }
  }

  // ---- output ----------------------------------------------------------------------------------------------------------------

  /** Bars on stderr from now until the store is closed or the text is printed. */
  progress(title: string): Progress {
    this.#progress?.stop()
    return this.#progress = new Progress(title)
  }

  async print(text: string | Uint8Array): Promise<void> {
    this.#progress?.stop()
    await writeFully(1, typeof text === 'string' ? Buffer.from(text) : text, this.signal)
  }

  /** One value, for `--json` and for commands that print nothing else. `indent` as Docker's inspect. */
  async printJson(value: unknown, indent?: number): Promise<void> {
    await this.print(`${JSON.stringify(value, undefined, indent)}\n`)
  }

  warn(message: string): void {
    this.#progress?.stop()
    process.stderr.write(`${styled(process.stderr, 'yellow', 'warning:')} ${printable(message)}\n`)
  }

  /** One line about all that could not be kept; nothing when all was. */
  warnSkipped(what: string, count: number, skipped: readonly { readonly path: string; readonly what: string; readonly reason: string }[]): void {
    if (count === 0) return
    const [first] = skipped
    const example = first === undefined ? '' : `, e.g. ${first.path}: ${first.what} (${first.reason})`
    this.warn(`${count} ${count === 1 ? 'thing' : 'things'} of ${what} could not be kept${example}`)
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------------

  /** Tell an error in one line, and its hint in another. */
  fail(error: unknown): void {
    this.#progress?.stop()
    if (error instanceof OutputClosed) {
      this.#outputClosed = true
      return
    }
    if (this.signal.aborted && isAbort(error)) {
      this.#interrupted = true
      return
    }
    if ([TypeError, ReferenceError, SyntaxError, RangeError].some(kind => error instanceof kind)) {
      // A mistake of this program, not of its user: the stack is what helps.
      this.#tell((error as Error).stack ?? (error as Error).message, undefined, false)
      this.#status = 1
      return
    }
    const told = asStorageError(error, 'failed')
    this.#tell(told === error || !(error instanceof Error) ? told.message : error.message, told.info.hint)
    this.#status = Math.max(this.#status, exitStatus(told.code), this.#errorStatus)
  }

  /** End with this status at least, though nothing failed: a difference was found, a rule is broken. */
  conclude(status: number): void {
    this.#status = Math.max(this.#status, status)
  }

  /** From now on an error exits with this status, as diff(1)'s 2. */
  errorsExitWith(status: number): void {
    this.#errorStatus = status
  }

  failUsage(message: string | undefined, command: string): void {
    if (message !== undefined) this.#tell(message.replace(/^error: /, '').replace(/\n/g, ' '), `see '${command} --help'`)
    this.#status = 2
  }

  /** Ends the process with the right status, but lets it end by itself where it can. */
  leave(): void {
    if (this.#outputClosed) process.exit(141)
    if (this.#stoppedBy === undefined || !this.#interrupted) {
      process.exitCode = this.#status
      return
    }
    process.stderr.write(`${styled(process.stderr, 'red', 'layerstack:')} interrupted\n`)
    // process.exit joins libuv's threads, and one may sit in a write that never ends.
    if (hasPendingWrites()) this.#dieOf(this.#stoppedBy)
    process.exit(statusOfSignal[this.#stoppedBy])
  }

  #tell(message: string, hint: string | undefined, oneLine = true): void {
    const text = oneLine ? printable(message.replace(/\n+/g, ' ')) : message
    process.stderr.write(`${styled(process.stderr, ['red', 'bold'], 'layerstack:')} ${text}\n`)
    if (hint !== undefined) process.stderr.write(`  ${styled(process.stderr, 'dim', printable(hint))}\n`)
  }

  #outputFailed(error: NodeJS.ErrnoException): void {
    if (error.code !== 'EPIPE') throw error
    this.#outputClosed = true
    this.#stop.abort()
  }

  #dieOf(name: StopSignal): void {
    this.#progress?.stop()
    process.removeAllListeners(name)
    process.kill(process.pid, name)
  }
}

function isAbort(error: unknown): boolean {
  return StorageError.is(error, 'ABORTED') || (error as Error | null)?.name === 'AbortError'
}
