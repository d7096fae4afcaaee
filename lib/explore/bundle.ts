// The page's script as one module: the compiled modules below `page/` and `model/`, each after what it imports, without imports, exports and comments. Only
// the forms that these modules use are known; any other is an error here and not in a reader's browser. Names must be distinct, which the browser checks too.

import fs from 'node:fs'
import path from 'node:path'

const importLine = /^import \{[^}]*\} from ['"](\.[^'"]*)['"];?$/

/** @throws Error for a form of import or export that is not known, and what reading a file throws */
export function bundle(entry: string, read: (file: string) => string = file => fs.readFileSync(file, 'utf8')): string {
  const done = new Set<string>(), parts: string[] = []
  const add = (file: string): void => {
    if (done.has(file)) return
    done.add(file)
    const lines: string[] = []
    for (const line of read(file).split('\n')) {
      const from = importLine.exec(line)?.[1]
      if (from !== undefined) add(path.join(path.dirname(file), from))
      else if (!/^\s*(\/\/|\/?\*)/.test(line) && line.trim() !== '') lines.push(strip(line, file))
    }
    parts.push(lines.join('\n'))
  }
  add(entry)
  return `${parts.join('\n')}\n`
}

function strip(line: string, file: string): string {
  const bare = line.replace(/^export (?=(const|let|function|async function|class) )/, '')
  if (/^(import|export)\b/.test(bare)) throw new Error(`${file} has a line that cannot be bundled: ${line}`)
  return bare
}
