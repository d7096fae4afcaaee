// `layerstack system migrate`

import type { Command } from 'commander'
import { StorageError } from '../../errors.ts'
import type { MigrateProgress, MigrateResult, Storage } from '../../index.ts'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { shortId } from '../units.ts'

interface Options {
  readonly to: string
  readonly rootTo?: string
  readonly toOpt?: readonly string[]
  readonly keep?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .requiredOption('--to <driver>', 'the driver to move to')
    .option('--root-to <dir>', 'the data root to move to; volumes stay (default: the same)')
    .option('--to-opt <key=value>', 'an option of the new driver; may be given again', collect)
    .option('--keep', 'keep the old layers and images; containers move all the same')
    .addHelpText('after', '\nMoves images, names, history and containers. All is copied and verified before the old side is dropped; stopped at any point, nothing is lost: run it\n'
      + 'again, naming the old driver with --driver, as the root then holds both.\n\nExamples:\n  layerstack system migrate --to btrfs\n  layerstack --driver overlay system migrate --to overlay2')
    .action(async (options: Options) => {
      const run = (storage: Storage): Promise<void> => migrate(session, storage, options)
      try {
        await session.use(run)
      } catch (error) {
        // What can only be read here, as aufs on a kernel without it, can be left.
        if (!StorageError.is(error, 'NOT_SUPPORTED')) throw error
        await session.look(run)
      }
    })
}

async function migrate(session: Session, storage: Storage, { to, rootTo, toOpt, keep }: Options): Promise<void> {
  const bars = session.progress('Migrating')
  const from = storage.driver.name
  const onProgress = (progress: MigrateProgress): void => {
    if (progress.phase === 'layer' || progress.phase === 'verify') {
      bars.update(`${progress.phase} ${progress.chainId}`, `${progress.phase === 'layer' ? 'Copying' : 'Verifying'} ${shortId(progress.chainId)} (${progress.done + 1}/${progress.total})`, progress.bytes)
    }
  }
  const result = await storage.migrate({
    to, keep: keep === true, signal: session.signal, onProgress, ...(rootTo === undefined ? {} : { rootTo }), ...(toOpt === undefined ? {} : { storageOptions: toOpt }),
  })
  if (session.json) await session.printJson(result)
  else await session.print(describe(result, from, to))
  session.warnSkipped('the store', result.notKept, [])
}

function describe({ layers, images, containers, layersBefore, dropped }: MigrateResult, from: string, to: string): string {
  const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`
  const before = layersBefore === 0 ? '' : ` (${layersBefore} of them by an earlier run)`
  // vfs is never chosen by what a root holds: its folder is also what a fallback leaves.
  const hint = to === 'vfs' ? 'Name the driver from now on: --driver vfs\n' : ''
  return `Moved ${count(layers, 'layer')}${before}, ${count(images, 'image')} and ${count(containers, 'container')} from ${from} to ${to}; the old side ${dropped ? 'is gone' : 'was kept'}.\n${hint}`
}
