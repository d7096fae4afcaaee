// What is known of the chosen path: its versions through the layers, and for a directory what is largest in it.

import { aspects, BLOCK, CHAR, FILE, LINK, nameOf, NO_ENTRY, pathOf, REMOVED, SYMLINK, versionAt } from '../model/model.ts'
import type { Model } from '../model/model.ts'
import { counted, grouped, humanSize, modeText, moment } from '../model/text.ts'
import type { View } from '../model/view.ts'
import { button, byId, element, fact, nameElement } from './elements.ts'
import type { Child } from './elements.ts'
import { markElement, markTexts, typeLetters, typeWords } from './row.ts'

export interface DetailsEvents {
  chooseLayer(layer: number): void
  reveal(node: number): void
}

const largestShown = 8

export class Details {
  readonly #model: Model
  readonly #events: DetailsEvents
  readonly #box = byId('details')

  constructor(model: Model, events: DetailsEvents) {
    this.#model = model
    this.#events = events
  }

  focus(): void {
    this.#box.querySelector<HTMLElement>('.path')?.focus()
  }

  clear(): void {
    this.#box.replaceChildren()
  }

  show(node: number, view: View): void {
    const model = this.#model
    const path = element('p', 'path')
    path.tabIndex = -1
    for (const part of partsOf(model, node)) path.append('/', element('wbr', ''), part)
    const wasted = model.wasted.find(row => row.node === node)
    const made: Child[] = [element('h2', '', 'Details'), path]
    if (wasted !== undefined) {
      const cost = element('span', 'badge', `Stored ${wasted.count} times: ${humanSize(wasted.sizeBytes)}`)
      made.push(element('p', '', cost, ` in layers ${wasted.layers.map(layer => layer + 1).join(', ')}`))
    }
    if (view.directory[node] === 1) made.push(...this.#directory(node, view))
    made.push(this.#versions(node, view.choice.layer))
    this.#box.replaceChildren(...made)
    this.#box.scrollTop = 0
  }

  #directory(node: number, view: View): HTMLElement[] {
    const model = this.#model
    let files = 0, directories = 0
    const largest: number[] = []
    for (let i = node + 1; i < model.end[node]!; i++) {
      if (view.shown[i] === 0 || view.mark[i] === REMOVED) continue
      if (view.directory[i] === 1) { directories++; continue }
      files++
      const smallest = largest.at(-1)
      if (view.size[i]! > 0 && (largest.length < largestShown || view.size[i]! > view.size[smallest!]!)) {
        largest.push(i)
        largest.sort((a, b) => view.size[b]! - view.size[a]! || a - b)
        largest.length = Math.min(largest.length, largestShown)
      }
    }
    const holds = `${counted(files, 'file')}, ${counted(directories, 'directory', 'directories')}`
    const facts = element('dl', 'facts-list', ...fact('Holds', holds), ...fact('Size', humanSize(view.size[node]!)))
    if (largest.length < 2) return [facts]
    const items = largest.map(file => element('li', '',
      button('link mono', nameElement(relative(model, node, file)), () => this.#events.reveal(file)), element('span', 'number', humanSize(view.size[file]!))))
    return [facts, element('section', '', element('h3', '', 'Largest inside'), element('ul', 'largest', ...items))]
  }

  #versions(node: number, layer: number): HTMLElement {
    const model = this.#model
    const current = versionAt(model, node, layer)
    const list = element('ol', '')
    for (let v = model.firstVersion[node]!; v < model.firstVersion[node + 1]!; v++) {
      list.append(this.#version(v, v > model.firstVersion[node]! ? v - 1 : -1, v === current))
    }
    return element('section', '', element('h3', '', 'Through the layers'), list)
  }

  #version(v: number, before: number, current: boolean): HTMLElement {
    const { versions, meta } = this.#model
    const layer = versions.layer[v]!, mark = versions.change[v]!
    const link = button('link', `Layer ${layer + 1}`, () => this.#events.chooseLayer(layer))
    link.title = meta.layers[layer]?.command ?? ''
    const what = mark === REMOVED && versions.implied[v] === 1 ? 'removed with its directory' : markTexts[mark]![2]
    const head = element('header', '', markElement(mark), link, element('span', 'note', what))
    const made = element('li', current ? 'version current' : 'version', head)
    if (current) made.setAttribute('aria-current', 'true')
    const changed = aspects.filter((_, bit) => versions.aspects[v]! >> bit & 1)
    if (changed.length > 0) made.append(element('p', 'note', `differs in ${changed.join(', ')}`))
    if (mark !== REMOVED) made.append(this.#facts(v, before))
    return made
  }

  /** What differs from the version below is strong, with what it was. */
  #facts(v: number, before: number): HTMLElement {
    const { versions, owners, ownerNames, links, xattrs } = this.#model
    const list = element('dl', 'facts-list')
    if (versions.type[v] === NO_ENTRY) {
      list.append(...fact('Type', typeWords[NO_ENTRY]!))
      return list
    }
    const compared = before >= 0 && versions.change[before] !== REMOVED && versions.type[before] !== NO_ENTRY
    const add = (term: string, of: (version: number) => string): void => {
      const now = of(v), was = compared ? of(before) : now
      if (now === '' && was === '') return
      if (now === was) list.append(...fact(term, nameElement(now)))
      else list.append(...fact(term, element('strong', '', nameElement(now || 'none')), element('span', 'was', ' was ', nameElement(was || 'none'))))
    }
    const isDevice = (version: number): boolean => versions.type[version] === CHAR || versions.type[version] === BLOCK
    const isLink = (version: number): boolean => versions.type[version] === SYMLINK || versions.type[version] === LINK
    add('Type', version => typeWords[versions.type[version]!] ?? 'file')
    add('Size', version => versions.type[version] === FILE ? sizeFact(versions.size[version]!) : '')
    add('Target', version => isLink(version) ? links[versions.link[version]! - 1] ?? '' : '')
    add('Device', version => isDevice(version) ? links[versions.link[version]! - 1] ?? '' : '')
    add('Mode', version => {
      const mode = versions.mode[version]!
      return `${modeText(typeLetters[versions.type[version]!] ?? '-', mode)} ${mode.toString(8).padStart(4, '0')}`
    })
    add('Owner', version => {
      const ids = owners[versions.owner[version]!]!, names = ownerNames[versions.owner[version]!]!
      return names === ':' ? ids : `${ids} (${names})`
    })
    add('Modified', version => moment(versions.seconds[version]!, true, versions.nanos[version]!))
    add('Xattrs', version => xattrs[versions.xattr[version]! - 1] ?? '')
    return list
  }
}

function sizeFact(bytes: number): string {
  return bytes < 1000 ? humanSize(bytes) : `${humanSize(bytes)} (${grouped(bytes)} B)`
}

function partsOf(model: Model, node: number): HTMLElement[] {
  const parts: HTMLElement[] = []
  for (let at = node; at > 0; at = model.parent[at]!) parts.push(nameElement(nameOf(model, at)))
  return parts.reverse()
}

function relative(model: Model, directory: number, node: number): string {
  return pathOf(model, node).slice(directory === 0 ? 1 : pathOf(model, directory).length + 1)
}
