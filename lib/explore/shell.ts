// The page around the script: head, figures, the stack of layers, and the empty places that the script fills. Static, so that it stands before the data
// is read, prints whole, and says the essentials where no script runs.

import { createHash } from 'node:crypto'
import type { AnalyzedLayer, ImageAnalysis } from '../compare/index.ts'
import type { HistoryEntry } from '../images/index.ts'
import type { EncodedImage } from './encode.ts'
import { html, raw, shown } from './markup.ts'
import type { Markup } from './markup.ts'
import { commandText, counted, grouped, humanSize, moment, percent } from './model/text.ts'
import { style } from './style.ts'

export interface Shell {
  readonly analysis: ImageAnalysis
  readonly image: EncodedImage
  readonly title: string
  /** One module. */
  readonly script: string
}

/** The whole document. */
export function documentOf({ analysis, image, title, script }: Shell): string {
  const policy = [
    `default-src 'none'`, `script-src '${hashOf(script)}'`, `style-src '${hashOf(style)}'`,
    `base-uri 'none'`, `form-action 'none'`, `require-trusted-types-for 'script'`, `trusted-types 'none'`,
  ].join('; ')
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${raw(policy)}">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>${title} – layers</title>
<style>${raw(style)}</style>
</head>
<body>
${head(analysis, image, title)}
<main>
${stack(analysis)}
${browser(analysis)}
<aside class="details" id="details" aria-label="Details of the chosen path" tabindex="0"></aside>
</main>
<script type="application/octet-stream" id="data">${raw(image.bytes.toString('base64'))}</script>
<script type="module">${raw(script)}</script>
</body>
</html>
`.text
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`
}

function head(analysis: ImageAnalysis, { files }: EncodedImage, title: string): Markup {
  const { config, imageId, efficiency, sizeBytes, visibleBytes, wastedBytes } = analysis
  const platform = config === undefined ? undefined : [config.os, config.architecture, config.variant].filter(part => part).join('/')
  const created = config?.created === undefined ? undefined : `created ${config.created.slice(0, 10)}`
  const names = analysis.references.filter(name => name !== title)
  const facts = [imageId?.slice(0, 'sha256:'.length + 12), platform, created, names.length > 0 ? `also ${names.join(', ')}` : undefined]
  return html`<header class="top">
<a class="skip" href="#tree">Skip to the files</a>
<div class="title"><h1>${shown(title)}</h1><p>${facts.filter(fact => fact !== undefined).map((fact, i) => html`${i > 0 ? ' · ' : ''}${shown(fact)}`)}</p></div>
<dl class="figures">
<div><dt>Layers</dt><dd>${analysis.layers.length}</dd></div>
<div><dt>Files</dt><dd>${grouped(files)}</dd></div>
<div><dt>Stored</dt><dd>${humanSize(sizeBytes)}</dd></div>
<div><dt>Visible</dt><dd>${humanSize(visibleBytes)}</dd></div>
<div class="wasted"><dt>Wasted</dt><dd>${humanSize(wastedBytes)}</dd></div>
<div><dt>Efficiency</dt><dd>${percent(efficiency)}</dd>${bar([[efficiency, ''], [1 - efficiency, 'lost']])}</div>
</dl>
</header>`
}

/** Widths are attributes, as a policy without inline styles wants it. */
function bar(shares: readonly (readonly [share: number, className: string])[]): Markup {
  let at = 0
  const rects = shares.map(([share, className]) => {
    const x = at, width = Math.max(0, Math.min(1, share)) * 100
    at += width
    return html`<rect class="${className}" x="${x.toFixed(2)}" width="${width.toFixed(2)}" height="4"/>`
  })
  return html`<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">${rects}</svg>`
}

type Step = { readonly layer: AnalyzedLayer } | { readonly text: string }

/** The layers among the steps of the history that made none; the layers alone where the history does not fit them. */
function stepsOf({ layers, config }: ImageAnalysis): Step[] {
  const history: readonly HistoryEntry[] = config?.history ?? []
  if (history.filter(step => !step.emptyLayer).length !== layers.length) return layers.map(layer => ({ layer }))
  let next = 0
  return history.map(step => step.emptyLayer ? { text: commandText(step.createdBy ?? '') } : { layer: layers[next++] as AnalyzedLayer })
}

function stack(analysis: ImageAnalysis): Markup {
  const largest = Math.max(1, ...analysis.layers.map(layer => layer.sizeBytes))
  const items = stepsOf(analysis).map(step => 'layer' in step
    ? layerItem(step.layer, analysis.layers.length, largest)
    : step.text === '' ? html`` : html`<li class="step">${shown(step.text)}</li>`)
  return html`<section class="layers" aria-labelledby="layers-title" tabindex="0">
<h2 id="layers-title">Layers, base first</h2>
<fieldset aria-labelledby="layers-title"><ol class="stack">${items}</ol></fieldset>
</section>`
}

function layerItem(layer: AnalyzedLayer, layers: number, largest: number): Markup {
  const { index, sizeBytes, hiddenBytes } = layer
  const id = `layer-${index}`, command = commandText(layer.command) || '(no command is recorded)'
  const checked = index === layers - 1 ? raw(' checked') : ''
  const share = sizeBytes / largest, lost = sizeBytes === 0 ? 0 : hiddenBytes / sizeBytes
  return html`<li>
<input type="radio" name="layer" id="${id}" value="${index}" aria-labelledby="${id}-name" aria-describedby="${id}-facts"${checked}>
<label for="${id}"><span class="index">${index + 1}</span><span class="brief command" id="${id}-name"><span class="unseen">Layer ${index + 1}: </span>${shown(command)}</span>
<span class="weight number">${humanSize(sizeBytes)}</span>
${bar([[share * (1 - lost), ''], [share * lost, 'lost']])}
<span class="counts" id="${id}-facts"><span class="unseen">${humanSize(sizeBytes)},</span>${counts(layer)}</span></label>
<div class="more"><p class="command">${shownCommand(command)}</p>
<dl class="facts-list">
${layer.diffId === undefined ? '' : html`<dt>diffID</dt><dd class="mono">${layer.diffId}</dd>`}
${layer.created === undefined ? '' : html`<dt>Created</dt><dd>${shown(createdText(layer.created))}</dd>`}
<dt>Entries</dt><dd>${grouped(layer.entries)}</dd>
${layer.storedBytes === undefined ? '' : html`<dt>Archived</dt><dd>${humanSize(layer.storedBytes)}</dd>`}
${hiddenBytes === 0 ? '' : html`<dt>Hidden</dt><dd><span class="badge">${humanSize(hiddenBytes)}</span> of its files are replaced or removed by later layers</dd>`}
</dl></div></li>`
}

/** To the minute; as it stands when it is no time. */
function createdText(created: string): string {
  const ms = Date.parse(created)
  return Number.isNaN(ms) ? created : `${moment(ms / 1000)} UTC`
}

function counts({ added, modified, removed, unmodified }: AnalyzedLayer): Markup[] {
  const parts: readonly (readonly [count: number, sign: string, word: string])[] = [
    [added, '+', 'added'], [modified, '~', 'changed'], [removed, '−', 'removed'], [unmodified, '=', 'same again'],
  ]
  const some = parts.filter(([count]) => count > 0)
  if (some.length === 0) return [html`<span>nothing</span>`]
  return some.map(([count, sign, word]) => html`<span><span aria-hidden="true">${sign}</span>${grouped(count)} ${word}</span>`)
}

/** One line for each step of a chain of shell commands. */
function shownCommand(command: string): Markup {
  return html`${command.split(/\s+(?=&& )/).map((line, i) => html`${i > 0 ? '\n  ' : ''}${shown(line)}`)}`
}

function browser(analysis: ImageAnalysis): Markup {
  return html`<div class="browse">
<div class="views"><div role="tablist" aria-label="Views"><button type="button" role="tab" id="files-tab" aria-controls="files" aria-selected="true">Files</button><button type="button" role="tab" id="waste-tab" aria-controls="waste" aria-selected="false" tabindex="-1">Waste <span>${humanSize(analysis.wastedBytes)}</span></button></div><button type="button" id="theme" hidden>Theme: auto</button></div>
<section class="panel" id="files" role="tabpanel" aria-labelledby="files-tab">
<noscript><p class="nothing">The files are shown by a script, and this browser runs none.</p></noscript>
<div class="tools">
<input type="search" id="search" placeholder="Search: name, *.so, usr/lib/**" aria-label="Search files: part of a name, or a glob; with a slash, in whole paths" aria-describedby="status" autocomplete="off" spellcheck="false">
<div class="segments" role="radiogroup" aria-label="What is shown"><label><input type="radio" name="scope" value="merged" checked><span id="merged-name">After layer ${analysis.layers.length}</span></label><label><input type="radio" name="scope" value="layer"><span>Layer alone</span></label></div>
<div class="segments" role="radiogroup" aria-label="Order"><label><input type="radio" name="sort" value="name" checked><span>Name</span></label><label><input type="radio" name="sort" value="size"><span>Size</span></label></div>
<div class="chips" id="chips" role="group" aria-label="Show only what the layer"></div>
</div>
<p id="status" role="status">Reading…</p>
<div class="listing"><div class="heads" aria-hidden="true"><span></span><span>Name</span><span class="c-bar"></span><span>Size</span><span class="c-mode">Mode</span><span class="c-owner">Owner</span><span class="c-time">Modified, UTC</span></div>
<div id="tree" role="tree" tabindex="0" aria-label="Files" aria-busy="true"><div id="spacer" role="presentation"></div></div></div>
<p class="footer"><kbd>/</kbd> search · <kbd>↑</kbd> <kbd>↓</kbd> move · <kbd>→</kbd> <kbd>←</kbd> open and close · <kbd>Enter</kbd> details · letters jump to a name</p>
</section>
<section class="panel" id="waste" role="tabpanel" aria-labelledby="waste-tab" tabindex="0" hidden>${waste(analysis)}</section>
</div>`
}

function waste({ efficiency, sizeBytes, userSizeBytes, wastedBytes, wastedUserPercent, wasted }: ImageAnalysis): Markup {
  if (wasted.length === 0) return html`<h2>No waste</h2><p class="lead">No path is stored more than once: the layers hold ${humanSize(sizeBytes)}, and all of it is of use.</p>`
  return html`<h2>${humanSize(wastedBytes)} in ${counted(wasted.length, 'path')} that more than one layer stores</h2>
<p class="lead">Efficiency is ${percent(efficiency)}: of ${humanSize(sizeBytes)} in all layers, that share would remain if each path were stored once, at its smallest. A file that a later layer replaces or removes still takes its room. ${userSizeBytes > 0 ? html`Set against the ${humanSize(userSizeBytes)} above the base layer, the waste is ${percent(wastedUserPercent)}.` : ''} All copies of a path count, as in dive.</p>
<div id="waste-table"></div>`
}
