// `layerstack layer ls`

import type { Command } from 'commander'
import type { Layer } from '../../index.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { humanSize, shortId } from '../units.ts'

interface Options {
  readonly quiet?: boolean
  readonly trunc: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('-q, --quiet', 'print chain ids alone')
    .option('--no-trunc', 'print ids in full')
    .addHelpText('after', '\nExample:\n  layerstack layer ls --json | jq \'map(.sizeBytes) | add\'')
    .action(({ quiet, trunc }: Options) => session.look(async storage => {
      const layers: Layer[] = []
      for await (const layer of storage.layers.list(error => session.warn(error.message))) layers.push(layer)
      if (session.json) { await session.printJson(layers); return }
      if (quiet === true) { await session.print(layers.map(layer => `${shortId(layer.chainId, trunc)}\n`).join('')); return }
      await session.print(table(['CHAIN ID', 'DIFF ID', 'PARENT', 'SIZE', 'CACHE ID'], layers.map(layer => [
        shortId(layer.chainId, trunc), shortId(layer.diffId, trunc), layer.parent === undefined ? '<none>' : shortId(layer.parent, trunc),
        humanSize(layer.sizeBytes, 3), shortId(layer.cacheId, trunc),
      ])))
    }))
}
