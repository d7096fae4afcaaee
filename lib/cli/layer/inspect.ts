// `layerstack layer inspect`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<layer...>', 'chain ids or diffIDs, or beginnings of them')
    .addHelpText('after', '\nExample:\n  layerstack layer inspect 5f70bf18a086')
    .action((layers: string[]) => session.look(async storage => {
      const { findLayer } = await import('../../index.ts')
      const found: object[] = []
      await session.each(layers, async text => {
        const layer = await findLayer(storage, text)
        const chain = await storage.layers.chain(layer.chainId)
        found.push({
          ...layer, depth: chain.length, disk: await storage.driver.usage(layer.cacheId),
          graphDriver: { name: storage.driver.name, data: await storage.driver.metadata(layer.cacheId) },
        })
      })
      await session.printJson(found, session.json ? undefined : 4)
    }))
}
