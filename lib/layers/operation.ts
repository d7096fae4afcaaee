// One operation under way: what it notes in its intent, and what it knows without a look when it ends.

import type { KnownEntry } from '../driver.ts'
import type { ChainId, LayerId } from '../ids.ts'
import type { Intent } from './intents.ts'
import type { StoreLock } from './store-lock.ts'
import type { Operation } from './types.ts'

/** An operation as the stores of this folder see it. */
export class RunningOperation implements Operation {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly intent: Intent
  /** Of the driver layers that the intent names, those that the catalogue now has, and those that it no longer has, with what lies in them if that is known: without a look. */
  readonly kept = new Set<LayerId>()
  readonly dropped = new Map<LayerId, readonly KnownEntry[] | undefined>()
  /** Of the temporary folders that the intent names, those of which it is known what lies in them: files, and nothing else. */
  readonly folders = new Map<string, readonly string[]>()
  /** Of the layers that it let go, those that are known to have another user. */
  readonly spared = new Set<ChainId>()
  readonly #lock: StoreLock

  constructor(name: string, signal: AbortSignal | undefined, intent: Intent, lock: StoreLock) {
    this.name = name
    this.signal = signal
    this.intent = intent
    this.#lock = lock
  }

  async temporary(target: string): Promise<void> {
    this.intent.note('path', [target])
  }

  async hold(chainId: ChainId): Promise<void> {
    await this.#lock.run(() => this.intent.note('hold', [chainId]))
  }

  async letGo(chainId: ChainId): Promise<void> {
    this.intent.note('freed', [chainId])
  }

  async undo(kind: string, value: string, letGo?: ChainId): Promise<void> {
    if (!/^[a-z-]+$/.test(kind) || value === '' || value.includes('\n')) throw new TypeError(`cannot note ${JSON.stringify(value)} as ${JSON.stringify(kind)}`)
    this.intent.noteAll([['undo', `${kind} ${value}`], ...letGo === undefined ? [] : [['freed', letGo] as const]])
  }
}
