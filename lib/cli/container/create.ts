// `layerstack container create`

import type { Command } from 'commander'
import { pairs } from '../options.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly name?: string
  readonly storageOpt?: Readonly<Record<string, string>>
  readonly label?: Readonly<Record<string, string>>
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'a name or an id')
    .argument('[command...]', 'what an engine shall run in it instead of the image\'s command')
    .passThroughOptions()
    .option('--name <name>', 'name of the container (default: two words)')
    .option('-l, --label <key=value>', 'a label; may be given again', pairs('bare keys'))
    .option('--storage-opt <key=value>', 'an option of the container\'s layer, e.g. size=10G; may be given again', pairs('no bare keys'))
    .addHelpText('after', '\nExamples:\n  layerstack container create --name box alpine\n  layerstack container create --storage-opt size=1G alpine sh -c \'echo hi\'')
    .action((image: string, cmd: string[], options: Options) => session.use(async storage => {
      const config = { ...(cmd.length === 0 ? {} : { Cmd: cmd }), ...(options.label === undefined ? {} : { Labels: options.label }) }
      const container = await storage.containers.create({
        image, config, ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.storageOpt === undefined ? {} : { storageOptions: options.storageOpt }),
      })
      if (session.json) await session.printJson(container)
      else await session.print(`${container.id}\n`)
    }))
}
