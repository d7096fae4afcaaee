// Tells a layer tar without entries, before anybody stores it.

import type { WriteOutcome } from '../diff/index.ts'

/**
 * Look at the beginning of a layer that is being written. `stream` is undefined when it is the empty tar (1024 zero bytes); else it yields all of
 * the layer, and `outcome` settles once it has been read.
 */
export async function onlyIfEmpty(layer: AsyncGenerator<Buffer, WriteOutcome>): Promise<{ stream: AsyncIterable<Buffer> | undefined; outcome: Promise<WriteOutcome> }> {
  const first = await layer.next()
  const second = first.done === true ? first : await layer.next()
  if (first.done === true) return { stream: undefined, outcome: Promise.resolve(first.value) }
  if (second.done === true && first.value.length === 1024 && first.value.every(byte => byte === 0)) return { stream: undefined, outcome: Promise.resolve(second.value) }
  let settle: (outcome: WriteOutcome) => void = () => undefined
  const outcome = new Promise<WriteOutcome>(resolve => { settle = resolve })
  const head = first.value
  async function* all(): AsyncGenerator<Buffer> {
    try {
      yield head
      for (let next = second; ; next = await layer.next()) {
        if (next.done === true) { settle(next.value); return }
        yield next.value
      }
    } finally {
      // Who leaves early lets the writer's thread go.
      await layer.return(undefined as never)
    }
  }
  return { stream: all(), outcome }
}
