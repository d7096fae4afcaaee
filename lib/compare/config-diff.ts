// What two image configs say otherwise, key by key. Pure.

/** One key of the configs, by its path (`config.Env`). */
export interface ConfigDifference {
  readonly key: string
  /** As the first has it; absent when it has it not. */
  readonly before?: unknown
  readonly after?: unknown
}

/** The layers are compared themselves. */
const never = new Set(['rootfs'])
/** When and by what an image was built: nothing that a container sees. */
const building = new Set(['created', 'history', 'container', 'container_config', 'docker_version', 'id', 'parent', 'comment', 'author', 'moby.buildkit.buildinfo.v1', 'buildkit.dockerfile.v0'])

/** Keys in order. An absent key, null, an empty text, list and map are one and the same, as to Docker. With `semantic` dates, history and the like are left out. */
export function configDifferences(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>, mode: 'strict' | 'semantic'): ConfigDifference[] {
  const differences: ConfigDifference[] = []
  for (const key of [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()) {
    if (never.has(key) || mode === 'semantic' && building.has(key)) continue
    compare(key, a[key], b[key], differences)
  }
  return differences
}

function compare(key: string, before: unknown, after: unknown, differences: ConfigDifference[]): void {
  if (isEmpty(before) && isEmpty(after) || canonical(before) === canonical(after)) return
  if (isMap(before) && isMap(after)) {
    for (const inner of [...new Set([...Object.keys(before), ...Object.keys(after)])].sort()) compare(`${key}.${inner}`, before[inner], after[inner], differences)
    return
  }
  differences.push({ key, ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) })
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === '' || value === false || Array.isArray(value) && value.length === 0 || isMap(value) && Object.keys(value).length === 0
}

/** Maps have no order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => isMap(inner) ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => a < b ? -1 : 1)) : inner) ?? ''
}
