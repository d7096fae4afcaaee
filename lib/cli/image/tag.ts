// `layerstack image tag`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<source>', 'a name or an id')
    .argument('<target>', 'the other name, NAME[:TAG]; one that is taken moves')
    .addHelpText('after', '\nExample:\n  layerstack image tag 0e5574283393 app:1.0')
    .action((source: string, target: string) => session.use(async storage => {
      const reference = await storage.images.tag(source, target)
      if (session.json) await session.printJson({ reference })
    }))
}
