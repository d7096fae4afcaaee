// `layerstack volume ls`

import type { Command } from 'commander'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { parseVolumeFilters } from './filters.ts'

interface Options {
  readonly quiet?: boolean
  readonly filter?: readonly string[]
}

export function define(command: Command, session: Session): void {
  command
    .option('-q, --quiet', 'print names alone')
    .option('-f, --filter <key=value>', 'dangling=true|false, driver=NAME, label=KEY[=VALUE], name=PART; may be given again', collect)
    .addHelpText('after', '\nExamples:\n  layerstack volume ls\n  layerstack volume ls -q --filter dangling=true')
    .action(({ quiet, filter }: Options) => session.look(async storage => {
      const volumes = storage.volumes.list(parseVolumeFilters(filter))
      if (session.json) await session.printJson(volumes.map(({ name }) => storage.volumes.inspect(name)))
      else if (quiet === true) await session.print(volumes.map(({ name }) => `${name}\n`).join(''))
      else await session.print(table(['DRIVER', 'VOLUME NAME'], volumes.map(({ driver, name }) => [driver, name])))
    }))
}
