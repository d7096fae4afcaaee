// `layerstack image flatten`

import type { Command } from 'commander'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly output?: string
  readonly platform?: string
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'an image, container or layer of the store, an archive, an OCI layout, or a layer\'s tar')
    .option('-o, --output <file>', 'write to a file instead of stdout')
    .option('--platform <os/arch>', 'of an archive with several')
    .addHelpText('after', '\nWrites the tree that a container would see as one tar. The same layers give the same bytes. Nothing is mounted or unpacked, and no store is needed for an archive.\n\n'
      + 'Examples:\n  layerstack image flatten ./app.tar | tar -x -C rootfs\n  layerstack image flatten -o rootfs.tar app:1.0')
    .action(async (text: string, { output, platform }: Options) => {
      refuseTerminal(output)
      await session.lookIfAsked(async storage => {
        const { flattenImage, openImageSource } = await import('../../index.ts')
        const { signal } = session
        const source = await openImageSource(text, { storage, signal, ...(platform === undefined ? {} : { platform }) })
        try {
          const bars = output === undefined ? undefined : session.progress('Flattening')
          const outcome = await send(flattenImage(source, { signal }), { to: output, signal, onProgress: bytes => bars?.update('tar', 'Writing', bytes) })
          if (session.json && output !== undefined) await session.printJson({ image: text, output, ...outcome })
        } finally {
          await source.close()
        }
      })
    })
}
