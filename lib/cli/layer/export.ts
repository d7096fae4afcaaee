// `layerstack layer export`

import type { Command } from 'commander'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<layer>', 'a chain id or a diffID, or the beginning of one')
    .option('-o, --output <file>', 'write to a file instead of stdout')
    .addHelpText('after', '\nThe sha256 of what is written is the layer\'s diffID.\n\nExample:\n  layerstack layer export 5f70bf18a086 | tar -tv')
    .action((text: string, { output }: { readonly output?: string }) => {
      refuseTerminal(output)
      return session.use(async storage => {
        const { findLayer } = await import('../../index.ts')
        const { signal } = session
        const layer = await findLayer(storage, text)
        const bars = output === undefined ? undefined : session.progress('Exporting')
        await send(storage.layers.tar(layer.chainId, { signal }), { to: output, signal, onProgress: bytes => bars?.update('tar', 'Exporting', bytes) })
        if (session.json && output !== undefined) await session.printJson({ ...layer, output })
      })
    })
}
