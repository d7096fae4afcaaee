// A caller's stream that has to wait until its turn comes: what fails meanwhile is for whoever reads it.

/**
 * The same source. A stream of Node's that fails before anybody reads it, since its file cannot be opened, say, emits an error which nobody hears, and that
 * ends the process; its iterator throws the same error.
 */
export function heldSource<T>(source: T): T {
  if (isEmitter(source)) source.on('error', () => undefined)
  return source
}

function isEmitter(source: unknown): source is { on(event: 'error', listener: () => void): unknown } {
  return typeof source === 'object' && source !== null && 'pipe' in source && 'on' in source && typeof source.on === 'function'
}
