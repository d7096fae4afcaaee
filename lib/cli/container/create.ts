// `layerstack container create`

import type { Command } from 'commander'
import type { ContainerMountOptions } from '../../index.ts'
import { collect, pairs } from '../options.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly name?: string
  readonly storageOpt?: Readonly<Record<string, string>>
  readonly label?: Readonly<Record<string, string>>
  readonly volume?: readonly string[]
  readonly mount?: readonly string[]
  readonly tmpfs?: readonly string[]
  readonly volumesFrom?: readonly string[]
  readonly volumeDriver?: string
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'a name or an id')
    .argument('[command...]', 'what an engine shall run in it instead of the image\'s command')
    .passThroughOptions()
    .option('--name <name>', 'name of the container (default: two words)')
    .option('-l, --label <key=value>', 'a label; may be given again', pairs('bare keys'))
    .option('--storage-opt <key=value>', 'an option of the container\'s layer, e.g. size=10G; may be given again', pairs('no bare keys'))
    .option('-v, --volume <[source:]target[:mode]>', 'a volume or a bind; may be given again', collect)
    .option('--mount <key=value,...>', 'a mount, in full; may be given again', collect)
    .option('--tmpfs <target[:options]>', 'a file system in memory; may be given again', collect)
    .option('--volumes-from <container[:ro]>', 'the volumes and binds of another container; may be given again', collect)
    .option('--volume-driver <name>', 'driver of the volumes of -v (default: local)')
    .addHelpText('after', '\nExamples:\n  layerstack container create --name box alpine\n  layerstack container create -v data:/data -v ./conf:/etc/app:ro --tmpfs /run alpine\n  layerstack container create --storage-opt size=1G alpine sh -c \'echo hi\'')
    .action((image: string, cmd: string[], options: Options) => session.use(async storage => {
      const { anonymous, mounts } = await mountsOf(options)
      const config = {
        ...(cmd.length === 0 ? {} : { Cmd: cmd }), ...(options.label === undefined ? {} : { Labels: options.label }),
        ...(anonymous.length === 0 ? {} : { Volumes: Object.fromEntries(anonymous.map(target => [target, {}])) }),
      }
      const container = await storage.containers.create({
        image, config, mounts, signal: session.signal, ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.storageOpt === undefined ? {} : { storageOptions: options.storageOpt }),
      })
      if (session.json) await session.printJson(container)
      else await session.print(`${container.id}\n`)
    }))
}

/** As docker's command line: relative sources become absolute, and a bare target is a VOLUME of the container's own config. */
async function mountsOf(options: Options): Promise<{ readonly anonymous: readonly string[]; readonly mounts: ContainerMountOptions }> {
  const { parseMountFlag, resolveVolumeFlag, splitVolumeFlag } = await import('../../volumes/index.ts')
  const anonymous: string[] = [], binds: string[] = []
  for (const text of options.volume ?? []) {
    const { source, target } = splitVolumeFlag(text)
    if (source === undefined) anonymous.push(target ?? '')
    else binds.push(resolveVolumeFlag(text))
  }
  const tmpfs = Object.fromEntries((options.tmpfs ?? []).map(text => {
    const at = text.indexOf(':')
    return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
  }))
  return {
    anonymous,
    mounts: {
      binds, mounts: (options.mount ?? []).map(text => parseMountFlag(text)), ...(options.tmpfs === undefined ? {} : { tmpfs }),
      volumesFrom: options.volumesFrom ?? [], ...(options.volumeDriver === undefined ? {} : { volumeDriver: options.volumeDriver }),
    },
  }
}
