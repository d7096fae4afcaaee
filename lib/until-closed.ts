// An object whose methods say CLOSED once what it belongs to is closed, whoever has kept a reference to it. Knows nothing of what the methods do.

import { StorageError } from './errors.ts'

const AsyncFunction = (async () => undefined).constructor

/**
 * `target` as it is, until `isClosed`; from then on its methods reject, or throw where they give no promise, with CLOSED. What runs goes on.
 * `what` is told in the message.
 */
export function untilClosed<T extends object>(target: T, what: string, isClosed: () => boolean): T {
  const guarded = new Map<unknown, unknown>()
  return new Proxy(target, {
    get(_, key) {
      // With the object itself as receiver: its private fields are not the proxy's.
      const value: unknown = Reflect.get(target, key, target)
      if (typeof value !== 'function') return value
      const method = value as (...args: unknown[]) => unknown
      let guard = guarded.get(method)
      if (guard === undefined) {
        guard = (...args: unknown[]): unknown => {
          if (!isClosed()) return Reflect.apply(method, target, args)
          const error = closedError(what, String(key))
          if (method instanceof AsyncFunction) return Promise.reject(error)
          throw error
        }
        guarded.set(method, guard)
      }
      return guard
    },
  })
}

export function closedError(what: string, op: string): StorageError {
  return new StorageError('CLOSED', `${what} is closed`, { op, hint: 'open it again' })
}
