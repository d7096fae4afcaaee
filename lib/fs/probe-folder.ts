// Folders in which a driver tries what a file system can do. A name tells whose it is, so that what a process has left that was killed meanwhile is
// removed by the next that tries.

import fs from 'node:fs'
import path from 'node:path'
import type { ProbeResult } from '../driver.ts'
import { errnoOf, isErrno } from '../errors.ts'
import { isAlive, processIdentity } from '../sys/lock.ts'
import { nearestExisting } from './make-directories.ts'

/** The driver cannot work here. */
export type Refusal = Extract<ProbeResult, { ok: false }>

export function refuse(code: Refusal['code'], reason: string, hint: string): Refusal {
  return { ok: false, code, reason, hint }
}

/** Run `work` in a new folder for the driver in `base`, which is removed after it; mounts and subvolumes in it are for `work` to take down. */
export function inProbeFolder<T>(base: string, driver: string, work: (folder: string) => T): T | Refusal {
  let folder: string
  try {
    folder = fs.mkdtempSync(path.join(base, `.${driver}-probe-${processIdentity(process.pid)?.replace(' ', '-')}-`))
  } catch (error) {
    return refuse('PREREQUISITE_MISSING', `${driver} cannot write to ${base}: ${errnoOf(error) ?? String(error)}`, 'choose a writable data root')
  }
  try {
    return work(folder)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

/** What processes that are gone have left for `home`: `empty` takes out what rm cannot, a mount or a subvolume. */
export function clearProbeFolders(home: string, driver: string, empty: (folder: string) => void): void {
  const prefix = `.${driver}-probe-`
  // Before there was a home the folder was made above it.
  for (const place of new Set([nearestExisting(home), path.dirname(path.resolve(home))])) {
    for (const name of names(place)) {
      const owner = /^(\d+)-(\d+)-/.exec(name.startsWith(prefix) ? name.slice(prefix.length) : '')
      if (owner === null || isAlive(`${owner[1]} ${owner[2]}`)) continue
      const folder = path.join(place, name)
      try {
        empty(folder)
        fs.rmSync(folder, { recursive: true, force: true })
      } catch (error) {
        // Another process clears it at this moment, or nothing can be written here, which the probe is about to find out.
        if (!isErrno(error, 'ENOENT', 'ENOTEMPTY', 'EBUSY', 'EROFS', 'EACCES', 'EPERM')) throw error
      }
    }
  }
}

function names(place: string): string[] {
  try {
    return fs.readdirSync(place)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return []
    throw error
  }
}
