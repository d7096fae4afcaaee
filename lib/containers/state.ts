// A container's state as dockerd notes it in config.v2.json, and its one word for it. Changes nothing: who runs containers writes states.

export type ContainerStatus = 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'removing' | 'dead'

export interface ContainerState {
  readonly status: ContainerStatus
  readonly exitCode: number
  /** RFC 3339; absent when it has never been started. */
  readonly startedAt?: string
  /** RFC 3339; absent when it has never ended. */
  readonly finishedAt?: string
  readonly oomKilled: boolean
  /** Why it could not be started; empty otherwise. */
  readonly error: string
}

/** Go's zero time, which stands for never. */
export const never = '0001-01-01T00:00:00Z'

/** Of the file's `State`; in moby's order of precedence (container/state.go, StateString). */
export function stateOf(json: unknown): ContainerState {
  const state = typeof json === 'object' && json !== null ? json as Readonly<Record<string, unknown>> : {}
  const { Running, Paused, Restarting, RemovalInProgress, Dead, ExitCode, OOMKilled, Error: reason } = state
  const startedAt = momentOf(state['StartedAt']), finishedAt = momentOf(state['FinishedAt'])
  const status = Running === true ? Paused === true ? 'paused' : Restarting === true ? 'restarting' : 'running'
    : RemovalInProgress === true ? 'removing' : Dead === true ? 'dead' : startedAt === undefined ? 'created' : 'exited'
  return {
    status, exitCode: typeof ExitCode === 'number' ? ExitCode : 0, oomKilled: OOMKilled === true, error: typeof reason === 'string' ? reason : '',
    ...(startedAt === undefined ? {} : { startedAt }), ...(finishedAt === undefined ? {} : { finishedAt }),
  }
}

function momentOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value !== never ? value : undefined
}

/**
 * The text of a config.v2.json with another storage driver in it, and every other byte as it was: fields that are unknown here, the order of keys, numbers beyond
 * 2^53 and Go's way of escaping survive. @throws SyntaxError for what is not JSON, TypeError without such a field
 */
export function withDriver(text: string, driver: string): string {
  JSON.parse(text)
  // Strings are taken whole, so that brackets and keys inside them do not count.
  const token = /"(?:[^"\\]|\\.)*"|[{}[\]:,]/g
  let depth = 0
  let key = ''
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [part] = match
    if (part === '{' || part === '[') depth++
    else if (part === '}' || part === ']') depth--
    else if (part.startsWith('"') && depth === 1) {
      if (key === '"Driver"') return `${text.slice(0, match.index)}${JSON.stringify(driver)}${text.slice(token.lastIndex)}`
      key = part
    } else if (part === ',' && depth === 1) key = ''
  }
  throw new TypeError('the container\'s file names no driver')
}
