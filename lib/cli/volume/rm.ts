// `layerstack volume rm`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<volume...>', 'names')
    .option('-f, --force', 'a volume that is not there is no error')
    .addHelpText('after', '\nA volume that a container uses is not removed.\n\nExample:\n  layerstack volume rm data')
    .action((names: string[], { force }: { readonly force?: boolean }) => session.use(async storage => {
      const removed: string[] = []
      await session.each(names, async name => {
        await storage.volumes.remove(name, { force: force === true })
        removed.push(name)
        if (!session.json) await session.print(`${name}\n`)
      })
      if (session.json) await session.printJson(removed)
    }))
}
