// Changes to a tree as values: the same list is applied to a layer's mount and to a plain directory, and goes through diff, tar and apply;
// the three trees must be the same afterwards.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { makedev, mknod, S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK, setTimes } from '../sys/files.ts'
import { setXattr } from '../sys/xattr.ts'
import { copyTreeSync } from '../fs/copy.ts'
import { nativeReason } from '../sys/native.ts'
import type { LayerId } from '../ids.ts'
import { applyTar, diffOf, makeLayer } from './context.ts'
import type { Case } from './context.ts'
import { assertSame, dump } from './compare.ts'

export type Step = (dir: string) => void

const at = (dir: string, name: string | Buffer): Buffer => Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name)])

export const mkdir = (name: string | Buffer, mode = 0o755): Step => dir => { fs.mkdirSync(at(dir, name), { recursive: true }); fs.chmodSync(at(dir, name), mode) }
export const write = (name: string | Buffer, data: string | Uint8Array, mode = 0o644): Step => dir => { fs.writeFileSync(at(dir, name), data); fs.chmodSync(at(dir, name), mode) }
export const remove = (name: string): Step => dir => fs.rmSync(at(dir, name), { recursive: true })
export const chmod = (name: string, mode: number): Step => dir => fs.chmodSync(at(dir, name), mode)
export const chown = (name: string, uid: number, gid: number): Step => dir => fs.lchownSync(at(dir, name), uid, gid)
export const symlink = (target: string, name: string): Step => dir => fs.symlinkSync(target, at(dir, name))
export const link = (from: string, name: string): Step => dir => fs.linkSync(at(dir, from), at(dir, name))
export const fifo = (name: string, mode = 0o644): Step => dir => mknod(at(dir, name), S_IFIFO | mode)
export const socket = (name: string): Step => dir => mknod(at(dir, name), S_IFSOCK | 0o755)
export const charDevice = (name: string, major: number, minor: number): Step => dir => mknod(at(dir, name), S_IFCHR | 0o640, makedev(major, minor))
export const blockDevice = (name: string, major: number, minor: number): Step => dir => mknod(at(dir, name), S_IFBLK | 0o640, makedev(major, minor))
export const xattr = (name: string, key: string, value: Buffer | string): Step => dir => setXattr(at(dir, name), key, value)
export const appendTo = (name: string, data: string): Step => dir => fs.appendFileSync(at(dir, name), data)
export const truncate = (name: string, sizeBytes: number): Step => dir => fs.truncateSync(at(dir, name).toString(), sizeBytes)
export const times = (name: string | Buffer, mtimeNs: bigint): Step => dir => {
  if (nativeReason === undefined) setTimes(at(dir, name), mtimeNs, mtimeNs)
  else fs.lutimesSync(at(dir, name), Number(mtimeNs) / 1e9, Number(mtimeNs) / 1e9)
}

/** mv(1): rename, and where overlay answers EXDEV for a lower directory, copy and remove. */
export const rename = (from: string, to: string): Step => dir => {
  try {
    fs.renameSync(at(dir, from), at(dir, to))
  } catch (error) {
    if (!isErrno(error, 'EXDEV')) throw error
    copyTreeSync(at(dir, from), at(dir, to))
    fs.rmSync(at(dir, from), { recursive: true })
  }
}

/** Write at an offset without touching the rest: one byte in a big file, or data behind a hole. */
export const writeAt = (name: string, offset: number, data: string): Step => dir => {
  const fd = fs.openSync(at(dir, name), fs.constants.O_WRONLY | fs.constants.O_CREAT, 0o644)
  try { fs.writeSync(fd, data, offset) } finally { fs.closeSync(fd) }
}

const run = (steps: readonly Step[], dir: string): void => { for (const step of steps) step(dir) }

export interface ScenarioOptions {
  /** Also send every layer through diff → tar → apply into a second chain. Default true. */
  readonly viaTar?: boolean
}

/**
 * Build one layer per list of steps and keep a plain directory in step. Each layer is compared before and after its changes, as containerd's
 * checkSnapshots does; then the chain is made again from its diffs and compared again. Returns the ids, base first.
 */
export async function scenario(c: Case, layers: readonly (readonly Step[])[], options: ScenarioOptions = {}): Promise<LayerId[]> {
  const flat = path.join(c.work, 'flat')
  fs.mkdirSync(flat, { recursive: true })
  fs.chmodSync(flat, 0o755)
  const unit = nativeReason === undefined ? {} : { timesUnitNs: 10_000n }
  // lib/diff sets whole seconds without utimensat(2).
  const viaTarUnit = nativeReason === undefined ? {} : { timesUnitNs: 1_000_000_000n }
  const ids: LayerId[] = []
  let again: LayerId | undefined
  for (const [i, steps] of layers.entries()) {
    const parent = ids.at(-1)
    const before = dump(flat, unit)
    const id = await makeLayer(c, parent, dir => {
      assertSame(dump(dir, unit), before, `layer ${i} before its changes`)
      run(steps, dir)
    })
    run(steps, flat)
    const after = dump(flat, unit)
    assertSame(await c.show(id, 'ro', dir => dump(dir, unit)), after, `layer ${i} after its changes`)
    if (options.viaTar !== false) {
      again = await applyTar(c, again, await diffOf(c, id, parent))
      assertSame(await c.show(again, 'ro', dir => dump(dir, viaTarUnit)), dump(flat, viaTarUnit), `layer ${i} made again from its diff`)
    }
    ids.push(id)
  }
  return ids
}
