// Changes listed on the calling thread, a slice at a time, for as long as that is the faster way.

import { setImmediate as turn } from 'node:timers/promises'
import type { Change } from '../driver.ts'
import { asStorageError, StorageError } from '../errors.ts'
import { compareTrees, printedPath } from './compare.ts'
import type { ChangesArguments } from './jobs.ts'

/** A slice keeps the event loop this long. */
const sliceMs = 8
/** What does not come to a change within so much processor time, or so much time on a busy machine or a slow disk, is a thread's business. */
const longSliceMs = 25, veryLongSliceMs = 100
/**
 * Processor time of all slices together. A thread takes up to 100 ms of it to start, and then begins anew with nothing compiled: a thousand changes, which take 100 to
 * 160 ms here, took 400 when they had to be found again.
 */
const budgetMs = 400

class TooLong extends Error {}

function usedMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** Returns `all`, or `part` when the rest is to be found in a thread. @throws as listChanges */
export async function* changesHere({ upper, lower, only }: ChangesArguments, signal?: AbortSignal): AsyncGenerator<Change, 'all' | 'part'> {
  const checkAborted = (): void => { if (signal?.aborted === true) throw new StorageError('ABORTED', 'listing changes: aborted', { op: 'diff' }) }
  checkAborted()
  let from = performance.now(), fromUsed = usedMs(), spentMs = 0
  const onStep = (): void => {
    const ms = performance.now() - from
    if (ms > longSliceMs && (ms > veryLongSliceMs || usedMs() - fromUsed > longSliceMs)) throw new TooLong()
  }
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
      spentMs += Math.min(ms, usedMs() - fromUsed)
      if (spentMs > budgetMs) return 'part'
      await turn()
      checkAborted()
      from = performance.now()
      fromUsed = usedMs()
    }
  } catch (error) {
    if (error instanceof TooLong) return 'part'
    throw error instanceof TypeError ? error : asStorageError(error, `listing the changes of ${upper.layers[0]}`)
  } finally {
    walk.return(undefined)
  }
}
