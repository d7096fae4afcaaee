// The page comes to life: reads the data, holds what the reader has chosen, and passes it to the tree, the details and the table of waste.

import { ADDED, decodeModel, MODIFIED, REMOVED, UNMODIFIED } from '../model/model.ts'
import type { Model } from '../model/model.ts'
import { counted, grouped } from '../model/text.ts'
import { findNodes, parseQuery } from '../model/search.ts'
import type { Query } from '../model/search.ts'
import { rowsOf, viewOf, withMarks } from '../model/view.ts'
import type { Choice, Sort, View } from '../model/view.ts'
import { Details } from './details.ts'
import { byId, element } from './elements.ts'
import { markElement, markTexts } from './row.ts'
import type { FindInName } from './row.ts'
import { setUpTabs } from './tabs.ts'
import { setUpTheme } from './theme.ts'
import { Tree } from './tree.ts'
import { Waste } from './waste.ts'

async function readData(): Promise<Uint8Array> {
  const text = byId('data').textContent ?? ''
  const packed = atob(text)
  const bytes = new Uint8Array(packed.length)
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i)
  byId('data').remove()
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

class Explorer {
  readonly #model: Model
  readonly #tree: Tree
  readonly #details: Details
  readonly #open: Uint8Array
  readonly #closed: Uint8Array
  readonly #kinds = new Set<number>()
  readonly #search = byId<HTMLInputElement>('search')
  #choice: Choice
  #view: View
  #sort: Sort = 'name'
  #query: Query | undefined
  #found: Uint8Array | undefined

  constructor(model: Model) {
    this.#model = model
    this.#open = new Uint8Array(model.count)
    this.#closed = new Uint8Array(model.count)
    this.#choice = { layer: Math.max(0, model.meta.layers.length - 1), scope: 'merged' }
    this.#view = viewOf(model, this.#choice)
    this.#details = new Details(model, { chooseLayer: layer => this.#chooseLayer(layer), reveal: node => this.#reveal(node) })
    this.#tree = new Tree(model, {
      toggle: (node, open) => this.#toggle(node, open),
      openBeside: node => this.#openBeside(node),
      choose: node => this.#details.show(node, this.#view),
      enter: () => this.#details.focus(),
    })
    this.#listen()
    this.#draw()
  }

  /** The table of waste waits until the tree stands. */
  showWaste(): void {
    const box = document.getElementById('waste-table')
    if (box !== null) new Waste(this.#model, box, node => this.#reveal(node))
  }

  #listen(): void {
    document.addEventListener('change', ({ target }) => {
      if (!(target instanceof HTMLInputElement) || target.type !== 'radio') return
      switch (target.name) {
        case 'layer': this.#choose({ ...this.#choice, layer: Number(target.value) }); break
        case 'scope': this.#choose({ ...this.#choice, scope: target.value === 'layer' ? 'layer' : 'merged' }); break
        case 'sort':
          this.#sort = target.value === 'size' ? 'size' : 'name'
          this.#draw()
      }
    })
    let timer = 0
    this.#search.addEventListener('input', () => {
      clearTimeout(timer)
      timer = setTimeout(() => this.#setQuery(this.#search.value), 60)
    })
    this.#search.addEventListener('keydown', event => {
      if (event.key === 'Escape' && this.#search.value !== '') {
        this.#search.value = ''
        event.preventDefault()
      } else if (event.key !== 'Enter' && event.key !== 'ArrowDown') return
      clearTimeout(timer)
      this.#setQuery(this.#search.value)
      if (event.key === 'Escape') return
      event.preventDefault()
      this.#toFirstFound()
    })
    document.addEventListener('keydown', event => {
      if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || event.target === this.#search || byId('files').hidden) return
      event.preventDefault()
      this.#search.focus()
      this.#search.select()
    })
    byId('details').addEventListener('keydown', event => { if (event.key === 'Escape') this.#tree.focus() })
  }

  #choose(choice: Choice): void {
    this.#choice = choice
    this.#view = viewOf(this.#model, choice)
    byId('merged-name').textContent = `After layer ${choice.layer + 1}`
    this.#draw()
  }

  #chooseLayer(layer: number): void {
    const radio = document.getElementById(`layer-${layer}`)
    if (radio instanceof HTMLInputElement) radio.checked = true
    radio?.scrollIntoView({ block: 'nearest' })
    this.#choose({ ...this.#choice, layer })
  }

  #setQuery(text: string): void {
    if (text.trim() === (this.#query?.text ?? '')) return
    this.#query = parseQuery(text)
    this.#found = this.#query === undefined ? undefined : findNodes(this.#model, this.#query)
    this.#closed.fill(0)
    this.#draw()
  }

  #toFirstFound(): void {
    const wanted = this.#wanted()
    const first = wanted === undefined ? undefined : this.#tree.rows.nodes.find(node => wanted[node] === 1)
    if (first !== undefined) this.#tree.choose(first)
    this.#tree.focus()
  }

  #toggle(node: number, open: boolean): void {
    this.#open[node] = open ? 1 : 0
    this.#closed[node] = open ? 0 : 1
    this.#draw()
  }

  #openBeside(node: number): void {
    const { end, parent } = this.#model
    const above = parent[node]!
    for (let i = above + 1; i < end[above]!; i = end[i]!) {
      this.#open[i] = 1
      this.#closed[i] = 0
    }
    this.#draw()
  }

  /** Show the path in the tree, whatever hides it now. */
  #reveal(node: number): void {
    byId('files-tab').click()
    this.#search.value = ''
    this.#query = this.#found = undefined
    this.#kinds.clear()
    for (let at = this.#model.parent[node]!; at > 0; at = this.#model.parent[at]!) this.#open[at] = 1
    if (this.#view.shown[node] === 0) this.#chooseLayer(this.#lastLayerOf(node))
    else this.#draw()
    this.#tree.choose(node)
    this.#tree.focus()
  }

  #lastLayerOf(node: number): number {
    return this.#model.versions.layer[this.#model.firstVersion[node + 1]! - 1] ?? 0
  }

  /** What search and the kinds of change leave; undefined when neither asks for anything. */
  #wanted(): Uint8Array | undefined {
    const kinds = this.#kinds.size === 0 ? undefined : withMarks(this.#view, [...this.#kinds])
    const found = this.#found
    if (kinds === undefined || found === undefined) return kinds ?? found
    return kinds.map((wanted, i) => wanted & found[i]!)
  }

  #draw(): void {
    const wanted = this.#wanted()
    const rows = rowsOf(this.#model, this.#view, { open: this.#open, closed: this.#closed, sort: this.#sort, ...(wanted === undefined ? {} : { wanted }) })
    this.#tree.show(this.#view, rows, this.#findInName())
    if (this.#tree.active >= 0) this.#details.show(this.#tree.active, this.#view)
    else this.#details.clear()
    this.#chips()
    this.#tell(rows.found)
  }

  #findInName(): FindInName | undefined {
    const query = this.#query
    if (query === undefined || query.glob) return undefined
    // Of a path, what may stand in the last component.
    const text = query.paths ? query.text.slice(query.text.lastIndexOf('/') + 1) : query.text
    if (text === '') return undefined
    const wanted = query.caseMatters ? text : text.toLowerCase()
    return name => {
      const compared = query.caseMatters ? name : name.toLowerCase()
      const at = compared.indexOf(wanted)
      // Lower case may be longer (İ), and what is written out stands elsewhere.
      return at < 0 || compared.length !== name.length || !/^[\x20-\x7e]*$/.test(name) ? undefined : { at, length: text.length }
    }
  }

  #chips(): void {
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset['mark'] : undefined
    const chips = [ADDED, MODIFIED, REMOVED, UNMODIFIED].filter(mark => mark !== UNMODIFIED || this.#view.totals[mark]! > 0).map(mark => {
      const count = this.#view.totals[mark]!
      const chip = element('button', '', markElement(mark), `${grouped(count)} ${mark === UNMODIFIED ? 'same again' : markTexts[mark]![2]}`)
      chip.type = 'button'
      chip.dataset['mark'] = String(mark)
      chip.setAttribute('aria-pressed', String(this.#kinds.has(mark)))
      chip.disabled = count === 0 && !this.#kinds.has(mark)
      chip.addEventListener('click', () => {
        if (!this.#kinds.delete(mark)) this.#kinds.add(mark)
        this.#closed.fill(0)
        this.#draw()
      })
      return chip
    })
    byId('chips').replaceChildren(...chips)
    if (focused !== undefined) chips.find(chip => chip.dataset['mark'] === focused)?.focus()
  }

  #tell(found: number): void {
    const { layer, scope } = this.#choice
    const where = scope === 'merged' ? `after layer ${layer + 1}` : `in layer ${layer + 1} alone`
    let text = `${counted(this.#view.present, 'path')} ${where}`
    if (this.#query !== undefined || this.#kinds.size > 0) {
      text = `${found === 0 ? 'Nothing' : counted(found, 'path')} found ${where}`
      const all = this.#query === undefined || this.#kinds.size > 0 ? found : this.#found!.reduce((sum, hit) => sum + hit, 0)
      if (all > found) text += `, ${grouped(all - found)} more in other layers`
    }
    const status = byId('status')
    if (status.textContent !== text) status.textContent = text
  }
}

async function start(): Promise<void> {
  setUpTheme()
  setUpTabs()
  const bytes = await readData()
  performance.mark('layerstack:unpacked')
  const model = decodeModel(bytes)
  performance.mark('layerstack:decoded')
  const explorer = new Explorer(model)
  byId('tree').removeAttribute('aria-busy')
  requestAnimationFrame(() => setTimeout(() => {
    performance.mark('layerstack:rendered')
    explorer.showWaste()
    performance.mark('layerstack:ready')
    document.documentElement.dataset['ready'] = 'true'
  }))
}

start().catch((error: unknown) => {
  byId('status').textContent = `The page's data cannot be read: ${error instanceof Error ? error.message : String(error)}`
  throw error
})
