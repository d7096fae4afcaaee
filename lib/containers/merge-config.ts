// Docker's merging of a container's or a commit's own config with the one below it (moby daemon/commit.go, merge): what is given wins; variables,
// labels, ports and volumes are united. Pure.

import type { ContainerConfig } from './config.ts'

/** `own` laid over `base`. Fields that Docker does not merge are taken from `own` alone. */
export function mergeConfig(own: ContainerConfig, base: ContainerConfig): ContainerConfig {
  const out: Record<string, unknown> = { ...own }
  for (const key of ['User', 'WorkingDir', 'StopSignal']) if (isEmpty(out[key]) && !isEmpty(base[key])) out[key] = base[key]
  for (const key of ['ExposedPorts', 'Labels', 'Volumes'] as const) {
    const below = base[key]
    if (below !== undefined && below !== null) out[key] = { ...below, ...own[key] }
  }
  const env = own.Env ?? []
  const names = new Set(env.map(variable))
  if ((base.Env ?? []).length > 0) out['Env'] = [...env, ...(base.Env ?? []).filter(entry => !names.has(variable(entry)))]
  // A command belongs to its entrypoint: who brings an entrypoint brings the command as well.
  if (isEmpty(own.Entrypoint)) {
    if (isEmpty(own.Cmd) && base.Cmd !== undefined) out['Cmd'] = base.Cmd
    if ((own.Entrypoint ?? undefined) === undefined && base.Entrypoint !== undefined) out['Entrypoint'] = base.Entrypoint
  }
  const check = base['Healthcheck'] as object | null | undefined
  if (check !== undefined && check !== null) out['Healthcheck'] = { ...check, ...own['Healthcheck'] as object | undefined }
  return out as ContainerConfig
}

function variable(entry: string): string {
  return entry.split('=', 1)[0] ?? entry
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0)
}
