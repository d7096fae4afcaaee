// `layerstack container ls`

import type { Command } from 'commander'
import type { ContainerRecord, Storage } from '../../index.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { ago, ellipsis, humanDuration, humanSize, shortId } from '../units.ts'

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
      const images = new Map<ContainerRecord, string>()
      for (const container of containers) images.set(container, await imageOf(storage, container, trunc))
      await session.print(table(
        ['CONTAINER ID', 'IMAGE', 'COMMAND', 'CREATED', 'STATUS', 'NAMES', ...(sizes === undefined ? [] : ['SIZE'])],
        containers.map(container => {
          const line = commandOf(container)
          return [
            shortId(container.id, trunc), images.get(container) ?? '', JSON.stringify(trunc ? ellipsis(line, 20) : line), ago(Date.parse(container.created)),
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
  const [program = '', ...args] = [...config.Entrypoint ?? [], ...config.Cmd ?? []]
  // As dockerd writes them (daemon/list.go).
  return [program, ...args.map(arg => arg.includes(' ') ? `'${arg}'` : arg)].join(' ')
}

/** As it was called when the container was made, while that still means the same image; else its id. */
async function imageOf(storage: Storage, { imageId, config }: ContainerRecord, trunc: boolean): Promise<string> {
  if (imageId === undefined) return '<none>'
  const called = config['Image']
  if (typeof called !== 'string' || called === '') return shortId(imageId, trunc)
  const now = await storage.images.resolve(called).catch(() => undefined)
  return now === imageId ? shortId(called, trunc && called.startsWith('sha256:')) : shortId(imageId, trunc)
}

function statusOf(storage: Storage, { id, state }: ContainerRecord): string {
  if (storage.containers.mountState(id).holders > 0) return 'Mounted'
  const since = (time: string | undefined): string => time === undefined ? '' : humanDuration(Date.now() - Date.parse(time))
  // Docker's words (container/state.go, String).
  switch (state.status) {
    case 'running': return `Up ${since(state.startedAt)}`
    case 'paused': return `Up ${since(state.startedAt)} (Paused)`
    case 'restarting': return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`
    case 'removing': return 'Removal In Progress'
    case 'dead': return 'Dead'
    case 'exited': return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`
    case 'created': return 'Created'
  }
}
