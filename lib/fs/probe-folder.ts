// Folders in which a driver tries what a file system can do. A name tells whose it is, so that what a process has left that was killed meanwhile is
// removed by the next that tries.

import fs from 'node:fs'
import path from 'node:path'
import { isErrno } from '../errors.ts'
import { isAlive, processIdentity } from '../sys/lock.ts'

/** `home`, or the nearest folder above it that exists. */
export function nearestExisting(home: string): string {
  return fs.existsSync(home) ? home : nearestExisting(path.dirname(home))
}

/** A new folder for the driver in `base`. @throws the errno of mkdtemp */
export function makeProbeFolder(base: string, driver: string): string {
  return fs.mkdtempSync(path.join(base, `.${driver}-probe-${processIdentity(process.pid)?.replace(' ', '-')}-`))
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
