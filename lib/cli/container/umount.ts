// `layerstack container umount`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .addHelpText('after', '\nExample:\n  layerstack container umount box')
    .action((ref: string) => session.use(async storage => {
      const { id } = storage.containers.get(ref)
      await storage.containers.unmount(id, { persistent: true })
      if (session.json) await session.printJson({ id, ...storage.containers.mountState(id) })
      else await session.print(`${ref}\n`)
    }))
}
