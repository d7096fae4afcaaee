// `layerstack volume export`

import type { Command } from 'commander'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<volume>', 'a name')
    .option('-o, --output <file>', 'write to a file instead of stdout')
    .addHelpText('after', '\nExamples:\n  layerstack volume export -o data.tar data\n  layerstack volume export data | zstd > data.tar.zst')
    .action((name: string, { output }: { readonly output?: string }) => {
      refuseTerminal(output)
      return session.use(async storage => {
        const { signal } = session
        const bars = output === undefined ? undefined : session.progress('Exporting')
        await send(storage.volumes.export(name, { signal }), { to: output, signal, onProgress: bytes => bars?.update('tar', 'Exporting', bytes) })
        if (session.json && output !== undefined) await session.printJson({ output })
      })
    })
}
