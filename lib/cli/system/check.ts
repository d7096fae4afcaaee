// `layerstack system check`

import type { Command } from 'commander'
import { StorageError } from '../../errors.ts'
import type { CheckArea, Finding } from '../../index.ts'
import type { Session } from '../session.ts'
import { describeFindings } from './findings.ts'

interface Options {
  readonly quick?: boolean
  readonly only?: string
}

export function define(command: Command, session: Session): void {
  command
    .option('--quick', 'structure alone: the content of layers is not read')
    .option('--only <areas>', 'look only there: driver, layers, images, containers, volumes, leftovers; several with commas')
    .addHelpText('after', '\nReads only; dockerd may run meanwhile. Exits with 0 when all is in order, with 1 when something is damaged or left over. Notices do not count.\n'
      + 'With --json, a line for each finding.\n\nExamples:\n  layerstack --root /var/lib/docker system check\n  layerstack system check --quick --json | jq .path')
    .action(({ quick, only }: Options) => session.look(async storage => {
      const { checkAreas } = await import('../../index.ts')
      const areas = only?.split(',').map(area => {
        if (!(checkAreas as readonly string[]).includes(area)) throw new StorageError('INVALID_ARGUMENT', `there is no area ${JSON.stringify(area)} to check`, { hint: `areas: ${checkAreas.join(', ')}` })
        return area as CheckArea
      })
      const bars = session.progress('Checking')
      const findings: Finding[] = []
      const options = {
        quick: quick === true, signal: session.signal, ...(areas === undefined ? {} : { only: areas }),
        onProgress: ({ done, total, bytes }: { readonly done: number; readonly total: number; readonly bytes: number }): void => bars.update('layers', `Verifying layers (${Math.min(done + 1, total)}/${total})`, bytes),
      }
      for await (const finding of storage.check(options)) {
        findings.push(finding)
        if (session.json) await session.print(`${JSON.stringify(finding)}\n`)
      }
      if (!session.json) await session.print(describeFindings(findings))
      if (findings.some(finding => finding.severity !== 'notice')) session.conclude(1)
    }))
}
