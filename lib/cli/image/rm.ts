// `layerstack image rm`

import type { Command } from 'commander'
import type { RemovedItem } from '../../images/index.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly force?: boolean
  readonly prune: boolean
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image...>', 'names, or ids')
    .option('-f, --force', 'also when stopped containers use it, or several names point to it')
    .option('--no-prune', 'keep nameless parents')
    .addHelpText('after', '\nExamples:\n  layerstack image rm app:1.0\n  layerstack image rm -f $(layerstack image ls -q --filter dangling=true)')
    .action((images: string[], { force, prune }: Options) => session.use(async storage => {
      const removed: RemovedItem[] = []
      await session.each(images, async image => {
        const items = await storage.images.remove(image, { force: force === true, noPrune: !prune })
        removed.push(...items)
        if (!session.json) await session.print(items.map(item => 'untagged' in item ? `Untagged: ${item.untagged}\n` : `Deleted: ${item.deleted}\n`).join(''))
      })
      if (session.json) await session.printJson(removed)
    }))
}
