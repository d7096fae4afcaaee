// The tree: rows of the choice made elsewhere, of which only those in sight are in the document; keys as WAI-ARIA's tree pattern has them. The focus
// stays on the tree, and `aria-activedescendant` names the row, so that scrolling never takes the focus away.

import { nameOf } from '../model/model.ts'
import type { Model } from '../model/model.ts'
import { plain } from '../model/text.ts'
import type { Rows, View } from '../model/view.ts'
import { scrollFor, viewportOf } from '../model/viewport.ts'
import { byId } from './elements.ts'
import { buildRow } from './row.ts'
import type { FindInName } from './row.ts'

export interface TreeEvents {
  /** Open or close a directory. */
  toggle(node: number, open: boolean): void
  /** Open all directories beside this one. */
  openBeside(node: number): void
  choose(node: number): void
  /** Enter on what cannot be opened: the reader wants the details. */
  enter(node: number): void
}

export class Tree {
  readonly #model: Model
  readonly #events: TreeEvents
  readonly #box = byId('tree')
  readonly #spacer = byId('spacer')
  #view: View | undefined
  #rows: Rows = { nodes: new Uint32Array(0), opened: new Uint8Array(0), found: 0 }
  #find: FindInName | undefined
  /** Rows in the document, by their number. */
  #drawn = new Map<number, HTMLElement>()
  #active = -1
  #rowPx = 26
  #pending = false
  #typed = ''
  #typedAt = 0
  /** Row numbers of siblings are asked for again and again while rows are drawn. */
  #places = new Map<number, { place: number; of: number }>()

  constructor(model: Model, events: TreeEvents) {
    this.#model = model
    this.#events = events
    this.#box.addEventListener('scroll', () => this.#later(), { passive: true })
    this.#box.addEventListener('keydown', event => this.#key(event))
    this.#box.addEventListener('click', event => this.#click(event))
    this.#box.addEventListener('dblclick', event => this.#doubleClick(event))
    new ResizeObserver(() => this.#later()).observe(this.#box)
  }

  /** The path that is chosen, or -1. */
  get active(): number { return this.#active < 0 ? -1 : this.#rows.nodes[this.#active] ?? -1 }

  get rows(): Rows { return this.#rows }

  /** Show other rows. The chosen path stays chosen, or the one above it, and stays in sight when it was. */
  show(view: View, rows: Rows, find?: FindInName): void {
    const before = this.active
    this.#view = view
    this.#rows = rows
    this.#find = find
    this.#places.clear()
    for (const row of this.#drawn.values()) row.remove()
    this.#drawn.clear()
    this.#rowPx = this.#measure()
    const kept = this.#rowOf(before)
    this.#active = kept >= 0 ? kept : rows.nodes.length > 0 ? 0 : -1
    this.#draw()
    if (this.active >= 0 && this.active !== before) this.#events.choose(this.active)
  }

  focus(): void {
    this.#box.focus({ preventScroll: true })
  }

  /** Choose the path, when it has a row, and bring it in sight. */
  choose(node: number): boolean {
    const row = this.#rows.nodes.indexOf(node)
    if (row >= 0) this.#activate(row)
    return row >= 0
  }

  #rowOf(node: number): number {
    for (let at = node; at > 0; at = this.#model.parent[at]!) {
      const row = this.#rows.nodes.indexOf(at)
      if (row >= 0) return row
    }
    return -1
  }

  #measure(): number {
    return parseFloat(getComputedStyle(document.documentElement).fontSize) * 1.625
  }

  #later(): void {
    if (this.#pending) return
    this.#pending = true
    requestAnimationFrame(() => {
      this.#pending = false
      this.#draw()
    })
  }

  #draw(): void {
    const view = this.#view
    if (view === undefined) return
    const { nodes, opened } = this.#rows
    const windowPx = this.#box.clientHeight
    const { heightPx, from, to, offsetPx } = viewportOf(nodes.length, this.#rowPx, windowPx, this.#box.scrollTop)
    this.#spacer.style.height = `${heightPx}px`
    // The chosen row stays in the document, for assistive technology to find it.
    const wanted = (row: number): boolean => (row >= from && row < to) || row === this.#active
    for (const [row, drawn] of this.#drawn) {
      if (wanted(row)) continue
      drawn.remove()
      this.#drawn.delete(row)
    }
    const place = (row: number): void => {
      const node = nodes[row]
      if (node === undefined) return
      let drawn = this.#drawn.get(row)
      if (drawn === undefined) {
        const { place, of } = this.#placeOf(row)
        drawn = buildRow({ model: this.#model, view, node, open: opened[row] === 1, place, of, find: this.#find })
        drawn.id = `row-${node}`
        this.#drawn.set(row, drawn)
        this.#spacer.append(drawn)
      }
      drawn.style.transform = `translateY(${offsetPx + (row - from) * this.#rowPx}px)`
      drawn.setAttribute('aria-selected', String(row === this.#active))
    }
    for (let row = from; row < to; row++) place(row)
    if (this.#active >= 0 && (this.#active < from || this.#active >= to)) place(this.#active)
    if (this.#active >= 0) this.#box.setAttribute('aria-activedescendant', `row-${this.active}`)
    else this.#box.removeAttribute('aria-activedescendant')
  }

  /** Position among the shown children of its directory, from 1, and their number. All siblings are counted at once. */
  #placeOf(row: number): { place: number; of: number } {
    const known = this.#places.get(row)
    if (known !== undefined) return known
    const { nodes } = this.#rows, { depth } = this.#model
    const level = depth[nodes[row]!]!
    let first = row
    while (first > 0 && depth[nodes[first - 1]!]! >= level) first--
    const siblings: number[] = []
    for (let at = first; at < nodes.length && depth[nodes[at]!]! >= level; at++) if (depth[nodes[at]!] === level) siblings.push(at)
    for (const [i, at] of siblings.entries()) this.#places.set(at, { place: i + 1, of: siblings.length })
    return this.#places.get(row)!
  }

  #activate(row: number): void {
    if (row < 0 || row >= this.#rows.nodes.length) return
    this.#active = row
    const scrollTop = scrollFor(row, this.#rows.nodes.length, this.#rowPx, this.#box.clientHeight, this.#box.scrollTop)
    if (scrollTop !== this.#box.scrollTop) this.#box.scrollTop = scrollTop
    this.#draw()
    this.#events.choose(this.active)
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || this.#active < 0) return
    const handled = this.#move(event.key) || this.#type(event.key)
    if (handled) event.preventDefault()
  }

  #move(key: string): boolean {
    const { nodes, opened } = this.#rows
    const at = this.#active, node = nodes[at]!
    const page = Math.max(1, Math.floor(this.#box.clientHeight / this.#rowPx) - 1)
    const filled = this.#view?.filled[node] === 1
    switch (key) {
      case 'ArrowDown': this.#activate(Math.min(at + 1, nodes.length - 1)); return true
      case 'ArrowUp': this.#activate(Math.max(at - 1, 0)); return true
      case 'PageDown': this.#activate(Math.min(at + page, nodes.length - 1)); return true
      case 'PageUp': this.#activate(Math.max(at - page, 0)); return true
      case 'Home': this.#activate(0); return true
      case 'End': this.#activate(nodes.length - 1); return true
      case 'ArrowRight':
        if (filled && opened[at] === 0) this.#events.toggle(node, true)
        else if (filled && nodes[at + 1] !== undefined) this.#activate(at + 1)
        return true
      case 'ArrowLeft':
        if (filled && opened[at] === 1) this.#events.toggle(node, false)
        else if (this.#model.parent[node]! > 0) this.choose(this.#model.parent[node]!)
        return true
      case 'Enter':
        if (filled) this.#events.toggle(node, opened[at] === 0)
        else this.#events.enter(node)
        return true
      case '*': this.#events.openBeside(node); return true
      default: return false
    }
  }

  /** Letters go to the next row whose name begins with what was typed within a second. */
  #type(key: string): boolean {
    if ([...key].length !== 1 || key === '/' || (key === ' ' && this.#typed === '')) return false
    const now = performance.now()
    const fresh = now - this.#typedAt > 1000
    this.#typed = fresh ? key.toLowerCase() : this.#typed + key.toLowerCase()
    this.#typedAt = now
    const { nodes } = this.#rows
    // A first letter moves on; more of them may stay where they are.
    for (let step = fresh ? 1 : 0; step <= nodes.length; step++) {
      const row = (this.#active + step) % nodes.length
      if (plain(nameOf(this.#model, nodes[row]!)).toLowerCase().startsWith(this.#typed)) {
        this.#activate(row)
        break
      }
    }
    return true
  }

  #hit(event: MouseEvent): { row: number; twist: boolean } | undefined {
    const target = event.target instanceof Element ? event.target : undefined
    const drawn = target?.closest('.row')
    const row = [...this.#drawn].find(([, element]) => element === drawn)?.[0]
    return row === undefined ? undefined : { row, twist: target?.classList.contains('twist') === true }
  }

  #click(event: MouseEvent): void {
    const hit = this.#hit(event)
    if (hit === undefined) return
    this.#activate(hit.row)
    if (hit.twist) this.#toggle(hit.row)
  }

  #doubleClick(event: MouseEvent): void {
    const hit = this.#hit(event)
    if (hit !== undefined && !hit.twist) this.#toggle(hit.row)
  }

  #toggle(row: number): void {
    const node = this.#rows.nodes[row]!
    if (this.#view?.filled[node] === 1) this.#events.toggle(node, this.#rows.opened[row] === 0)
  }
}
