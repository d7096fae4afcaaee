// `layerstack image load`

import type { Command } from 'commander'
import type { LoadedImage, LoadProgress } from '../../images/index.ts'
import { sizeOf, standardInput } from '../input.ts'
import type { Session } from '../session.ts'
import { shortId } from '../units.ts'

interface Options {
  readonly input?: string
  readonly quiet?: boolean
  readonly platform?: string
  readonly name?: string
}

export function define(command: Command, session: Session): void {
  command
    .option('-i, --input <file>', 'read from a file or an OCI layout\'s folder instead of stdin')
    .option('-q, --quiet', 'show no progress')
    .option('--platform <os/arch>', 'of an image for several platforms, the one to load (default: this machine\'s)')
    .option('--name <repository>', 'repository for OCI images that are named by a tag alone')
    .addHelpText('after', '\nExamples:\n  layerstack image load -i alpine.tar.gz\n  docker save alpine | layerstack image load\n  skopeo copy docker://alpine oci:dir:latest && layerstack image load -i dir --name alpine')
    .action((options: Options) => session.use(async storage => {
      const { signal } = session
      const source = options.input ?? standardInput(signal, 'load')
      const bars = options.quiet === true ? undefined : session.progress('Loading')
      const spoolBytes = typeof source === 'object' ? undefined : sizeOf(source)
      const onProgress = (progress: LoadProgress): void => {
        if (progress.phase === 'layer') bars?.update(progress.diffId, shortId(progress.diffId), progress.bytes, progress.totalBytes)
        // Of a compressed archive only the size in the file is known, and the bytes are those that come out of it.
        else if (progress.phase === 'spool') bars?.update('spool', 'Reading', progress.bytes, spoolBytes === undefined ? undefined : Math.max(spoolBytes, progress.bytes))
      }
      const loaded = await storage.images.load(source, {
        signal, onProgress, ...(options.platform === undefined ? {} : { platform: options.platform }), ...(options.name === undefined ? {} : { name: options.name }),
      })
      if (session.json) await session.printJson(loaded)
      else await session.print(loaded.map(describe).join(''))
      const skipped = loaded.flatMap(image => image.layers.flatMap(layer => layer.fresh ? layer.skipped : []))
      session.warnSkipped('the image', loaded.reduce((n, image) => n + image.skippedCount, 0), skipped)
    }))
}

function describe({ references, imageId, renamed }: LoadedImage): string {
  const names = references.length === 0 ? [`Loaded image ID: ${imageId}`] : references.map(reference => `Loaded image: ${reference}`)
  return [...renamed.map(({ message }) => message), ...names].map(line => `${line}\n`).join('')
}
