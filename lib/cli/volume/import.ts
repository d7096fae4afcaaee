// `layerstack volume import`

import fs from 'node:fs'
import type { Command } from 'commander'
import { sizeOf, standardInput } from '../input.ts'
import { pairs } from '../options.ts'
import type { Session } from '../session.ts'

export function define(command: Command, session: Session): void {
  command
    .argument('<volume>', 'a name; a volume that exists must be empty')
    .argument('[file]', 'a tar, compressed or not', '-')
    .option('--label <key=value>', 'a label; may be given again', pairs('bare keys'))
    .addHelpText('after', '\nThe volume is complete or not there, whatever happens. Without a file, or with -, stdin is read.\n\nExamples:\n  layerstack volume import data data.tar.zst\n'
      + '  ssh server layerstack volume export data | layerstack volume import data')
    .action((name: string, file: string, { label }: { readonly label?: Readonly<Record<string, string>> }) => session.use(async storage => {
      const { signal } = session
      const input = file === '-' ? standardInput(signal, 'import') : file
      const source = typeof input === 'object' ? input : typeof input === 'number' ? fs.createReadStream('', { fd: input, autoClose: false }) : fs.createReadStream(input)
      const totalBytes = typeof input === 'object' ? undefined : sizeOf(input)
      const bars = session.progress('Importing')
      const volume = await storage.volumes.import(name, source, { signal, onProgress: bytes => bars.update('tar', 'Importing', bytes, totalBytes), ...(label === undefined ? {} : { labels: label }) })
      if (session.json) await session.printJson(storage.volumes.inspect(volume.name))
      else await session.print(`${volume.name}\n`)
    }))
}
