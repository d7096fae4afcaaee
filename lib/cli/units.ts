// Sizes, ages and ids in Docker's words (docker/go-units and docker/cli's formatter). Pure functions.

const sizeUnits = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'] as const

/** `units.HumanSizeWithPrecision`: powers of 1000, `digits` significant ones. `docker images` shows 3, `docker system df` 4. */
export function humanSize(bytes: number, digits = 4): string {
  let value = bytes
  let unit = 0
  // Rounded before it is compared: go-units prints 999,999 bytes with 3 digits as "1e+03kB".
  while (Number(value.toPrecision(digits)) >= 1000 && unit < sizeUnits.length - 1) {
    value /= 1000
    unit++
  }
  return `${Number(value.toPrecision(digits))}${sizeUnits[unit]}`
}

/** `units.HumanDuration`, to the letter. */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000)
  if (seconds < 1) return 'Less than a second'
  if (seconds === 1) return '1 second'
  if (seconds < 60) return `${seconds} seconds`
  const minutes = Math.trunc(ms / 60_000)
  if (minutes === 1) return 'About a minute'
  if (minutes < 60) return `${minutes} minutes`
  const hours = Math.trunc(ms / 3_600_000 + 0.5)
  if (hours === 1) return 'About an hour'
  if (hours < 48) return `${hours} hours`
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`
  return `${Math.trunc(ms / 3_600_000 / 24 / 365)} years`
}

/** `3 days ago`, or `N/A` for a moment that is not known. */
export function ago(createdMs: number | undefined, nowMs = Date.now()): string {
  return createdMs === undefined || Number.isNaN(createdMs) || createdMs <= 0 ? 'N/A' : `${humanDuration(nowMs - createdMs)} ago`
}

/** Docker's 12 digits of an id, or all of it. */
export function shortId(id: string, truncate = true): string {
  return truncate ? id.replace(/^sha256:/, '').slice(0, 12) : id
}

/** Docker's Ellipsis: at most `width` code points, the last one `…` when something was cut. */
export function ellipsis(text: string, width: number): string {
  const points = [...text]
  return points.length <= width ? text : `${points.slice(0, width - 1).join('')}…`
}

/**
 * Text from an image or a layer, fit for a terminal: control characters, which could move the cursor or retitle the window, are written out.
 */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, c => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
}
