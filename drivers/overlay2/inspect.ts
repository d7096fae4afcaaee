// Looks over a home in overlay2's layout (fuse-overlayfs has the same): links, `link` and `lower` files, and what kills leave. What it mends it
// writes as the driver does; content of layers it never touches.

import fs from 'node:fs'
import path from 'node:path'
import type { HomeFacts, HomeProblem } from '../../lib/driver.ts'
import { isErrno, StorageError } from '../../lib/errors.ts'
import { atomicWriteSync } from '../../lib/fs/atomic.ts'
import { namesIn } from '../../lib/fs/names-in.ts'
import { isLayerId } from '../../lib/ids.ts'
import type { LayerId } from '../../lib/ids.ts'
import { finishRemoval } from './layers.ts'
import { linkFolder, linkPattern, newLinkName, targetPattern } from './layout.ts'
import type { Layout } from './layout.ts'

/** dockerd's own beside the layers: its device node for quota, and where containers/storage stages. */
const ownNames = new Set([linkFolder, 'backingFsBlockDev', 'staging'])

export function* inspectHome(layout: Layout, facts: HomeFacts): Generator<HomeProblem> {
  const home = new Home(layout, facts)
  for (const name of namesIn(layout.home)) {
    if (ownNames.has(name)) continue
    const hidden = /^\.(new|gone)-(.+)$/.exec(name)
    if (hidden !== null) yield* halfDone(layout, facts, name, hidden[1] as 'new' | 'gone', hidden[2] as LayerId)
    else if (name.startsWith('.')) continue // probes of running processes; what the killed left the next probe clears
    else if (!isLayerId(name)) yield { kind: 'stray', subject: name, path: path.join(layout.home, name), reason: 'no layer can have this name' }
  }
  for (const [id, parent] of facts.parents) if (!facts.busy(id) && fs.existsSync(layout.dir(id))) yield* home.layer(id, parent)
  yield* home.danglingLinks()
}

function* halfDone(layout: Layout, facts: HomeFacts, name: string, what: 'new' | 'gone', id: LayerId): Generator<HomeProblem> {
  if (facts.busy(id)) return
  const dir = path.join(layout.home, name)
  yield {
    kind: what === 'new' ? 'half-made' : 'half-removed', subject: id, path: dir,
    reason: what === 'new' ? 'a layer that was being made when its process ended' : 'a layer whose removal was interrupted',
    repair: 'remove it', mend: () => finishRemoval(layout, dir),
  }
}

/** One look at the home: what every short link says, read once. */
class Home {
  readonly #layout: Layout
  readonly #facts: HomeFacts
  readonly #targets = new Map<string, string | undefined>()

  constructor(layout: Layout, facts: HomeFacts) {
    this.#layout = layout
    this.#facts = facts
    for (const name of namesIn(path.join(layout.home, linkFolder))) this.#targets.set(name, targetOf(layout, name))
  }

  * layer(id: LayerId, parent: LayerId | undefined | null): Generator<HomeProblem> {
    const { dir, diff, work } = this.#layout
    if (!isDirectory(diff(id))) yield { kind: 'content-missing', subject: id, path: diff(id), reason: 'the layer\'s directory has no diff, which held its content' }
    yield* this.#link(id)
    if (parent === null) return
    if (parent !== undefined && !isDirectory(work(id))) {
      yield {
        kind: 'layer-incomplete', subject: id, path: work(id), reason: 'the work directory is missing, without which the layer cannot be mounted', repair: 'make it',
        mend: () => { if (!isDirectory(work(id))) makeLike(work(id), dir(id), this.#layout.workMode) },
      }
    }
    yield* this.#lower(id, parent)
  }

  * #link(id: LayerId): Generator<HomeProblem> {
    const file = path.join(this.#layout.dir(id), 'link')
    const name = read(file)
    if (name === undefined || !linkPattern.test(name)) {
      yield {
        kind: 'link-file-damaged', subject: id, path: file, repair: 'write the name of the layer\'s short link into it, which is made anew if there is none',
        reason: `the link file ${name === undefined ? 'is missing' : name === '' ? 'is empty' : 'holds no link\'s name'}, so that nothing can be mounted that stands on the layer`,
        mend: () => this.#nameLink(id, file),
      }
      return
    }
    const link = this.#layout.link(name), target = this.#targets.get(name)
    if (target === id) return
    if (target === undefined && !this.#targets.has(name)) {
      yield {
        kind: 'link-missing', subject: id, path: link, reason: 'the layer\'s short link is missing, so that nothing can be mounted that stands on the layer', repair: 'make it',
        mend: () => this.#makeLink(id, name),
      }
      return
    }
    const claimedToo = target !== undefined && read(path.join(this.#layout.dir(target as LayerId), 'link')) === name
    yield {
      kind: 'link-wrong', subject: id, path: link, reason: `the layer's short link ${target === undefined ? 'is no link to a layer' : `leads to layer ${target}`}`,
      ...(claimedToo ? {} : { repair: 'point it to the layer', mend: () => this.#makeLink(id, name) }),
    }
  }

  /** Links of a layer are many after dockerd adopted its directory; the lowest name makes the choice repeatable. */
  #nameLink(id: LayerId, file: string): void {
    if (linkPattern.test(read(file) ?? '')) return
    const known = namesIn(path.join(this.#layout.home, linkFolder)).filter(name => linkPattern.test(name) && targetOf(this.#layout, name) === id)
    // One that a layer above names is the one that was in the file.
    const used = new Set([...this.#facts.parents.keys()].flatMap(other => partsOf(read(path.join(this.#layout.dir(other), 'lower')) ?? '')))
    const name = known.find(candidate => used.has(candidate)) ?? known[0] ?? newLinkName()
    if (!known.includes(name)) this.#makeLink(id, name)
    atomicWriteSync(file, name, { mode: 0o644 })
  }

  #makeLink(id: LayerId, name: string): void {
    const link = this.#layout.link(name)
    if (targetOf(this.#layout, name) === id) return
    // Made aside and renamed: there is never no link where there was one.
    const draft = `${link}.new`
    fs.rmSync(draft, { force: true })
    fs.symlinkSync(`../${id}/diff`, draft)
    if (isDirectory(link)) fs.rmdirSync(link)
    fs.renameSync(draft, link)
  }

  * #lower(id: LayerId, parent: LayerId | undefined): Generator<HomeProblem> {
    const file = path.join(this.#layout.dir(id), 'lower')
    const text = read(file)
    const wanted = this.#ancestors(parent)
    if (parent === undefined) {
      if (text !== undefined) {
        yield { kind: 'lower-damaged', subject: id, path: file, reason: 'the layer has none below it, but a lower file', repair: 'remove the file', mend: () => fs.rmSync(file, { force: true }) }
      }
      return
    }
    const mend = { repair: 'write it anew from the layer\'s parents', mend: (): void => this.#writeLower(id, parent, file) }
    if (text === undefined || text === '') {
      yield { kind: 'lower-damaged', subject: id, path: file, reason: `the lower file ${text === undefined ? 'is missing' : 'is empty'}, so that the layer shows without what is below it`, ...mend }
      return
    }
    if (wanted === undefined) return // a parent is damaged, and told by itself
    const parts = partsOf(text)
    // By where the names lead, since a layer may have had another link when this was written.
    const found = parts.map(name => this.#targets.get(name))
    const lost = found.findIndex((target, i) => target === undefined || target !== wanted[i])
    if (lost < 0 && found.length === wanted.length && text.split(':').length === parts.length) return
    const broken = found.indexOf(undefined)
    // The link that it names is one that its layer claims as well: with the link back, all is well.
    if (broken >= 0 && found.every((target, i) => target === wanted[i] || target === undefined && read(path.join(this.#layout.dir(wanted[i] as LayerId), 'link')) === parts[i])
      && found.length === wanted.length && text.split(':').length === parts.length) return
    const reason = broken >= 0 ? `it names ${JSON.stringify(parts[broken])}, which leads to no layer` : 'it names other layers than the catalogue has below this one'
    yield { kind: 'lower-damaged', subject: id, path: file, reason: `the lower file is damaged: ${reason}`, ...mend }
  }

  /** The layers below, nearest first; undefined where one of them is not known. */
  #ancestors(parent: LayerId | undefined): LayerId[] | undefined {
    const found: LayerId[] = []
    for (let next = parent; next !== undefined;) {
      found.push(next)
      const above = this.#facts.parents.get(next)
      if (above === null || !this.#facts.parents.has(next) || found.length > 1000) return undefined
      next = above
    }
    return found
  }

  #writeLower(id: LayerId, parent: LayerId, file: string): void {
    const links = (this.#ancestors(parent) ?? []).map(layer => read(path.join(this.#layout.dir(layer), 'link')) ?? '')
    if (!isDirectory(this.#layout.dir(id))) return
    if (links.length === 0 || !links.every(name => linkPattern.test(name))) {
      throw new StorageError('FAILED_PRECONDITION', 'a layer below it has to be mended first', { driver: this.#layout.driver, key: id, path: file })
    }
    atomicWriteSync(file, links.map(name => `${linkFolder}/${name}`).join(':'), { mode: 0o644 })
  }

  * danglingLinks(): Generator<HomeProblem> {
    for (const [name, target] of this.#targets) {
      const link = this.#layout.link(name)
      if (target === undefined) {
        const isDraft = /^[A-Z2-7]{26}\.new$/.test(name)
        if (isDraft) yield { kind: 'half-made', subject: name, path: link, reason: 'a link in the making', repair: 'remove it', mend: () => fs.rmSync(link, { force: true }) }
        else if (!linkPattern.test(name) || !isClaimed(this.#layout, this.#facts, name)) yield { kind: 'stray', subject: name, path: link, reason: 'it is no link to a layer' }
        continue
      }
      const id = target as LayerId
      if (this.#facts.busy(id) || fs.existsSync(this.#layout.dir(id)) || fs.existsSync(path.join(this.#layout.home, `.new-${id}`))) continue
      if (this.#facts.parents.has(id)) continue // the layer is missed elsewhere
      yield {
        kind: 'link-dangling', subject: name, path: link, reason: `the short link leads to layer ${id}, which does not exist`, repair: 'remove the link',
        mend: () => { if (!fs.existsSync(this.#layout.dir(id)) && targetOf(this.#layout, name) === target) fs.rmSync(link, { force: true }) },
      }
    }
  }
}

/** Does a layer say that this is its link? Then that layer's own finding tells of it. */
function isClaimed(layout: Layout, facts: HomeFacts, name: string): boolean {
  for (const id of facts.parents.keys()) if (read(path.join(layout.dir(id), 'link')) === name) return true
  return false
}

function partsOf(lower: string): string[] {
  return lower.split(':').flatMap(part => part.startsWith(`${linkFolder}/`) ? [part.slice(linkFolder.length + 1)] : [])
}

/** The layer that a short link leads to; undefined for what is no such link. */
function targetOf(layout: Layout, name: string): string | undefined {
  try {
    return targetPattern.exec(fs.readlinkSync(layout.link(name)))?.[1]
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL')) return undefined
    throw error
  }
}

function read(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'latin1')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return undefined
    throw error
  }
}

function isDirectory(dir: string): boolean {
  return fs.lstatSync(dir, { throwIfNoEntry: false })?.isDirectory() === true
}

/** With the owner of the layer's directory: in a daemon with remapped ids all of them are the remapped root's. */
function makeLike(dir: string, like: string, mode: number): void {
  const { uid, gid } = fs.statSync(path.join(like, 'diff'), { throwIfNoEntry: false }) ?? fs.statSync(like)
  fs.mkdirSync(dir, { mode })
  fs.chmodSync(dir, mode)
  if (process.geteuid?.() === 0) fs.chownSync(dir, uid, gid)
}
