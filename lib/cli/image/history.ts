// `layerstack image history`

import type { Command } from 'commander'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { ago, ellipsis, humanSize, shortId } from '../units.ts'

interface Options {
  readonly trunc: boolean
  readonly quiet?: boolean
  readonly human: boolean
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'a name or an id')
    .option('-H, --human', 'sizes and dates for people', true)
    .option('--no-human', 'sizes in bytes and dates in full')
    .option('--no-trunc', 'print ids and commands in full')
    .option('-q, --quiet', 'print ids alone')
    .addHelpText('after', '\nExample:\n  layerstack image history --no-trunc alpine')
    .action((image: string, { trunc, quiet, human }: Options) => session.look(async storage => {
      const items = await storage.images.history(image)
      if (session.json) { await session.printJson(items); return }
      if (quiet === true) { await session.print(items.map(item => `${shortId(item.Id, trunc)}\n`).join('')); return }
      await session.print(table(['IMAGE', human ? 'CREATED' : 'CREATED AT', 'CREATED BY', 'SIZE', 'COMMENT'], items.map(item => {
        const createdBy = item.CreatedBy.replaceAll('\t', ' ')
        return [
          shortId(item.Id, trunc), human ? ago(item.Created * 1000) : new Date(item.Created * 1000).toISOString().replace('.000Z', 'Z'),
          trunc ? ellipsis(createdBy, 45) : createdBy, human ? humanSize(item.Size, 3) : `${item.Size}`, item.Comment,
        ]
      })))
    }))
}
