// File systems on files: made with mkfs, mounted through a loop device that the kernel frees with the last unmount (mount -o loop sets autoclear), so
// that unmounting leaves nothing. Needs root and the programs; decides nothing about where.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { StorageError } from '../errors.ts'
import { privileges } from '../sys/privileges.ts'

export type ImageFileSystem = 'btrfs' | 'ext4' | 'xfs'

export interface ImageOptions {
  /** Apparent size; the file is sparse. Default 1 GiB. */
  readonly sizeBytes?: number
  readonly mkfs?: readonly string[]
  /** `-o` options beside `loop`. */
  readonly mountOptions?: readonly string[]
}

const makers: Readonly<Record<ImageFileSystem, readonly string[]>> = {
  btrfs: ['mkfs.btrfs', '-q', '-m', 'single', '-d', 'single'],
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=1'],
  xfs: ['mkfs.xfs', '-q', '-f'],
}

/** The program, with its arguments, that makes such a file system here. */
export function makerOf(kind: ImageFileSystem): readonly string[] {
  return makers[kind]
}

/** The reason why an image of this kind cannot be made and mounted here, or false. */
export function cannotMakeImage(kind: ImageFileSystem): string | false {
  if (!privileges().mount || process.getuid?.() !== 0) return 'needs root: loop mounts'
  const [maker = ''] = makers[kind]
  if (!(process.env['PATH'] ?? '').split(':').some(dir => fs.existsSync(path.join(dir, maker)))) return `needs ${maker}`
  if (!fs.existsSync('/dev/loop-control')) return 'needs loop devices'
  if (!new RegExp(`\\t${kind}$`, 'm').test(fs.readFileSync('/proc/filesystems', 'latin1'))) return `the kernel has no ${kind}`
  return false
}

/** Make `file`, which must not exist, and mount it at the directory `dir`. @throws IO with the program's own words; then nothing is mounted */
export function mountLoopImage(kind: ImageFileSystem, file: string, dir: string, options: ImageOptions = {}): void {
  fs.closeSync(fs.openSync(file, 'wx', 0o600))
  fs.truncateSync(file, options.sizeBytes ?? 2 ** 30)
  const [maker = '', ...args] = makers[kind]
  run(maker, [...args, ...options.mkfs ?? [], file])
  run('mount', ['-t', kind, '-o', ['loop', ...options.mountOptions ?? []].join(','), file, dir])
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new StorageError('IO', `${program} ${args.join(' ')}: ${(error?.message ?? (stderr.trim() || `ended with status ${status}`))}`, { op: 'mount' })
}
