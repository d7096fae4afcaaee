// `layerstack volume prune`

import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { humanSize } from '../units.ts'
import { parseVolumeFilters } from './filters.ts'

interface Options {
  readonly all?: boolean
  readonly filter?: readonly string[]
  readonly force?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('-a, --all', 'named volumes as well, not only anonymous ones')
    .option('--filter <key=value>', 'label=KEY[=VALUE], label!=KEY[=VALUE]; may be given again', collect)
    .option('-f, --force', 'do not ask')
    .addHelpText('after', '\nRemoves local volumes that no container uses and nobody has mounted; not those with a device.\n\nExample:\n  layerstack volume prune -f --filter label!=keep')
    .action(async ({ all, filter, force }: Options) => {
      if (force !== true && !await confirmed(session, all === true)) return
      await session.use(async storage => {
        const { deleted, reclaimedBytes } = await storage.volumes.prune({ all: all === true, filters: parseVolumeFilters(filter), signal: session.signal })
        if (session.json) { await session.printJson({ VolumesDeleted: deleted, SpaceReclaimed: reclaimedBytes }); return }
        const list = deleted.length === 0 ? '' : `Deleted Volumes:\n${deleted.map(name => `${name}\n`).join('')}\n`
        await session.print(`${list}Total reclaimed space: ${humanSize(reclaimedBytes)}\n`)
      })
    })
}

/** Docker's question; it goes to stderr, since stdout is for results. */
async function confirmed(session: Session, all: boolean): Promise<boolean> {
  process.stderr.write(`WARNING! This will remove ${all ? 'all' : 'anonymous'} local volumes not used by at least one container.\n`)
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y$/i.test((await lines.question('Are you sure you want to continue? [y/N] ', { signal: session.signal })).trim())
  } finally {
    lines.close()
  }
}
