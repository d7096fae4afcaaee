// `layerstack image efficiency`

import fs from 'node:fs'
import { Option } from 'commander'
import type { Command } from 'commander'
import type { CiResult, CiRules, ImageAnalysis, ImageSource, SharedLayer } from '../../index.ts'
import type { Session } from '../session.ts'
import { styled } from '../style.ts'
import { table } from '../table.ts'
import { ellipsis, humanSize, shortId } from '../units.ts'

interface Options {
  readonly ci?: string | true
  readonly lowestEfficiency?: string
  readonly highestWastedBytes?: string
  readonly highestUserWastedPercent?: string
  readonly limit: string
  readonly platform?: string
}

const ruleFile = '.dive-ci'

export function define(command: Command, session: Session): void {
  command
    .argument('<image...>', 'images of the store, archives or OCI layouts; of several, also what they share')
    .addOption(new Option('--ci [file]', `hold the images against the rules of a file (default: ${ruleFile} where there is one, else dive's own)`))
    .option('--lowest-efficiency <ratio>', 'fail below, as 0.95; goes before the file, and turns the rules on')
    .option('--highest-wasted-bytes <size>', 'fail above, as 20MB')
    .option('--highest-user-wasted-percent <ratio>', 'fail above, as 0.1')
    .option('-n, --limit <count>', 'show this many wasteful paths', '20')
    .option('--platform <os/arch>', 'of an archive with several')
    .addHelpText('after', '\nThe figures are dive\'s. Exit status: 0, 1 when a rule is broken, 2 for trouble.\n\nExamples:\n  layerstack image efficiency app:1.0\n'
      + '  layerstack image efficiency --ci .dive-ci ./app.tar\n  layerstack image efficiency app:1.0 app:1.1')
    .action(async (names: string[], options: Options) => {
      session.errorsExitWith(2)
      await session.lookIfAsked(async storage => {
        const { analyzeImage, checkCiRules, openImageSource, sharedLayers } = await import('../../index.ts')
        const rules = await rulesOf(options)
        const { signal } = session
        const sources: ImageSource[] = []
        try {
          for (const name of names) sources.push(await openImageSource(name, { storage, signal, ...(options.platform === undefined ? {} : { platform: options.platform }) }))
          const bars = session.progress('Reading')
          const found: { readonly analysis: ImageAnalysis; readonly results: CiResult[] }[] = []
          for (const source of sources) {
            const analysis = await analyzeImage(source, { digests: false, signal, onProgress: ({ layer, bytes }) => bars.update(`layer ${layer}`, 'Reading', bytes) })
            const results = rules === undefined ? [] : checkCiRules(analysis, rules)
            if (results.some(result => result.status === 'fail')) session.conclude(1)
            found.push({ analysis, results })
          }
          const shared = sources.length < 2 ? [] : await sharedLayers(sources, { signal })
          if (session.json) {
            const images = found.map(({ analysis, results }) => ({ ...figures(analysis), ...(rules === undefined ? {} : { rules: results }) }))
            await session.printJson(sources.length === 1 ? images[0] : { images, shared })
          } else await session.print(found.map(({ analysis, results }) => text(analysis, results, Number(options.limit))).join('\n') + sharedText(shared))
        } finally {
          for (const source of sources) await source.close()
        }
      })
    })
}

async function rulesOf({ ci, lowestEfficiency, highestWastedBytes, highestUserWastedPercent }: Options): Promise<CiRules | undefined> {
  const { defaultCiRules, parseCiRule, readCiRules } = await import('../../index.ts')
  const given = { lowestEfficiency, highestWastedBytes, highestUserWastedPercent }
  if (ci === undefined && Object.values(given).every(value => value === undefined)) return undefined
  const base = typeof ci === 'string' ? readCiRules(ci) : fs.existsSync(ruleFile) ? readCiRules(ruleFile) : defaultCiRules
  const own = Object.entries(given).filter((entry): entry is [keyof CiRules, string] => entry[1] !== undefined).map(([rule, value]) => [rule, parseCiRule(rule, value)])
  return { ...base, ...Object.fromEntries(own) as Partial<CiRules> }
}

/** dive's words where it has some (its `--json`). */
function figures(analysis: ImageAnalysis): object {
  const { name, kind, imageId, layers, sizeBytes, visibleBytes, wastedBytes, wastedUserPercent, efficiency, wasted } = analysis
  return {
    name, kind, ...(imageId === undefined ? {} : { imageId }),
    layer: layers.map(({ index, diffId, sizeBytes: bytes, command, hiddenBytes, hidesBytes, squashSavesBytes }) =>
      ({ index, ...(diffId === undefined ? {} : { digestId: diffId }), sizeBytes: bytes, command, hiddenBytes, hidesBytes, squashSavesBytes })),
    image: {
      sizeBytes, visibleBytes, inefficientBytes: wastedBytes, efficiencyScore: efficiency, wastedUserPercent: Number.isFinite(wastedUserPercent) ? wastedUserPercent : null,
      fileReference: wasted.map(({ path, count, sizeBytes: bytes, layers: named }) => ({ count, sizeBytes: bytes, file: `/${path.toString()}`, layers: named })),
    },
  }
}

function text(analysis: ImageAnalysis, results: readonly CiResult[], limit: number): string {
  const { name, layers, sizeBytes, visibleBytes, wastedBytes, wastedUserPercent, efficiency, wasted } = analysis
  const bold = (words: string): string => styled(process.stdout, 'bold', words)
  const percent = (ratio: number): string => `${(ratio * 100).toFixed(2)} %`
  return [
    `${bold(name)}\n`,
    `efficiency           ${percent(efficiency)}\nwasted               ${humanSize(wastedBytes)} (${wastedBytes} bytes)\n`,
    `wasted of user bytes ${wastedBytes === 0 ? '0 %' : percent(wastedUserPercent)}\nsize                 ${humanSize(sizeBytes)}, of which ${humanSize(visibleBytes)} show\n\n`,
    table(['LAYER', 'SIZE', 'HIDDEN', 'HIDES', 'SQUASH SAVES', 'COMMAND'], layers.map(layer => [
      `${layer.index}${layer.diffId === undefined ? '' : ` ${shortId(layer.diffId)}`}`, humanSize(layer.sizeBytes), humanSize(layer.hiddenBytes), humanSize(layer.hidesBytes),
      humanSize(layer.squashSavesBytes), ellipsis(layer.command.replaceAll(/\s+/g, ' '), 60),
    ])),
    wasted.length === 0 ? '' : `\n${table(['COUNT', 'WASTED', 'PATH'], wasted.slice(0, limit).map(({ count, sizeBytes: bytes, path }) => [`${count}`, humanSize(bytes), `/${path.toString()}`]))}`,
    wasted.length > limit ? `… and ${wasted.length - limit} more\n` : '',
    results.length === 0 ? '' : `\n${results.map(ruleLine).join('')}`,
  ].join('')
}

function ruleLine({ rule, status, threshold, actual }: CiResult): string {
  const color = status === 'fail' ? 'red' : status === 'pass' ? 'green' : 'dim'
  const sign = rule === 'lowestEfficiency' ? '≥' : '≤'
  return `${styled(process.stdout, color, status.toUpperCase())} ${rule}${threshold === undefined ? ' (off)' : ` (${Number.isFinite(actual) ? Number(actual.toFixed(4)) : 0} ${sign} ${threshold})`}\n`
}

function sharedText(shared: readonly SharedLayer[]): string {
  if (shared.length === 0) return ''
  return `\nShared layers\n${table(['LAYER', 'SIZE', 'IMAGES', 'SAVED', 'REORDER SAVES', 'COMMAND'], shared.map(layer => [
    shortId(layer.diffId), humanSize(layer.sizeBytes), `${layer.images.length}`, humanSize(layer.savedBytes),
    `${humanSize(layer.reorderSavesBytes)}${layer.reorderSavesBytes > 0 && !layer.movable ? ' (not movable)' : ''}`, ellipsis(layer.command.replaceAll(/\s+/g, ' '), 60),
  ]))}`
}
