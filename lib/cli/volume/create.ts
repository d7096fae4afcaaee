// `layerstack volume create`

import type { Command } from 'commander'
import { pairs } from '../options.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly driver?: string
  readonly label?: Readonly<Record<string, string>>
  readonly opt?: Readonly<Record<string, string>>
}

export function define(command: Command, session: Session): void {
  command
    .argument('[volume]', 'its name (default: an anonymous volume)')
    .option('-d, --driver <name>', 'the volume driver (default: local)')
    .option('--label <key=value>', 'a label; may be given again', pairs('bare keys'))
    .option('-o, --opt <key=value>', 'an option of the driver: type, device, o; may be given again', pairs('bare keys'))
    .addHelpText('after', '\nExamples:\n  layerstack volume create data\n  layerstack volume create -o type=tmpfs -o device=tmpfs -o o=size=100m scratch\n'
      + '  layerstack volume create -o type=nfs -o device=:/export -o o=addr=server,rw shared')
    .action((name: string | undefined, { driver, label, opt }: Options) => session.use(async storage => {
      const volume = await storage.volumes.create(name, { ...(driver === undefined ? {} : { driver }), ...(label === undefined ? {} : { labels: label }), ...(opt === undefined ? {} : { options: opt }) })
      if (session.json) await session.printJson(storage.volumes.inspect(volume.name))
      else await session.print(`${volume.name}\n`)
    }))
}
