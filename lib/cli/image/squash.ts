// `layerstack image squash`

import type { Command } from 'commander'
import { InvalidArgumentError } from 'commander'
import type { Session } from '../session.ts'
import { madeOptions, making } from './made.ts'
import type { MadeOptions } from './made.ts'

interface Options extends MadeOptions {
  readonly from: number
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'an image of the store, an archive or an OCI layout')
    .option('--from <layer>', 'the first layer that is put together; 0 is the base', parseIndex, 0)
  madeOptions(command)
  command
    .addHelpText('after', '\nMakes one layer of the image\'s layers from --from up, and prints the new image\'s id. The tree and the config stay; the history tells what was merged.\n\n'
      + 'Examples:\n  layerstack image squash --from 1 -t app:small app:1.0\n  layerstack image squash ./app.tar -o small.tar -t app:small')
    .action(async (text: string, options: Options) => await making(session, options, async open => {
      const { squashImage } = await import('../../index.ts')
      const bars = session.progress('Squashing')
      return await squashImage(await open(text), {
        from: options.from, references: options.tag ?? [], signal: session.signal, onProgress: bytes => bars.update('layers', 'Reading', bytes),
        ...(options.created === undefined ? {} : { created: options.created }),
      })
    }))
}

export function parseIndex(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError('It is a number.')
  return Number(text)
}
