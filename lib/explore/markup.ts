// HTML by template: whatever is put in is text and is escaped, unless it is markup made here. Names from images pass through `shown`, which writes out
// what cannot be seen.

import { segments } from './model/text.ts'

/** Markup that is safe to put into markup. Made only by `html` and `raw`. */
export class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

type Value = string | number | Markup | undefined | readonly (string | number | Markup)[]

export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Markup {
  return new Markup(parts.reduce((text, part, i) => text + markupOf(values[i - 1]) + part))
}

/** Markup as it is: the page's own script, style and data, never anything from an image. */
export function raw(text: string): Markup {
  return new Markup(text)
}

/** A text from an image, isolated from the direction of what stands around it. */
export function shown(text: string): Markup {
  return html`<bdi>${segments(text).map(segment => segment.escaped ? html`<span class="escape">${segment.text}</span>` : html`${segment.text}`)}</bdi>`
}

function markupOf(value: Value): string {
  if (value === undefined) return ''
  if (value instanceof Markup) return value.text
  if (typeof value === 'object') return value.map(markupOf).join('')
  return String(value).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
}
