// Regular expressions that come from clients (filters), tried within a time limit: Go's are linear, JavaScript's can take for ever (`(a+)+b`), and would hold up
// everybody else's requests meanwhile.

import vm from 'node:vm'
import { StorageError } from '../errors.ts'

const limitMs = 500
let context: { pattern: RegExp; text: string } | undefined
const script = new vm.Script('pattern.test(text)')

/** `pattern.test(text)`. @throws INVALID_ARGUMENT when it takes longer than half a second */
export function boundedTest(pattern: RegExp, text: string): boolean {
  // With at most one repetition the work is at most quadratic in a text of a few thousand characters; the watch costs 0.1 ms a call.
  if ((pattern.source.match(/[*+{]/g)?.length ?? 0) < 2 && text.length <= 8192) return pattern.test(text)
  context ??= vm.createContext({ pattern, text }) as { pattern: RegExp; text: string }
  context.pattern = pattern
  context.text = text
  try {
    return script.runInContext(context as vm.Context, { timeout: limitMs }) as boolean
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw new StorageError('INVALID_ARGUMENT', `the regular expression ${JSON.stringify(pattern.source)} takes too long`, { hint: 'write it without nested repetitions' })
  }
}
