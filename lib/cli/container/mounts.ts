// `layerstack container mounts`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .option('-r, --read-only', 'describe a mount that cannot be written to')
    .addHelpText('after', '\nNothing is mounted: the array says what an engine has to mount.\n\nExample:\n  layerstack container mounts box')
    .action((ref: string, options: { readonly readOnly?: boolean }) => session.look(async storage => {
      await session.printJson(await storage.containers.mounts(ref, options.readOnly === true ? 'ro' : 'rw'), session.json ? undefined : 4)
    }))
}
