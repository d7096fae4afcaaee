// Search over all paths: a substring or a glob, in names or, when the query has a slash, in whole paths. Compares each distinct name once; whole paths
// are made along the tree. Case counts only when the query has an upper-case letter.

import type { Model } from './model.ts'
import { plain } from './text.ts'

export interface Query {
  readonly text: string
  readonly glob: boolean
  /** The query has a slash. */
  readonly paths: boolean
  readonly caseMatters: boolean
  test(text: string): boolean
}

/** Undefined for an empty query. `*` and `?` stop at slashes, `**` does not; `[a-z]`, `[!a-z]` and `{a,b}`; a backslash takes the next as it is. */
export function parseQuery(input: string): Query | undefined {
  const text = input.trim()
  if (text === '') return undefined
  const glob = /[*?[{]/.test(text), paths = text.includes('/'), caseMatters = /\p{Lu}/u.test(text)
  if (!glob) {
    const wanted = caseMatters ? text : text.toLowerCase()
    return { text, glob, paths, caseMatters, test: name => (caseMatters ? name : name.toLowerCase()).includes(wanted) }
  }
  // A path is matched from the root, or, when the glob does not begin there, from any directory.
  const pattern = globPattern(text)
  const expression = new RegExp(paths && !text.startsWith('/') && !text.startsWith('**/') ? `/${pattern}$` : `^${pattern}$`, caseMatters ? 'su' : 'sui')
  return { text, glob, paths, caseMatters, test: name => expression.test(name) }
}

function globPattern(glob: string): string {
  let pattern = '', braces = 0
  for (let i = 0; i < glob.length; i++) {
    const c = glob[i] as string
    if (c === '*' && glob[i + 1] === '*') {
      i++
      if (glob[i + 1] === '/') { i++; pattern += '(?:.*/)?' } else pattern += '.*'
    } else if (c === '*') pattern += '[^/]*'
    else if (c === '?') pattern += '[^/]'
    else if (c === '[' && glob.indexOf(']', i + 2) > 0) {
      const close = glob.indexOf(']', i + 2), negated = glob[i + 1] === '!' || glob[i + 1] === '^'
      pattern += characterClass(glob.slice(i + (negated ? 2 : 1), close), negated)
      i = close
    } else if (c === '{' && glob.indexOf('}', i) > 0) { braces++; pattern += '(?:' }
    else if (c === '}' && braces > 0) { braces--; pattern += ')' }
    else if (c === ',' && braces > 0) pattern += '|'
    else if (c === '\\' && i + 1 < glob.length) pattern += literal(glob[++i] as string)
    else pattern += literal(c)
  }
  return pattern + ')'.repeat(braces)
}

/** Ranges the wrong way round match nothing, as in shells, where a regular expression would throw. */
function characterClass(inner: string, negated: boolean): string {
  const parts = [...inner.matchAll(/(.)-(.)|(.)/gsu)].flatMap(([, from, to, one]) => {
    if (one !== undefined) return [classLiteral(one)]
    return (from as string).codePointAt(0)! <= (to as string).codePointAt(0)! ? [`${classLiteral(from as string)}-${classLiteral(to as string)}`] : []
  })
  if (parts.length === 0) return negated ? '[^/]' : '(?!)'
  return negated ? `[^/${parts.join('')}]` : `(?!/)[${parts.join('')}]`
}

function literal(c: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(c) ? `\\${c}` : c
}
function classLiteral(c: string): string {
  return /[\\^\]\[-]/.test(c) ? `\\${c}` : c
}

/** 1 for each path that the query finds, the root aside. */
export function findNodes(model: Model, query: Query): Uint8Array {
  const found = new Uint8Array(model.count)
  if (query.paths) findPaths(model, query, found)
  else {
    const hits = new Uint8Array(model.names.length)
    for (let i = 0; i < hits.length; i++) if (query.test(shownName(model, i))) hits[i] = 1
    for (let i = 1; i < model.count; i++) found[i] = hits[model.name[i]!]!
  }
  return found
}

function findPaths(model: Model, query: Query, found: Uint8Array): void {
  // The path of the directory at each depth of the walk.
  const above: string[] = ['']
  for (let i = 1; i < model.count; i++) {
    const depth = model.depth[i]!
    const path = `${above[depth - 1]!}/${shownName(model, model.name[i]!)}`
    above[depth] = path
    if (query.test(path)) found[i] = 1
  }
}

function shownName(model: Model, name: number): string {
  const text = model.names[name]!
  return name < model.escapedFrom ? text : plain(text)
}
