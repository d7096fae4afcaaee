// `layerstack image save`

import { Option } from 'commander'
import type { Command } from 'commander'
import type { SaveOptions } from '../../images/index.ts'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly output?: string
  readonly directory?: string
  readonly format?: NonNullable<SaveOptions['format']>
  readonly compression?: NonNullable<SaveOptions['compression']>
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image...>', 'names or ids; a name without a tag stands for all of its tags')
    .option('-o, --output <file>', 'write to a file instead of stdout')
    .addOption(new Option('-d, --directory <dir>', 'write the files into a new folder, without a tar around them').conflicts('output'))
    .addOption(new Option('--format <format>', 'docker: what docker load reads, any version; oci: an OCI layout').choices(['docker', 'oci']).default('docker'))
    .addOption(new Option('--compression <kind>', 'of the layers').choices(['none', 'gzip', 'zstd']).default('none'))
    .addHelpText('after', '\nExamples:\n  layerstack image save -o app.tar app:1.0\n  layerstack image save app | docker load\n  layerstack image save --format oci --compression gzip -d layout app')
    .action((images: string[], options: Options) => {
      if (options.directory === undefined) refuseTerminal(options.output)
      return session.use(async storage => {
        const { signal } = session
        const { format, compression, directory, output } = options
        const choice = { signal, ...(format === undefined ? {} : { format }), ...(compression === undefined ? {} : { compression }) }
        const bars = output === undefined && directory === undefined ? undefined : session.progress('Saving')
        if (directory !== undefined) await storage.images.saveToDirectory(images, directory, choice)
        else {
          const onProgress = (bytes: number): void => bars?.update('archive', 'Saving', bytes)
          await send(storage.images.save(images, choice), { to: output, signal, onProgress, inPlace: fd => storage.images.saveToFile(images, fd, { ...choice, onProgress }) })
        }
        if (session.json && (output ?? directory) !== undefined) await session.printJson({ images, output: output ?? directory })
      })
    })
}
