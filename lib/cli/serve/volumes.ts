// `layerstack serve volumes`

import type { Command } from 'commander'
import type { serveVolumes, VolumeServer } from '../../index.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .option('--address <socket>', 'a unix socket; the file\'s name is the driver\'s name in docker', '/run/docker/plugins/layerstack.sock')
    .addHelpText('after', '\nServes Docker\'s volume plugin protocol until it is interrupted. Volumes that containers use stay mounted.\n\n'
      + 'Example:\n  layerstack serve volumes &\n  docker volume create -d layerstack data')
    .action(({ address }: { readonly address: string }) => session.use(async storage => {
      const server = await serve(storage.volumes, { address, onError: (method, error) => session.warn(`${method}: ${error.message}`) })
      if (session.json) await session.printJson({ address: server.path })
      else await session.print(`serving volumes of ${storage.root} at ${server.path}\n`)
      await new Promise<void>(resolve => {
        if (session.signal.aborted) resolve()
        else session.signal.addEventListener('abort', () => resolve(), { once: true })
      })
      await server.close()
    }))
}

/** The library is imported when the command acts. */
const serve = async (...args: Parameters<typeof serveVolumes>): Promise<VolumeServer> => (await import('../../index.ts')).serveVolumes(...args)
