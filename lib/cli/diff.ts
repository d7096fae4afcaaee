// `layerstack diff`

import { Option } from 'commander'
import type { Command } from 'commander'
import type { Difference, ImageComparison, LayerDifference, LayerEntry, OpenSourceOptions, TreeDifference } from '../index.ts'
import { collect } from './options.ts'
import type { Session } from './session.ts'
import { styled } from './style.ts'
import { template } from './template.ts'
import { humanSize, printable, shortId } from './units.ts'

interface Options {
  readonly by: 'flat' | 'layer' | 'both'
  readonly semantic?: true
  readonly path?: readonly string[]
  readonly format?: string
  readonly all?: true
  readonly quiet?: true
  readonly platform?: string
  readonly verify?: true
}

const letters = { added: 'A', changed: 'C', removed: 'D' } as const
const colors = { added: 'green', changed: 'yellow', removed: 'red' } as const
const fields = ['View', 'Layer', 'Kind', 'Change', 'Path', 'Aspects', 'Type', 'SizeBefore', 'SizeAfter', 'Before', 'After']

export function define(command: Command, session: Session): void {
  command
    .argument('<a>', 'an image, container or layer of the store, an archive, an OCI layout, a layer\'s tar, or a directory')
    .argument('<b>', 'what it is compared with')
    .addOption(new Option('--by <view>', 'flat: what a container would see; layer: layer by layer; both').choices(['flat', 'layer', 'both']).default('flat'))
    .option('-s, --semantic', 'pass over times, owners\' names, the order of entries, and a config\'s dates and history')
    .addOption(new Option('-p, --path <path>', 'only this path and what is in it; may be given again').argParser(collect))
    .option('--format <template>', 'a line for each difference, e.g. \'{{.Kind}} {{.Path}}\'; fields: ' + fields.map(field => `.${field}`).join(', '))
    .option('-a, --all', 'name everything in a directory that was added or removed whole')
    .option('-q, --quiet', 'print nothing: the exit status tells')
    .option('--verify', 'hold every layer against its diffID first; else layers of one diffID are taken for the same')
    .option('--platform <os/arch>', 'of an archive with several')
    .addHelpText('after', '\nA was added in B, C changed, D is missing in B. Exit status: 0 the same, 1 different, 2 trouble.\n'
      + 'A path begins with / or ./, or is a file that exists; image:NAME, container:NAME, layer:ID, archive:PATH, tar:PATH and dir:PATH say which is meant;\n'
      + 'PATH#NAME is one image of an archive.\n\nExamples:\n  layerstack diff app:1.0 app:1.1\n  layerstack diff --semantic --by both ./one.tar ./layout\n  layerstack diff container:box app:1.0 --path etc')
    .action(async (a: string, b: string, options: Options) => {
      session.errorsExitWith(2)
      await session.lookIfAsked(async storage => {
        const { compareImages, comparisonJson, openImageSource } = await import('../index.ts')
        const line = options.format === undefined ? undefined : template(options.format, fields)
        const { signal } = session
        const open: OpenSourceOptions = { storage, signal, ...(options.platform === undefined ? {} : { platform: options.platform }) }
        const one = await openImageSource(a, open)
        let comparison: ImageComparison
        try {
          const other = await openImageSource(b, open)
          const bars = session.progress('Comparing')
          comparison = await compareImages(one, other, {
            signal, mode: options.semantic ? 'semantic' : 'strict', view: options.by === 'layer' ? 'layers' : options.by, verify: options.verify === true,
            ...(options.path === undefined ? {} : { paths: options.path }), onProgress: ({ layer, bytes }) => bars.update(`layer ${layer}`, 'Reading', bytes),
          }).finally(() => other.close())
        } finally {
          await one.close()
        }
        if (!comparison.equal) session.conclude(1)
        if (options.quiet) return
        if (line !== undefined) await session.print(rows(comparison).map(row => `${line(row)}\n`).join(''))
        else if (session.json) await session.printJson(comparisonJson(comparison))
        else await session.print(text(comparison, options.all === true))
      })
    })
}

function rows(comparison: ImageComparison): Record<string, unknown>[] {
  const row = (difference: Difference, view: string, layer: number | undefined): Record<string, unknown> => {
    const { path, change, aspects, before, after } = difference
    return {
      View: view, Layer: layer, Kind: letters[change], Change: change, Path: printable(`/${path.toString()}`), Aspects: aspects, Type: typeOf(after ?? before),
      SizeBefore: before?.sizeBytes, SizeAfter: after?.sizeBytes, Before: summaryOf(before), After: summaryOf(after),
    }
  }
  return [
    ...(comparison.layers ?? []).flatMap(layer => layer.differences.map(difference => row(difference, 'layer', layer.after?.index ?? layer.before?.index))),
    ...(comparison.flat?.differences ?? []).map(difference => row(difference, 'flat', undefined)),
  ]
}

function typeOf(entry: LayerEntry | undefined): string {
  return entry?.mark ?? entry?.type ?? 'directory'
}

function summaryOf(entry: LayerEntry | undefined): object | null {
  if (entry === undefined) return null
  const { mode, uid, gid, sizeBytes, mtimeNs, digest } = entry
  return { type: typeOf(entry), mode: octal(mode), uid, gid, sizeBytes, mtimeNs: `${mtimeNs}`, ...(digest === undefined ? {} : { digest }) }
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0')
}

// ---- for people ----------------------------------------------------------------------------------------------------------------

function text(comparison: ImageComparison, all: boolean): Buffer {
  const { before, after, config, layers, flat } = comparison
  const lines: (string | Buffer)[] = []
  for (const [sign, side] of [['---', before], ['+++', after]] as const) {
    const id = side.imageId === undefined ? '' : ` ${shortId(side.imageId)}`
    lines.push(styled(process.stdout, 'bold', printable(`${sign} ${side.name}`)) + ` (${side.kind}${id}, ${side.layers} ${side.layers === 1 ? 'layer' : 'layers'})`)
  }
  for (const { key, before: was, after: is } of config ?? []) lines.push(`${mark('changed')} ${printable(`${key}: ${json(was)} → ${json(is)}`)}`)
  for (const layer of layers ?? []) lines.push(...layerLines(layer, all))
  if (flat !== undefined) lines.push(...treeLines(flat, all, ''))
  if (flat !== undefined && !flat.equal) lines.push(totals(flat))
  if (comparison.equal) lines.push('no difference')
  return Buffer.concat(lines.flatMap(line => [Buffer.from(line as string), newline]))
}
const newline = Buffer.from('\n')

function json(value: unknown): string {
  const text = JSON.stringify(value) ?? '(none)'
  return text.length > 200 ? `${text.slice(0, 199)}…` : text
}

function totals({ added, changed, removed, addedBytes, removedBytes }: TreeDifference): string {
  return `${added} added, ${changed} changed, ${removed} removed; ${humanSize(addedBytes)} came, ${humanSize(removedBytes)} went`
}

function layerLines(layer: LayerDifference, all: boolean): (string | Buffer)[] {
  const { before, after, same, reordered, encoding } = layer
  const number = (side: typeof before): string => side === undefined ? '(none)' : `${side.index}${side.diffId === undefined ? '' : ` ${shortId(side.diffId)}`}`
  const command = printable(after?.command || before?.command || '').slice(0, 100)
  const head = `layer ${same ? `${number(before)}${before?.index === after?.index ? '' : ` → ${after?.index}`}: the same` : `${number(before)} → ${number(after)}`}${command === '' ? '' : `  ${command}`}`
  return [
    styled(process.stdout, 'bold', head), ...treeLines(layer, all, '  '),
    ...(reordered ? ['  the entries come in another order'] : []), ...(encoding ? ['  the entries are the same, and the tars\' bytes are not'] : []),
    ...(layer.differences.length === 0 ? [] : [`  ${totals(layer)}`]),
  ]
}

/** What is in a directory that came or went whole is counted, not named. */
function treeLines({ differences }: TreeDifference, all: boolean, indent: string): (string | Buffer)[] {
  const lines: (string | Buffer)[] = []
  for (let i = 0; i < differences.length; i++) {
    const difference = differences[i] as Difference
    let inside = 0, bytes = 0
    if (!all && difference.change !== 'changed' && typeOf(difference.after ?? difference.before) === 'directory') {
      for (let next = differences[i + 1]; next !== undefined && isInside(next.path, difference.path) && next.change === difference.change; next = differences[i + 1]) {
        inside++
        const entry = next.after ?? next.before
        bytes += entry?.type === 'file' ? entry.sizeBytes : 0
        i++
      }
    }
    lines.push(lineOf(difference, indent, inside === 0 ? undefined : `${inside} ${inside === 1 ? 'entry' : 'entries'}, ${humanSize(bytes)}`))
  }
  return lines
}

function isInside(path: Buffer, directory: Buffer): boolean {
  return directory.length === 0 || path[directory.length] === 0x2f && path.compare(directory, 0, directory.length, 0, directory.length) === 0
}

function mark(change: Difference['change']): string {
  return styled(process.stdout, colors[change], letters[change])
}

function lineOf({ path, change, aspects, before, after }: Difference, indent: string, inside: string | undefined): string | Buffer {
  const entry = after ?? before
  const type = typeOf(entry)
  const what = change === 'changed' ? aspects.map(aspect => detail(aspect, before, after)).join(', ')
    : inside ?? (type === 'file' ? humanSize(entry?.sizeBytes ?? 0) : type === 'directory' ? '' : type)
  const tail = what === '' ? '' : `  (${printable(what)})`
  const slash = type === 'directory' && inside !== undefined ? '/' : ''
  if (process.stdout.isTTY) return `${indent}${mark(change)} ${printable(`/${path.toString()}`)}${slash}${tail}`
  // Into a pipe or a file go the name's own bytes, but no line end inside a line.
  const bytes = path.includes(0x0a) ? Buffer.from(printable(path.toString())) : path
  return Buffer.concat([Buffer.from(`${indent}${letters[change]} /`), bytes, Buffer.from(`${slash}${tail}`)])
}

function detail(aspect: string, before: LayerEntry | undefined, after: LayerEntry | undefined): string {
  if (before === undefined || after === undefined) return aspect
  switch (aspect) {
    case 'size': return `${humanSize(before.sizeBytes)} → ${humanSize(after.sizeBytes)}`
    case 'mode': return `mode ${octal(before.mode)} → ${octal(after.mode)}`
    case 'owner': return `owner ${before.uid}:${before.gid} → ${after.uid}:${after.gid}`
    case 'type': return `${typeOf(before)} → ${typeOf(after)}`
    case 'name': return `owner's name ${before.uname}:${before.gname} → ${after.uname}:${after.gname}`
    case 'time': return `time ${timeOf(before)} → ${timeOf(after)}`
    case 'link': return before.type === 'symlink' && after.type === 'symlink' ? `link ${before.linkname.toString()} → ${after.linkname.toString()}` : 'hard link'
    default: return aspect
  }
}

/** RFC 3339 with what fraction there is; a time that no calendar holds in seconds. */
function timeOf({ mtimeNs }: LayerEntry): string {
  const ns = ((mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  const seconds = (mtimeNs - ns) / 1_000_000_000n
  const date = new Date(Number(seconds) * 1000)
  if (Number.isNaN(date.getTime())) return `${seconds} s`
  const fraction = ns === 0n ? '' : `.${ns.toString().padStart(9, '0').replace(/0+$/, '')}`
  return date.toISOString().replace(/\.000Z$/, `${fraction}Z`)
}
