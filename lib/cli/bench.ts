// `layerstack bench`

import fs from 'node:fs'
import path from 'node:path'
import { styleText } from 'node:util'
import { InvalidArgumentError } from 'commander'
import type { Command } from 'commander'
import { StorageError } from '../errors.ts'
import { atomicWriteSync } from '../fs/atomic.ts'
import { benchWorkloads, compareBench, drivers, renderBenchHtml, renderBenchText, runBench } from '../index.ts'
import type { BenchComparison, BenchResult, DriverModule, Durability } from '../index.ts'
import { privileges } from '../sys/privileges.ts'
import { BenchLine } from './bench-progress.ts'
import { writeFully } from './output.ts'
import type { Session } from './session.ts'
import { hasColor } from './style.ts'

interface Options {
  readonly drivers?: readonly string[]
  /** The global one, which is easily written instead. */
  readonly driver?: string
  readonly durability?: Durability
  readonly backing?: readonly string[]
  readonly workload?: readonly string[]
  readonly quick?: boolean
  readonly minutes?: number
  readonly rounds?: number
  readonly dir?: string
  readonly out?: string
  readonly html?: string
  readonly compare?: string
  readonly from?: string
  readonly all?: boolean
}

/** The others only read and migrate old roots, or need kernels that hardly anybody has. */
const usual = ['overlay2', 'fuse-overlayfs', 'btrfs', 'vfs']

export function define(command: Command, session: Session): void {
  const names = benchWorkloads.map(({ name }) => name)
  command
    .option('--drivers <list>', `drivers to compare, with commas (default: ${usual.join(',')})`, listOf)
    .option('--backing <list>', 'file systems to measure on: ext4, xfs, btrfs and tmpfs are made for it, as root; or directories (default: ext4,xfs,btrfs as root, else the folder --dir)', listOf)
    .option('--workload <list>', 'workloads (default: all)', listOf)
    .option('--quick', 'smaller parameters, 1.5 minutes')
    .option('--minutes <n>', 'time for all; what is dear gets fewer rounds (default: 8)', positive)
    .option('--rounds <n>', 'most rounds; without --minutes exactly so many (default: 12)', positive)
    .option('--dir <dir>', 'where images and stores are made (default: $TMPDIR, else /dev/shm)')
    .option('--out <file>', 'write all samples as JSON, after every round')
    .option('--html <file>', 'write the report as one page')
    .option('--compare <file>', 'compare with an older --out, and say what is really different')
    .option('--from <file>', 'measure nothing: report an --out')
    .option('--all', 'print all figures, not only the chief ones')
    .addHelpText('after', `\nWorkloads: ${names.join(', ')}.\n\nCtrl-C ends it, leaves nothing behind, and reports what was measured.\n\nExamples:\n  layerstack bench --quick --html report.html\n`
      + '  layerstack bench --drivers overlay2,vfs --backing xfs,/srv --out before.json\n  layerstack bench --compare before.json --html compared.html\n  layerstack bench --from now.json --compare before.json')
    .action(async () => {
      const options = command.optsWithGlobals<Options>()
      for (const file of [options.out, options.html]) if (file !== undefined) mustBeWritable(file)
      const before = options.compare === undefined ? undefined : readResult(options.compare)
      const result = options.from === undefined ? await measure(session, options, command.parent?.version() ?? '') : readResult(options.from)
      const comparison = before === undefined ? undefined : compareBench(before, result)
      await report(session, options, result, comparison)
      if (session.signal.aborted) throw new StorageError('ABORTED', 'interrupted')
    })
}

function listOf(text: string): readonly string[] {
  const items = text.split(',').map(item => item.trim()).filter(item => item !== '')
  if (items.length === 0) throw new InvalidArgumentError('It is a list with commas.')
  return items
}

function positive(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError('It is a number above 0.')
  return value
}

function mustBeWritable(file: string): void {
  if (fs.statSync(path.dirname(path.resolve(file)), { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new StorageError('NOT_FOUND', `invalid output path: directory ${JSON.stringify(path.dirname(file))} does not exist`, { path: file })
  }
}

/** @throws NOT_FOUND, INVALID_ARGUMENT */
function readResult(file: string): BenchResult {
  const invalid = (why: string): StorageError => new StorageError('INVALID_ARGUMENT', `reading ${file}: ${why}`, { path: file, hint: 'name a file that layerstack bench --out wrote' })
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    throw new StorageError('NOT_FOUND', `reading ${file}: ${(error as Error).message}`, { path: file }, { cause: error })
  }
  let value: Partial<BenchResult> | null
  try {
    value = JSON.parse(text) as Partial<BenchResult> | null
  } catch {
    throw invalid('it is not JSON')
  }
  if (value?.format !== 'layerstack-bench') throw invalid('it is no result of layerstack bench')
  if (value.version !== 1) throw invalid(`its format is version ${String(value.version)}, and 1 is known`)
  return value as BenchResult
}

function modulesOf({ drivers: named, driver }: Options): DriverModule[] {
  const known: Readonly<Record<string, DriverModule>> = drivers
  return (named ?? (driver === undefined ? usual : listOf(driver))).map(name => {
    const module = Object.hasOwn(known, name) ? known[name] : undefined
    if (module === undefined) throw new StorageError('INVALID_ARGUMENT', `there is no driver ${JSON.stringify(name)}`, { op: 'bench', hint: Object.keys(known).join(', ') })
    return module
  })
}

async function measure(session: Session, options: Options, version: string): Promise<BenchResult> {
  const { backing, workload, quick, minutes, rounds, dir, durability, out } = options
  const root = privileges().mount && process.getuid?.() === 0
  const backings = backing ?? (root ? ['ext4', 'xfs', 'btrfs'] : undefined)
  using line = new BenchLine(benchWorkloads)
  return await runBench({
    drivers: modulesOf(options), version, signal: session.signal, onProgress: progress => line.update(progress),
    ...(backings === undefined ? {} : { backings }), ...(workload === undefined ? {} : { workloads: workload }), ...(quick === undefined ? {} : { quick }),
    ...(minutes === undefined ? {} : { minutes }), ...(rounds === undefined ? {} : { rounds: Math.ceil(rounds) }), ...(dir === undefined ? {} : { dir }),
    ...(durability === undefined ? {} : { durability }),
    // So that even a power cut leaves what was measured.
    ...(out === undefined ? {} : { onRound: result => atomicWriteSync(out, encode(result)) }),
  })
}

function encode(result: BenchResult): string {
  const { cells, ...rest } = result
  // A line for each cell: a file that can be read, and compared by lines.
  return `${JSON.stringify(rest, undefined, 1).slice(0, -2)},\n "cells": [\n${cells.map(cell => `  ${JSON.stringify(cell)}`).join(',\n')}\n ]\n}\n`
}

async function report(session: Session, { out, html, from, all }: Options, result: BenchResult, comparison: BenchComparison | undefined): Promise<void> {
  const extra = comparison === undefined ? {} : { comparison }
  if (out !== undefined && from === undefined) atomicWriteSync(out, encode(result))
  if (html !== undefined) atomicWriteSync(html, renderBenchHtml(result, extra))
  const colored = hasColor(process.stdout)
  const text = session.json ? `${JSON.stringify({ ...result, ...extra })}\n`
    : renderBenchText(result, { ...extra, all: all === true, ...(colored ? { bold: line => styleText('bold', line), dim: line => styleText('dim', line) } : {}) })
  // Also after Ctrl-C, when the session's own signal would keep it from being written.
  await writeFully(1, Buffer.from(text), new AbortController().signal)
}
