// `layerstack image import`

import type { Command } from 'commander'
import { sizeOf, standardInput } from '../input.ts'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly change?: readonly string[]
  readonly message?: string
  readonly platform?: string
}

export function define(command: Command, session: Session): void {
  command
    .argument('<file>', 'a tar, compressed or not; - reads stdin')
    .argument('[reference]', 'name for the image, NAME[:TAG]')
    .option('-c, --change <instruction>', 'a Dockerfile instruction for the image, e.g. \'CMD ["/bin/sh"]\'; may be given again', collect)
    .option('-m, --message <text>', 'comment of the image')
    .option('--platform <os/arch>', 'what the image is for (default: this machine\'s)')
    .addHelpText('after', '\nExamples:\n  layerstack image import rootfs.tar.xz base:1.0\n  tar -C rootfs -c . | layerstack image import -c \'CMD ["/bin/sh"]\' - base')
    .action((file: string, reference: string | undefined, options: Options) => session.use(async storage => {
      const { signal } = session
      const source = file === '-' ? standardInput(signal, 'import') : file
      const bars = session.progress('Importing')
      const totalBytes = typeof source === 'object' ? undefined : sizeOf(source)
      const imageId = await storage.images.import(source, {
        signal, changes: options.change ?? [], onProgress: bytes => bars.update('tar', 'Importing', bytes, totalBytes),
        ...(reference === undefined ? {} : { reference }), ...(options.message === undefined ? {} : { message: options.message }),
        ...(options.platform === undefined ? {} : { platform: options.platform }),
      })
      if (session.json) await session.printJson({ imageId })
      else await session.print(`${imageId}\n`)
    }))
}
