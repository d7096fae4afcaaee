// `layerstack image explore`

import type { Command } from 'commander'
import { refuseTerminal, send } from '../output.ts'
import type { Session } from '../session.ts'
import { humanSize } from '../units.ts'

interface Options {
  readonly html: string
  readonly title?: string
  readonly platform?: string
  readonly digests: boolean
}

export function define(command: Command, session: Session): void {
  command
    .argument('<image>', 'an image of the store, an archive, an OCI layout, a container, a layer\'s tar, or a directory')
    .requiredOption('--html <file>', 'the page: one file that loads nothing; - for stdout')
    .option('--title <text>', 'the page\'s heading (default: the image\'s name)')
    .option('--platform <os/arch>', 'of an OCI index with several')
    .option('--no-digests', 'do not read contents: faster, but a file stored again unchanged counts as changed')
    .addHelpText('after', '\nPATH#NAME is one image of an archive; image:NAME, archive:PATH, dir:PATH and the like say which is meant.\n\nExamples:\n  layerstack image explore alpine --html alpine.html\n  layerstack image explore ./app.tar --html app.html')
    .action(async (image: string, { html, title, platform, digests }: Options) => {
      const to = html === '-' ? undefined : html
      refuseTerminal(to)
      await session.lookIfAsked(async storage => {
        const { exploreImage } = await import('../../index.ts')
        const { signal } = session
        const bars = session.progress('Reading')
        const page = Buffer.from(await exploreImage(image, {
          storage, digests, signal, ...(platform === undefined ? {} : { platform }), ...(title === undefined ? {} : { title }),
          onProgress: ({ layer, bytes }) => bars.update(`layer ${layer}`, 'Reading', bytes),
        }))
        await send(once(page), { to, signal })
        if (to === undefined) return
        if (session.json) await session.printJson({ html: to, sizeBytes: page.length })
        else await session.print(`${to}: ${humanSize(page.length)}\n`)
      })
    })
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes
}
