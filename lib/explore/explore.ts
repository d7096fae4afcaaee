// An image as one HTML page to look at: analyse, encode, put together. Owns what the page is made of; the page itself is below `page/`.

import path from 'node:path'
import { analyzeImage, openImageSource } from '../compare/index.ts'
import type { AnalyzeOptions, ImageAnalysis, ImageSource, OpenSourceOptions } from '../compare/index.ts'
import { bundle } from './bundle.ts'
import { encodeImage } from './encode.ts'
import { documentOf } from './shell.ts'

export interface ExploreOptions extends AnalyzeOptions, OpenSourceOptions {
  /** The page's heading. Default: the image's first name, else what it was opened by. */
  readonly title?: string
}

let script: string | undefined

/**
 * One self-contained HTML page about an image: its layers with their commands, the tree after each layer with what the layer changed, every path's
 * versions, and what is wasted. It loads nothing, and what the image holds is text in it, whatever it is called: the page's policy lets no other script run.
 * Some 12 bytes an entry, and 50 kB.
 *
 * `source`: a text as `openImageSource` takes it (a name in `storage`, an archive, an OCI layout, a directory), an opened source, which stays open, or an
 * analysis.
 * @throws what `openImageSource` and `analyzeImage` throw
 */
export async function exploreImage(source: string | ImageSource | ImageAnalysis, options: ExploreOptions = {}): Promise<string> {
  if (typeof source === 'string') {
    await using opened = await openImageSource(source, options)
    return explorePage(await analyzeImage(opened, options), options)
  }
  return explorePage('tree' in source ? source : await analyzeImage(source, options), options)
}

function explorePage(analysis: ImageAnalysis, { title }: ExploreOptions): string {
  script ??= bundle(path.join(import.meta.dirname, 'page/main.js'))
  return documentOf({ analysis, image: encodeImage(analysis), title: title ?? analysis.references[0] ?? analysis.name, script })
}
