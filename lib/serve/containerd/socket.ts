// The rules of a service's socket: mode 0600 from the first moment, a stale one replaced, a live one refused, removed at the end. Owns the path;
// who listens on it is the caller's.

import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { isErrno, StorageError } from '../../errors.ts'
import { lock } from '../../sys/lock.ts'
import type { Lock } from '../../sys/lock.ts'

// sockaddr_un.sun_path holds 108 bytes with the closing NUL (unix(7)).
const pathLimit = 107

/** `/path` or `unix:///path`. @throws INVALID_ARGUMENT */
export function socketPath(address: string): string {
  const file = address.startsWith('unix://') ? address.slice('unix://'.length) : address
  if (!path.isAbsolute(file)) throw new StorageError('INVALID_ARGUMENT', `invalid address ${JSON.stringify(address)}: expected the absolute path of a unix socket`, { op: 'serve' })
  if (Buffer.byteLength(file) > pathLimit) throw new StorageError('INVALID_ARGUMENT', `invalid address ${file}: the kernel takes ${pathLimit} bytes`, { op: 'serve', path: file })
  return path.normalize(file)
}

export interface ClaimedSocket {
  /** Idempotent: removes the socket and lets the name go. */
  release(): void
}

/**
 * Listen at `file`. The socket is made in a private folder beside it and renamed into place with its mode, so nobody can connect early,
 * and a stale socket is replaced in one step. @throws ALREADY_EXISTS while another server answers there, FAILED_PRECONDITION when the name is no socket
 */
export async function listenAt(file: string, listen: (socket: string) => Promise<void>): Promise<ClaimedSocket> {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o711 })
  const held = await claim(file)
  try {
    await mustBeFree(file)
    const dir = fs.mkdtempSync(`${path.dirname(file)}/.`)
    try {
      // A short name, as the whole path has the same limit.
      const made = path.join(dir, 's')
      await listen(made)
      fs.chmodSync(made, 0o600)
      fs.renameSync(made, file)
    } finally {
      fs.rmSync(dir, { recursive: true, force: true })
    }
  } catch (error) {
    held.releaseAndUnlink()
    throw error
  }
  const own = fs.lstatSync(file).ino
  let released = false
  return {
    release() {
      if (released) return
      released = true
      // Somebody may have removed it and put up another.
      if (fs.lstatSync(file, { throwIfNoEntry: false })?.ino === own) fs.unlinkSync(file)
      held.releaseAndUnlink()
    },
  }
}

/** Held while the server runs, so that of two that start at once one gives way. */
async function claim(file: string): Promise<Lock> {
  try {
    return await lock(`${file}.lock`, { timeoutMs: 200 })
  } catch (error) {
    throw StorageError.is(error, 'LOCKED') ? inUse(file) : error
  }
}

async function mustBeFree(file: string): Promise<void> {
  const there = fs.lstatSync(file, { throwIfNoEntry: false })
  if (there === undefined) return
  if (!there.isSocket()) throw new StorageError('FAILED_PRECONDITION', `cannot serve at ${file}: it is not a socket`, { op: 'serve', path: file, hint: 'give another --address' })
  const answers = await new Promise<boolean>((resolve, reject) => {
    const connection = net.connect(file, () => { connection.destroy(); resolve(true) })
    connection.on('error', error => { if (isErrno(error, 'ECONNREFUSED', 'ENOENT')) resolve(false); else reject(error) })
  })
  if (answers) throw inUse(file)
}

function inUse(file: string): StorageError {
  return new StorageError('ALREADY_EXISTS', `cannot serve at ${file}: another server answers there`, { op: 'serve', path: file, hint: 'stop it, or give another --address' })
}
