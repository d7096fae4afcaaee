// Changes listed on the calling thread, a slice at a time, for as long as that is the faster way.

import { setImmediate as turn } from 'node:timers/promises'
import type { Change } from '../driver.ts'
import { asStorageError, StorageError } from '../errors.ts'
import { compareTrees, printedPath } from './compare.ts'
import type { ChangesArguments } from './jobs.ts'

/** A slice keeps the event loop this long; what does not come to a change within a long one is a thread's business. */
const sliceMs = 8, longSliceMs = 25
/** All slices together: about what a thread costs to start. */
const budgetMs = 150

class TooLong extends Error {}

/** Returns `all`, or `part` when the rest is to be found in a thread. @throws as listChanges */
export async function* changesHere({ upper, lower, only }: ChangesArguments, signal?: AbortSignal): AsyncGenerator<Change, 'all' | 'part'> {
  const checkAborted = (): void => { if (signal?.aborted === true) throw new StorageError('ABORTED', 'listing changes: aborted', { op: 'diff' }) }
  checkAborted()
  let from = performance.now(), spentMs = 0
  const onStep = (): void => { if (performance.now() - from > longSliceMs) throw new TooLong() }
  const walk = compareTrees(upper, lower, { only, onStep })
  try {
    for (;;) {
      const next = walk.next()
      if (next.done === true) return 'all'
      const change = next.value
      const told = performance.now()
      const ms = told - from
      yield { kind: change.kind, path: printedPath(change.kind === 'D' ? change.name : change.node.name) }
      // What the reader took is not ours.
      from += performance.now() - told
      if (ms < sliceMs) continue
      spentMs += ms
      if (spentMs > budgetMs) return 'part'
      await turn()
      checkAborted()
      from = performance.now()
    }
  } catch (error) {
    if (error instanceof TooLong) return 'part'
    throw error instanceof TypeError ? error : asStorageError(error, `listing the changes of ${upper.layers[0]}`)
  } finally {
    walk.return(undefined)
  }
}
