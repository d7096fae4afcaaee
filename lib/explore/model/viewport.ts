// Which rows of a long list are to be in the document, and where. Pure arithmetic.

/** Browsers lose count above this height (Firefox at 17.8 million px, Chromium at 33); a longer list is scrolled at a coarser scale. */
export const MAX_HEIGHT_PX = 15_000_000

export interface Viewport {
  /** Of the whole list, as the scroll bar knows it. */
  readonly heightPx: number
  /** The first row, and one past the last, to be in the document. */
  readonly from: number
  readonly to: number
  /** Where row `from` stands in the list. */
  readonly offsetPx: number
}

/** Rows of `rowPx` each seen through a window of `windowPx` at `scrollPx`, with `spare` rows above and below. */
export function viewportOf(rows: number, rowPx: number, windowPx: number, scrollPx: number, spare = 8): Viewport {
  const fullPx = rows * rowPx, heightPx = Math.min(fullPx, MAX_HEIGHT_PX)
  const top = virtualTop(fullPx, heightPx, windowPx, scrollPx)
  const from = Math.max(0, Math.floor(top / rowPx) - spare), to = Math.min(rows, Math.ceil((top + windowPx) / rowPx) + spare)
  return { heightPx, from, to, offsetPx: scrollPx - top + from * rowPx }
}

/** How far to scroll so that `row` is seen whole; the same position when it is already. */
export function scrollFor(row: number, rows: number, rowPx: number, windowPx: number, scrollPx: number): number {
  const fullPx = rows * rowPx, heightPx = Math.min(fullPx, MAX_HEIGHT_PX)
  const top = virtualTop(fullPx, heightPx, windowPx, scrollPx)
  const wanted = row * rowPx < top ? row * rowPx : (row + 1) * rowPx > top + windowPx ? (row + 1) * rowPx - windowPx : top
  if (wanted === top) return scrollPx
  return heightPx === fullPx ? wanted : wanted * (heightPx - windowPx) / (fullPx - windowPx)
}

function virtualTop(fullPx: number, heightPx: number, windowPx: number, scrollPx: number): number {
  if (heightPx === fullPx) return Math.max(0, Math.min(scrollPx, fullPx - windowPx))
  return Math.max(0, Math.min(1, scrollPx / (heightPx - windowPx))) * (fullPx - windowPx)
}
