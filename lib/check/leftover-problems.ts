// What interrupted work left outside the catalogues: intents, sessions, temporary files; and what repair has set aside.

import fs from 'node:fs'
import path from 'node:path'
import { removeTree } from '../fs/remove-tree.ts'
import { imageDir, ownState } from '../layers/index.ts'
import { usageOf } from './driver-problems.ts'
import { sizeOf } from './sizes.ts'
import type { CheckParts, Mended, MendTools, Problem } from './types.ts'
import { isHeld, namesIn } from './view.ts'
import type { View } from './view.ts'

export function* leftoverProblems(parts: CheckParts, view: View): Generator<Problem> {
  const { root } = parts
  for (const { subject, path: where, reason } of view.unreadable) yield { kind: 'catalogue-damaged', subject, path: where, reason: `${reason}; left alone, as is everything that it may name` }
  for (const { file, live, deferred, damage } of view.intents) {
    // A deferred release is settled by the end of whoever holds the layer.
    if (live || deferred && view.intents.some(other => other.live && !other.deferred)) continue
    const tried = parts.layers.unsettled.find(error => error.message.includes(file))
    yield {
      kind: 'intent-left', subject: path.basename(file), path: file, phase: 'settle',
      reason: damage === undefined ? `an operation ended before its work did${tried === undefined ? '' : `, and it could not be rolled back: ${tried.message}`}` : `${damage}; left alone`,
      ...(damage === undefined ? { repair: 'roll back what it was making, or finish what it was removing', mend: settle } : {}),
    }
  }
  yield* sessionProblems(parts)
  yield* unfinishedDrops(parts)
  yield* temporaryProblems(view, ownState.tmp(root), () => true)
  for (const dir of writtenAtomically(parts)) yield* temporaryProblems(view, dir, name => name.startsWith('.tmp-'))
  for (const item of view.setAside) {
    yield {
      kind: 'set-aside', subject: item.subject, path: item.dir, reason: `repair has set it aside: ${item.reason}; prune removes it`,
      measure: async () => {
        let sum = await sizeOf(item.dir)
        for (const id of item.driverLayers) sum += await usageOf(parts, id)
        return sum
      },
    }
  }
}

async function settle({ layers }: MendTools): Promise<Mended> {
  const before = layers.unsettled.length
  await layers.recover()
  const [failure] = layers.unsettled.slice(before)
  if (failure !== undefined) return { left: failure.message }
}

function* sessionProblems({ root }: CheckParts): Generator<Problem> {
  const own = path.join(ownState.dir(root), 'snapshots', root.driverName)
  const live = new Set<string>()
  for (const name of namesIn(path.join(own, 'sessions'))) {
    if (!/^[a-z2-7]{13}$/.test(name)) continue
    const file = path.join(own, 'sessions', name)
    if (isHeld(file)) { live.add(name); continue }
    yield {
      kind: 'session-left', subject: name, path: file, reason: 'a process that was making snapshots ended before it was done', repair: 'remove what it had half made', phase: 'settle',
      mend: async ({ snapshots }) => { await snapshots.cleanup() },
    }
  }
  for (const name of namesIn(path.join(own, 'mounts'))) {
    if (live.has(name.slice(0, 13))) continue
    yield {
      kind: 'stale-mount', subject: name, path: path.join(own, 'mounts', name), reason: 'a snapshot was mounted here by a process that has ended', repair: 'unmount it', phase: 'settle',
      mend: async ({ snapshots }) => { await snapshots.cleanup() },
    }
  }
}

/** The old side of a migration: its catalogue has gone to this folder, and its layers are being deleted (drop.ts). */
function* unfinishedDrops({ root }: CheckParts): Generator<Problem> {
  for (const name of namesIn(ownState.dir(root))) {
    const dir = path.join(ownState.dir(root), name)
    if (!name.startsWith('dropped-') || name.endsWith('.lock') || isHeld(`${dir}.lock`)) continue
    yield { kind: 'temporary-file', subject: name, path: dir, reason: 'a migration ended before it had deleted its old side; whoever opens the data root for writing next goes on with that', measure: () => sizeOf(dir) }
  }
}

/** Folders whose files are written aside and renamed. */
function writtenAtomically({ root }: CheckParts): string[] {
  const image = imageDir(root), metadata = path.join(image, 'imagedb', 'metadata', 'sha256'), containers = path.join(root.path, 'containers')
  return [
    image, path.join(image, 'imagedb', 'content', 'sha256'), ...namesIn(metadata).map(name => path.join(metadata, name)),
    path.join(image, 'distribution', 'diffid-by-digest', 'sha256'), path.join(image, 'distribution', 'v2metadata-by-diffid', 'sha256'),
    ...namesIn(containers).map(name => path.join(containers, name)), ownState.intents(root), path.join(root.path, 'volumes'),
  ]
}

function* temporaryProblems(view: View, dir: string, isTemporary: (name: string) => boolean): Generator<Problem> {
  for (const name of namesIn(dir).filter(isTemporary)) {
    const target = path.join(dir, name)
    if (view.busyPath(target)) continue
    yield {
      kind: 'temporary-file', subject: name, path: target, reason: 'a file in the making, whose process has ended', repair: 'remove it', gains: true, phase: 'settle', measure: () => sizeOf(target),
      // The catalogue's files are written with the lock held: whatever is there now is nobody's.
      mend: ({ layers }) => layers.locked(() => fs.existsSync(target) ? removeTree(target) : Promise.resolve()),
    }
  }
}
