// `layerstack image inspect`

import type { Command } from 'commander'
import type { ImageInspect } from '../../images/index.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<image...>', 'names or ids')
    .addHelpText('after', '\nPrints an array, in the words of Docker\'s API; images that are missing are told on stderr.\n\nExample:\n  layerstack image inspect alpine | jq \'.[0].Config.Env\'')
    .action((images: string[]) => session.look(async storage => {
      const found: ImageInspect[] = []
      await session.each(images, async image => { found.push(await storage.images.inspect(image)) })
      await session.printJson(found, session.json ? undefined : 4)
    }))
}
