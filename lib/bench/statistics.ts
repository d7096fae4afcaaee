// Medians with order-statistic intervals, and the tests that tell a difference from noise. Pure functions of numbers; knows no benchmark.

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] ?? NaN : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2
}

/**
 * What a round's samples stand for: their lower quartile, which is what the step takes when little else goes on. Others' load only ever adds. Between two runs
 * on a machine with eight times the load it could serve, medians of 580 figures differed by 57 % (robust deviation), lower quartiles by 29 %.
 */
export function typical(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[(sorted.length - 1) >> 2] ?? NaN
}

export interface Interval {
  readonly median: number
  readonly low: number
  readonly high: number
  /** The chance that low…high covers the true median: at least 0.95 from six values on, else what the extremes give. */
  readonly coverage: number
  readonly count: number
}

/**
 * The median, and the tightest pair of order statistics around it that covers the true median in 95 % of cases, whatever the distribution: the number of
 * values below the true median is binomial(n, ½). With five values and fewer even the extremes cover less.
 */
export function medianInterval(values: readonly number[]): Interval {
  const sorted = [...values].sort((a, b) => a - b)
  const n = sorted.length
  let below = 0.5 ** n // P(at most `skip` values lie below the median)
  let term = below, skip = 0, coverage = 1 - 2 * below
  while (skip + 1 < n / 2) {
    term = term * (n - skip) / (skip + 1)
    const next = 1 - 2 * (below + term)
    if (next < 0.95) break
    below += term
    coverage = next
    skip++
  }
  return { median: median(sorted), low: sorted[skip] ?? NaN, high: sorted[n - 1 - skip] ?? NaN, coverage: n > 1 ? coverage : 0, count: n }
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** Unbiased; 0 for a single value. */
export function variance(values: readonly number[]): number {
  const m = mean(values)
  return values.length < 2 ? 0 : values.reduce((sum, value) => sum + (value - m) ** 2, 0) / (values.length - 1)
}

/** The median distance from the median, scaled so that it estimates a normal distribution's standard deviation. */
export function robustDeviation(values: readonly number[]): number {
  const m = median(values)
  return 1.4826 * median(values.map(value => Math.abs(value - m)))
}

/** Two-sided p of Mann and Whitney's test: exact for small samples without ties, else the normal approximation corrected for both. */
export function mannWhitney(a: readonly number[], b: readonly number[]): number {
  const n = a.length, m = b.length
  if (n === 0 || m === 0) return 1
  let u = 0
  for (const x of a) for (const y of b) u += x > y ? 1 : x === y ? 0.5 : 0
  const far = Math.min(u, n * m - u)
  const all = [...a, ...b].sort((x, y) => x - y)
  const ties: number[] = []
  for (let i = 0; i < all.length;) {
    let j = i
    while (j < all.length && all[j] === all[i]) j++
    ties.push(j - i)
    i = j
  }
  if (ties.every(count => count === 1) && n * m <= 400) {
    const counts = rankCounts(n, m)
    const total = counts.reduce((sum, count) => sum + count, 0)
    let tail = 0
    for (let i = 0; i <= far; i++) tail += counts[i] ?? 0
    return Math.min(1, 2 * tail / total)
  }
  const count = n + m
  const spread = n * m / 12 * (count + 1 - ties.reduce((sum, t) => sum + (t ** 3 - t), 0) / (count * (count - 1)))
  if (spread <= 0) return 1
  return Math.min(1, 2 * normalTail((Math.abs(u - n * m / 2) - 0.5) / Math.sqrt(spread)))
}

/** How many orders of n and m values have U = 0, 1, …: the coefficients of the Gaussian binomial. */
function rankCounts(n: number, m: number): number[] {
  let counts: number[] = [1]
  for (let i = 1; i <= n; i++) {
    // Multiply by (1 - q^(m+i)) and divide by (1 - q^i).
    const next = new Array<number>(counts.length + m).fill(0)
    for (let k = 0; k < next.length; k++) next[k] = (counts[k] ?? 0) - (counts[k - m - i] ?? 0) + (next[k - i] ?? 0)
    counts = next
  }
  return counts
}

/** P(Z > z) of the standard normal distribution. */
export function normalTail(z: number): number {
  return z < 0 ? 1 - normalTail(-z) : 0.5 * gammaUpper(0.5, z * z / 2)
}

/** P(|T| > t) of Student's distribution; the degrees of freedom need not be whole. */
export function studentTails(t: number, degrees: number): number {
  return betaRegularized(degrees / (degrees + t * t), degrees / 2, 0.5)
}

/** Holm's correction: each p made so that calling those below α different is wrong anywhere with a chance of at most α. */
export function holm(p: readonly number[]): number[] {
  const order = p.map((_, i) => i).sort((a, b) => (p[a] ?? 1) - (p[b] ?? 1))
  const adjusted = new Array<number>(p.length).fill(1)
  let worst = 0
  order.forEach((index, rank) => {
    worst = Math.max(worst, Math.min(1, (p[index] ?? 1) * (p.length - rank)))
    adjusted[index] = worst
  })
  return adjusted
}

/** The value that |T| exceeds with chance `p`, by bisection. */
export function studentQuantile(p: number, degrees: number): number {
  let low = 0, high = 1e4
  for (let i = 0; i < 80; i++) {
    const middle = (low + high) / 2
    if (studentTails(middle, degrees) > p) low = middle
    else high = middle
  }
  return high
}

// Special functions, after Numerical Recipes: continued fractions by Lentz's method.

const tiny = 1e-300

function logGamma(x: number): number {
  const c = [76.18009172947146, -86.50532032941677, 24.01409824083091, -1.231739572450155, 0.1208650973866179e-2, -0.5395239384953e-5]
  const t = x + 5.5 - (x + 0.5) * Math.log(x + 5.5)
  return -t + Math.log(2.5066282746310005 * c.reduce((sum, value, i) => sum + value / (x + 1 + i), 1.000000000190015) / x)
}

function betaRegularized(x: number, a: number, b: number): number {
  if (x <= 0) return 0
  if (x >= 1) return 1
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x))
  return x < (a + 1) / (a + b + 2) ? front * betaFraction(x, a, b) / a : 1 - front * betaFraction(1 - x, b, a) / b
}

function betaFraction(x: number, a: number, b: number): number {
  let c = 1, d = 1 / nonZero(1 - (a + b) * x / (a + 1)), h = d
  for (let m = 1; m <= 300; m++) {
    const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d = 1 / nonZero(1 + even * d)
    c = nonZero(1 + even / c)
    h *= d * c
    const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    d = 1 / nonZero(1 + odd * d)
    c = nonZero(1 + odd / c)
    h *= d * c
    if (Math.abs(d * c - 1) < 1e-12) break
  }
  return h
}

/** The regularized upper incomplete gamma function. */
function gammaUpper(a: number, x: number): number {
  if (x <= 0) return 1
  const front = Math.exp(-x + a * Math.log(x) - logGamma(a))
  if (x < a + 1) {
    let sum = 1 / a, term = sum
    for (let n = 1; n < 500 && term > sum * 1e-15; n++) sum += term *= x / (a + n)
    return 1 - front * sum
  }
  let b = x + 1 - a, c = 1 / tiny, d = 1 / b, h = d
  for (let i = 1; i <= 500; i++) {
    const an = -i * (i - a)
    b += 2
    d = 1 / nonZero(an * d + b)
    c = nonZero(b + an / c)
    h *= d * c
    if (Math.abs(d * c - 1) < 1e-12) break
  }
  return front * h
}

function nonZero(value: number): number {
  return Math.abs(value) < tiny ? tiny : value
}
