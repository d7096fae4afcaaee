// Values of options: repeated ones, and KEY=VALUE pairs. Pure.

import { InvalidArgumentError } from 'commander'

/** For options that may be given several times. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...before ?? [], value]
}

/** `KEY=VALUE`, several times; for labels also a bare `KEY`, whose value is empty. */
export function pairs(bare: 'bare keys' | 'no bare keys'): (text: string, before: Readonly<Record<string, string>> | undefined) => Readonly<Record<string, string>> {
  return (text, before) => {
    const at = text.indexOf('=')
    if (at === 0 || (at < 0 && bare === 'no bare keys')) throw new InvalidArgumentError('It is written KEY=VALUE.')
    return { ...before, ...(at < 0 ? { [text]: '' } : { [text.slice(0, at)]: text.slice(at + 1) }) }
  }
}
