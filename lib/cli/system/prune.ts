// `layerstack system prune`

import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { StorageError } from '../../errors.ts'
import type { PruneResult } from '../../index.ts'
import { parseFilters } from '../filters.ts'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { humanSize, printable } from '../units.ts'

interface Options {
  readonly all?: boolean
  readonly volumes?: boolean
  readonly filter?: readonly string[]
  readonly dryRun?: boolean
  readonly force?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('-a, --all', 'every image that no container uses, not only those without a name')
    .option('--volumes', 'anonymous volumes that no container uses as well')
    .option('--filter <key=value>', 'until=TIME: only images made before, e.g. until=24h', collect)
    .option('--dry-run', 'only tell what would go')
    .option('-f, --force', 'do not ask')
    .addHelpText('after', '\nRemoves images without a name, what interrupted work left, and what repair has set aside. Containers stay. The bytes are what it really gives back.\n\n'
      + 'Examples:\n  layerstack system prune --dry-run\n  layerstack system prune -f --all --filter until=240h')
    .action(async (options: Options) => {
      const { all = false, volumes = false, dryRun = false } = options
      const until = untilOf(options.filter ?? [])
      if (!dryRun && options.force !== true && !await confirmed(session, all, volumes)) return
      const run = async (storage: Parameters<Parameters<Session['use']>[0]>[0]): Promise<void> => {
        const result = await storage.prune({ all, volumes, dryRun, signal: session.signal, ...(until === undefined ? {} : { until }) })
        if (session.json) await session.printJson(result)
        else await session.print(describe(result, dryRun))
      }
      await (dryRun ? session.look(run) : session.use(run))
    })
}

/** @throws INVALID_ARGUMENT for another filter */
function untilOf(filters: readonly string[]): Date | undefined {
  const { until, ...others } = parseFilters(filters)
  const [other] = Object.keys(others)
  if (other !== undefined) throw new StorageError('INVALID_ARGUMENT', `invalid filter '${other}'`, { hint: 'system prune knows until=TIME' })
  return until
}

function describe({ images, leftovers, volumes, reclaimedBytes }: PruneResult, dryRun: boolean): string {
  const list = (title: string, lines: readonly string[]): string => lines.length === 0 ? '' : `${title}:\n${lines.map(line => `${line}\n`).join('')}\n`
  return list(dryRun ? 'Images that would go' : 'Deleted Images', images.map(item => 'untagged' in item ? `untagged: ${item.untagged}` : `deleted: ${item.deleted}`))
    + list(dryRun ? 'Leftovers that would go' : 'Deleted Leftovers', leftovers.map(({ path, kind, sizeBytes }) => `${printable(path)} (${kind}${sizeBytes === 0 ? '' : `, ${humanSize(sizeBytes)}`})`))
    + list(dryRun ? 'Volumes that would go' : 'Deleted Volumes', volumes)
    + `Total ${dryRun ? 'reclaimable' : 'reclaimed'} space: ${humanSize(reclaimedBytes)}\n`
}

/** Docker's question; it goes to stderr, since stdout is for results. */
async function confirmed(session: Session, all: boolean, volumes: boolean): Promise<boolean> {
  const what = [all ? 'all images without a container' : 'all images without a name', ...(volumes ? ['all anonymous volumes not used by a container'] : []), 'what interrupted work left, and what repair has set aside']
  process.stderr.write(`WARNING! This will remove:\n${what.map(line => `  - ${line}\n`).join('')}`)
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y$/i.test((await lines.question('Are you sure you want to continue? [y/N] ', { signal: session.signal })).trim())
  } finally {
    lines.close()
  }
}
