// One row of the tree, for eyes and for screen readers. Draws what it is given; decides nothing.

import { ADDED, BLOCK, CHAR, DIRECTORY, FIFO, FILE, LINK, MODIFIED, nameOf, NO_ENTRY, REMOVED, SYMLINK, UNMODIFIED } from '../model/model.ts'
import type { Model } from '../model/model.ts'
import { counted, grouped, humanSize, modeText, moment, plain } from '../model/text.ts'
import type { View } from '../model/view.ts'
import { UNTOUCHED } from '../model/view.ts'
import { element, nameElement } from './elements.ts'

/** Where in a name the search's text stands, if it does. */
export type FindInName = (name: string) => { readonly at: number; readonly length: number } | undefined

export interface RowToBuild {
  readonly model: Model
  readonly view: View
  readonly node: number
  readonly open: boolean
  /** Among its siblings, from 1. */
  readonly place: number
  readonly of: number
  readonly find: FindInName | undefined
}

/** By mark: the sign, the class, the word. */
export const markTexts: Readonly<Record<number, readonly [sign: string, className: string, word: string]>> = {
  [ADDED]: ['+', 'added', 'added'], [MODIFIED]: ['~', 'modified', 'changed'], [REMOVED]: ['−', 'removed', 'removed'],
  [UNMODIFIED]: ['=', 'unmodified', 'stored again, unchanged'],
}

export const typeLetters: Readonly<Record<number, string>> = { [DIRECTORY]: 'd', [SYMLINK]: 'l', [CHAR]: 'c', [BLOCK]: 'b', [FIFO]: 'p' }
export const typeWords: Readonly<Record<number, string>> = {
  [DIRECTORY]: 'directory', [SYMLINK]: 'symbolic link', [LINK]: 'hard link', [CHAR]: 'character device',
  [BLOCK]: 'block device', [FIFO]: 'fifo', [NO_ENTRY]: 'directory without an entry',
}

export function buildRow({ model, view, node, open, place, of, find }: RowToBuild): HTMLElement {
  const { versions } = model
  const version = view.version[node]!, mark = view.mark[node]!, directory = view.directory[node] === 1
  const type = version < 0 ? NO_ENTRY : versions.type[version]!
  const name = nameOf(model, node), level = model.depth[node]!, copies = model.copies.get(node)
  const inside = directory && mark !== REMOVED ? insideElements(view, node) : []
  const row = element('div', `row${directory ? ' directory' : ''}${mark === REMOVED ? ' removed' : ''}`)
  row.setAttribute('role', 'treeitem')
  row.setAttribute('aria-level', String(level))
  row.setAttribute('aria-posinset', String(place))
  row.setAttribute('aria-setsize', String(of))
  const filled = view.filled[node] === 1
  if (filled) row.setAttribute('aria-expanded', String(open))

  const label = element('span', 'label', nameElement(name, find?.(name)), ...(directory ? ['/'] : []))
  label.title = plain(name)
  const words = [
    directory ? 'directory' : typeWords[type] ?? '', mark === UNTOUCHED ? '' : markTexts[mark]![2],
    directory && mark !== REMOVED ? insideWords(view, node) : '', copies === undefined ? '' : `stored ${copies} times`,
  ].filter(word => word !== '')
  const spoken = element('span', 'unseen', words.map(word => `, ${word}`).join(''))
  const nameCell = element('span', 'name', element('span', filled ? 'twist' : 'twist leaf'), label, spoken)
  // Deep down the name stays in sight.
  nameCell.style.paddingInlineStart = `min(${level - 1}rem, 45%)`
  const link = version < 0 ? 0 : versions.link[version]!
  if (link > 0 && type !== CHAR && type !== BLOCK) {
    nameCell.append(quiet(element('span', 'target', type === LINK ? '⇒ ' : '→ ', nameElement(model.links[link - 1]!))))
  }
  if (copies !== undefined) nameCell.append(quiet(element('span', 'copies', `×${copies}`)))
  if (inside.length > 0) nameCell.append(quiet(element('span', 'inner', ...inside)))

  const share = barShare(model, view, node)
  const fill = element('i', '')
  fill.style.width = `${share * 100}%`
  const described = version >= 0 && type !== NO_ENTRY, sized = directory || type === FILE
  row.append(
    quiet(markElement(mark, inside.length > 0)), nameCell, quiet(element('span', 'sizebar c-bar', ...(share > 0 ? [fill] : []))),
    element('span', view.size[node] === 0 ? 'size none' : 'size', ...(sized ? [element('span', 'unseen', ', '), humanSize(view.size[node]!)] : [])),
    quiet(element('span', 'mode c-mode', described ? modeText(typeLetters[type] ?? '-', versions.mode[version]!) : '')),
    quiet(element('span', 'owner c-owner', described ? model.owners[versions.owner[version]!]! : '')),
    quiet(element('span', 'time c-time', described ? moment(versions.seconds[version]!) : '')))
  return row
}

/** For eyes: a screen reader has it in words, or in the details, so that a row is not a sentence of twenty words. */
function quiet(part: HTMLElement): HTMLElement {
  part.ariaHidden = 'true'
  return part
}

/** A sign in a shape of its own: filled square, ring, dashed square; a dot where only something inside has changed. */
export function markElement(mark: number, inside = false): HTMLElement {
  const text = markTexts[mark]
  const made = text === undefined ? element('span', inside ? 'mark inside' : 'mark', inside ? '·' : '') : element('span', `mark ${text[1]}`, text[0])
  if (text !== undefined) made.title = text[2]
  return made
}

/** Changes below the directory, itself aside. */
function below(view: View, node: number, mark: number): number {
  return view.marks[mark]![node]! - (view.mark[node] === mark ? 1 : 0)
}

function insideElements(view: View, node: number): HTMLElement[] {
  const classes: Readonly<Record<number, string>> = { [ADDED]: 'plus', [MODIFIED]: 'wave', [REMOVED]: 'minus' }
  return [ADDED, MODIFIED, REMOVED].flatMap(mark => {
    const count = below(view, node, mark)
    return count === 0 ? [] : [element('span', classes[mark] ?? '', `${markTexts[mark]![0]}${grouped(count)}`)]
  })
}

function insideWords(view: View, node: number): string {
  const all = [ADDED, MODIFIED, REMOVED].reduce((sum, mark) => sum + below(view, node, mark), 0)
  return all === 0 ? '' : `${counted(all, 'change')} inside`
}

/** Of the largest thing in its directory; the bars of one directory compare with each other. */
function barShare(model: Model, view: View, node: number): number {
  const whole = view.size[model.parent[node]!]!
  return whole > 0 && view.mark[node] !== REMOVED ? Math.min(1, view.size[node]! / whole) : 0
}
