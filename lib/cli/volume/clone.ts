// `layerstack volume clone`

import type { Command } from 'commander'
import { pairs } from '../options.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<volume>', 'what to copy')
    .argument('<new>', 'its name; a volume that exists must be empty')
    .option('--label <key=value>', 'a label of the new one; may be given again', pairs('bare keys'))
    .addHelpText('after', '\nFiles share their blocks where the file system can (btrfs, xfs).\n\nExample:\n  layerstack volume clone data data-before-upgrade')
    .action((from: string, to: string, { label }: { readonly label?: Readonly<Record<string, string>> }) => session.use(async storage => {
      session.progress('Cloning')
      const volume = await storage.volumes.clone(from, to, { signal: session.signal, ...(label === undefined ? {} : { labels: label }) })
      if (session.json) await session.printJson(storage.volumes.inspect(volume.name))
      else await session.print(`${volume.name}\n`)
    }))
}
