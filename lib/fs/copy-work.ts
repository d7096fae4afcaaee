// The directories that a copy has still to fill, shared by its threads: a stack in shared memory, behind a lock. A thread that has to
// wait for more waits only for threads that work on a directory now, never for one that has yet to start.

const LOCK = 0, BYTES = 1, PENDING = 2, CHANGES = 3, FAILED = 4, MADE = 5, HELPERS = 6
const headerBytes = 64
/** Of names waiting. What finds no place is kept by the thread that found it. */
const stackBytes = 256 * 1024

export function sharedWork(): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(headerBytes + stackBytes)
  // The root of the tree: its name is empty.
  Atomics.store(new Int32Array(shared), PENDING, 1)
  return shared
}

/** Whoever starts the threads: nobody is to begin another directory. */
export function failWork(shared: SharedArrayBuffer): void {
  const words = new Int32Array(shared)
  Atomics.store(words, FAILED, 1)
  Atomics.add(words, CHANGES, 1)
  Atomics.notify(words, CHANGES)
}

export function isFailed(shared: SharedArrayBuffer): boolean {
  return Atomics.load(new Int32Array(shared), FAILED) === 1
}

/** The target, or a part of it, has been made. */
export function isMade(shared: SharedArrayBuffer): boolean {
  return Atomics.load(new Int32Array(shared), MADE) === 1
}

/** One thread's view. */
export class Work {
  readonly #words: Int32Array
  readonly #bytes: Buffer
  /** `true` for one that begins with the root; others come to help. */
  #root: boolean
  readonly #own: Buffer[] = []

  constructor(shared: SharedArrayBuffer, first: boolean) {
    this.#words = new Int32Array(shared, 0, headerBytes / 4)
    this.#bytes = Buffer.from(shared, headerBytes)
    this.#root = first
    if (!first) Atomics.add(this.#words, HELPERS, 1)
  }

  made(): void { Atomics.store(this.#words, MADE, 1) }

  /** Once all is done: nobody else has done, or will do, a part of it. */
  get alone(): boolean { return Atomics.load(this.#words, HELPERS) === 0 }

  /** A directory that `take` shall give to somebody. */
  push(name: Buffer): void {
    Atomics.add(this.#words, PENDING, 1)
    this.#lock()
    const at = Atomics.load(this.#words, BYTES)
    const fits = at + name.length + 4 <= this.#bytes.length
    if (fits) {
      name.copy(this.#bytes, at)
      this.#bytes.writeUInt32LE(name.length, at + name.length)
      Atomics.store(this.#words, BYTES, at + name.length + 4)
    }
    this.#unlock()
    if (fits) this.#changed()
    else this.#own.push(name)
  }

  /**
   * The next directory, to be followed by `done`; undefined when all are done, or another thread has failed. Waits while others may find more.
   * @throws what `check` does, while it waits
   */
  take(check: () => void): Buffer | undefined {
    if (this.#root) { this.#root = false; return Buffer.alloc(0) }
    for (;;) {
      const seen = Atomics.load(this.#words, CHANGES)
      if (Atomics.load(this.#words, PENDING) === 0 || this.failed) return undefined
      check()
      const next = this.#own.pop() ?? this.#pop()
      if (next !== undefined) return next
      // An abort does not wake it.
      Atomics.wait(this.#words, CHANGES, seen, 20)
    }
  }

  done(): void {
    if (Atomics.sub(this.#words, PENDING, 1) === 1) this.#changed()
  }

  get failed(): boolean { return Atomics.load(this.#words, FAILED) === 1 }

  #pop(): Buffer | undefined {
    if (Atomics.load(this.#words, BYTES) === 0) return undefined
    this.#lock()
    const end = Atomics.load(this.#words, BYTES)
    let name: Buffer | undefined
    if (end > 0) {
      const length = this.#bytes.readUInt32LE(end - 4)
      name = Buffer.from(this.#bytes.subarray(end - 4 - length, end - 4))
      Atomics.store(this.#words, BYTES, end - 4 - length)
    }
    this.#unlock()
    return name
  }

  #changed(): void {
    Atomics.add(this.#words, CHANGES, 1)
    Atomics.notify(this.#words, CHANGES)
  }

  // Held for less than a microsecond; a waiter sleeps at most as long as it takes the holder to be scheduled again.
  #lock(): void {
    while (Atomics.compareExchange(this.#words, LOCK, 0, 1) !== 0) Atomics.wait(this.#words, LOCK, 1, 1)
  }

  #unlock(): void {
    Atomics.store(this.#words, LOCK, 0)
    Atomics.notify(this.#words, LOCK, 1)
  }
}
