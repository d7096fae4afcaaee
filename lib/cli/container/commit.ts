// `layerstack container commit`

import type { Command } from 'commander'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly author?: string
  readonly message?: string
  readonly change?: readonly string[]
}

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .argument('[reference]', 'name for the image, NAME[:TAG]')
    .option('-a, --author <who>', 'author of the image')
    .option('-m, --message <text>', 'comment of the image')
    .option('-c, --change <instruction>', 'a Dockerfile instruction for the image, e.g. \'ENV DEBUG=1\'; may be given again', collect)
    .addHelpText('after', '\nExample:\n  layerstack container commit -m \'add tools\' -c \'CMD ["/bin/sh"]\' box app:1.1')
    .action((ref: string, reference: string | undefined, options: Options) => session.use(async storage => {
      const bars = session.progress('Committing')
      const result = await storage.containers.commit(ref, {
        signal: session.signal, changes: options.change ?? [], onProgress: bytes => bars.update('layer', 'Committing', bytes),
        ...(reference === undefined ? {} : { reference }), ...(options.author === undefined ? {} : { author: options.author }),
        ...(options.message === undefined ? {} : { message: options.message }),
      })
      if (session.json) await session.printJson(result)
      else await session.print(`${result.imageId}\n`)
      session.warnSkipped('the container', result.skipped.length, result.skipped)
    }))
}
