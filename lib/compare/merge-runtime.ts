// The runtime part of an image's config when its base is exchanged: a merge in three ways, key by key. Pure.

import { runtimeConfig } from '../images/index.ts'

type Config = Readonly<Record<string, unknown>>

/**
 * What `own` has as `old` had it comes from `renewed`; what it set itself stays. Env is merged variable by variable, maps (Labels, ExposedPorts, Volumes) key by
 * key. Without `old` nothing is known of what came from where, and `own` stays.
 */
export function mergeRuntime(own: Config, old: Config | undefined, renewed: Config): Config {
  if (old === undefined) return own
  const merged = mergeMaps(own, old, renewed, (key, a, b, c) => {
    if (key === 'Env') return mergeEnv(listOf(a), listOf(b), listOf(c))
    if (isMap(a) || isMap(b) || isMap(c)) return mergeMaps(mapOf(a), mapOf(b), mapOf(c), (_, x, y, z) => pick(x, y, z))
    return pick(a, b, c)
  })
  // ENTRYPOINT set by the image resets the base's CMD (Dockerfile reference, CMD and ENTRYPOINT): the pair is one decision.
  const decided = !equal(own['Entrypoint'], old['Entrypoint']) || !equal(own['Cmd'], old['Cmd'])
  return runtimeConfig(decided ? { ...merged, Entrypoint: own['Entrypoint'] ?? null, Cmd: own['Cmd'] ?? null } : merged)
}

function mergeMaps(own: Config, old: Config, renewed: Config, choose: (key: string, own: unknown, old: unknown, renewed: unknown) => unknown): Record<string, unknown> {
  const merged: Record<string, unknown> = {}
  for (const key of new Set([...Object.keys(own), ...Object.keys(renewed)])) {
    const value = choose(key, own[key], old[key], renewed[key])
    if (value !== undefined) merged[key] = value
  }
  return merged
}

function pick(own: unknown, old: unknown, renewed: unknown): unknown {
  return equal(own, old) ? renewed : own
}

/** In the new base's order, then the image's own variables in theirs. */
function mergeEnv(own: readonly string[], old: readonly string[], renewed: readonly string[]): string[] {
  const merged = mergeMaps(variables(own), variables(old), variables(renewed), (_, a, b, c) => pick(a, b, c))
  const order = [...Object.keys(variables(renewed)), ...Object.keys(variables(own))]
  return [...new Set(order)].flatMap(name => merged[name] === undefined ? [] : [`${name}=${merged[name] as string}`])
}

function variables(list: readonly string[]): Record<string, string> {
  // Without a prototype: a variable may be called like one of its properties.
  const found = Object.create(null) as Record<string, string>
  for (const text of list) {
    const at = text.indexOf('=')
    found[at < 0 ? text : text.slice(0, at)] = at < 0 ? '' : text.slice(at + 1)
  }
  return found
}

function listOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []
}

function mapOf(value: unknown): Config {
  return isMap(value) ? value : {}
}

function isMap(value: unknown): value is Config {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function equal(a: unknown, b: unknown): boolean {
  return JSON.stringify(a ?? null) === JSON.stringify(b ?? null)
}
