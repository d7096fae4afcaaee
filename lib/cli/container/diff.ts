// `layerstack container diff`

import type { Command } from 'commander'
import type { Change } from '../../index.ts'
import type { Session } from '../session.ts'
import { styled } from '../style.ts'
import { printable } from '../units.ts'

const colors = { A: 'green', C: 'yellow', D: 'red' } as const
const batch = 1000

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .addHelpText('after', '\nA was added, C changed, D deleted. Names are printed as they are, but on a terminal control characters are written out;\nwith --json a name that is not UTF-8 is also given as pathBase64.\n\nExample:\n  layerstack container diff box')
    .action((ref: string) => session.look(async storage => {
      const { signal } = session
      if (session.json) {
        const changes: object[] = []
        for await (const change of storage.containers.diff(ref, signal)) changes.push(asJson(change))
        await session.printJson(changes)
        return
      }
      let lines: Buffer[] = []
      for await (const change of storage.containers.diff(ref, signal)) {
        lines.push(line(change))
        if (lines.length < batch) continue
        await session.print(Buffer.concat(lines))
        lines = []
      }
      await session.print(Buffer.concat(lines))
    }))
}

function line({ kind, path }: Change): Buffer {
  if (process.stdout.isTTY) return Buffer.from(`${styled(process.stdout, colors[kind], kind)} ${printable(path.toString())}\n`)
  return Buffer.concat([Buffer.from(`${kind} `), path, Buffer.from('\n')])
}

function asJson({ kind, path }: Change): object {
  const text = path.toString()
  return { kind, path: text, ...(Buffer.from(text).equals(path) ? {} : { pathBase64: path.toString('base64') }) }
}
