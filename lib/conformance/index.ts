// The driver suite, published as `layerstack/conformance`: whoever writes a driver runs the tests that the built-in ones pass. It brings no
// test runner and no assertion library, registers at once, and reads what a driver can do from its probe's answer.

import { basic } from './basic.ts'
import { changes } from './changes.ts'
import { concurrency } from './concurrency.ts'
import { makeSuite } from './context.ts'
import type { ConformanceOptions } from './context.ts'
import { depth } from './depth.ts'
import { issues } from './issues.ts'
import { lifecycle } from './lifecycle.ts'
import { metadata } from './metadata.ts'
import { tree } from './tree.ts'
import { whiteout } from './whiteout.ts'

export type { ConformanceOptions, Runner } from './context.ts'

/**
 * Register every test of the contract for one driver and set of options. Each test gets an empty root of its own and leaves nothing.
 *
 * @example
 * conformance({
 *   test: (name, { skip }, run) => it(name, { skip }, run),
 *   label: 'mydriver', probe: await mydriver.probe('/var/tmp/x'),
 *   open: home => mydriver.open({ home, options: mydriver.parseOptions([]) }),
 * })
 */
export function conformance(options: ConformanceOptions): void {
  const suite = makeSuite(options)
  for (const group of [basic, lifecycle, tree, whiteout, changes, metadata, depth, concurrency, issues]) group(suite)
}
