// `layerstack container rm`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<container...>', 'names or ids')
    .option('-f, --force', 'unmount it when it is mounted')
    .option('-v, --volumes', 'remove its anonymous volumes with it')
    .addHelpText('after', '\nExample:\n  layerstack container rm -f $(layerstack container ls -q)')
    .action((refs: string[], { force, volumes }: { readonly force?: boolean; readonly volumes?: boolean }) => session.use(async storage => {
      const removed: { id: string; name: string }[] = []
      await session.each(refs, async ref => {
        const { id, name } = storage.containers.get(ref)
        await storage.containers.remove(id, { force: force === true, volumes: volumes === true })
        removed.push({ id, name })
        if (!session.json) await session.print(`${ref}\n`)
      })
      if (session.json) await session.printJson(removed)
    }))
}
