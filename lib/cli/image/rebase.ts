// `layerstack image rebase`

import { Option } from 'commander'
import type { Command } from 'commander'
import { StorageError } from '../../errors.ts'
import type { RebaseConflict } from '../../index.ts'
import type { Session } from '../session.ts'
import { printable } from '../units.ts'
import { madeOptions, making } from './made.ts'
import type { MadeOptions } from './made.ts'
import { parseIndex } from './squash.ts'

interface Options extends MadeOptions {
  readonly onto: string
  readonly from?: string
  readonly baseLayers?: number
  readonly allowConflicts?: true
}

const reasons: Readonly<Record<RebaseConflict['kind'], string>> = {
  'both-changed': 'the bases differ, and the image has its own version',
  'both-added': 'the image and the new base each have one, and not the same',
  'removed-in-base': 'the image changed it, and the new base has it no more',
  'removed-in-image': 'the image deletes it, and the new base changed or added it',
  type: 'a directory on one side and something else on the other',
  link: 'a hard link to a file of the base that is another now',
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'an image of the store, an archive or an OCI layout')
    .requiredOption('--onto <base>', 'the new base: an image of the store, an archive or an OCI layout')
    .addOption(new Option('--from <base>', 'the base that the image was built on').conflicts('baseLayers'))
    .addOption(new Option('--base-layers <count>', 'how many of the image\'s layers are its base\'s, where that is not at hand').argParser(parseIndex))
    .option('--allow-conflicts', 'make the image in spite of conflicts')
  madeOptions(command)
  command
    .addHelpText('after', '\nPuts the image\'s own layers, bit for bit, on another base, and prints the new image\'s id. What the image left as its old base had it in the config comes from the\n'
      + 'new base. Paths that both sides changed are conflicts: they are listed, and nothing is made unless --allow-conflicts is given.\n\n'
      + 'Example:\n  layerstack image rebase --from debian:12.1 --onto debian:12.2 -t app:1.0 app:1.0')
    .action(async (text: string, options: Options) => {
      if (options.from === undefined && options.baseLayers === undefined) {
        session.failUsage('give --from <base> or --base-layers <count>', 'layerstack image rebase')
        return
      }
      await making(session, options, async open => {
        const { pathJson, rebaseImage } = await import('../../index.ts')
        const bars = session.progress('Rebasing')
        const { conflicts, config, image } = await rebaseImage(await open(text), await open(options.onto), {
          ...(options.from === undefined ? {} : { from: await open(options.from) }), ...(options.baseLayers === undefined ? {} : { baseLayers: options.baseLayers }),
          allowConflicts: options.allowConflicts === true, references: options.tag ?? [], signal: session.signal, onProgress: bytes => bars.update('layers', 'Reading', bytes),
          ...(options.created === undefined ? {} : { created: options.created }),
        })
        if (image === undefined) {
          if (session.json) await session.printJson({ conflicts: conflicts.map(({ path, kind }) => ({ ...pathJson(path), kind })), config })
          else tell(session, conflicts)
          throw new StorageError('FAILED_PRECONDITION', `cannot rebase ${text}: ${conflicts.length} ${conflicts.length === 1 ? 'path is' : 'paths are'} in conflict`,
            { key: text, hint: 'look at them with layerstack diff, and give --allow-conflicts to let the image\'s own versions win' })
        }
        tell(session, conflicts)
        for (const { key } of config) session.warn(`${key} comes from the new base, or is merged with it`)
        return image
      })
    })
}

function tell(session: Session, conflicts: readonly RebaseConflict[]): void {
  for (const { path, kind } of conflicts) session.warn(`conflict: ${printable(`/${path.toString()}`)}: ${reasons[kind]}`)
}
