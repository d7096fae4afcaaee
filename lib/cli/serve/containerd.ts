// `layerstack serve containerd`

import type { Command } from 'commander'
import type { ContainerdServer, serveContainerd } from '../../index.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .option('--address <socket>', 'a unix socket, as the proxy plugin\'s address in containerd\'s config.toml', '/run/layerstack/containerd.sock')
    .addHelpText('after', '\nServes containerd\'s snapshot service until it is interrupted, then finishes what runs. Snapshots and mounts stay.\n\n'
      + 'Example:\n  layerstack --root /var/lib/layerstack serve containerd &\n'
      + '  # config.toml: [proxy_plugins.layerstack] type = "snapshot", address = "/run/layerstack/containerd.sock"\n'
      + '  ctr run --snapshotter layerstack docker.io/library/debian:latest box sh')
    .action(({ address }: { readonly address: string }) => session.use(async storage => {
      const server = await serve({ snapshots: storage.snapshots, address, onError: error => session.warn(error instanceof Error ? error.message : String(error)) })
      if (session.json) await session.printJson({ address: server.address })
      else await session.print(`serving snapshots of ${storage.root} at ${server.address}\n`)
      await new Promise<void>(resolve => {
        if (session.signal.aborted) resolve()
        else session.signal.addEventListener('abort', () => resolve(), { once: true })
      })
      await server.close()
    }))
}

/** The library is imported when the command acts. */
const serve = async (...args: Parameters<typeof serveContainerd>): Promise<ContainerdServer> => (await import('../../index.ts')).serveContainerd(...args)
