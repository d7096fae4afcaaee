// Dockerfile instructions that change an image's config: the grammar of `docker import --change` and `docker commit --change`. Pure.

import { StorageError } from '../errors.ts'

type Config = Record<string, unknown>

function wrong(line: string, what: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `invalid change ${JSON.stringify(line)}: ${what}`, { hint: 'write it as in a Dockerfile, e.g. CMD ["/bin/sh"]' })
}

/**
 * Apply instructions, in order, to a copy of `config`: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK NONE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME,
 * WORKDIR. Variables are not expanded. @throws INVALID_ARGUMENT
 */
export function applyChanges(config: Readonly<Record<string, unknown>>, changes: readonly string[]): Record<string, unknown> {
  const out: Config = structuredClone(config) as Config
  let commandSet = false
  for (const change of changes) {
    const line = change.trim()
    if (line === '' || line.startsWith('#')) continue
    const match = /^([A-Za-z]+)(?:\s+([\s\S]*))?$/.exec(line)
    const name = match?.[1]?.toUpperCase() ?? '', rest = match?.[2]?.trim() ?? ''
    const apply = Object.hasOwn(instructions, name) ? instructions[name] : undefined
    if (apply === undefined) throw wrong(line, `${name === '' ? 'it' : name} is not a valid change command`)
    if (rest === '' && name !== 'CMD' && name !== 'ENTRYPOINT') throw wrong(line, `${name} requires at least one argument`)
    apply(out, rest, line)
    // A new entrypoint drops a command that was meant for the old one (moby dispatchers.go, dispatchEntrypoint).
    if (name === 'ENTRYPOINT' && !commandSet) out['Cmd'] = null
    commandSet ||= name === 'CMD'
  }
  return out
}

const instructions: Readonly<Record<string, (config: Config, rest: string, line: string) => void>> = {
  CMD(config, rest) { config['Cmd'] = command(rest) },
  ENTRYPOINT(config, rest) { config['Entrypoint'] = command(rest) },
  ENV(config, rest, line) {
    const env = [...(config['Env'] as string[] | null | undefined ?? [])]
    for (const [key, value] of pairs(rest, line)) {
      const i = env.findIndex(entry => entry.startsWith(`${key}=`))
      if (i < 0) env.push(`${key}=${value}`)
      else env[i] = `${key}=${value}`
    }
    config['Env'] = env
  },
  EXPOSE(config, rest, line) {
    const ports: Record<string, object> = { ...(config['ExposedPorts'] as Record<string, object> | null | undefined) }
    for (const port of words(rest, line).flatMap(word => portsOf(word, line))) ports[port] = {}
    config['ExposedPorts'] = ports
  },
  HEALTHCHECK(config, rest, line) {
    if (rest.toUpperCase() !== 'NONE') throw wrong(line, 'only HEALTHCHECK NONE can be given as a change')
    config['Healthcheck'] = { Test: ['NONE'] }
  },
  LABEL(config, rest, line) {
    config['Labels'] = { ...(config['Labels'] as Record<string, string> | null | undefined), ...Object.fromEntries(pairs(rest, line)) }
  },
  ONBUILD(config, rest, line) {
    const trigger = rest.split(/\s/, 1)[0]?.toUpperCase()
    if (trigger === 'ONBUILD') throw wrong(line, 'chaining ONBUILD via `ONBUILD ONBUILD` is not allowed')
    if (trigger === 'MAINTAINER' || trigger === 'FROM') throw wrong(line, `${trigger} is not allowed as an ONBUILD trigger`)
    config['OnBuild'] = [...(config['OnBuild'] as string[] | null | undefined ?? []), rest]
  },
  STOPSIGNAL(config, rest, line) {
    if (!/^(\d{1,2}|(SIG)?[A-Z][A-Z0-9+-]*)$/i.test(rest)) throw wrong(line, `invalid signal: ${rest}`)
    config['StopSignal'] = rest
  },
  USER(config, rest, line) { config['User'] = single(rest, line) },
  VOLUME(config, rest, line) {
    const volumes = jsonWords(rest) ?? words(rest, line)
    if (volumes.some(volume => volume.trim() === '')) throw wrong(line, 'VOLUME specified can not be an empty string')
    config['Volumes'] = { ...(config['Volumes'] as Record<string, object> | null | undefined), ...Object.fromEntries(volumes.map(volume => [volume, {}])) }
  },
  WORKDIR(config, rest, line) {
    const dir = single(rest, line), before = config['WorkingDir']
    const base = typeof before === 'string' && before !== '' ? before : '/'
    config['WorkingDir'] = cleanPath(dir.startsWith('/') ? dir : `${base}/${dir}`)
  },
}

/** The exec form is JSON; everything else is a line for the shell. */
function command(rest: string): string[] {
  return jsonWords(rest) ?? (rest === '' ? [] : ['/bin/sh', '-c', rest])
}

function jsonWords(rest: string): string[] | undefined {
  if (!rest.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(rest)
    return Array.isArray(value) && value.every(item => typeof item === 'string') ? value : undefined
  } catch {
    return undefined
  }
}

function single(rest: string, line: string): string {
  const found = words(rest, line)
  if (found.length !== 1) throw wrong(line, 'it requires exactly one argument')
  return found[0] as string
}

/** Words as the Dockerfile has them: white space separates, quotes and backslashes keep together and vanish. */
function words(rest: string, line: string): string[] {
  const found: string[] = []
  let word: string | undefined, quote = ''
  for (let i = 0; i < rest.length; i++) {
    const character = rest[i] as string
    if (character === '\\' && quote !== "'" && i + 1 < rest.length) {
      const next = rest[++i] as string
      word = (word ?? '') + (quote === '"' && !/["\\$]/.test(next) ? `\\${next}` : next)
    } else if (quote !== '') {
      if (character === quote) quote = ''
      else word += character
    } else if (character === '"' || character === "'") {
      quote = character
      word ??= ''
    } else if (/\s/.test(character)) {
      if (word !== undefined) found.push(word)
      word = undefined
    } else word = (word ?? '') + character
  }
  if (quote !== '') throw wrong(line, 'a quote is not closed')
  if (word !== undefined) found.push(word)
  return found
}

/** `K=V K2="V 2"`, or the old form `K the rest`. */
function pairs(rest: string, line: string): [string, string][] {
  const old = /^([^\s="']+)\s+([\s\S]+)$/.exec(rest)
  if (old !== null) return [[old[1] as string, old[2] as string]]
  return words(rest, line).map(word => {
    const equals = word.indexOf('=')
    if (equals < 0) throw wrong(line, `can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`)
    if (equals === 0) throw wrong(line, 'names can not be blank')
    return [word.slice(0, equals), word.slice(equals + 1)]
  })
}

/** `80`, `80/udp`, `8000-8010/tcp` → `80/tcp`, … */
function portsOf(word: string, line: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(word)
  const first = Number(match?.[1]), last = Number(match?.[2] ?? match?.[1])
  if (match === null || first > last || last > 65535) throw wrong(line, `invalid containerPort: ${word}`)
  const protocol = (match[3] ?? 'tcp').toLowerCase()
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`)
}

function cleanPath(text: string): string {
  const kept: string[] = []
  for (const part of text.split('/')) {
    if (part === '..') kept.pop()
    else if (part !== '' && part !== '.') kept.push(part)
  }
  return `/${kept.join('/')}`
}
