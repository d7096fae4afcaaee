// `layerstack volume inspect`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<volume...>', 'names')
    .option('-r, --references', 'add References: the containers, and others, that use it')
    .addHelpText('after', '\nPrints an array, in the words of Docker\'s API.\n\nExample:\n  layerstack volume inspect data')
    .action((names: string[], { references }: { readonly references?: boolean }) => session.look(async storage => {
      const found: object[] = []
      await session.each(names, async name => {
        found.push({ ...storage.volumes.inspect(name), ...(references === true ? { References: storage.volumes.references(name) } : {}) })
      })
      await session.printJson(found, session.json ? undefined : 4)
    }))
}
