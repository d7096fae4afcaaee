// Colour, when it is wanted: on a terminal, without NO_COLOR (no-color.org), and not on a dumb one.

import { styleText } from 'node:util'

type Format = Parameters<typeof styleText>[0]

export function hasColor(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
}

export function styled(stream: { readonly isTTY?: boolean }, format: Format, text: string): string {
  return hasColor(stream) ? styleText(format, text) : text
}
