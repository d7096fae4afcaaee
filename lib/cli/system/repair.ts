// `layerstack system repair`

import type { Command } from 'commander'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { describeRepair, describeStep } from './findings.ts'

interface Options {
  readonly apply?: boolean
  readonly from?: readonly string[]
  readonly quick?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('--apply', 'do it; without, only tell each step and its gain')
    .option('--from <archive>', 'take damaged and missing layers and images from this archive (docker-archive or OCI layout); may be given again', collect)
    .option('--quick', 'structure alone: damaged content is not looked for')
    .addHelpText('after', '\nRebuilds what is certain, exchanges damaged layers for good copies from archives, sets aside what cannot be made good (images then need loading\n'
      + 'again; `system prune` removes what was set aside), and removes what is proved to be nobody\'s. In doubt it says so and leaves things alone. dockerd must not run.\n'
      + 'Exits with 0 when all is in order in the end (without --apply: when there is nothing to do), else with 1.\n\n'
      + 'Examples:\n  layerstack --root /var/lib/docker system repair\n  layerstack system repair --apply --from app.tar')
    .action(({ apply, from, quick }: Options) => {
      const run = async (storage: Parameters<Parameters<Session['use']>[0]>[0]): Promise<void> => {
        const bars = session.progress('Checking')
        const lines: string[] = []
        const result = await storage.repair({
          apply: apply === true, quick: quick === true, signal: session.signal, ...(from === undefined ? {} : { from }),
          onProgress: ({ done, total, bytes }) => bars.update('layers', `Verifying layers (${Math.min(done + 1, total)}/${total})`, bytes),
          onStep: step => lines.push(describeStep(step)),
        })
        if (session.json) await session.printJson(result)
        else await session.print(`${lines.join('')}${describeRepair(result, apply === true)}`)
        if (result.remaining.length > 0 || apply !== true && result.steps.length > 0) session.conclude(1)
      }
      // Opening for writing rolls back what crashed: a dry run must not.
      return apply === true ? session.use(run) : session.look(run)
    })
}
