// `layerstack container export`

import type { Command } from 'commander'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .option('-o, --output <file>', 'write to a file instead of stdout')
    .addHelpText('after', '\nExamples:\n  layerstack container export -o box.tar box\n  layerstack container export box | tar -t')
    .action((ref: string, { output }: { readonly output?: string }) => {
      refuseTerminal(output)
      return session.use(async storage => {
        const { signal } = session
        const bars = output === undefined ? undefined : session.progress('Exporting')
        const { entries, skipped } = await send(storage.containers.export(ref, { signal }), { to: output, signal, onProgress: bytes => bars?.update('tar', 'Exporting', bytes) })
        if (session.json && output !== undefined) await session.printJson({ output, entries })
        session.warnSkipped('the container', skipped.length, skipped)
      })
    })
}
