// A volume as a tar stream. What a layer's tar leaves out, the volume's own directory, is written before it.

import fs from 'node:fs'
import { writeLayer } from '../diff/index.ts'
import { getXattr, listXattrs, xattrAvailable } from '../sys/xattr.ts'
import { TarWriter } from '../tar/writer.ts'

/** `./` with its owner, mode, time and xattrs, then all that `dir` holds. */
export async function* writeVolume(dir: string, signal: AbortSignal | undefined): AsyncGenerator<Buffer, void> {
  yield ownEntry(dir)
  yield* writeLayer(dir, undefined, { whiteouts: 'none', ...(signal === undefined ? {} : { signal }) })
}

function ownEntry(dir: string): Buffer {
  const { mode, uid, gid, mtimeNs } = fs.statSync(dir, { bigint: true })
  const names = xattrAvailable ? listXattrs(dir).filter(name => !name.startsWith('trusted.overlay.')) : []
  const xattrs = new Map(names.flatMap(name => {
    const value = getXattr(dir, name)
    return value === undefined ? [] : [[name, value] as const]
  }))
  const blocks: Buffer[] = []
  const writer = new TarWriter(bytes => { blocks.push(Buffer.from(bytes)) })
  writer.entry({
    name: Buffer.from('./'), type: 'directory', mode: Number(mode) & 0o7777, uid: Number(uid), gid: Number(gid), sizeBytes: 0, mtimeNs, linkname: Buffer.alloc(0),
    uname: '', gname: '', devMajor: 0, devMinor: 0, ...(xattrs.size === 0 ? {} : { xattrs }),
  })
  writer.end()
  return Buffer.concat(blocks)
}
