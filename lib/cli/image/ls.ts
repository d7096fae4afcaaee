// `layerstack image ls`

import type { Command } from 'commander'
import type { ImageSummary } from '../../images/index.ts'
import { parseFilters } from '../filters.ts'
import { collect } from '../options.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { ago, humanSize, shortId } from '../units.ts'

interface Options {
  readonly all?: boolean
  readonly quiet?: boolean
  readonly trunc: boolean
  readonly digests?: boolean
  readonly filter?: readonly string[]
}

export function define(command: Command, session: Session): void {
  command
    .argument('[repository]', 'only images of this name, NAME[:TAG]; * and ? match')
    .option('-a, --all', 'also nameless images that others were made from')
    .option('-q, --quiet', 'print ids alone')
    .option('--no-trunc', 'print ids in full')
    .option('--digests', 'print digests too')
    .option('-f, --filter <key=value>', 'dangling=true|false, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME; may be given again', collect)
    .addHelpText('after', '\nExamples:\n  layerstack image ls\n  layerstack image ls -q --filter dangling=true\n  layerstack image ls --json | jq \'.[].RepoTags\'')
    .action((repository: string | undefined, options: Options) => {
      const filter = parseFilters([...options.filter ?? [], ...(repository === undefined ? [] : [`reference=${repository}`])])
      return session.look(async storage => {
        const images = await storage.images.list({ all: options.all === true, filter, onDamaged: error => session.warn(error.message) })
        if (session.json) { await session.printJson(images); return }
        const rows = images.flatMap(image => rowsOf(image, options.digests === true))
        if (options.quiet === true) {
          await session.print([...new Set(rows.map(({ image }) => image.Id))].map(id => `${shortId(id, options.trunc)}\n`).join(''))
          return
        }
        await session.print(table(
          ['REPOSITORY', 'TAG', ...(options.digests === true ? ['DIGEST'] : []), 'IMAGE ID', 'CREATED', 'SIZE'],
          rows.map(({ repository, tag, digest, image }) => [
            repository, tag, ...(options.digests === true ? [digest] : []), shortId(image.Id, options.trunc), ago(image.Created * 1000), humanSize(image.Size, 3),
          ]),
        ))
      })
    })
}

const none = '<none>'

export interface ImageRow {
  readonly repository: string
  readonly tag: string
  readonly digest: string
  readonly image: ImageSummary
}

/** One row for each tag, and for each digest that no tag shows (docker/cli formatter/image.go). */
export function rowsOf(image: ImageSummary, withDigests: boolean): ImageRow[] {
  const digests = new Map<string, string[]>()
  for (const name of image.RepoDigests) {
    const at = name.lastIndexOf('@')
    digests.set(name.slice(0, at), [...digests.get(name.slice(0, at)) ?? [], name.slice(at + 1)])
  }
  const rows: ImageRow[] = []
  const tagged = new Set<string>()
  for (const name of image.RepoTags) {
    // A port's colon stands before a slash, a tag's after the last one.
    const at = name.lastIndexOf(':')
    const repository = name.slice(0, at), tag = name.slice(at + 1)
    tagged.add(repository)
    const own = withDigests ? digests.get(repository) ?? [none] : [none]
    for (const digest of own) rows.push({ repository, tag, digest, image })
  }
  for (const [repository, own] of digests) {
    if (tagged.has(repository)) continue
    for (const digest of withDigests ? own : own.slice(0, 1)) rows.push({ repository, tag: none, digest, image })
  }
  return rows.length > 0 ? rows : [{ repository: none, tag: none, digest: none, image }]
}
