// `layerstack container mount`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .addHelpText('after', '\nIt stays mounted until `container umount`, once for each `container mount`, or until the machine is booted.\n\nExample:\n  ls "$(layerstack container mount box)"')
    .action((ref: string) => session.use(async storage => {
      const { path } = await storage.containers.mount(ref, { persistent: true })
      if (session.json) await session.printJson({ path })
      else await session.print(`${path}\n`)
    }))
}
