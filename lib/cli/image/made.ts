// Where an image that was made from others goes: into the store, or into an archive. Shared by squash and rebase.

import { Option } from 'commander'
import type { Command } from 'commander'
import type { ImageSource, OpenSourceOptions, Storage } from '../../index.ts'
import { collect } from '../options.ts'
import { send } from '../output.ts'
import type { Session } from '../session.ts'

export interface MadeOptions {
  readonly tag?: readonly string[]
  readonly output?: string
  readonly format: 'docker' | 'oci'
  readonly platform?: string
  readonly created?: string
}

export function madeOptions(command: Command): void {
  command
    .addOption(new Option('-t, --tag <name>', 'name the new image; may be given again').argParser(collect))
    .option('-o, --output <file>', 'write an archive instead of storing the image; - is stdout')
    .addOption(new Option('--format <format>', 'of the archive: what docker load reads, or an OCI layout').choices(['docker', 'oci']).default('docker'))
    .option('--created <time>', 'the new image\'s date, RFC 3339 (default: the old one\'s, so that the same image comes out each time)')
    .option('--platform <os/arch>', 'of an archive with several')
}

/** Run with sources at hand; `made` goes where the options say, and its id is printed. */
export async function making(
  session: Session, options: MadeOptions, work: (open: (text: string) => Promise<ImageSource>) => Promise<ImageSource | undefined>,
): Promise<void> {
  const { signal } = session
  const opened: ImageSource[] = []
  const run = async (storage: OpenSourceOptions['storage'], keep: (made: ImageSource) => Promise<void>): Promise<void> => {
    const { openImageSource } = await import('../../index.ts')
    try {
      const made = await work(async text => {
        const source = await openImageSource(text, { ...(storage === undefined ? {} : { storage }), signal, ...(options.platform === undefined ? {} : { platform: options.platform }) })
        opened.push(source)
        return source
      })
      if (made === undefined) return
      opened.push(made)
      await keep(made)
    } finally {
      for (const source of opened.reverse()) await source.close()
    }
  }
  const { output, format } = options
  if (output === undefined) {
    await session.use(async (storage: Storage) => await run(storage, async made => {
      const { storeImage } = await import('../../index.ts')
      const bars = session.progress('Storing')
      const { imageId, references, renamed } = await storeImage(storage, made, { signal, onProgress: bytes => bars.update('image', 'Writing', bytes) })
      for (const { message } of renamed) session.warn(message)
      if (session.json) await session.printJson({ imageId, references })
      else await session.print(`${imageId}\n`)
    }))
  } else {
    await session.lookIfAsked(async storage => await run(storage, async made => {
      const { writeImageArchive } = await import('../../index.ts')
      await send(writeImageArchive(made, { format, signal }), { to: output === '-' ? undefined : output, signal })
      if (output === '-') return
      if (session.json) await session.printJson({ imageId: made.imageId, references: made.references, output })
      else await session.print(`${made.imageId ?? ''}\n`)
    }))
  }
}
