// Buckets of a bbolt database in memory: keys and values of bytes, and buckets within. Knows nothing of pages.

import { StorageError } from '../errors.ts'

/** bbolt's limits (bucket.go: MaxKeySize, MaxValueSize). */
const maxKeyBytes = 32768, maxValueBytes = 2 ** 31 - 2

export class BoltBucket {
  /** bbolt's counter for NextSequence. */
  sequence = 0n
  // By the bytes of the key as latin1, whose order is that of the bytes.
  readonly #items = new Map<string, Buffer | BoltBucket>()

  get size(): number { return this.#items.size }

  /** A value. Undefined when there is none, or a bucket. */
  get(key: string | Buffer): Buffer | undefined {
    const item = this.#items.get(nameOf(key))
    return Buffer.isBuffer(item) ? item : undefined
  }

  bucket(key: string | Buffer): BoltBucket | undefined {
    const item = this.#items.get(nameOf(key))
    return item instanceof BoltBucket ? item : undefined
  }

  /** The bucket of this name, made when missing. @throws FAILED_PRECONDITION when a value has the name */
  makeBucket(key: string | Buffer): BoltBucket {
    const name = nameOf(key)
    const item = this.#items.get(name)
    if (item instanceof BoltBucket) return item
    if (item !== undefined) throw incompatible(key)
    checkKey(key)
    const made = new BoltBucket()
    this.#items.set(name, made)
    return made
  }

  /** @throws FAILED_PRECONDITION when a bucket has the name, LIMIT_EXCEEDED, INVALID_ARGUMENT (empty key) */
  put(key: string | Buffer, value: string | Buffer): void {
    if (this.bucket(key) !== undefined) throw incompatible(key)
    checkKey(key)
    const bytes = Buffer.from(value)
    if (bytes.length > maxValueBytes) throw new StorageError('LIMIT_EXCEEDED', `a bbolt value has at most ${maxValueBytes} bytes`, { key: key.toString() })
    this.#items.set(nameOf(key), bytes)
  }

  /** A value or a bucket with all it holds; nothing there is fine. */
  delete(key: string | Buffer): void {
    this.#items.delete(nameOf(key))
  }

  /** In the order of the keys' bytes. */
  *entries(): Generator<readonly [key: Buffer, value: Buffer | BoltBucket]> {
    for (const name of [...this.#items.keys()].sort()) {
      const item = this.#items.get(name)
      if (item !== undefined) yield [Buffer.from(name, 'latin1'), item]
    }
  }

  /** For the reader, which has checked its page. */
  adopt(key: Buffer, value: Buffer | BoltBucket): void {
    this.#items.set(nameOf(key), value)
  }
}

function nameOf(key: string | Buffer): string {
  return (typeof key === 'string' ? Buffer.from(key) : key).toString('latin1')
}

function checkKey(key: string | Buffer): void {
  const length = Buffer.byteLength(key)
  if (length === 0) throw new StorageError('INVALID_ARGUMENT', 'a bbolt key cannot be empty')
  if (length > maxKeyBytes) throw new StorageError('LIMIT_EXCEEDED', `a bbolt key has at most ${maxKeyBytes} bytes`)
}

function incompatible(key: string | Buffer): StorageError {
  return new StorageError('FAILED_PRECONDITION', `bbolt: ${JSON.stringify(key.toString())} is of the other kind (value or bucket)`,
    { key: key.toString() })
}
