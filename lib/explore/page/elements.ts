// Making elements. Text goes in as text only: the page has no sink for markup, and its policy (Trusted Types) forbids one.

import { segments } from '../model/text.ts'

export type Child = Node | string

export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no #${id}`)
  return found as T
}

/** `element('p', 'class names', …children)` */
export function element<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, ...children: readonly Child[]): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  if (className !== '') made.className = className
  made.append(...children)
  return made
}

export function button(className: string, text: Child, act: () => void): HTMLButtonElement {
  const made = element('button', className, text)
  made.type = 'button'
  made.addEventListener('click', act)
  return made
}

/** A name or path from the image: what cannot be seen is written out, the direction of its letters stays inside. `found`: what to mark, by position. */
export function nameElement(text: string, found?: { readonly at: number; readonly length: number }): HTMLElement {
  const made = element('bdi', '')
  if (found !== undefined) {
    made.append(text.slice(0, found.at), element('mark', '', text.slice(found.at, found.at + found.length)), text.slice(found.at + found.length))
    return made
  }
  for (const segment of segments(text)) made.append(segment.escaped ? element('span', 'escape', segment.text) : segment.text)
  return made
}

/** `dt` and `dd` of a list of facts. */
export function fact(term: string, ...description: readonly Child[]): [HTMLElement, HTMLElement] {
  return [element('dt', '', term), element('dd', '', ...description)]
}
