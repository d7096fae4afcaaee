// `layerstack container ls`

import type { Command } from 'commander'
import type { ContainerRecord, Storage } from '../../index.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { ago, ellipsis, humanSize, shortId } from '../units.ts'

interface Options {
  readonly quiet?: boolean
  readonly trunc: boolean
  readonly size?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('-a, --all', 'for Docker\'s users; all containers are shown anyway')
    .option('-q, --quiet', 'print ids alone')
    .option('--no-trunc', 'print ids and commands in full')
    .option('-s, --size', 'print the disk use of each container\'s own layer')
    .addHelpText('after', '\nExample:\n  layerstack container ls -s')
    .action((options: Options) => session.look(async storage => {
      const { trunc } = options
      const containers = storage.containers.list()
      const sizes = options.size === true ? await sizesOf(storage, containers) : undefined
      if (session.json) {
        await session.printJson(containers.map(container => ({
          ...container, mounted: storage.containers.mountState(container.id), ...(sizes === undefined ? {} : { sizeBytes: sizes.get(container.id) }),
        })))
        return
      }
      if (options.quiet === true) { await session.print(containers.map(({ id }) => `${shortId(id, trunc)}\n`).join('')); return }
      const names = new Map((await storage.images.list({ all: true, onDamaged: () => undefined })).map(image => [image.Id, image.RepoTags[0]]))
      await session.print(table(
        ['CONTAINER ID', 'IMAGE', 'COMMAND', 'CREATED', 'STATUS', 'NAMES', ...(sizes === undefined ? [] : ['SIZE'])],
        containers.map(container => {
          const line = commandOf(container)
          return [
            shortId(container.id, trunc), imageOf(container, names, trunc), JSON.stringify(trunc ? ellipsis(line, 20) : line), ago(Date.parse(container.created)),
            statusOf(storage, container), container.name, ...(sizes === undefined ? [] : [humanSize(sizes.get(container.id) ?? 0, 3)]),
          ]
        }),
      ))
    }))
}

async function sizesOf(storage: Storage, containers: readonly ContainerRecord[]): Promise<Map<string, number>> {
  const sizes = new Map<string, number>()
  for (const { id } of containers) sizes.set(id, (await storage.containers.usage(id)).sizeBytes)
  return sizes
}

function commandOf({ config }: ContainerRecord): string {
  return [...config.Entrypoint ?? [], ...config.Cmd ?? []].join(' ')
}

function imageOf({ imageId }: ContainerRecord, names: ReadonlyMap<string, string | undefined>, trunc: boolean): string {
  return imageId === undefined ? '<none>' : names.get(imageId) ?? shortId(imageId, trunc)
}

function statusOf(storage: Storage, container: ContainerRecord): string {
  if (container.running) return 'Running'
  return storage.containers.mountState(container.id).holders > 0 ? 'Mounted' : 'Created'
}
