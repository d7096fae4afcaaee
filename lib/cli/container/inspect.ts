// `layerstack container inspect`

import type { Command } from 'commander'
import type { Session } from '../session.ts'

/** Go's, where Docker has none. */
const zeroTime = '0001-01-01T00:00:00Z'

export function define(command: Command, session: Session): void {
  command
    .argument('<container...>', 'names or ids')
    .option('-s, --size', 'add SizeRw, the disk use of the container\'s own layer')
    .addHelpText('after', '\nPrints an array, in the words of Docker\'s API where it has some.\n\nExample:\n  layerstack container inspect box')
    .action((refs: string[], { size }: { readonly size?: boolean }) => session.look(async storage => {
      const found: object[] = []
      await session.each(refs, async ref => {
        const { id, name, created, imageId, driver, config, running, state } = storage.containers.get(ref)
        const { path, holders } = storage.containers.mountState(id)
        found.push({
          Id: id, Created: created, Name: `/${name}`, Image: imageId ?? '', Driver: driver, State: { Status: state.status, Running: running, ExitCode: state.exitCode, Error: state.error, StartedAt: state.startedAt ?? zeroTime, FinishedAt: state.finishedAt ?? zeroTime }, Config: config,
          GraphDriver: await storage.containers.graphDriver(id), Mounted: { Path: path ?? '', Holders: holders },
          ...(size === true ? { SizeRw: (await storage.containers.usage(id)).sizeBytes } : {}),
        })
      })
      await session.printJson(found, session.json ? undefined : 4)
    }))
}
