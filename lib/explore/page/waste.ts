// The table of what is stored more than once; sorted by its heads. Grows on demand: an image may waste a hundred thousand paths.

import { pathOf } from '../model/model.ts'
import type { Model, WastedRow } from '../model/model.ts'
import { counted, grouped, humanSize } from '../model/text.ts'
import { button, element, nameElement } from './elements.ts'

type Column = 'path' | 'count' | 'size' | 'layers'
/** Rows at first, and more at a time. */
const STEP = 100

const heads: readonly (readonly [Column, title: string, isNumber: boolean])[] = [
  ['size', 'Wasted', true], ['count', 'Copies', true], ['path', 'Path', false], ['layers', 'In layers', false],
]

export class Waste {
  readonly #model: Model
  readonly #reveal: (node: number) => void
  readonly #box: HTMLElement
  #column: Column = 'size'
  #descending = true
  #limit = STEP

  constructor(model: Model, box: HTMLElement, reveal: (node: number) => void) {
    this.#model = model
    this.#box = box
    this.#reveal = reveal
    this.#draw()
  }

  #sorted(): WastedRow[] {
    const paths = this.#column === 'path' ? new Map(this.#model.wasted.map(row => [row.node, pathOf(this.#model, row.node)])) : undefined
    const compare = (a: WastedRow, b: WastedRow): number => {
      switch (this.#column) {
        case 'path': return paths!.get(a.node)! < paths!.get(b.node)! ? -1 : 1
        case 'count': return a.count - b.count
        case 'size': return a.sizeBytes - b.sizeBytes
        case 'layers': return (a.layers[0] ?? 0) - (b.layers[0] ?? 0)
      }
    }
    const sign = this.#descending ? -1 : 1
    return [...this.#model.wasted].sort((a, b) => sign * compare(a, b) || b.sizeBytes - a.sizeBytes || a.node - b.node)
  }

  #draw(focus?: Column): void {
    const rows = this.#sorted()
    const head = element('tr', '', ...heads.map(([column, text, number]) => this.#head(column, text, number)))
    const body = rows.slice(0, this.#limit).map(row => element('tr', '',
      element('td', 'number', element('span', 'bytes', humanSize(row.sizeBytes))), element('td', 'number', grouped(row.count)),
      element('td', '', button('link path', nameElement(pathOf(this.#model, row.node)), () => this.#reveal(row.node))),
      element('td', '', row.layers.map(layer => layer + 1).join(', '))))
    const caption = element('caption', 'unseen', 'Paths that more than one layer stores')
    const table = element('table', 'waste', caption, element('thead', '', head), element('tbody', '', ...body))
    this.#box.replaceChildren(table)
    if (rows.length > this.#limit) {
      const rest = rows.length - this.#limit
      const more = button('', `Show ${grouped(Math.min(rest, STEP))} of ${grouped(rest)} more`, () => {
        this.#limit += STEP
        this.#draw()
      })
      const line = element('p', 'muted', more)
      line.id = 'waste-more'
      this.#box.append(line, element('p', 'muted paper-only', `And ${counted(rest, 'more path')}.`))
    }
    if (focus !== undefined) this.#box.querySelector<HTMLElement>(`th[data-column=${focus}] button`)?.focus()
  }

  #head(column: Column, text: string, number: boolean): HTMLElement {
    const made = element('th', number ? 'number' : '', button('', text, () => {
      this.#descending = this.#column === column ? !this.#descending : number
      this.#column = column
      this.#draw(column)
    }))
    made.scope = 'col'
    made.dataset['column'] = column
    if (this.#column === column) made.setAttribute('aria-sort', this.#descending ? 'descending' : 'ascending')
    return made
  }
}
